//! The index from serial number to record: many small hash tables, so that growth never stalls.
//!
//! A shard that grows moves its entries, and the shards grow at different times. Each entry stores
//! half of its hash, because hashing the serial numbers again would read all over memory. The hash
//! is keyed randomly in each process, because clients choose serial numbers and must not be able to
//! choose collisions.

use super::record::{Handle, Records};
use hashbrown::{HashTable, hash_table::Entry};
use std::{
    hash::BuildHasher,
    panic,
    sync::{Mutex, PoisonError},
    thread,
};

/// The number of shards, a power of two. Tests have few widgets in many states.
const SHARDS: usize = if cfg!(test) { 1 << 4 } else { 1 << 14 };

/// How many shards a start fills at a time, so that they fit in a core's cache.
const PARTITION_SHARDS: usize = SHARDS / if cfg!(test) { 4 } else { 128 };

/// Tests must have the same result every time.
#[cfg(not(test))]
type Hasher = std::hash::RandomState;
#[cfg(test)]
type Hasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// The index from serial numbers to handles.
pub(crate) struct Index {
    shards: Box<[HashTable<Place>]>,
    hasher: Hasher,
}

/// Where a widget's record is, and the lower half of its serial number's hash.
#[derive(Clone, Copy)]
struct Place {
    hash: u32,
    number: u32,
}

impl Place {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    fn new(hash: u64, number: u32) -> Self {
        Self {
            hash: hash as u32,
            number,
        }
    }

    /// Returns the hash for a shard's table, which uses the lowest bits and the highest seven.
    fn hash(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }

    /// Reports whether this entry belongs to the sought widget. The hash rules out most others, so
    /// their records need not be read.
    fn is(self, sought: Self, serial_number: &str, records: &Records) -> bool {
        self.hash == sought.hash
            && records.get(Handle::new(self.number)).serial_number() == serial_number
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: Hasher::default(),
        }
    }
}

/// Returns the shard of a hash, from the half that the shard's table does not use.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// The future contents of an index, sorted by partition, so that filling it touches little memory
/// at a time.
pub(crate) struct Entries(Box<[Vec<(u64, u32)>]>);

impl Default for Entries {
    fn default() -> Self {
        Self((0..SHARDS / PARTITION_SHARDS).map(|_| Vec::new()).collect())
    }
}

impl Entries {
    /// Adds a record under the hash of its serial number.
    pub(crate) fn push(&mut self, hash: u64, handle: Handle) {
        self.0[shard_of(hash) / PARTITION_SHARDS].push((hash, handle.number()));
    }
}

fn fill_partition<'a>(
    shards: &mut [HashTable<Place>],
    entries: impl Iterator<Item = &'a Vec<(u64, u32)>> + Clone,
    records: &Records,
    duplicates: &mut Vec<Handle>,
) {
    // Reserves room for an even distribution and an eighth more, so that a shard rarely has to
    // grow.
    let room = entries.clone().map(Vec::len).sum::<usize>() / shards.len();
    for shard in &mut *shards {
        shard.reserve(room + room / 8, |place| place.hash());
    }
    for &(hash, number) in entries.flatten() {
        let shard = &mut shards[shard_of(hash) % PARTITION_SHARDS];
        let place = Place::new(hash, number);
        let serial_number = || records.get(Handle::new(number)).serial_number();
        let is_same = |each: &Place| each.is(place, serial_number(), records);
        match shard.entry(place.hash(), is_same, |place| place.hash()) {
            Entry::Occupied(_) => duplicates.push(Handle::new(number)),
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
        }
    }
}

impl Index {
    /// Returns the hash of a serial number in this index.
    pub(crate) fn hash(&self, serial_number: &str) -> u64 {
        self.hasher.hash_one(serial_number)
    }

    /// Fills an empty index on `threads` threads. If several records have the same serial number,
    /// one of them is indexed and the others are returned.
    pub(crate) fn fill(
        &mut self,
        entries: &[Entries],
        records: &Records,
        threads: usize,
    ) -> Vec<Handle> {
        let partitions = Mutex::new(self.shards.chunks_mut(PARTITION_SHARDS).enumerate());
        let next = || {
            partitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next()
        };
        let fill = || {
            let mut duplicates = Vec::new();
            while let Some((number, shards)) = next() {
                let entries = entries.iter().map(|each| &each.0[number]);
                fill_partition(shards, entries, records, &mut duplicates);
            }
            duplicates
        };
        if threads == 1 {
            return fill();
        }
        thread::scope(|scope| {
            let fillers: Vec<_> = (0..threads).map(|_| scope.spawn(fill)).collect();
            let joined = fillers.into_iter().map(|each| {
                each.join()
                    .unwrap_or_else(|cause| panic::resume_unwind(cause))
            });
            joined.flatten().collect()
        })
    }

    pub(crate) fn find(&self, serial_number: &str, records: &Records) -> Option<Handle> {
        let hash = self.hash(serial_number);
        let sought = Place::new(hash, 0);
        self.shards[shard_of(hash)]
            .find(sought.hash(), |each| {
                each.is(sought, serial_number, records)
            })
            .map(|place| Handle::new(place.number))
    }

    /// Adds a serial number that is not in the index.
    pub(crate) fn insert(&mut self, serial_number: &str, handle: Handle) {
        let hash = self.hash(serial_number);
        let place = Place::new(hash, handle.number());
        self.shards[shard_of(hash)].insert_unique(place.hash(), place, |place| place.hash());
    }

    pub(crate) fn remove(&mut self, serial_number: &str, handle: Handle) {
        let hash = self.hash(serial_number);
        let place = Place::new(hash, handle.number());
        let is_same = |each: &Place| each.number == place.number;
        let entry = self.shards[shard_of(hash)].find_entry(place.hash(), is_same);
        if let Ok(entry) = entry {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::Record;
    use std::collections::HashMap;
    use widgets_registry::Ports;

    /// Returns two serial numbers in the same shard with equal lower halves of their hashes.
    fn colliding(index: &Index) -> [String; 2] {
        let mut seen = HashMap::new();
        for number in 0.. {
            let serial_number = format!("{number}");
            let hash = index.hash(&serial_number);
            let key = (shard_of(hash), Place::new(hash, 0).hash);
            if let Some(other) = seen.insert(key, serial_number.clone()) {
                return [other, serial_number];
            }
        }
        unreachable!("there are more numbers than hashes")
    }

    #[test]
    fn serial_numbers_with_colliding_hashes_are_distinguished() {
        let (mut index, mut records) = (Index::default(), Records::default());
        let [one, other] = colliding(&index);
        let [first, second] = [&one, &other]
            .map(|serial_number| records.insert(Record::new(serial_number, "", Ports::NONE)));
        index.insert(&one, first);
        assert_eq!(index.find(&one, &records), Some(first));
        assert_eq!(index.find(&other, &records), None);
        index.insert(&other, second);
        index.remove(&one, first);
        assert_eq!(index.find(&one, &records), None);
        assert_eq!(index.find(&other, &records), Some(second));

        let mut filled = Index::default();
        let mut entries = Entries::default();
        for (serial_number, handle) in [(&one, first), (&other, second)] {
            entries.push(filled.hash(serial_number), handle);
        }
        assert_eq!(filled.fill(&[entries], &records, 1), []);
        assert_eq!(filled.find(&one, &records), Some(first));
        assert_eq!(filled.find(&other, &records), Some(second));
    }
}
