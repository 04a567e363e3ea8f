//! The widgets in the order of their serial numbers, and of their names.
//!
//! Each widget costs 4 bytes and some room in either order, and 4 bytes for its place in the first: an
//! association that comes or goes changes which ports of a widget are free, and finds the run to say it
//! to without a search. docs/decisions has what else was measured.

use super::{
    record::{CHUNK_RECORDS, Handle, Record, Records},
    runs::{Key, Moved, Runs, Sort},
    sort,
};
use widgets_registry::Port;

/// By serial number.
pub(crate) struct BySerialNumber;

impl Sort for BySerialNumber {
    fn key(record: &Record) -> Key<'_> {
        (record.serial_number(), "")
    }
}

/// By name; widgets of the same name by serial number.
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
}

/// The mark of a widget that has a free slot of this port type.
pub(crate) const fn mark(port: Port) -> usize {
    port as usize - 1
}

/// Those of all its free slots, bit by bit.
fn marks(record: &Record) -> u8 {
    let mut marks = 0;
    for (ordinal, port) in record.ports().iter() {
        if record.peer(ordinal).is_none() {
            marks |= 1 << mark(port);
        }
    }
    marks
}

/// For each record: its run, and its marks as the run knows them. In chunks that never move.
#[derive(Default)]
struct Places(Vec<Box<[u32]>>);

/// The lowest bits of a place are the marks.
const MARK_BITS: u32 = 3;

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

    fn set_marks(&mut self, number: u32, marks: u8) {
        self.set(number, self.run(number) << MARK_BITS | u32::from(marks));
    }

    fn set_run(&mut self, number: u32, run: u32) {
        let marks = self.marks(number);
        self.set(number, run << MARK_BITS | u32::from(marks));
    }
}

impl Order {
    /// Both orders of all records, on so many threads.
    pub(crate) fn of(records: &Records, threads: usize) -> Self {
        let record = |number: u32| records.get(Handle::new(number));
        let numbers = (0..records.extent()).filter(|&number| !record(number).is_vacant());
        let by_serial_number = sort::by_text(
            numbers.collect(),
            &|number| record(number).serial_number(),
            threads,
        );
        let mut places = Places::default();
        for number in 0..records.extent() {
            places.set(number, u32::from(marks(record(number))));
        }
        let marks = |number| places.marks(number);
        let serial_numbers = Runs::<BySerialNumber>::from_sorted(&by_serial_number, records, marks);
        let mut order = Self {
            serial_numbers,
            places,
            names: Runs::default(),
        };
        for run in order.serial_numbers.ids() {
            order.settle(run);
        }
        // Sorted by name alone, equal ones by their place in the first order.
        let name = |rank: u32| record(by_serial_number[rank as usize]).name();
        let ranks = (0u32..).take(by_serial_number.len()).collect();
        let mut by_name = sort::by_text(ranks, &name, threads);
        for rank in &mut by_name {
            *rank = by_serial_number[*rank as usize];
        }
        order.names = Runs::from_sorted(&by_name, records, |_| 0);
        order
    }

    /// Adds a widget.
    pub(crate) fn insert(&mut self, handle: Handle, records: &Records) {
        let number = handle.number();
        let marks = marks(records.get(handle));
        self.places.set(number, u32::from(marks));
        let places = &self.places;
        let (run, moved) = (self.serial_numbers).insert(number, records, |each| places.marks(each));
        self.places.set_run(number, run);
        self.moved(moved);
        self.names.insert(number, records, |_| 0);
    }

    /// Removes a widget, whose record is still there.
    pub(crate) fn remove(&mut self, handle: Handle, records: &Records) {
        let number = handle.number();
        let marks = self.places.marks(number);
        let moved = self.serial_numbers.remove(number, records, marks);
        self.moved(moved);
        self.names.remove(number, records, 0);
    }

    /// Looks again which ports of a widget are free.
    pub(crate) fn refresh(&mut self, handle: Handle, records: &Records) {
        let number = handle.number();
        let (before, after) = (self.places.marks(number), marks(records.get(handle)));
        if before != after {
            let run = self.places.run(number);
            self.serial_numbers.mark(run, before, after);
            self.places.set_marks(number, after);
        }
    }

    fn moved(&mut self, moved: Moved) {
        if let Some(run) = moved {
            self.settle(run);
        }
    }

    /// Lets the records of a run know that they are there.
    fn settle(&mut self, run: u32) {
        for &number in self.serial_numbers.numbers(run) {
            self.places.set_run(number, run);
        }
    }

    /// By serial number. The marks of a widget: [`mark`] for each port type that it has free.
    pub(crate) fn serial_numbers(&self) -> (&Runs<BySerialNumber>, impl Fn(u32) -> u8 + Copy + '_) {
        (&self.serial_numbers, |number| self.places.marks(number))
    }

    /// By name, and those of the same name by serial number.
    pub(crate) fn names(&self) -> &Runs<ByName> {
        &self.names
    }

    /// Whether everything hangs together: names the first defect.
    pub(crate) fn check(&self, records: &Records) -> Result<(), String> {
        for number in self.serial_numbers.iter() {
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
