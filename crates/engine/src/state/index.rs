//! The index from serial number to record: many small hash tables, so that no growth stalls.
//!
//! A shard that grows must hash its serial numbers again, which costs a walk through memory. At ten
//! million widgets a shard holds about 600, so that is some 100 µs, and the shards grow at different
//! times. The hash is keyed with randomness of the process: clients choose serial numbers, and must
//! not be able to choose collisions.

use super::record::{CHUNK_RECORDS, Handle, Records};
use hashbrown::{HashTable, hash_table::Entry};
use std::{
    hash::{BuildHasher, RandomState},
    panic, thread,
};

/// How many shards; a power of two. Tests have few widgets in many states.
const SHARDS: usize = if cfg!(test) { 1 << 4 } else { 1 << 14 };

/// Serial number to handle.
pub(crate) struct Index {
    shards: Box<[HashTable<u32>]>,
    hasher: RandomState,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// Hash tables use the lowest bits and the highest seven: these are neither.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// Fills the shards from number `first` on.
fn fill_shards(
    shards: &mut [HashTable<u32>],
    first: usize,
    records: &Records,
    hashes: &[Box<[u64]>],
) -> Vec<Handle> {
    let hash_of = |number: u32| {
        let number = number as usize;
        hashes[number / CHUNK_RECORDS][number % CHUNK_RECORDS]
    };
    // Room for what comes, evenly spread, and some more: a shard then rarely has to grow.
    let room = records.extent() as usize / SHARDS;
    let room = room + room / 8;
    for shard in &mut *shards {
        shard.reserve(room, |&each| hash_of(each));
    }
    let mut duplicates = Vec::new();
    for number in 0..records.extent() {
        let hash = hash_of(number);
        let Some(shard) = shard_of(hash)
            .checked_sub(first)
            .and_then(|shard| shards.get_mut(shard))
        else {
            continue;
        };
        let record = records.get(Handle::new(number));
        if record.is_vacant() {
            continue;
        }
        let is_same =
            |&each: &u32| records.get(Handle::new(each)).serial_number() == record.serial_number();
        match shard.entry(hash, is_same, |&each| hash_of(each)) {
            Entry::Occupied(_) => duplicates.push(Handle::new(number)),
            Entry::Vacant(entry) => {
                entry.insert(number);
            }
        }
    }
    duplicates
}

impl Index {
    /// The hash of a serial number in this index.
    pub(crate) fn hash(&self, serial_number: &str) -> u64 {
        self.hasher.hash_one(serial_number)
    }

    /// Fills an empty index with all records that are not vacant, the shards shared out between
    /// threads. `hashes` has those of all records. Where several have the same serial number, one
    /// is found by it from now on; the others are returned.
    pub(crate) fn fill(
        &mut self,
        records: &Records,
        hashes: &[Box<[u64]>],
        threads: usize,
    ) -> Vec<Handle> {
        let share = SHARDS.div_ceil(threads);
        thread::scope(|scope| {
            let mut fillers = Vec::new();
            for (shards, first) in self.shards.chunks_mut(share).zip((0..).step_by(share)) {
                let fill = move || fill_shards(shards, first, records, hashes);
                fillers.push(scope.spawn(fill));
            }
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
