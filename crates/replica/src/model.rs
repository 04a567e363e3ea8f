//! Model-checks three members in a network that loses, repeats and delays messages, with everything
//! that operators can do to them: explores every order of events within the bounds of a [`World`].
//!
//! Most messages arrive at once or are lost. Some are late ([`Bounds::late`]): a late message stays
//! in the network after it was delivered, and may arrive again at any time.

use crate::{Acknowledge, Epoch, Holder, Member, MemberId, Record, Role, Tip, planted::Bug};
use stateright::{Checker as _, DiscoveryClassification, HasDiscoveries, Model, Property};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

/// An entry of a history: an operation, identified by a number, or a record of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Entry {
    Operation(u8),
    Record(Record),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Groups {
        from: usize,
        to: usize,
        epoch: Epoch,
        before: Tip,
        entries: Vec<Entry>,
    },
    Copy {
        from: usize,
        to: usize,
        epoch: Epoch,
        history: Vec<Entry>,
        holder: Holder,
    },
    Report {
        from: usize,
        to: usize,
        epoch: Epoch,
        sequence: u64,
    },
    /// A standby reports its own end to the primary that is handing over to it.
    HandedOver {
        from: usize,
        to: usize,
        epoch: Epoch,
        tip: Tip,
    },
    /// The primary's answer, once it is itself a standby.
    TakeOver { to: usize, epoch: Epoch, tip: Tip },
}

/// A member and its disk. A member whose disk was lost never returns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    member: Member,
    history: Vec<Entry>,
    lost: bool,
}

/// How many more times each event may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bounds {
    operations: u8,
    namings: u8,
    promotions: u8,
    hand_overs: u8,
    restarts: u8,
    disks: u8,
    late: u8,
}

/// An operation whose caller was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answer {
    epoch: Epoch,
    sequence: u64,
    operation: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    nodes: Vec<Node>,
    network: BTreeSet<Message>,
    answers: Vec<Answer>,
    left: Bounds,
    operations: u8,
    /// Whether a member acknowledged an operation while it lacked an earlier acknowledged one.
    forgot: bool,
    /// Whether a primary lost its disk while it was possibly the only one with everything. Then
    /// nothing is promised.
    alone_and_lost: bool,
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Comes,
    IsLost,
    IsLate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Write(usize),
    Name(usize, usize),
    GoAlone(usize),
    /// A standby asks a primary for what it lacks. The fates are those of the primary's message and
    /// of the standby's report.
    Follow(usize, usize, Fate, Fate),
    Deliver(Message),
    Promote(usize),
    BeginHandOver(usize, usize),
    /// The standby asks the primary to complete the hand-over.
    SayHandedOver(usize, usize),
    /// The primary stops waiting.
    CancelHandOver(usize),
    Restart(usize),
    LoseDisk(usize),
}

/// A primary and two standbys.
const MEMBERS: usize = 3;

struct Trial {
    acknowledge: Acknowledge,
    bounds: Bounds,
    /// How many records a standby may lack when it is named.
    behind_max: u64,
    planted: Option<Bug>,
}

fn id(node: usize) -> MemberId {
    MemberId(node as u64)
}

fn chain(history: &[Entry]) -> u64 {
    let mut hasher = DefaultHasher::new();
    history.hash(&mut hasher);
    hasher.finish()
}

fn tip(history: &[Entry]) -> Tip {
    Tip {
        sequence: history.len() as u64,
        chain: if history.is_empty() {
            0
        } else {
            chain(history)
        },
    }
}

impl Node {
    fn append(&mut self, entry: Entry) {
        self.history.push(entry);
        let record = match entry {
            Entry::Operation(_) => None,
            Entry::Record(record) => Some(record),
        };
        self.member.lengthened(tip(&self.history), record);
    }

    fn report(&self, this: usize, primary: usize) -> Message {
        Message::Report {
            from: this,
            to: primary,
            epoch: self.member.epoch(),
            sequence: self.member.tip().sequence,
        }
    }

    fn has(&self, answer: &Answer) -> bool {
        self.history.contains(&Entry::Operation(answer.operation))
    }
}

impl World {
    /// Answers every operation that this node may answer.
    fn answer(&mut self, node: usize) {
        let Node {
            member, history, ..
        } = &self.nodes[node];
        let answered: Vec<Answer> = history
            .iter()
            .zip(0..)
            .take_while(|(_, sequence)| *sequence < member.acknowledged())
            .filter_map(|(entry, sequence)| match entry {
                Entry::Operation(operation) => Some(Answer {
                    epoch: member.epoch(),
                    sequence,
                    operation: *operation,
                }),
                Entry::Record(_) => None,
            })
            .filter(|answer| {
                !self
                    .answers
                    .iter()
                    .any(|known| known.operation == answer.operation)
            })
            .collect();
        if answered.is_empty() {
            return;
        }
        self.forgot |= !self
            .answers
            .iter()
            .all(|answer| self.nodes[node].has(answer));
        self.answers.extend(answered);
    }

    /// Delivers a message and returns the standby's report, if there is one.
    fn deliver(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::Groups {
                from,
                to,
                epoch,
                before,
                entries,
            } => {
                let node = &mut self.nodes[to];
                node.member.take_groups(epoch, before).ok()?;
                for entry in entries {
                    node.append(entry);
                }
                Some(node.report(to, from))
            }
            Message::Copy {
                from,
                to,
                epoch,
                history,
                holder,
            } => {
                let node = &mut self.nodes[to];
                node.member.take_copy(epoch, tip(&history), holder).ok()?;
                node.history = history;
                Some(node.report(to, from))
            }
            Message::Report {
                from,
                to,
                epoch,
                sequence,
            } => {
                self.nodes[to].member.report(id(from), epoch, sequence);
                None
            }
            Message::HandedOver {
                from,
                to,
                epoch,
                tip,
            } => {
                let primary = &mut self.nodes[to].member;
                primary.end_hand_over(id(from), epoch, tip).ok()?;
                let to = from;
                self.network.insert(Message::TakeOver { to, epoch, tip });
                None
            }
            Message::TakeOver { to, epoch, tip } => {
                let salt = u16::try_from(to).unwrap_or_default();
                if let Some(record) = self.nodes[to].member.take_over(epoch, tip, salt).ok()? {
                    self.nodes[to].append(Entry::Record(record));
                }
                None
            }
        }
    }

    /// Returns what a primary sends to a standby, given that standby's epoch and tip.
    fn send(&mut self, from: usize, to: usize) -> Option<Message> {
        let asked = self.nodes[to].member.tip();
        let asked_epoch = self.nodes[to].member.epoch();
        self.nodes[from].member.heard_of(asked_epoch);
        let Node {
            member, history, ..
        } = &self.nodes[from];
        if member.role() == Role::Standby {
            return None;
        }
        let epoch = member.epoch();
        let common = usize::try_from(asked.sequence)
            .ok()
            .and_then(|length| history.split_at_checked(length))
            .filter(|(beginning, _)| tip(beginning) == asked);
        Some(match common {
            Some((_, entries)) => Message::Groups {
                from,
                to,
                epoch,
                before: asked,
                entries: entries.to_vec(),
            },
            None => Message::Copy {
                from,
                to,
                epoch,
                history: history.clone(),
                holder: member.holder(),
            },
        })
    }

    /// Applies the fate to a message, and returns the message if it arrives at once.
    fn carry(&mut self, message: Message, fate: Fate) -> Option<Message> {
        match fate {
            Fate::Comes => Some(message),
            Fate::IsLost => None,
            Fate::IsLate => {
                self.left.late -= 1;
                self.network.insert(message);
                None
            }
        }
    }

    fn follow(&mut self, from: usize, to: usize, sent: Fate, reported: Fate) {
        let report = self
            .send(from, to)
            .and_then(|message| self.carry(message, sent))
            .and_then(|message| self.deliver(message));
        if let Some(report) = report.and_then(|report| self.carry(report, reported)) {
            self.deliver(report);
        }
    }
}

impl Trial {
    /// Reports whether some remaining member has everything that was acknowledged, and is the
    /// primary or may become it without force, or finds no holder named.
    fn somebody_has_everything(world: &World) -> bool {
        world.nodes.iter().any(|node| {
            let able = node.member.role() != Role::Standby
                || node.member.clone().promote(0, false).is_ok()
                || matches!(node.member.holder(), Holder::Nobody);
            !node.lost && able && world.answers.iter().all(|answer| node.has(answer))
        })
    }
}

impl Model for Trial {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let nodes = (0..MEMBERS)
            .map(|node| {
                let role = if node == 0 {
                    Role::Primary
                } else {
                    Role::Standby
                };
                let mut member = Member::new(id(node), self.acknowledge, role, Epoch::new(1));
                member.planted = self.planted;
                Node {
                    member,
                    history: Vec::new(),
                    lost: false,
                }
            })
            .collect();
        vec![World {
            nodes,
            network: BTreeSet::new(),
            answers: Vec::new(),
            left: self.bounds,
            operations: 0,
            forgot: false,
            alone_and_lost: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let left = world.left;
        for (at, node) in world
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !node.lost)
        {
            let others = || (0..MEMBERS).filter(move |other| *other != at);
            let writes = node.member.may_write().is_ok();
            if writes && left.operations > 0 {
                actions.push(Action::Write(at));
            }
            if node.member.role() != Role::Standby {
                actions.extend(others().filter(|other| !world.nodes[*other].lost).flat_map(
                    |other| {
                        let late = left.late > 0;
                        [
                            Some((Fate::Comes, Fate::Comes)),
                            Some((Fate::Comes, Fate::IsLost)),
                            late.then_some((Fate::Comes, Fate::IsLate)),
                            late.then_some((Fate::IsLate, Fate::IsLost)),
                        ]
                        .into_iter()
                        .flatten()
                        .map(move |(sent, reported)| Action::Follow(at, other, sent, reported))
                    },
                ));
            }
            if self.acknowledge == Acknowledge::Standby && left.namings > 0 && writes {
                actions.extend(others().map(|other| Action::Name(at, other)));
                if let Holder::Is { member, .. } = node.member.holder()
                    && world.nodes.iter().any(|other| {
                        other.lost
                            && other.member.id() == member
                            && other.member.role() == Role::Standby
                    })
                {
                    actions.push(Action::GoAlone(at));
                }
            }
            if left.promotions > 0 && node.member.role() == Role::Standby {
                actions.push(Action::Promote(at));
            }
            if left.hand_overs > 0 && writes {
                actions.extend(others().map(|other| Action::BeginHandOver(at, other)));
            }
            if let Role::HandingOver(standby) = node.member.role() {
                let standby = others().find(|other| id(*other) == standby);
                let standby = standby.filter(|other| !world.nodes[*other].lost);
                actions.extend(standby.map(|standby| Action::SayHandedOver(standby, at)));
                actions.push(Action::CancelHandOver(at));
            }
            if left.restarts > 0 {
                actions.push(Action::Restart(at));
            }
            if left.disks > 0 {
                actions.push(Action::LoseDisk(at));
            }
        }
        for message in &world.network {
            let (Message::Groups { to, .. }
            | Message::Copy { to, .. }
            | Message::Report { to, .. }
            | Message::HandedOver { to, .. }
            | Message::TakeOver { to, .. }) = message;
            if !world.nodes[*to].lost {
                actions.push(Action::Deliver(message.clone()));
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Write(at) => {
                world.left.operations -= 1;
                world.operations += 1;
                let operation = world.operations;
                world.nodes[at].append(Entry::Operation(operation));
            }
            Action::Name(at, standby) => {
                let record = world.nodes[at]
                    .member
                    .name_holder(id(standby), self.behind_max)
                    .ok()?;
                if record == Record::Holder(id(standby)) {
                    world.left.namings -= 1;
                }
                world.nodes[at].append(Entry::Record(record));
            }
            Action::GoAlone(at) => {
                world.left.namings -= 1;
                let record = world.nodes[at].member.go_alone().ok()?;
                world.nodes[at].append(Entry::Record(record));
            }
            Action::Follow(from, to, sent, reported) => world.follow(from, to, sent, reported),
            Action::Deliver(message) => {
                if let Some(report) = world.deliver(message) {
                    world.deliver(report);
                }
            }
            Action::Promote(at) => {
                world.left.promotions -= 1;
                let salt = u16::try_from(at).unwrap_or_default();
                let record = world.nodes[at].member.promote(salt, false).ok()?;
                if let Some(record) = record {
                    world.nodes[at].append(Entry::Record(record));
                }
            }
            Action::BeginHandOver(at, to) => {
                world.left.hand_overs -= 1;
                world.nodes[at].member.begin_hand_over(id(to)).ok()?;
            }
            Action::SayHandedOver(from, to) => {
                let standby = &world.nodes[from].member;
                let (epoch, tip) = (standby.epoch(), standby.tip());
                world.network.insert(Message::HandedOver {
                    from,
                    to,
                    epoch,
                    tip,
                });
            }
            Action::CancelHandOver(at) => world.nodes[at].member.cancel_hand_over(),
            Action::Restart(at) => {
                world.left.restarts -= 1;
                world.nodes[at].member.restart();
            }
            Action::LoseDisk(at) => {
                world.left.disks -= 1;
                let member = &world.nodes[at].member;
                world.alone_and_lost |= member.is_alone();
                world.nodes[at].lost = true;
            }
        }
        for node in 0..MEMBERS {
            world.answer(node);
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        match self.acknowledge {
            Acknowledge::Standby => vec![
                Property::always("no two histories are acknowledged", |_, world: &World| {
                    !world.forgot
                }),
                Property::always("nothing acknowledged is lost", |_, world: &World| {
                    world.alone_and_lost || Self::somebody_has_everything(world)
                }),
                Property::sometimes("a second holder has everything", |_, world: &World| {
                    world.answers.len() > 1
                        && world.nodes[2].member.role() == Role::Standby
                        && world.nodes[2].member.clone().promote(0, false).is_ok()
                }),
                Property::sometimes("a promoted member acknowledges", |_, world: &World| {
                    world
                        .answers
                        .iter()
                        .any(|answer| answer.epoch > Epoch::new(1))
                }),
            ],
            Acknowledge::Local => vec![
                Property::always("a position names one operation", |_, world: &World| {
                    world.answers.iter().all(|one| {
                        world.answers.iter().all(|other| {
                            (one.epoch, one.sequence) != (other.epoch, other.sequence)
                                || one.operation == other.operation
                        })
                    })
                }),
                Property::always("what is lost is a suffix", |_, world: &World| {
                    world.nodes.iter().all(|node| {
                        world.answers.iter().all(|later| {
                            !node.has(later)
                                || world.answers.iter().all(|before| {
                                    before.epoch != later.epoch
                                        || before.sequence > later.sequence
                                        || node.has(before)
                                })
                        })
                    })
                }),
                Property::always(
                    "a hand-over loses nothing",
                    |trial: &Self, world: &World| trial.bounds.promotions > 0 || !world.forgot,
                ),
                Property::sometimes("a promoted member acknowledges", |_, world: &World| {
                    world
                        .answers
                        .iter()
                        .any(|answer| answer.epoch > Epoch::new(1))
                }),
            ],
        }
    }
}

/// The worlds that every test run explores completely: roughly ten thousand to two hundred thousand
/// each.
fn trials() -> Vec<Trial> {
    let bounds = Bounds {
        operations: 2,
        namings: 2,
        promotions: 1,
        hand_overs: 0,
        restarts: 0,
        disks: 0,
        late: 0,
    };
    let standby = |bounds| Trial {
        acknowledge: Acknowledge::Standby,
        bounds,
        behind_max: 0,
        planted: None,
    };
    let local = |bounds| Trial {
        acknowledge: Acknowledge::Local,
        bounds: Bounds {
            namings: 0,
            ..bounds
        },
        behind_max: 0,
        planted: None,
    };
    vec![
        standby(bounds),
        standby(Bounds {
            operations: 1,
            promotions: 2,
            ..bounds
        }),
        standby(Bounds {
            namings: 1,
            late: 1,
            ..bounds
        }),
        standby(Bounds { disks: 1, ..bounds }),
        Trial {
            behind_max: 2,
            ..standby(Bounds {
                namings: 1,
                ..bounds
            })
        },
        standby(Bounds {
            namings: 1,
            restarts: 1,
            disks: 1,
            ..bounds
        }),
        standby(Bounds {
            namings: 1,
            hand_overs: 1,
            ..bounds
        }),
        local(Bounds {
            promotions: 2,
            ..bounds
        }),
        local(Bounds {
            promotions: 0,
            hand_overs: 2,
            ..bounds
        }),
    ]
}

/// The worlds that take minutes.
fn long_trials() -> Vec<Trial> {
    trials()
        .into_iter()
        .map(|mut trial| {
            trial.bounds.operations = 2;
            trial.bounds.late = 1;
            trial
        })
        .collect()
}

fn is_broken(found: &DiscoveryClassification) -> bool {
    matches!(found, DiscoveryClassification::Counterexample)
}

fn look_at(trials: Vec<Trial>) {
    let mut reached = BTreeSet::new();
    for trial in trials {
        let bounds = trial.bounds;
        let checker = trial.checker().threads(2).spawn_bfs().join();
        for (name, path) in checker.discoveries() {
            assert!(
                !is_broken(&checker.discovery_classification(name)),
                "{name}: not so with {bounds:?}, after {:#?}",
                path.into_actions()
            );
            reached.insert(name);
        }
        println!("{} worlds of {bounds:?}", checker.unique_state_count());
    }
    // These show that the trials reach something. Members that never make progress would keep every
    // promise.
    let possible = [
        "a promoted member acknowledges",
        "a second holder has everything",
    ];
    assert_eq!(reached, BTreeSet::from(possible));
}

#[test]
fn every_order_of_events_preserves_the_invariants() {
    look_at(trials());
}

/// Run it with `cargo test --release -p widgets-replica -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn every_order_of_more_events_preserves_the_invariants() {
    look_at(long_trials());
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = trials().into_iter().any(|mut trial| {
            trial.planted = Some(bug);
            let checker = trial
                .checker()
                .finish_when(HasDiscoveries::AnyFailures)
                // Some bugs lead to an unlimited number of worlds.
                .target_max_depth(16)
                .threads(2)
                .spawn_bfs()
                .join();
            checker
                .discoveries()
                .into_keys()
                .any(|name| is_broken(&checker.discovery_classification(name)))
        });
        assert!(found, "{bug:?} breaks no promise");
    }
}
