//! A store whose answers wait for a holder: whatever happens in whatever order, no answer reveals
//! anything that the holder does not have.
//!
//! A promotion can undo everything that the holder does not have. So an answer must be right in a
//! history that the holder has: an accepted operation is in it, and a refusal or a lookup is what
//! one of its states gives, no older than the request.

use super::{
    disk::{Chance, TestDisk},
    rig::{Looked, Rig, WIDGETS, command, serial_number, settings},
};
use crate::{
    JournaledChange, Settings,
    format::{Entries, Happened},
    planted::{Bug, plant},
    queue::Request,
    state::State,
};
use std::time::Duration;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};
use widgets_registry::{
    Applied, Attempt, ChangeFilter, Command, Fault, FeedError, Rejection, SerialNumber, decide,
};

const HOLDER: u64 = 77;
const TIMEOUT_MS: u64 = 1_000_000;

fn waiting() -> Settings {
    Settings {
        changes_retention_bytes: 1 << 30,
        standby_timeout_ms: Some(TIMEOUT_MS),
        ..settings()
    }
}

/// A request that waits for its answer, and when it was made.
struct Asked {
    what: What,
    /// What was acknowledged at that time.
    acknowledged: u64,
    /// Where the journal ended at that time.
    end: u64,
}

enum What {
    Operation(Command, Receiver<Result<Applied, Rejection>>),
    Lookup(SerialNumber, Receiver<Looked>),
}

/// How often each thing happened.
#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    looked_up: usize,
    unknown: usize,
    unavailable: usize,
    crashes: usize,
}

struct Story<'a> {
    disk: &'a TestDisk,
    rig: Option<Rig>,
    chance: Chance,
    asked: Vec<Asked>,
    /// The entry up to which the holder has everything and the primary knows it.
    acknowledged: u64,
    tally: Tally,
}

fn end(rig: &Rig) -> u64 {
    rig.log().newest().sequence + 1
}

/// Reports whether the journal's change is what this command asked for.
fn is_of(change: &JournaledChange<'_>, command: &Command) -> bool {
    match (change, command) {
        (
            JournaledChange::AddWidget {
                serial_number,
                name,
                ports,
            },
            Command::AddWidget {
                serial_number: asked,
                name: asked_name,
                ports: asked_ports,
            },
        ) => *serial_number == &**asked && *name == &**asked_name && ports == asked_ports,
        (
            JournaledChange::RemoveWidget { serial_number, .. },
            Command::RemoveWidget {
                serial_number: asked,
            },
        ) => *serial_number == &**asked,
        (JournaledChange::AssociateWidgets(pair), Command::AssociateWidgets(asked))
        | (JournaledChange::RemoveAssociation(pair), Command::RemoveAssociation(asked)) => {
            let named = [pair.one.0, pair.other.0];
            named.contains(&&**asked.widget1())
                && named.contains(&&**asked.widget2())
                && pair.port == asked.port()
        }
        _ => false,
    }
}

impl<'a> Story<'a> {
    fn new(disk: &'a TestDisk, seed: u64) -> Self {
        let mut rig = Rig::open_with(disk, &waiting()).expect("a new store");
        rig.record(Some(HOLDER)).expect("named");
        rig.acknowledging().connected(true);
        Self {
            disk,
            rig: Some(rig),
            chance: Chance(seed),
            asked: Vec::new(),
            acknowledged: 1,
            tally: Tally::default(),
        }
    }

    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().expect("it runs")
    }

    fn step(&mut self) -> Result<(), String> {
        let (acknowledged, end) = (self.acknowledged, end(self.rig()));
        let asked = |what| Asked {
            what,
            acknowledged,
            end,
        };
        match self.chance.below(100) {
            0..40 => {
                let batch: Vec<_> = (0..=self.chance.below(3))
                    .map(|_| Attempt::from(command(&mut self.chance)))
                    .collect();
                let answers = self.rig().ask_held(&batch);
                let what = batch.into_iter().zip(answers);
                let what = what.map(|(attempt, answer)| What::Operation(attempt.command, answer));
                self.asked.extend(what.map(asked));
            }
            40..60 => {
                let wanted = serial_number(self.chance.below(WIDGETS));
                let answer = self.rig().look_up(wanted.clone());
                self.asked.push(asked(What::Lookup(wanted, answer)));
            }
            60..85 => {
                let ahead = usize::try_from(end - acknowledged).expect("few");
                let more = self.chance.below(ahead + 1) as u64;
                self.acknowledged += more;
                let now = self.acknowledged;
                self.rig().acknowledging().acknowledge(now);
            }
            85..88 => self.rig().acknowledging().connected(false),
            88..92 => {
                let now = self.acknowledged;
                self.rig().acknowledging().connected(true);
                self.rig().acknowledging().acknowledge(now);
                self.rig().turn();
            }
            92..95 => {
                let rig = self.rig();
                widgets_clock::Clock::sleep(&*rig.clock, Duration::from_millis(TIMEOUT_MS));
                rig.turn();
            }
            95..98 => drop(self.rig().checkpoint()),
            _ => {
                self.rig = None;
                self.asked.clear();
                self.tally.crashes += 1;
                let rig = Rig::open_with(self.disk, &waiting()).expect("it was whole");
                self.rig = Some(rig);
            }
        }
        self.check()
    }

    /// Returns every state of the history that the holder has, from this entry on.
    fn states(&self, from: u64) -> Vec<State> {
        let groups = self.rig.as_ref().expect("it runs").log().all_groups();
        let (mut states, mut sequence) = (Vec::new(), 1);
        let mut entries = Vec::new();
        let groups = groups.expect("kept");
        for group in &groups {
            let mut read = Entries::new(&group.payload);
            for _ in 0..group.entries {
                entries.push(read.read().expect("whole").happened);
            }
        }
        let mut upto = |count: usize| {
            let mut state = State::default();
            for happened in &entries[..count] {
                if let Happened::Change(change) = happened {
                    state.replay(change);
                }
            }
            state.finish_replay(1);
            states.push(state);
        };
        while sequence <= self.acknowledged {
            if sequence >= from {
                upto(usize::try_from(sequence - 1).expect("few"));
            }
            sequence += 1;
        }
        states
    }

    /// Reports whether an entry that the holder has is what this command asked for.
    fn is_held(&self, command: &Command, from: u64) -> bool {
        let groups = self.rig.as_ref().expect("it runs").log().all_groups();
        groups.expect("kept").iter().any(|group| {
            let mut read = Entries::new(&group.payload);
            (group.first_sequence..group.next_sequence()).any(|sequence| {
                let entry = read.read().expect("whole");
                let is_this =
                    matches!(&entry.happened, Happened::Change(change) if is_of(change, command));
                is_this && (from..self.acknowledged).contains(&sequence)
            })
        })
    }

    fn check(&mut self) -> Result<(), String> {
        for mut asked in std::mem::take(&mut self.asked) {
            let told = match &mut asked.what {
                What::Operation(command, answer) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Closed) => continue,
                    Ok(Ok(_)) => {
                        self.tally.accepted += 1;
                        Some(self.is_held(command, asked.end))
                    }
                    Ok(Err(Rejection::Fault(Fault::FateUnknown { .. }))) => {
                        self.tally.unknown += 1;
                        Some(true)
                    }
                    Ok(Err(Rejection::Fault(_))) => {
                        self.tally.unavailable += 1;
                        Some(true)
                    }
                    Ok(Err(Rejection::Refused(refusal) | Rejection::Replayed(refusal))) => {
                        self.tally.refused += 1;
                        let states = self.states(asked.acknowledged);
                        let gives = |state| decide(state, command).err() == Some(refusal.clone());
                        Some(states.iter().any(gives))
                    }
                },
                What::Lookup(wanted, answer) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Closed) => continue,
                    Ok(Err(_)) => {
                        self.tally.unavailable += 1;
                        Some(true)
                    }
                    Ok(Ok(found)) => {
                        self.tally.looked_up += 1;
                        let states = self.states(asked.acknowledged);
                        Some(states.iter().any(|state| state.lookup(wanted) == found))
                    }
                },
            };
            match (told, &asked.what) {
                (None, _) => self.asked.push(asked),
                (Some(true), _) => {}
                (Some(false), What::Operation(command, _)) => {
                    return Err(format!("told too early: {command:?}"));
                }
                (Some(false), What::Lookup(wanted, _)) => {
                    return Err(format!("shown too early: {wanted}"));
                }
            }
        }
        self.check_changes()
    }

    /// Checks that readers of changes see what the holder has.
    fn check_changes(&self) -> Result<(), String> {
        let log = self.rig.as_ref().expect("it runs").log();
        let is_held = |sequence| sequence < self.acknowledged;
        if let Some(newest) = log.newest_shown()
            && !is_held(newest.sequence)
        {
            return Err(format!("the position {newest} was told too early"));
        }
        match log.read(log.oldest(), &ChangeFilter::default(), 1000) {
            Ok(changes) => {
                let early = changes
                    .events
                    .iter()
                    .find(|it| !is_held(it.position.sequence));
                early.map_or(Ok(()), |event| Err(format!("told too early: {event:?}")))
            }
            Err(FeedError::Fault(Fault::Unavailable { .. })) => Ok(()),
            Err(error) => Err(format!("{error:?}")),
        }
    }
}

fn tell(seed: u64) -> Result<Tally, String> {
    let disk = TestDisk::default();
    let mut story = Story::new(&disk, seed);
    for _ in 0..60 {
        story.step()?;
    }
    // Once the holder has everything, everybody is answered.
    let end = end(story.rig());
    story.acknowledged = end;
    story.rig().acknowledging().connected(true);
    story.rig().acknowledging().acknowledge(end);
    story.rig().turn();
    story.acknowledged = self::end(story.rig());
    let acknowledged = story.acknowledged;
    story.rig().acknowledging().acknowledge(acknowledged);
    story.check()?;
    if story.asked.is_empty() {
        Ok(story.tally)
    } else {
        Err(format!("{} are not answered", story.asked.len()))
    }
}

#[test]
fn no_answer_reveals_changes_that_the_holder_lacks() {
    let mut sum = Tally::default();
    for seed in 0..100 {
        let tally = tell(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        sum.accepted += tally.accepted;
        sum.refused += tally.refused;
        sum.looked_up += tally.looked_up;
        sum.unknown += tally.unknown;
        sum.unavailable += tally.unavailable;
        sum.crashes += tally.crashes;
    }
    let counts = [
        sum.accepted,
        sum.refused,
        sum.looked_up,
        sum.unknown,
        sum.unavailable,
        sum.crashes,
    ];
    assert!(counts.iter().all(|&count| count > 50), "{sum:?}");
}

#[test]
fn every_planted_acknowledgement_bug_is_caught() {
    let mut missed = Vec::new();
    for bug in [
        Bug::AnsweredBeforeAcknowledged,
        Bug::RefusedBeforeAcknowledged,
        Bug::ReadBeforeAcknowledged,
        Bug::ToldBeforeAcknowledged,
        Bug::HolderForgotten,
    ] {
        plant(Some(bug));
        let caught = (0..200).any(|seed| tell(seed).is_err());
        plant(None);
        if !caught {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}

fn add(number: usize) -> Attempt {
    Command::AddWidget {
        serial_number: serial_number(number),
        name: widgets_registry::Name::new("widget_name", "n").expect("within the limits"),
        ports: widgets_registry::Ports::NONE,
    }
    .into()
}

/// While there is no holder, operations wait undecided and are then refused: nothing was applied.
#[test]
fn operations_are_refused_if_no_holder_connects_in_time() {
    let disk = TestDisk::default();
    let mut rig = Rig::open_with(&disk, &waiting()).expect("a new store");
    let mut early = rig.ask_held(&[add(1)]);
    assert_eq!(early[0].try_recv(), Err(TryRecvError::Empty));
    assert_eq!(end(&rig), 1, "it is not decided");
    widgets_clock::Clock::sleep(&*rig.clock, Duration::from_millis(TIMEOUT_MS));
    rig.turn();
    let refused = early[0].try_recv().expect("answered");
    let is_unavailable = |answer: &Result<Applied, Rejection>| {
        matches!(answer, Err(Rejection::Fault(Fault::Unavailable { .. })))
    };
    assert!(is_unavailable(&refused), "{refused:?}");
    // After that, refusals are immediate, and a lookup finds nothing.
    let refused = rig.ask(&[add(1)]);
    assert!(is_unavailable(&refused[0]), "{refused:?}");
    assert_eq!(end(&rig), 1, "nothing was applied");
    let mut looked = rig.look_up(serial_number(1));
    assert_eq!(looked.try_recv().expect("answered"), Ok(None));
    // When a holder connects, everything works again.
    rig.record(Some(HOLDER)).expect("named");
    rig.acknowledging().connected(true);
    let mut answers = rig.ask_held(&[add(1)]);
    assert_eq!(answers[0].try_recv(), Err(TryRecvError::Empty));
    let end = end(&rig);
    rig.acknowledging().acknowledge(end);
    assert_eq!(answers[0].try_recv(), Ok(Ok(Applied::Now)));
}

/// While no holder is connected, as much is set aside as may wait in the queue, which fills again
/// meanwhile. A segment need not have room for both.
#[test]
fn operations_that_were_set_aside_are_decided_in_batches_that_fit_a_segment() {
    let long = |number| {
        Attempt::from(Command::AddWidget {
            serial_number: serial_number(number),
            name: widgets_registry::Name::new("widget_name", "n".repeat(1000)).expect("valid"),
            ports: widgets_registry::Ports::NONE,
        })
    };
    for (queue_operations_max, queue_bytes_max) in [(4, 1 << 20), (8, 4096)] {
        let settings = Settings {
            queue_operations_max,
            queue_bytes_max,
            segment_bytes: Settings::segment_bytes_min(queue_operations_max),
            ..waiting()
        };
        let disk = TestDisk::default();
        let mut rig = Rig::open_with(&disk, &settings).expect("a new store");
        rig.record(Some(HOLDER)).expect("named");
        let mut first = rig.ask_held(&[long(0), long(1), long(2), long(3)]);
        assert_eq!(end(&rig), 2, "they are not decided");
        rig.acknowledging().connected(true);
        let mut second = rig.ask_held(&[long(4), long(5), long(6), long(7)]);
        for (answers, others_end) in [(&mut first, 6), (&mut second, 10)] {
            assert_eq!(end(&rig), others_end, "four more are decided");
            rig.acknowledging().acknowledge(others_end);
            for answer in answers {
                assert_eq!(answer.try_recv(), Ok(Ok(Applied::Now)));
            }
            if others_end == 6 {
                assert_eq!(rig.longest_wait(), Duration::ZERO, "the rest is due");
                rig.turn();
            }
        }
        assert!(rig.longest_wait() > Duration::ZERO, "nothing is left");
        for group in rig.log().all_groups().expect("kept") {
            assert!(group.entries <= 4, "{} in a group", group.entries);
        }
        for name in disk.names().iter().filter(|it| it.starts_with("journal")) {
            let bytes = disk.content(name).len() as u64;
            assert_eq!(bytes, settings.segment_bytes, "{name}");
        }
    }
}

/// An operation that is not acknowledged in time may or may not have been applied. No more
/// operations are taken until it is acknowledged.
#[test]
fn a_late_acknowledgement_makes_the_fate_unknown_and_blocks_requests() {
    let disk = TestDisk::default();
    let mut rig = Rig::open_with(&disk, &waiting()).expect("a new store");
    rig.record(Some(HOLDER)).expect("named");
    let acknowledging = rig.acknowledging();
    acknowledging.connected(true);
    let mut answers = rig.ask_held(&[add(1), add(1)]);
    let mut looked = rig.look_up(serial_number(1));
    widgets_clock::Clock::sleep(&*rig.clock, Duration::from_millis(TIMEOUT_MS));
    rig.turn();
    let told: Vec<_> = answers
        .iter_mut()
        .map(|answer| answer.try_recv().expect("answered"))
        .collect();
    assert!(
        matches!(
            &told[..],
            [
                Err(Rejection::Fault(Fault::FateUnknown { .. })),
                Err(Rejection::Fault(Fault::Unavailable { .. }))
            ]
        ),
        "{told:?}"
    );
    let looked = looked.try_recv().expect("answered");
    assert!(
        matches!(looked, Err(Fault::Unavailable { .. })),
        "{looked:?}"
    );
    let before = end(&rig);
    let refused = rig.ask(&[add(2)]);
    assert!(
        matches!(refused[0], Err(Rejection::Fault(Fault::Unavailable { .. }))),
        "{refused:?}"
    );
    let mut looked = rig.look_up(serial_number(1));
    assert!(looked.try_recv().expect("at once").is_err());
    assert_eq!(end(&rig), before);
    acknowledging.acknowledge(before);
    let mut looked = rig.look_up(serial_number(1));
    let found = looked.try_recv().expect("at once").expect("acknowledged");
    assert!(found.is_some());
    let mut answers = rig.ask_held(&[add(2)]);
    assert_eq!(answers[0].try_recv(), Err(TryRecvError::Empty));
    acknowledging.acknowledge(before + 1);
    assert_eq!(answers[0].try_recv(), Ok(Ok(Applied::Now)));
}

/// A store that is its own holder, as after a promotion, waits for nobody until another holder is
/// named.
#[test]
fn a_store_that_is_its_own_holder_answers_without_waiting() {
    let disk = TestDisk::default();
    let mut rig = Rig::open_with(&disk, &waiting()).expect("a new store");
    let own = rig.log().store_header().member;
    rig.record(Some(own)).expect("named");
    assert_eq!(rig.ask(&[add(1)]), [Ok(Applied::Now)]);
    drop(rig);
    let mut rig = Rig::open_with(&disk, &waiting()).expect("opened");
    assert_eq!(rig.ask(&[add(2)]), [Ok(Applied::Now)]);
    rig.record(Some(HOLDER)).expect("named");
    rig.acknowledging().connected(true);
    // From now on answers wait, until the store is its own holder again.
    let mut answers = rig.ask_held(&[add(3)]);
    assert_eq!(answers[0].try_recv(), Err(TryRecvError::Empty));
    rig.record(None).expect("recorded");
    assert_eq!(answers[0].try_recv(), Err(TryRecvError::Empty));
    rig.record(Some(own)).expect("named");
    assert_eq!(answers[0].try_recv(), Ok(Ok(Applied::Now)));
    let holding = rig.log().holding();
    assert_eq!(holding.holder.map(|it| it.member), Some(own));
    // The holder is also known from a checkpoint that has no journal before it.
    rig.checkpoint().expect("written");
    drop(rig);
    let rig = Rig::open_with(&disk, &settings()).expect("opened");
    assert_eq!(rig.log().holding(), holding);
}

/// Returns a store with as much on its way to the holder as may be, and the answers that wait for
/// it.
fn full(disk: &TestDisk) -> (Rig, Vec<Receiver<Result<Applied, Rejection>>>) {
    let mut rig = Rig::open_with(disk, &waiting()).expect("a new store");
    rig.record(Some(HOLDER)).expect("named");
    rig.acknowledging().connected(true);
    let all = end(&rig);
    rig.acknowledging().acknowledge(all);
    let answers = [add(1), add(2)].into_iter();
    let answers = answers.flat_map(|it| rig.ask_held(&[it])).collect();
    (rig, answers)
}

/// While a record is being written nothing is acknowledged, so waiting for an acknowledgement
/// before the record is taken would be waiting for the timeout. Nothing else is decided meanwhile.
#[test]
fn the_holder_is_changed_while_too_much_is_unacknowledged() {
    let disk = TestDisk::default();
    let (mut rig, mut answers) = full(&disk);
    let acknowledging = rig.acknowledging();
    // One operation waits for a holder to connect, another one in the queue.
    acknowledging.connected(false);
    answers.extend(rig.ask_held(&[add(3)]));
    acknowledging.connected(true);
    answers.push(rig.push_operation(add(4)));
    let before = end(&rig);
    rig.turn();
    assert_eq!(end(&rig), before, "too much is unacknowledged");

    let mut nobody = rig.push_record(None);
    rig.turn();
    assert!(matches!(nobody.try_recv(), Ok(Ok(_))), "it is not written");
    assert_eq!(end(&rig), before + 1, "more than the record is decided");
    acknowledging.connected(false);
    let mut other = rig.push_record(Some(HOLDER + 1));
    rig.turn();
    assert!(matches!(other.try_recv(), Ok(Ok(_))), "it is not written");
    assert_eq!(end(&rig), before + 2, "more than the record is decided");
    for answer in &mut answers {
        assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    }
    // Once the new holder has everything, everybody is answered.
    acknowledging.connected(true);
    for _ in 0..3 {
        let all = end(&rig);
        acknowledging.acknowledge(all);
        rig.turn();
    }
    for answer in &mut answers {
        assert_eq!(answer.try_recv(), Ok(Ok(Applied::Now)));
    }
}

/// A hand-over does not wait for acknowledgements either, but what arrived before it is decided
/// before it.
#[test]
fn a_pause_takes_what_arrived_before_it_while_too_much_is_unacknowledged() {
    let disk = TestDisk::default();
    let (mut rig, _held) = full(&disk);
    let before = end(&rig);
    let mut early = rig.push_operation(add(3));
    let (reply, mut paused) = oneshot::channel();
    rig.push(Request::Follow(true, reply));
    let mut late = rig.push_operation(add(4));
    rig.turn();
    assert_eq!(paused.try_recv(), Ok(()));
    assert_eq!(end(&rig), before + 1, "only the early one is decided");
    assert_eq!(early.try_recv(), Err(TryRecvError::Empty), "it waits");
    assert_eq!(late.try_recv(), Err(TryRecvError::Empty), "it waits");
    rig.acknowledging().acknowledge(before + 1);
    assert_eq!(early.try_recv(), Ok(Ok(Applied::Now)));
}
