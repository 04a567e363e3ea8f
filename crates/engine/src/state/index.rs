//! The index from serial number to record: many small hash tables, so that no growth stalls.
//!
//! A shard that grows must hash its serial numbers again, which costs a walk through memory. At ten
//! million widgets a shard holds about 600, so that is some 100 µs, and the shards grow at different
//! times. The hash is keyed with randomness of the process: clients choose serial numbers, and must
//! not be able to choose collisions.

use super::record::{Handle, Records};
use hashbrown::{HashTable, hash_table::Entry};
use std::{
    hash::BuildHasher,
    panic,
    sync::{Mutex, PoisonError},
    thread,
};

/// How many shards; a power of two. Tests have few widgets in many states.
const SHARDS: usize = if cfg!(test) { 1 << 4 } else { 1 << 14 };

/// A start fills so many shards at a time, which then fit in a core's cache.
const PARTITION_SHARDS: usize = SHARDS / if cfg!(test) { 4 } else { 128 };

/// Tests must come out the same every time.
#[cfg(not(test))]
type Hasher = std::hash::RandomState;
#[cfg(test)]
type Hasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// Serial number to handle.
pub(crate) struct Index {
    shards: Box<[HashTable<u32>]>,
    hasher: Hasher,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: Hasher::default(),
        }
    }
}

/// Hash tables use the lowest bits and the highest seven: these are neither.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// What is to be in an index, sorted by partition, so that filling it walks through little memory
/// at a time.
pub(crate) struct Entries(Box<[Vec<(u64, u32)>]>);

impl Default for Entries {
    fn default() -> Self {
        Self((0..SHARDS / PARTITION_SHARDS).map(|_| Vec::new()).collect())
    }
}

impl Entries {
    /// Adds a record by the hash of its serial number.
    pub(crate) fn push(&mut self, hash: u64, handle: Handle) {
        self.0[shard_of(hash) / PARTITION_SHARDS].push((hash, handle.number()));
    }
}

fn fill_partition<'a>(
    shards: &mut [HashTable<u32>],
    entries: impl Iterator<Item = &'a Vec<(u64, u32)>> + Clone,
    records: &Records,
    hasher: &Hasher,
    duplicates: &mut Vec<Handle>,
) {
    let record = |number| records.get(Handle::new(number));
    let hash_of = |&number: &u32| hasher.hash_one(record(number).serial_number());
    // Room for an even spread, and some more: a shard then rarely has to grow.
    let room = entries.clone().map(Vec::len).sum::<usize>() / shards.len();
    for shard in &mut *shards {
        shard.reserve(room + room / 8, hash_of);
    }
    for &(hash, number) in entries.flatten() {
        let shard = &mut shards[shard_of(hash) % PARTITION_SHARDS];
        let is_same = |&each: &u32| record(each).serial_number() == record(number).serial_number();
        match shard.entry(hash, is_same, hash_of) {
            Entry::Occupied(_) => duplicates.push(Handle::new(number)),
            Entry::Vacant(entry) => {
                entry.insert(number);
            }
        }
    }
}

impl Index {
    /// The hash of a serial number in this index.
    pub(crate) fn hash(&self, serial_number: &str) -> u64 {
        self.hasher.hash_one(serial_number)
    }

    /// Fills an empty index on so many threads. Where several records have the same serial number,
    /// one is found by it from now on; the others are returned.
    pub(crate) fn fill(
        &mut self,
        entries: &[Entries],
        records: &Records,
        threads: usize,
    ) -> Vec<Handle> {
        let hasher = &self.hasher;
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
                fill_partition(shards, entries, records, hasher, &mut duplicates);
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
        self.shards[shard_of(hash)]
            .find(hash, |&each| {
                records.get(Handle::new(each)).serial_number() == serial_number
            })
            .map(|&number| Handle::new(number))
    }

    /// Adds a serial number that is not in the index. `records` has every other one that is.
    pub(crate) fn insert(&mut self, serial_number: &str, handle: Handle, records: &Records) {
        let hash = self.hash(serial_number);
        let hasher = &self.hasher;
        self.shards[shard_of(hash)].insert_unique(hash, handle.number(), |&each| {
            hasher.hash_one(records.get(Handle::new(each)).serial_number())
        });
    }

    pub(crate) fn remove(&mut self, serial_number: &str, handle: Handle) {
        let hash = self.hash(serial_number);
        let entry = self.shards[shard_of(hash)].find_entry(hash, |&each| each == handle.number());
        if let Ok(entry) = entry {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}
