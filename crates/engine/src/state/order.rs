//! The widgets in the order of their serial numbers, and of their names.
//!
//! Each widget costs 4 bytes and some slack in either order, and 4 bytes for its place in the first
//! one. The place lets a new or removed association, which changes the widget's free ports, update
//! its run without a search. A new widget is in neither order at first: it is added to both,
//! together with other new widgets, when enough of them have accumulated or when somebody reads.
//! docs/decisions has the alternatives that were measured.
//!
//! With the feature `without-orders`, the orders stay as they were at the start, and lists are
//! wrong. Such a program exists only for comparison and is not meant to be run
//! (docs/performance.md).

use super::{
    Counts,
    names::Names,
    record::{CHUNK_RECORDS, Handle, Record, Records},
    runs::{Key, Moved, Reader, Runs, Sort, number_of, sort_any},
    sort,
    survey::{Survey, by_few_names},
};
use std::{mem, thread};
use widgets_registry::Port;

/// The order by serial number.
pub(crate) struct BySerialNumber;

impl Sort for BySerialNumber {
    fn key(record: &Record) -> Key<'_> {
        (record.serial_number(), "")
    }
}

/// The order by name, and by serial number within a name.
pub(crate) struct ByName;

impl Sort for ByName {
    fn key(record: &Record) -> Key<'_> {
        (record.name(), record.serial_number())
    }
}

/// Every widget in both orders.
#[derive(Default)]
pub(crate) struct Order {
    serial_numbers: Runs<BySerialNumber>,
    places: Places,
    names: Runs<ByName>,
    /// New widgets that are in neither order yet. Their marks are in `places`.
    pending: Vec<u32>,
    /// Whether the orders are not maintained, because nobody asks for them.
    is_forgotten: bool,
}

/// The mark of a widget that has a free slot of this port type.
const fn mark(port: Port) -> usize {
    port as usize - 1
}

/// Returns the marks of all the record's free slots, as bits.
pub(super) fn marks(record: &Record) -> u8 {
    let mut marks = 0;
    for (ordinal, port) in record.ports().iter() {
        if record.peer(ordinal).is_none() {
            marks |= 1 << mark(port);
        }
    }
    marks
}

/// For each record its run, and its marks as the run knows them. In chunks that never move.
#[derive(Default)]
pub(super) struct Places(pub(super) Vec<Box<[u32]>>);

/// How many of a place's lowest bits are the marks.
const MARK_BITS: u32 = 3;

/// A place from this number on is not a run but an index into the pending widgets. There are fewer
/// runs than this, because most have some hundred records.
const PENDING: u32 = 1 << 28;

/// How many pending widgets are worth adding to the orders together: from the second one on, the
/// data that is read is in the processor's caches. A list may have to add just as many before it
/// begins, which takes some hundred microseconds.
const PENDING_ENOUGH: usize = if cfg!(test) { 3 } else { 1024 };

/// How many may be pending at most, even if nobody says that there is time.
const PENDING_MAX: usize = if cfg!(test) { 7 } else { 4096 };

impl Places {
    fn get(&self, number: u32) -> u32 {
        self.0[(number / CHUNK_RECORDS) as usize][(number % CHUNK_RECORDS) as usize]
    }

    fn set(&mut self, number: u32, place: u32) {
        let chunk = (number / CHUNK_RECORDS) as usize;
        while self.0.len() <= chunk {
            self.0.push(vec![0; CHUNK_RECORDS as usize].into());
        }
        self.0[chunk][(number % CHUNK_RECORDS) as usize] = place;
    }

    fn marks(&self, number: u32) -> u8 {
        (self.get(number) & ((1 << MARK_BITS) - 1)) as u8
    }

    fn run(&self, number: u32) -> u32 {
        self.get(number) >> MARK_BITS
    }

    /// Returns the widget's index among the pending ones, if it is pending.
    fn pending(&self, number: u32) -> Option<usize> {
        let place = self.run(number).checked_sub(PENDING)?;
        Some(place as usize)
    }

    fn set_marks(&mut self, number: u32, marks: u8) {
        self.set(number, self.run(number) << MARK_BITS | u32::from(marks));
    }

    fn set_run(&mut self, number: u32, run: u32) {
        let marks = self.marks(number);
        self.set(number, run << MARK_BITS | u32::from(marks));
    }
}

impl Order {
    /// Builds both orders of all records on `threads` threads, and counts the records.
    pub(crate) fn of(records: &Records, threads: usize) -> (Self, Counts) {
        let record = |number: u32| records.get(Handle::new(number));
        let names = Names::default();
        let survey = Survey::of(records, &names, threads);
        let by_serial_number = sort::loaded_by_text(
            survey.serial_numbers,
            survey.with_prefix.then_some(survey.prefix.len()),
            &|number| record(number).serial_number(),
            threads,
        );
        let mut order = Self {
            places: survey.places,
            ..Self::default()
        };
        let in_order = || {
            let by_name = if let Some(chunks) = survey.names {
                let sorted = names.sorted();
                by_few_names(&by_serial_number, &chunks, &survey.widgets_named, &sorted)
            } else {
                let name = |number: u32| record(number).name();
                sort::by_text(&by_serial_number, &name, threads)
            };
            Runs::from_sorted(&by_name, records, |_| 0)
        };
        let mut settle = || {
            let marks = |number| order.places.marks(number);
            order.serial_numbers = Runs::from_sorted(&by_serial_number, records, marks);
            for run in order.serial_numbers.ids() {
                order.settle(run);
            }
        };
        let names = if threads == 1 {
            settle();
            in_order()
        } else {
            thread::scope(|scope| {
                let in_order = scope.spawn(in_order);
                settle();
                sort::joined(in_order)
            })
        };
        order.names = names;
        (order, survey.counts)
    }

    /// Returns an order that is not maintained.
    pub(crate) fn forgotten() -> Self {
        Self {
            is_forgotten: true,
            ..Self::default()
        }
    }

    /// Adds a widget: at first as pending, and to the orders when too many are pending.
    pub(crate) fn insert(&mut self, handle: Handle, records: &Records) {
        if self.is_forgotten || cfg!(feature = "without-orders") {
            return;
        }
        let number = handle.number();
        let place = PENDING + number_of(self.pending.len());
        let marks = marks(records.get(handle));
        self.places
            .set(number, place << MARK_BITS | u32::from(marks));
        self.pending.push(number);
        if self.pending.len() == PENDING_MAX {
            self.take_in(records);
        }
    }

    /// Adds the pending widgets to the orders if there are enough. Called after answers were sent.
    pub(super) fn keep_up(&mut self, records: &Records) {
        if self.pending.len() >= PENDING_ENOUGH {
            self.take_in(records);
        }
    }

    /// Adds all pending widgets to the orders. Sorts them first, because widgets that come from one
    /// client are mostly neighbours.
    fn take_in(&mut self, records: &Records) {
        let mut pending = mem::take(&mut self.pending);
        sort_any::<BySerialNumber>(&mut pending, records);
        for &number in &pending {
            let places = &self.places;
            let marks = |each| places.marks(each);
            let (run, moved) = self.serial_numbers.insert(number, records, marks);
            self.places.set_run(number, run);
            self.moved(moved);
        }
        sort_any::<ByName>(&mut pending, records);
        for &number in &pending {
            self.names.insert(number, records, |_| 0);
        }
        pending.clear();
        self.pending = pending;
    }

    /// Adds all pending widgets for a reader, who must see everything that was acknowledged.
    fn take_in_for_reader(&mut self, records: &Records) {
        if !self.pending.is_empty() && !planted!(PendingForgotten) {
            self.take_in(records);
        }
    }

    /// Removes a widget, whose record must still exist.
    pub(crate) fn remove(&mut self, handle: Handle, records: &Records) {
        if self.is_forgotten || cfg!(feature = "without-orders") {
            return;
        }
        let number = handle.number();
        if let Some(place) = self.places.pending(number) {
            self.pending.swap_remove(place);
            if let Some(&moved) = self.pending.get(place) {
                self.places.set_run(moved, PENDING + number_of(place));
            }
            return;
        }
        let (run, marks) = (self.places.run(number), self.places.marks(number));
        let moved = (self.serial_numbers).remove(number, Some(run), records, marks);
        self.moved(moved);
        self.names.remove(number, None, records, 0);
    }

    /// Updates which ports of a widget are free.
    pub(crate) fn refresh(&mut self, handle: Handle, records: &Records) {
        if self.is_forgotten || cfg!(feature = "without-orders") {
            return;
        }
        let number = handle.number();
        let (before, after) = (self.places.marks(number), marks(records.get(handle)));
        if before != after {
            if self.places.pending(number).is_none() {
                let run = self.places.run(number);
                self.serial_numbers.mark(run, before, after);
            }
            self.places.set_marks(number, after);
        }
    }

    fn moved(&mut self, moved: Moved) {
        if let Some(run) = moved {
            self.settle(run);
        }
    }

    /// Records for each widget of a run that it is in this run.
    fn settle(&mut self, run: u32) {
        for &number in self.serial_numbers.numbers(run) {
            self.places.set_run(number, run);
        }
    }

    /// Returns a reader by serial number: of all widgets, or of those with a free slot of this port
    /// type.
    pub(super) fn by_serial_number<'r>(
        &'r mut self,
        records: &'r Records,
        port: Option<Port>,
    ) -> Reader<'r, BySerialNumber, impl Fn(u32) -> u8 + 'r> {
        self.take_in_for_reader(records);
        let places = &self.places;
        let marks = |number| places.marks(number);
        let mark = port.map(mark);
        self.serial_numbers.reader(records, marks, mark)
    }

    /// Returns a reader by name, and by serial number within a name.
    pub(super) fn by_name<'r>(
        &'r mut self,
        records: &'r Records,
    ) -> Reader<'r, ByName, impl Fn(u32) -> u8 + 'r> {
        self.take_in_for_reader(records);
        self.names.reader(records, |_| 0, None)
    }

    /// Returns how many record numbers were sorted for readers since the last call.
    pub(super) fn take_put_in_order(&mut self) -> usize {
        self.serial_numbers.take_put_in_order() + self.names.take_put_in_order()
    }

    /// Checks that the orders are consistent and contain all of the `widgets` widgets. Returns the
    /// first defect.
    pub(crate) fn check(&self, records: &Records, widgets: u64) -> Result<(), String> {
        let each = [self.serial_numbers.total(), self.names.total()];
        let pending = self.pending.len() as u64;
        if each.map(|all| u64::from(all.records) + pending) != [widgets; 2] && !self.is_forgotten {
            return Err(format!(
                "of {widgets} widgets {each:?} are in order, and {pending} wait"
            ));
        }
        for (place, &number) in self.pending.iter().enumerate() {
            let record = records.get(Handle::new(number));
            if self.places.pending(number) != Some(place)
                || self.places.marks(number) != marks(record)
            {
                return Err(format!("{} is not where it waits", record.serial_number()));
            }
        }
        for number in self.serial_numbers.sorted(records) {
            let record = records.get(Handle::new(number));
            let is_there = self
                .serial_numbers
                .numbers(self.places.run(number))
                .contains(&number);
            if self.places.marks(number) != marks(record) || !is_there {
                return Err(format!("{} is out of order", record.serial_number()));
            }
        }
        self.serial_numbers
            .check(records, |number| self.places.marks(number))?;
        self.names.check(records, |_| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use widgets_registry::Ports;

    /// Few names or many, at random.
    fn names() -> impl Strategy<Value = Vec<String>> {
        prop_oneof![
            prop::collection::vec("[ab]{0,2}", 60),
            prop::collection::vec("[a-c]{0,20}", 60),
        ]
    }

    proptest! {
        #[test]
        fn indexes_built_at_start_are_sorted_by_serial_number_and_name(
            prefix in "[a-c]{0,12}",
            mut serial_numbers in prop::collection::vec("[a-cé]{1,12}", 0..60),
            names in names(),
            is_other in any::<bool>(),
            vacant in 2usize..9,
            threads in 1usize..6,
        ) {
            if is_other {
                serial_numbers.push("x".into());
            }
            let mut records = Records::default();
            let mut model = BTreeMap::new();
            for (number, serial_number) in serial_numbers.iter().enumerate() {
                let serial_number = if serial_number == "x" {
                    serial_number.clone()
                } else {
                    format!("{prefix}{serial_number}")
                };
                let name = &names[number % names.len()];
                let ports = Ports::new(&Port::ALL[..number % 4]).expect("three at most");
                if model.contains_key(&serial_number) {
                    continue;
                }
                model.insert(serial_number.clone(), name.clone());
                let handle = records.insert(Record::new(&serial_number, name, ports));
                if number % vacant == 0 {
                    records.remove(handle);
                    model.remove(&serial_number);
                }
            }
            let (order, counts) = Order::of(&records, threads);
            prop_assert_eq!(order.check(&records, model.len() as u64), Ok(()));
            prop_assert_eq!(counts.widgets, model.len() as u64);
            let record = |number| records.get(Handle::new(number));
            let by_serial_number = order.serial_numbers.sorted(&records).into_iter();
            let by_serial_number: Vec<&str> =
                by_serial_number.map(|number| record(number).serial_number()).collect();
            prop_assert_eq!(by_serial_number, model.keys().collect::<Vec<_>>());
            let mut expected: Vec<(&str, &str)> =
                model.iter().map(|(serial_number, name)| (&**name, &**serial_number)).collect();
            expected.sort_unstable();
            let by_name = order.names.sorted(&records).into_iter();
            let by_name = by_name.map(|number| ByName::key(record(number)));
            prop_assert_eq!(by_name.collect::<Vec<_>>(), expected);
        }
    }
}
