//! One walk through all records, on every core, which collects what a start needs in order to sort
//! them.

use super::{
    Counts,
    names::{Met, Names},
    order::{Places, marks},
    record::{CHUNK_RECORDS, Handle, Records},
    sort::{self, Element},
};

/// The result of the walk. The walk reads each record and its text once from memory.
pub(super) struct Survey<'a> {
    /// The records that are not vacant, with the heads of their serial numbers behind the prefix.
    pub(super) serial_numbers: Vec<Element>,
    /// Whether every serial number begins with the prefix.
    pub(super) with_prefix: bool,
    /// The places of the records, still without runs.
    pub(super) places: Places,
    /// The number of each record's name, by record; `None` if there are too many names.
    pub(super) names: Option<Vec<Box<[u16]>>>,
    /// How many widgets have each name, by the name's number.
    pub(super) widgets_named: Vec<u32>,
    pub(super) counts: Counts,
    pub(super) prefix: &'a [u8],
}

impl<'a> Survey<'a> {
    fn new(prefix: &'a [u8]) -> Self {
        Self {
            serial_numbers: Vec::new(),
            with_prefix: true,
            places: Places::default(),
            names: Some(Vec::new()),
            widgets_named: Vec::new(),
            counts: Counts::default(),
            prefix,
        }
    }

    pub(super) fn of(records: &'a Records, names: &Names<'a>, threads: usize) -> Self {
        let extent = records.extent();
        let serial_numbers = sort::sample(extent as usize)
            .filter_map(|number| Some(records.get(Handle::new(u32::try_from(number).ok()?))))
            .filter(|record| !record.is_vacant())
            .map(|record| record.serial_number().as_bytes());
        let prefix = sort::common_prefix(serial_numbers);
        let chunks = extent.div_ceil(CHUNK_RECORDS);
        let share = chunks.div_ceil(u32::try_from(threads).unwrap_or(1)).max(1);
        let shares = (0..chunks).step_by(share as usize);
        let looks = shares.map(|first| {
            move || {
                let mut survey = Self::new(prefix);
                let mut met = names.meet();
                for chunk in first..chunks.min(first + share) {
                    survey.look_at(records, chunk, &mut met);
                }
                survey.widgets_named = met.widgets;
                survey
            }
        });
        let mut parts = sort::parallel(looks).into_iter();
        let mut all = parts.next().unwrap_or_else(|| Self::new(prefix));
        for part in parts {
            all.add(part);
        }
        // Both ends were counted.
        all.counts.associations /= 2;
        all
    }

    fn look_at(&mut self, records: &'a Records, chunk: u32, met: &mut Met<'_, 'a>) {
        let mut places = vec![0; CHUNK_RECORDS as usize];
        let mut names = vec![0; CHUNK_RECORDS as usize];
        let first = chunk * CHUNK_RECORDS;
        let numbers = first..records.extent().min(first + CHUNK_RECORDS);
        for (number, (place, name)) in numbers.zip(places.iter_mut().zip(&mut names)) {
            let record = records.get(Handle::new(number));
            if record.is_vacant() {
                continue;
            }
            let serial_number = record.serial_number().as_bytes();
            self.with_prefix &= serial_number.starts_with(self.prefix);
            let head = sort::head_at(serial_number, self.prefix.len());
            self.serial_numbers.push((head, number));
            if self.names.is_some() {
                match met.number(record.name()) {
                    Some(number) => *name = number,
                    None => self.names = None,
                }
            }
            self.counts.widgets += 1;
            for (ordinal, port) in record.ports().iter() {
                if record.peer(ordinal).is_some() {
                    self.counts.associations += 1;
                } else {
                    self.counts.free_slots.add(port, 1);
                }
            }
            *place = u32::from(marks(record));
        }
        self.places.0.push(places.into());
        if let Some(all) = &mut self.names {
            all.push(names.into());
        }
    }

    /// Adds the part that follows.
    fn add(&mut self, part: Self) {
        self.serial_numbers.extend(part.serial_numbers);
        self.with_prefix &= part.with_prefix;
        self.places.0.extend(part.places.0);
        self.names = match (self.names.take(), part.names) {
            (Some(mut names), Some(more)) => {
                names.extend(more);
                Some(names)
            }
            _ => None,
        };
        let numbers = self.widgets_named.len().max(part.widgets_named.len());
        self.widgets_named.resize(numbers, 0);
        for (sum, each) in self.widgets_named.iter_mut().zip(part.widgets_named) {
            *sum += each;
        }
        self.counts.widgets += part.counts.widgets;
        self.counts.free_slots += part.counts.free_slots;
        self.counts.associations += part.counts.associations;
    }
}

/// Sorts records by their names, given their order by serial number and each record's name by
/// chunk. Records with the same name keep their order.
pub(super) fn by_few_names(
    by_serial_number: &[u32],
    names: &[Box<[u16]>],
    widgets_named: &[u32],
    sorted: &[u16],
) -> Vec<u32> {
    let mut next = vec![0; widgets_named.len()];
    let mut before = 0;
    for &name in sorted {
        next[usize::from(name)] = before;
        before += widgets_named[usize::from(name)] as usize;
    }
    let mut by_name = vec![0; by_serial_number.len()];
    for &number in by_serial_number {
        let name = names[(number / CHUNK_RECORDS) as usize][(number % CHUNK_RECORDS) as usize];
        let place = &mut next[usize::from(name)];
        by_name[*place] = number;
        *place += 1;
    }
    by_name
}
