//! The profile of a seed's world: which faults there are, how often, and how large everything is.
//!
//! Every seed leaves much out (swarm testing: Groce and others, 2012). A world in which everything
//! fails often never gets far, and two events that are rare in every world never meet.

use super::disk::Rates;
use crate::{
    Settings,
    format::{self, DATA_OFFSET, ENTRY_BYTES_MAX},
    tests::disk::Chance,
};
use widgets_conformance::linearizability::Request;
use widgets_registry::{Command, Name, Pair, Port, Ports, SerialNumber};

pub(super) struct Profile {
    pub(super) settings: Settings,
    pub(super) rates: Rates,
    /// How many processes follow one another.
    pub(super) lives: usize,
    /// The most actions of the world in a process's life.
    pub(super) actions_max: usize,
    pub(super) clients: usize,
    pub(super) widgets: usize,
    name_bytes_max: usize,
    /// How many port types are in use. The fewer there are, the more often slots run out.
    ports: usize,
    /// How often each kind of request is chosen: lookup, and the four operations.
    mix: [usize; 5],
    /// If the process crashes, it does so within this many steps of the disk.
    pub(super) crash_within: usize,
    /// Whether answers pass through the mailbox of a runtime.
    pub(super) has_mailbox: bool,
    pub(super) is_damaged: bool,
    /// How many of eight operations have a key.
    pub(super) keyed: usize,
    /// How often each action is chosen, relative to the others.
    pub(super) weights: [(Action, usize); 10],
}

/// What the world can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A client sends a request.
    Ask,
    /// The owner of the state answers the waiting requests.
    Own,
    /// The next segment of the journal is prepared.
    Prepare,
    /// The writer of checkpoints makes its next step.
    Write,
    /// A client hangs up before it gets its answer.
    HangUp,
    /// The follower of the changes reads some.
    Follow,
    /// A checkpoint is requested.
    Checkpoint,
    /// Time passes normally.
    Tick,
    /// The clock jumps.
    Jump,
    /// The disk becomes full, or has room again.
    Fill,
}

/// Returns the index of one of these weights, at random.
fn weighted(chance: &mut Chance, weights: &[usize]) -> usize {
    let mut chosen = chance.below(weights.iter().sum());
    let is_chosen = |&weight: &usize| {
        let here = chosen < weight;
        chosen = chosen.saturating_sub(weight);
        here
    };
    weights.iter().position(is_chosen).unwrap_or_default()
}

/// Returns one of these, at random.
fn one_of<T: Copy>(chance: &mut Chance, choices: &[T]) -> T {
    choices[chance.below(choices.len())]
}

impl Profile {
    pub(super) fn new(chance: &mut Chance) -> Self {
        let queue_operations_max = one_of(chance, &[1, 4, 4, 8]);
        let batch_bytes = format::group_bytes(queue_operations_max * ENTRY_BYTES_MAX);
        let settings = Settings {
            scans_max: 2,
            queue_operations_max,
            queue_bytes_max: one_of(chance, &[4096, 1 << 20]),
            queue_wait_ms_max: 5000,
            segment_bytes: (DATA_OFFSET + batch_bytes + chance.below(4096) as u64)
                .next_multiple_of(512),
            checkpoint_journal_bytes: one_of(chance, &[256, 256, 1 << 10, 1 << 20]),
            changes_retention_bytes: one_of(chance, &[0, 80 << 10, 1 << 30]),
            ..Settings::default()
        };
        let mut rate = |most| one_of(chance, &[0, 0, most / 4, most]);
        let rates = Rates {
            failed_write: rate(60),
            failed_sync: rate(60),
            failed_name: rate(60),
            failed_read: rate(60),
            short_read: rate(300),
        };
        let weights = [
            (Action::Ask, 40),
            (Action::Own, one_of(chance, &[10, 25, 60])),
            (Action::Prepare, one_of(chance, &[1, 4, 12])),
            (Action::Write, one_of(chance, &[4, 20, 40])),
            (Action::HangUp, one_of(chance, &[0, 0, 2])),
            (Action::Follow, one_of(chance, &[0, 2, 6])),
            (Action::Checkpoint, one_of(chance, &[0, 1, 3])),
            (Action::Tick, 4),
            (Action::Jump, one_of(chance, &[0, 0, 2])),
            (Action::Fill, one_of(chance, &[0, 0, 1])),
        ];
        Self {
            settings,
            rates,
            lives: 6 + chance.below(6),
            actions_max: one_of(chance, &[20, 60, 200]),
            clients: 1 + chance.below(5),
            widgets: 2 + chance.below(13),
            name_bytes_max: one_of(chance, &[4, 40, 400, 1024]),
            ports: 1 + chance.below(3),
            mix: one_of(
                chance,
                &[[4, 6, 1, 8, 2], [3, 5, 2, 6, 2], [1, 12, 10, 1, 1]],
            ),
            crash_within: one_of(chance, &[6, 20, 100]),
            has_mailbox: chance.below(2) == 0,
            is_damaged: chance.below(2) == 0,
            keyed: one_of(chance, &[0, 2, 8]),
            weights,
        }
    }

    pub(super) fn action(&self, chance: &mut Chance) -> Action {
        let (actions, weights): (Vec<_>, Vec<_>) = self.weights.into_iter().unzip();
        actions[weighted(chance, &weights)]
    }

    /// Returns the serial numbers of all widgets that can exist.
    pub(super) fn serial_numbers(&self) -> impl Iterator<Item = SerialNumber> + use<> {
        (0..self.widgets).map(serial_number)
    }

    /// Returns any request that a client may send.
    pub(super) fn request(&self, chance: &mut Chance) -> Request {
        let one = chance.below(self.widgets);
        let other = (one + 1 + chance.below(self.widgets - 1)) % self.widgets;
        let mut port = || Port::ALL[chance.below(self.ports)];
        let pair = Pair::new(serial_number(one), serial_number(other), port());
        let ports = [port(), port(), port()];
        let serial_number = serial_number(one);
        let pair = pair.expect("two different widgets");
        Request::Submit(match weighted(chance, &self.mix) {
            0 => return Request::Lookup(serial_number),
            1 => Command::AddWidget {
                serial_number,
                name: name(chance.below(self.name_bytes_max + 1), chance),
                ports: Ports::new(&ports[..(1 + chance.below(4)).min(3)]).expect("at most three"),
            },
            2 => Command::RemoveWidget { serial_number },
            3 => Command::AssociateWidgets(pair),
            _ => Command::RemoveAssociation(pair),
        })
    }
}

fn serial_number(number: usize) -> SerialNumber {
    SerialNumber::new("widget_sn", format!("s{number}")).expect("within the limits")
}

/// Returns a new name of this many bytes.
fn name(bytes: usize, chance: &mut Chance) -> Name {
    let mut text = format!("{:016x}", chance.number()).repeat(bytes / 16 + 1);
    text.truncate(bytes);
    Name::new("widget_name", text).expect("within the limits")
}
