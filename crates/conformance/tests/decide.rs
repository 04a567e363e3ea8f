//! [`widgets_registry::decide`] agrees with the model, which shares no code with it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "in the helpers of tests a panic is the failed test"
)]

use proptest::{collection::vec, prelude::*};
use std::collections::BTreeSet;
use widgets_conformance::{
    Model,
    commands::{boundary_serial_numbers, commands, few_serial_numbers, rests_on_the_state, sample},
};
use widgets_registry::{
    Change, Command, Endpoint, Name, Operation, Ordinal, Port, Ports, Refusal, SLOTS_MAX,
    SerialNumber, Slot, State, Widget, decide,
};

/// The simplest state on which decisions can be made: a row for each widget that ever existed.
#[derive(Default)]
struct Rows(Vec<Option<Row>>);

struct Row {
    serial_number: SerialNumber,
    name: Name,
    ports: Ports,
    /// The other end of each slot.
    peers: [Option<Endpoint<usize>>; SLOTS_MAX],
}

impl Rows {
    fn row(&self, handle: usize) -> &Row {
        self.0[handle].as_ref().expect("the row is there")
    }

    fn set_peer(&mut self, end: Endpoint<usize>, peer: Option<Endpoint<usize>>) {
        let row = self.0[end.widget].as_mut().expect("the row is there");
        let before = std::mem::replace(&mut row.peers[end.ordinal.index()], peer);
        assert_ne!(
            before.is_some(),
            peer.is_some(),
            "a change sets a free slot, or frees a used one"
        );
    }

    fn apply(&mut self, command: &Command, change: Change<usize>) {
        match (change, command) {
            (
                Change::AddWidget,
                Command::AddWidget {
                    serial_number,
                    name,
                    ports,
                },
            ) => {
                self.0.push(Some(Row {
                    serial_number: serial_number.clone(),
                    name: name.clone(),
                    ports: *ports,
                    peers: [None; SLOTS_MAX],
                }));
            }
            (Change::RemoveWidget(handle), Command::RemoveWidget { .. }) => {
                let row = self.0[handle].take().expect("the row is there");
                for peer in row.peers.into_iter().flatten() {
                    self.set_peer(peer, None);
                }
            }
            (Change::AssociateWidgets(one, other), Command::AssociateWidgets(_)) => {
                self.set_peer(one, Some(other));
                self.set_peer(other, Some(one));
            }
            (Change::RemoveAssociation(one, other), Command::RemoveAssociation(_)) => {
                self.set_peer(one, None);
                self.set_peer(other, None);
            }
            (change, command) => panic!("{change:?} is no change of {command:?}"),
        }
    }

    fn submit(&mut self, command: &Command) -> Result<(), Refusal> {
        let change = decide(self, command)?;
        self.apply(command, change);
        Ok(())
    }

    fn lookup(&self, serial_number: &SerialNumber) -> Option<Widget> {
        let row = self.row(self.find(serial_number)?);
        let slots = row.ports.iter().map(|(ordinal, port)| Slot {
            port,
            peer: row.peers[ordinal.index()]
                .map(|peer| self.row(peer.widget).serial_number.clone()),
        });
        Some(Widget {
            serial_number: row.serial_number.clone(),
            name: row.name.clone(),
            slots: slots.collect(),
        })
    }
}

impl State for Rows {
    type Handle = usize;

    fn find(&self, serial_number: &SerialNumber) -> Option<usize> {
        let is_it = |row: &Option<Row>| {
            row.as_ref()
                .is_some_and(|row| row.serial_number == *serial_number)
        };
        self.0.iter().position(is_it)
    }

    fn free_slot(&self, widget: usize, port: Port) -> Option<Ordinal> {
        let row = self.row(widget);
        let free =
            |(ordinal, of): &(Ordinal, Port)| *of == port && row.peers[ordinal.index()].is_none();
        row.ports.iter().find(free).map(|(ordinal, _)| ordinal)
    }

    fn slot_to(&self, widget: usize, port: Port, peer: usize) -> Option<Ordinal> {
        let row = self.row(widget);
        let leads = |(ordinal, of): &(Ordinal, Port)| {
            *of == port && row.peers[ordinal.index()].is_some_and(|end| end.widget == peer)
        };
        row.ports.iter().find(leads).map(|(ordinal, _)| ordinal)
    }
}

fn agree(history: &[Command], serial_numbers: &[SerialNumber]) {
    let (mut rows, mut model) = (Rows::default(), Model::default());
    for command in history {
        assert_eq!(rows.submit(command), model.apply(command), "{command:?}");
        for serial_number in serial_numbers {
            assert_eq!(rows.lookup(serial_number), model.lookup(serial_number));
        }
    }
}

proptest! {
    #[test]
    fn decisions_agree_with_the_model(
        history in vec(commands(few_serial_numbers("w", 6)), 0..200),
    ) {
        agree(&history, &few_serial_numbers("w", 6));
    }

    #[test]
    fn decisions_on_boundary_texts_agree_with_the_model(
        history in vec(commands(boundary_serial_numbers("")), 0..200),
    ) {
        agree(&history, &boundary_serial_numbers(""));
    }
}

#[test]
fn a_long_history_covers_every_operation_and_every_refusal() {
    let (mut rows, mut model) = (Rows::default(), Model::default());
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for command in sample(&vec(commands(few_serial_numbers("w", 7)), 20_000), 0) {
        let outcome = model.apply(&command);
        assert_eq!(rows.submit(&command), outcome, "{command:?}");
        match outcome {
            Ok(()) => drop(accepted.insert(command.operation())),
            Err(refusal) => {
                assert!(rests_on_the_state(&refusal), "{refusal}");
                refused.insert(refusal.code());
            }
        }
    }
    assert_eq!(accepted, BTreeSet::from(Operation::ALL));
    assert_eq!(
        refused,
        BTreeSet::from(["23505", "WG001", "WG002", "WG003", "WG004"])
    );
}
