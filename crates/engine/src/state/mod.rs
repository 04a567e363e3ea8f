//! The state in memory: every widget, compact, with constant-time lookups.
//!
//! Owns the records and the index of serial numbers, and can apply and undo a decided change. A
//! widget costs a 32-byte record, its text in one allocation, and about 8 bytes of index. Growth
//! never stalls the store: records lie in chunks that never move, and the index grows one small
//! shard at a time.
//!
//! It deliberately knows nothing of files. Recovery writes to it through [`replay`](self::replay).

mod follow;
mod holding;
mod index;
mod names;
mod order;
mod record;
pub(crate) mod replay;
mod runs;
mod sort;
mod survey;
mod view;

pub use holding::{Holding, Named};
use index::Entries;
pub(crate) use index::Index;
use order::{ByName, BySerialNumber, Order};
pub use record::Handle;
pub(crate) use record::{CHUNK_RECORDS, Record};
use record::{Chunk, Records};
pub(crate) use runs::Position;
use runs::Reader;
pub(crate) use view::{Rowed, View};
use widgets_registry::{
    Change, Command, Endpoint, Name, Ordinal, Port, PortCounts, Ports, SerialNumber, Slot, Widget,
};

/// All widgets and associations of a store.
#[derive(Default)]
pub struct State {
    records: Records,
    index: Index,
    /// Empty until [`Self::finish_replay`].
    order: Order,
    counts: Counts,
    holding: Holding,
}

/// The part of a checkpoint that one thread has loaded.
#[derive(Default)]
pub(crate) struct Part {
    chunks: Vec<(u32, Chunk)>,
    entries: Entries,
    vacant: Vec<Handle>,
}

impl Part {
    /// Adds a chunk by its number. Every chunk but the last must be full.
    pub(crate) fn push(&mut self, number: u32, mut records: Vec<Record>, index: &Index) {
        let first = number * CHUNK_RECORDS;
        for (record, number) in records.iter().zip(first..) {
            let handle = Handle::new(number);
            if record.is_vacant() {
                self.vacant.push(handle);
            } else {
                self.entries
                    .push(index.hash(record.serial_number()), handle);
            }
        }
        records.resize_with(CHUNK_RECORDS as usize, Record::vacant);
        self.chunks.push((number, records.into_boxed_slice()));
    }
}

/// How much the state contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of widgets.
    pub widgets: u64,
    /// The number of slots without a peer.
    pub free_slots: PortCounts,
    /// The number of associations, each of two slots.
    pub associations: u64,
}

impl Counts {
    /// Counts an added widget, whose slots are free.
    fn add(&mut self, ports: Ports) {
        self.widgets += 1;
        for (_, port) in ports.iter() {
            self.free_slots.add(port, 1);
        }
    }

    /// Subtracts a removed widget, whose slots are free.
    fn remove(&mut self, ports: Ports) {
        self.widgets -= 1;
        for (_, port) in ports.iter() {
            self.free_slots.remove(port, 1);
        }
    }
}

/// How to undo one applied change. Valid only in the reverse order of application.
pub(crate) enum Undo {
    Add(Handle),
    Remove {
        handle: Handle,
        record: Record,
        peers: Peers,
    },
    Associate(Endpoint<Handle>, Endpoint<Handle>),
    Dissociate(Endpoint<Handle>, Endpoint<Handle>),
}

/// The other ends of a widget's associations, at most one per slot.
pub(crate) type Peers = [Option<Endpoint<Handle>>; widgets_registry::SLOTS_MAX];

impl State {
    /// Builds the state of a checkpoint from its parts, in any order. The first `extent` records
    /// are in use or vacant; `index`, which is empty, computed the hashes. Counts are wrong until
    /// [`Self::finish_replay`].
    ///
    /// A fuzzy checkpoint may contain a serial number twice, from two lives of its widget. It does
    /// not matter which one stays, because the removal between the two is replayed.
    pub(crate) fn from_parts(
        parts: Vec<Part>,
        extent: u32,
        mut index: Index,
        threads: usize,
    ) -> Self {
        let (mut chunks, mut entries, mut vacant) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            chunks.extend(part.chunks);
            entries.push(part.entries);
            vacant.extend(part.vacant);
        }
        chunks.sort_unstable_by_key(|&(number, _)| number);
        let chunks = chunks.into_iter().map(|(_, chunk)| chunk).collect();
        let mut records = Records::from_chunks(chunks, extent);
        for handle in index.fill(&entries, &records, threads) {
            if !planted!(DuplicateKept) {
                records.remove(handle);
            }
        }
        for handle in vacant {
            records.put_vacant(handle);
        }
        Self {
            records,
            index,
            order: Order::default(),
            counts: Counts::default(),
            holding: Holding::default(),
        }
    }

    /// Returns how much the state contains.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Reports whether no further widget can be numbered.
    pub(crate) fn is_full(&self) -> bool {
        self.records.is_full()
    }

    /// Returns the number of records including vacant ones, which is what a checkpoint walks over.
    pub(crate) fn extent(&self) -> u32 {
        self.records.extent()
    }

    pub(crate) fn record(&self, handle: Handle) -> &Record {
        self.records.get(handle)
    }

    /// Stops maintaining the orders, which cost as much as everything else, for callers that list
    /// nothing.
    pub(crate) fn forget_order(&mut self) {
        self.order = Order::forgotten();
    }

    /// Adds new widgets to the orders of lists if enough have accumulated. Called when there is
    /// time, so that a list does not have to do it.
    pub(crate) fn keep_up(&mut self) {
        self.order.keep_up(&self.records);
    }

    /// Returns a reader of the widgets in the order of their serial numbers: of all, or of those
    /// with a free slot of this port type.
    pub(crate) fn by_serial_number(
        &mut self,
        port: Option<Port>,
    ) -> Reader<'_, BySerialNumber, impl Fn(u32) -> u8> {
        self.order.by_serial_number(&self.records, port)
    }

    /// Returns a reader of the widgets in the order of their names, and by serial number within a
    /// name.
    pub(crate) fn by_name(&mut self) -> Reader<'_, ByName, impl Fn(u32) -> u8> {
        self.order.by_name(&self.records)
    }

    /// Returns how many record numbers had to be sorted for readers since the last call.
    pub(crate) fn take_put_in_order(&mut self) -> usize {
        self.order.take_put_in_order()
    }

    /// Returns the serial numbers of the first and the last widget.
    pub(crate) fn ends(&mut self) -> [Option<&str>; 2] {
        let mut all = self.order.by_serial_number(&self.records, None);
        [(Position::START, true), (all.end(), false)].map(|(from, forwards)| {
            let mut number = Vec::new();
            all.walk(from, forwards, 1, &mut number);
            let number = number.pop()?;
            Some(self.records.get(Handle::new(number)).serial_number())
        })
    }

    /// Loads these records into the cache together.
    pub(crate) fn touch(&self, handles: &[Handle]) {
        self.records.touch(handles.iter().copied());
    }

    /// Returns the handle of the widget with this serial number.
    pub(crate) fn find(&self, serial_number: &str) -> Option<Handle> {
        self.index.find(serial_number, &self.records)
    }

    /// Returns a widget as a lookup answers it.
    #[must_use]
    pub fn lookup(&self, serial_number: &str) -> Option<Widget> {
        self.widget(self.index.find(serial_number, &self.records)?)
    }

    /// Returns the widget in this record, unless the record is vacant.
    pub(crate) fn widget(&self, handle: Handle) -> Option<Widget> {
        let record = self.records.get(handle);
        if record.is_vacant() {
            return None;
        }
        let slots = record.ports().iter().map(|(ordinal, port)| Slot {
            port,
            peer: record.peer(ordinal).map(|peer| self.serial_number(peer)),
        });
        Some(Widget {
            serial_number: text(SerialNumber::new("serial_number", record.serial_number())),
            name: text(Name::new("name", record.name())),
            slots: slots.collect(),
        })
    }

    /// Returns the other ends of this widget's associations, by its own ordinals.
    pub(crate) fn peers(&self, handle: Handle) -> Peers {
        let record = self.records.get(handle);
        let mut peers = Peers::default();
        for (place, (ordinal, port)) in peers.iter_mut().zip(record.ports().iter()) {
            *place = record.peer(ordinal).map(|peer| Endpoint {
                widget: peer,
                ordinal: self.back(peer, port, handle),
            });
        }
        peers
    }

    /// Names every widget that a decided change will change, including one that does not exist yet.
    pub(crate) fn touched(
        &self,
        command: &Command,
        change: Change<Handle>,
        mut touch: impl FnMut(&str),
    ) {
        let mut touch_handle = |handle| touch(self.records.get(handle).serial_number());
        match change {
            Change::AddWidget => {
                if let Command::AddWidget { serial_number, .. } = command {
                    touch(serial_number);
                }
            }
            Change::RemoveWidget(handle) => {
                touch_handle(handle);
                for peer in self.peers(handle).into_iter().flatten() {
                    touch_handle(peer.widget);
                }
            }
            Change::AssociateWidgets(one, other) | Change::RemoveAssociation(one, other) => {
                touch_handle(one.widget);
                touch_handle(other.widget);
            }
        }
    }

    /// Applies what [`widgets_registry::decide`] decided on this state for this command.
    pub(crate) fn apply(&mut self, command: &Command, change: Change<Handle>) -> Undo {
        match change {
            Change::AddWidget => {
                let Command::AddWidget {
                    serial_number,
                    name,
                    ports,
                } = command
                else {
                    unreachable!("only add_widget adds a widget")
                };
                Undo::Add(self.add(serial_number, name, *ports))
            }
            Change::RemoveWidget(handle) => {
                let peers = self.peers(handle);
                Undo::Remove {
                    handle,
                    record: self.remove(handle, &peers),
                    peers,
                }
            }
            Change::AssociateWidgets(one, other) => {
                self.join(one, other);
                Undo::Associate(one, other)
            }
            Change::RemoveAssociation(one, other) => {
                self.part(one, other);
                Undo::Dissociate(one, other)
            }
        }
    }

    /// Undoes the last change that was applied and not yet undone.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Add(handle) => {
                self.remove(handle, &Peers::default());
            }
            Undo::Remove {
                handle,
                record,
                peers,
            } => {
                let ports = record.ports();
                self.counts.add(ports);
                self.index.insert(record.serial_number(), handle);
                self.records.restore(handle, record);
                self.order.insert(handle, &self.records);
                for ((ordinal, _), peer) in ports.iter().zip(peers) {
                    if let Some(peer) = peer {
                        self.join(
                            Endpoint {
                                widget: handle,
                                ordinal,
                            },
                            peer,
                        );
                    }
                }
            }
            Undo::Associate(one, other) => self.part(one, other),
            Undo::Dissociate(one, other) => self.join(one, other),
        }
    }

    fn add(&mut self, serial_number: &str, name: &str, ports: Ports) -> Handle {
        self.counts.add(ports);
        let handle = self.records.insert(Record::new(serial_number, name, ports));
        self.index.insert(serial_number, handle);
        self.order.insert(handle, &self.records);
        handle
    }

    fn remove(&mut self, handle: Handle, peers: &Peers) -> Record {
        let ports = self.records.get(handle).ports();
        for ((ordinal, _), peer) in ports.iter().zip(peers) {
            if let Some(peer) = peer {
                self.part(
                    Endpoint {
                        widget: handle,
                        ordinal,
                    },
                    *peer,
                );
            }
        }
        self.counts.remove(ports);
        if !planted!(RemovedNotForgotten) {
            self.index
                .remove(self.records.get(handle).serial_number(), handle);
        }
        self.order.remove(handle, &self.records);
        self.records.remove(handle)
    }

    fn join(&mut self, one: Endpoint<Handle>, other: Endpoint<Handle>) {
        self.records
            .get_mut(one.widget)
            .set_peer(one.ordinal, Some(other.widget));
        self.records
            .get_mut(other.widget)
            .set_peer(other.ordinal, Some(one.widget));
        self.order.refresh(one.widget, &self.records);
        self.order.refresh(other.widget, &self.records);
        self.counts.associations += 1;
        self.counts.free_slots.remove(self.port(one), 2);
    }

    fn part(&mut self, one: Endpoint<Handle>, other: Endpoint<Handle>) {
        self.records.get_mut(one.widget).set_peer(one.ordinal, None);
        if !planted!(FreedOnOneSide) {
            self.records
                .get_mut(other.widget)
                .set_peer(other.ordinal, None);
        }
        self.order.refresh(one.widget, &self.records);
        self.order.refresh(other.widget, &self.records);
        self.counts.associations -= 1;
        self.counts.free_slots.add(self.port(one), 2);
    }

    pub(crate) fn serial_number(&self, handle: Handle) -> SerialNumber {
        text(SerialNumber::new(
            "serial_number",
            self.records.get(handle).serial_number(),
        ))
    }

    /// Returns the port type of an association's end. Both ends have the same one.
    fn port(&self, end: Endpoint<Handle>) -> Port {
        match self.records.get(end.widget).ports().get(end.ordinal) {
            Some(port) => port,
            None => unreachable!("an association has slots at both its ends"),
        }
    }

    /// Returns the ordinal of the peer's slot that leads back to `handle`.
    fn back(&self, peer: Handle, port: Port, handle: Handle) -> Ordinal {
        match self.records.get(peer).slot_to(port, handle) {
            Some(ordinal) => ordinal,
            // A bug or broken memory: stop before it spreads to the journal.
            None => unreachable!("the association of two widgets is known to one of them only"),
        }
    }

    /// Checks that every association is known to both its widgets, that every record is found under
    /// its serial number and is in both orders, and that the counts are right. Reads the whole
    /// state and returns the first defect.
    pub fn check(&self) -> Result<(), String> {
        let mut counted = Counts::default();
        for handle in (0..self.extent()).map(Handle::new) {
            let record = self.record(handle);
            if record.is_vacant() {
                continue;
            }
            let serial_number = record.serial_number();
            if self.index.find(serial_number, &self.records) != Some(handle) {
                return Err(format!(
                    "widget {serial_number} is not found under its serial number"
                ));
            }
            counted.widgets += 1;
            for (ordinal, port) in record.ports().iter() {
                let Some(peer) = record.peer(ordinal) else {
                    counted.free_slots.add(port, 1);
                    continue;
                };
                counted.associations += 1;
                let other = self
                    .records
                    .checked(peer)
                    .filter(|other| !other.is_vacant());
                let Some(other) = other else {
                    return Err(format!("widget {serial_number} is associated with none"));
                };
                if peer == handle || other.slots_to(port, handle) != 1 {
                    return Err(format!(
                        "widget {serial_number} is associated with {} on port {port}, which does \
                         not have it once",
                        other.serial_number(),
                    ));
                }
            }
        }
        counted.associations /= 2;
        self.order.check(&self.records, counted.widgets)?;
        if counted == self.counts && self.index.len() as u64 == counted.widgets {
            Ok(())
        } else {
            Err(format!("counted {counted:?}, kept {:?}", self.counts))
        }
    }
}

impl widgets_registry::State for State {
    type Handle = Handle;

    fn find(&self, serial_number: &SerialNumber) -> Option<Handle> {
        self.index.find(serial_number, &self.records)
    }

    fn free_slot(&self, widget: Handle, port: Port) -> Option<Ordinal> {
        self.records.get(widget).free_slot(port)
    }

    fn slot_to(&self, widget: Handle, port: Port, peer: Handle) -> Option<Ordinal> {
        self.records.get(widget).slot_to(port, peer)
    }
}

/// Unwraps text that was valid when it was stored.
fn text<T>(stored: Result<T, widgets_registry::Refusal>) -> T {
    match stored {
        Ok(text) => text,
        Err(refusal) => unreachable!("stored text is within its limits: {refusal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use widgets_registry::{Pair, decide};

    fn serial_number(number: u8) -> SerialNumber {
        SerialNumber::new("widget_sn", format!("s{number}")).expect("within the limits")
    }

    /// Few widgets, so that operations often meet.
    fn command() -> impl Strategy<Value = Command> {
        let port = prop::sample::select(&Port::ALL[..]);
        let pair = (0u8..8, 1u8..8, port.clone()).prop_map(|(one, step, port)| {
            Pair::new(serial_number(one), serial_number((one + step) % 8), port)
                .expect("two different widgets")
        });
        prop_oneof![
            3 => (0u8..8, prop::collection::vec(port, 0..=3), "[a-z]{0,9}").prop_map(
                |(number, ports, name)| Command::AddWidget {
                    serial_number: serial_number(number),
                    name: Name::new("widget_name", name).expect("within the limits"),
                    ports: Ports::new(&ports).expect("at most three"),
                }
            ),
            1 => (0u8..8).prop_map(|number| Command::RemoveWidget {
                serial_number: serial_number(number),
            }),
            6 => pair.clone().prop_map(Command::AssociateWidgets),
            2 => pair.prop_map(Command::RemoveAssociation),
        ]
    }

    fn widgets(state: &State) -> Vec<Option<Widget>> {
        (0..8)
            .map(|number| state.lookup(&serial_number(number)))
            .collect()
    }

    proptest! {
        #[test]
        fn changes_keep_the_state_consistent_and_can_be_undone(
            before in prop::collection::vec(command(), 0..60),
            batch in prop::collection::vec(command(), 0..60),
        ) {
            let mut state = State::default();
            for command in &before {
                if let Ok(change) = decide(&state, command) {
                    state.apply(command, change);
                }
            }
            prop_assert_eq!(state.check(), Ok(()));
            let (kept, counts) = (widgets(&state), state.counts());
            let mut undo = Vec::new();
            for command in &batch {
                if let Ok(change) = decide(&state, command) {
                    undo.push(state.apply(command, change));
                    prop_assert_eq!(state.check(), Ok(()));
                }
            }
            while let Some(last) = undo.pop() {
                state.undo(last);
            }
            prop_assert_eq!(state.check(), Ok(()));
            prop_assert_eq!(state.counts(), counts);
            prop_assert_eq!(widgets(&state), kept);
        }

        #[test]
        fn replaying_the_journal_with_an_overlap_rebuilds_the_state(
            history in prop::collection::vec(command(), 0..120),
            overlap in 0usize..120,
            threads in 1usize..5,
        ) {
            let mut state = State::default();
            let mut replayed = State::default();
            let mut journal: Vec<Vec<u8>> = Vec::new();
            for command in &history {
                if let Ok(change) = decide(&state, command) {
                    let mut bytes = Vec::new();
                    crate::format::encode_change(&mut bytes, &state, command, change);
                    state.apply(command, change);
                    journal.push(bytes);
                }
            }
            // The whole journal, then its last part again: what a checkpoint looks like that is
            // younger than the first replayed change.
            let again = &journal[journal.len().saturating_sub(overlap)..];
            for bytes in journal.iter().chain(again) {
                replayed.replay(&crate::format::only_change(bytes));
            }
            replayed.finish_replay(threads);
            prop_assert_eq!(replayed.check(), Ok(()));
            prop_assert_eq!(replayed.counts(), state.counts());
            prop_assert_eq!(widgets(&replayed), widgets(&state));
        }
    }
}
