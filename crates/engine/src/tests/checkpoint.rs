//! Fuzzy checkpoints: slices of the state from different moments, together with the journal since
//! the first slice, are the state.

use super::{
    disk::{Chance, TestDisk},
    rig::{TestClock, command, log, settings, widgets},
};
use crate::{
    checkpoint::{self, Checkpoints, Writer, Written},
    format,
    journal::Position,
    metrics::Metrics,
    retries::Retries,
    state::State,
};
use proptest::prelude::*;
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};
use widgets_registry::{Name, Ports, SerialNumber, decide};

/// A state and the journal that led to it.
#[derive(Default)]
struct Journaled {
    state: State,
    journal: Vec<Vec<u8>>,
}

impl Journaled {
    fn apply(&mut self, chance: &mut Chance) {
        let command = command(chance);
        if let Ok(change) = decide(&self.state, &command) {
            let mut bytes = Vec::new();
            format::encode_change(&mut bytes, &self.state, &command, change);
            self.state.apply(&command, change);
            self.journal.push(bytes);
        }
    }

    /// Returns the end of the journal. Sequence numbers count from 1.
    fn position(&self) -> Position {
        position(self.journal.len() as u64 + 1)
    }
}

fn position(next_sequence: u64) -> Position {
    Position {
        store: 7,
        segment: 1,
        next_sequence,
        at: 0,
        chain: 0,
    }
}

/// Loads a checkpoint and replays the journal from where it began.
fn recover(disk: &TestDisk, written: Written, journal: &[Vec<u8>]) -> (State, u64) {
    let loaded = checkpoint::load(disk, written.first_sequence, Some(7), 1).expect("it is whole");
    assert_eq!(loaded.bytes, written.bytes);
    assert_eq!(loaded.header.first_sequence, written.first_sequence);
    let mut state = loaded.state;
    let first = usize::try_from(written.first_sequence).expect("few changes") - 1;
    replay(&mut state, &journal[first..]);
    (state, loaded.header.next_sequence)
}

fn replay(state: &mut State, journal: &[Vec<u8>]) {
    for bytes in journal {
        state.replay(&format::only_change(bytes));
    }
    state.finish_replay(1);
}

proptest! {
    // Each case is cheap, and there are many interleavings.
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// `before`, `between` and `after` count the operations before the checkpoint, between each of
    /// its slices and the next, and after it.
    #[test]
    fn a_fuzzy_checkpoint_with_the_journal_restores_the_state(
        seed in any::<u64>(),
        before in 0..80usize,
        between in prop::collection::vec(0..12usize, 0..8),
        after in 0..20usize,
    ) {
        let (disk, metrics, mut chance) = (TestDisk::default(), Metrics::new(), Chance(seed));
        let (requests, receiver) = mpsc::channel();
        let (mut checkpoints, ends) = Checkpoints::new(&settings(), None, 0, receiver);
        let mut writer = Writer::new(disk.clone(), Arc::<TestClock>::default(), ends, log(&settings()));
        let mut journaled = Journaled::default();
        let mut retries = Retries::new(&settings());
        for _ in 0..before {
            journaled.apply(&mut chance);
        }
        let first_sequence = journaled.position().next_sequence;
        let (reply, outcome) = mpsc::channel();
        requests.send(reply).expect("somebody listens");
        let mut between = between.into_iter();
        loop {
            let (state, position) = (&journaled.state, journaled.position());
            checkpoints.advance(state, &mut retries, position, Duration::ZERO, &metrics);
            while writer.step() {}
            if let Ok(outcome) = outcome.try_recv() {
                prop_assert_eq!(outcome, Ok(()));
                break;
            }
            for _ in 0..between.next().unwrap_or_default() {
                journaled.apply(&mut chance);
            }
        }
        let next_sequence = journaled.position().next_sequence;
        for _ in 0..after {
            journaled.apply(&mut chance);
        }
        let written = checkpoints.last().expect("it was written");
        prop_assert_eq!(written.first_sequence, first_sequence);
        let (state, needed) = recover(&disk, written, &journaled.journal);
        prop_assert!(needed <= next_sequence);
        prop_assert_eq!(state.check(), Ok(()));
        prop_assert_eq!(state.counts(), journaled.state.counts());
        prop_assert_eq!(widgets(&state), widgets(&journaled.state));
        // The journal may also end where the copying did.
        let least = &journaled.journal[..usize::try_from(needed).expect("few changes") - 1];
        let (state, _) = recover(&disk, written, least);
        let mut expected = State::default();
        replay(&mut expected, least);
        prop_assert_eq!(state.check(), Ok(()));
        prop_assert_eq!(widgets(&state), widgets(&expected));
    }
}

#[test]
fn a_checkpoint_of_many_blocks_keeps_every_widget() {
    let mut state = State::default();
    let serial_number =
        |number| SerialNumber::new("serial_number", format!("w{number}")).expect("valid");
    for number in 0..10_000 {
        let command = widgets_registry::Command::AddWidget {
            serial_number: serial_number(number),
            name: Name::new("name", format!("näme {number}")).expect("valid"),
            ports: Ports::NONE,
        };
        let change = decide(&state, &command).expect("a new serial number");
        state.apply(&command, change);
    }
    let disk = TestDisk::default();
    let retries = Retries::new(&settings());
    let position = position(10_001);
    let written = checkpoint::write_all(&disk, &state, &retries, position).expect("written");
    let mut loaded = checkpoint::load(&disk, written.first_sequence, Some(7), 3)
        .expect("whole")
        .state;
    loaded.finish_replay(1);
    assert_eq!(loaded.check(), Ok(()));
    assert_eq!(loaded.counts(), state.counts());
    for number in 0..10_000 {
        let serial_number = serial_number(number);
        assert_eq!(loaded.lookup(&serial_number), state.lookup(&serial_number));
    }
}
