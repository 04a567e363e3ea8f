//! The index from serial number to record: many small hash tables, so that no growth stalls.
//!
//! A shard that grows must hash its serial numbers again, which costs a walk through memory. At ten
//! million widgets a shard holds about 600, so that is some 100 µs, and the shards grow at different
//! times. The hash is keyed with randomness of the process: clients choose serial numbers, and must
//! not be able to choose collisions.

use super::record::{Handle, Records};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// How many shards; a power of two.
const SHARDS: usize = 1 << 14;

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

impl Index {
    pub(crate) fn find(&self, serial_number: &str, records: &Records) -> Option<Handle> {
        let hash = self.hasher.hash_one(serial_number);
        self.shards[shard_of(hash)]
            .find(hash, |&each| {
                records.get(Handle::new(each)).serial_number() == serial_number
            })
            .map(|&number| Handle::new(number))
    }

    /// Adds a serial number that is not in the index. `records` has every other one that is.
    pub(crate) fn insert(&mut self, serial_number: &str, handle: Handle, records: &Records) {
        let hash = self.hasher.hash_one(serial_number);
        let hasher = &self.hasher;
        self.shards[shard_of(hash)].insert_unique(hash, handle.number(), |&each| {
            hasher.hash_one(records.get(Handle::new(each)).serial_number())
        });
    }

    pub(crate) fn remove(&mut self, serial_number: &str, handle: Handle) {
        let hash = self.hasher.hash_one(serial_number);
        let entry = self.shards[shard_of(hash)].find_entry(hash, |&each| each == handle.number());
        if let Ok(entry) = entry {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}
