//! Retries: which idempotency keys were used, for what, and with which outcome.
//!
//! A repeated key gets the outcome of its first use, and nothing is applied twice. The owner of the
//! state owns the keys; they become durable together with the operations, and are part of
//! checkpoints. Keys are kept for a limited time and up to a limited number. Beyond the number, the
//! caller with the most keys loses its oldest, so a caller with no more than its even share loses
//! none early, however many another caller uses.
//!
//! A key costs 52 bytes in chunks, which are reused, and about 10 bytes in a table. Growth never
//! stalls the store, because chunks are added one at a time and the table grows by shards.

mod outcome;

pub(crate) use outcome::Outcome;

use crate::{Settings, format::Keyed};
use hashbrown::HashTable;
use siphasher::sip128::SipHasher24;
use std::collections::{BTreeMap, BTreeSet};
use widgets_registry::{Attempt, IdempotencyKey};

/// How many keys a chunk has. Tests have few keys.
const CHUNK_KEYS: usize = if cfg!(test) { 4 } else { 4096 };

/// The number of shards. A power of two, and at most what the first byte of a key's digest can tell
/// apart.
const SHARDS: usize = 256;

/// The bytes of a key's digest that identify the share that the key counts against. With two bytes,
/// the memory for callers is bounded; callers whose numbers collide have one share together.
const CALLER: std::ops::Range<usize> = 6..8;

/// No place.
const NONE: u32 = u32::MAX;

/// In place of `next`: the key is not durable, and counts against no caller yet.
const UNSETTLED: u32 = u32::MAX - 1;

/// Returns the digests of a key and of its request. They are persisted, so what is hashed must
/// never change.
///
/// Two bytes of the key's digest are not part of the hash: they identify the share that the key
/// counts against. So a caller that comes another way, and would count against another share, still
/// finds its key, and a journal from before there were shares can be read unchanged.
pub(crate) fn digest(secret: &[u8; 16], key: &IdempotencyKey, attempt: &Attempt) -> Keyed {
    let hash = |bytes: &[u8]| SipHasher24::new_with_key(secret).hash(bytes).as_bytes();
    let mut digest = hash(&key.digested(attempt.author.as_ref()));
    let caller = hash(&attempt.asker.0.to_le_bytes());
    digest[CALLER].copy_from_slice(&caller[..CALLER.len()]);
    let request = hash(&attempt.command.digested());
    Keyed {
        key: digest,
        request,
    }
}

/// Returns the share that this key counts against.
fn caller_of(key: &[u8; 16]) -> u16 {
    u16::from_le_bytes([key[CALLER.start], key[CALLER.start + 1]])
}

/// Reports whether two digests belong to the same key, whichever shares they count against.
fn is_same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one[..CALLER.start] == other[..CALLER.start] && one[CALLER.end..] == other[CALLER.end..]
}

/// A key that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) keyed: Keyed,
    /// When it was used, in seconds since 1970.
    pub(crate) at_seconds: u32,
    pub(crate) outcome: Outcome,
}

const _: () = assert!(
    size_of::<Kept>() == 40,
    "the memory of a million keys hangs on this"
);

/// What is known about a key that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The outcome, if the key was used for the same request.
    pub(crate) outcome: Option<Outcome>,
    /// Whether the key is durable.
    pub(crate) is_settled: bool,
}

/// An entry of a chunk: a key that was used, or a free entry.
struct Entry {
    kept: Kept,
    /// The keys used before and after this one. In a free entry, `newer` is the next free one.
    older: u32,
    newer: u32,
    /// The caller's next newer key.
    next: u32,
}

const _: () = assert!(
    size_of::<Entry>() == 52,
    "the memory of a million keys hangs on this"
);

/// The keys of one caller.
#[derive(Clone, Copy)]
struct Share {
    oldest: u32,
    newest: u32,
    keys: u32,
}

/// All keys that are kept.
pub(crate) struct Retries {
    keys_max: u64,
    retention_seconds: u32,
    /// The entries, some of which are free.
    chunks: Vec<Vec<Entry>>,
    /// The first free entry.
    room: u32,
    /// The ends of the list in the order of use.
    oldest: u32,
    newest: u32,
    len: u64,
    /// The first key that is not durable.
    unsettled: u32,
    /// The entry of each key's latest use, by the key's hash.
    shards: Box<[HashTable<u32>]>,
    callers: BTreeMap<u16, Share>,
    /// The callers by their number of keys: the last one has the most.
    by_keys: BTreeSet<(u32, u16)>,
    /// How many keys were dropped before their time.
    early: u64,
    /// The next key that a checkpoint copies. `to_copy` says how many are left.
    copying: u32,
    to_copy: u64,
}

impl Retries {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            keys_max: settings.idempotency_keys_max,
            retention_seconds: settings.idempotency_retention_hours.saturating_mul(3600),
            chunks: Vec::new(),
            room: NONE,
            oldest: NONE,
            newest: NONE,
            len: 0,
            unsettled: NONE,
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            callers: BTreeMap::new(),
            by_keys: BTreeSet::new(),
            early: 0,
            copying: NONE,
            to_copy: 0,
        }
    }

    /// Returns how many keys are kept.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns how many keys the caller with the most keys has.
    pub(crate) fn most_of_a_caller(&self) -> u64 {
        self.by_keys.last().map_or(0, |&(keys, _)| u64::from(keys))
    }

    /// Returns how many callers have keys.
    #[cfg(test)]
    pub(crate) fn callers(&self) -> usize {
        self.callers.len()
    }

    /// Returns how many keys were dropped before their time.
    pub(crate) fn early(&self) -> u64 {
        self.early
    }

    /// Iterates over the keys in the order of their use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Kept> {
        let first = self.entry(self.oldest);
        std::iter::successors(first, |entry| self.entry(entry.newer)).map(|entry| &entry.kept)
    }

    /// Begins copying the current keys for a checkpoint.
    pub(crate) fn begin_copy(&mut self) {
        (self.copying, self.to_copy) = (self.oldest, self.len);
    }

    /// Returns the next key to copy, the oldest first. If keys were dropped since the copying
    /// began, the same number of newer ones is copied instead.
    pub(crate) fn copy_next(&mut self) -> Option<Kept> {
        if self.is_copied() {
            return None;
        }
        let entry = self.entry(self.copying)?;
        let (kept, newer) = (entry.kept, entry.newer);
        self.copying = newer;
        self.to_copy -= 1;
        Some(kept)
    }

    /// Reports whether nothing is left to copy.
    pub(crate) fn is_copied(&self) -> bool {
        self.to_copy == 0 || self.copying == NONE
    }

    /// Returns what is known about this key at this time; `None` if it is unused.
    pub(crate) fn find(&self, keyed: &Keyed, now_seconds: u32) -> Option<Found> {
        let entry = self.entry(self.place(&keyed.key)?)?;
        let kept = &entry.kept;
        let is_same = kept.keyed.request == keyed.request;
        (!self.is_over(kept, now_seconds)).then_some(Found {
            outcome: is_same.then_some(kept.outcome),
            is_settled: entry.next != UNSETTLED,
        })
    }

    /// Inserts a key. Does nothing if the same key with the same content exists already, as happens
    /// if a checkpoint is newer than the replayed part of the journal.
    pub(crate) fn insert(&mut self, kept: Kept) {
        let there = self.place(&kept.keyed.key);
        let known = there.and_then(|place| self.entry(place));
        if known.is_some_and(|entry| entry.kept == kept) {
            return;
        }
        let place = self.take_room(Entry {
            kept,
            older: self.newest,
            newer: NONE,
            next: UNSETTLED,
        });
        match self.entry_mut(self.newest) {
            Some(before) => before.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        self.len += 1;
        if self.unsettled == NONE {
            self.unsettled = place;
        }
        let (chunks, key) = (&self.chunks, &kept.keyed.key);
        let shard = &mut self.shards[shard_of(key)];
        let is_key = |&place: &u32| is_key_at(chunks, place, key);
        if let Some(there) = shard.find_mut(hash(key), is_key) {
            *there = place;
            return;
        }
        let hash_of =
            |&place: &u32| at(chunks, place).map_or(0, |entry| hash(&entry.kept.keyed.key));
        shard.insert_unique(hash(key), place, hash_of);
    }

    /// Removes the key that was inserted last, because its operation was not applied.
    pub(crate) fn undo_insert(&mut self) {
        let place = self.newest;
        let is_settled = |entry: &Entry| entry.next != UNSETTLED;
        if self.entry(place).is_none_or(is_settled) {
            return;
        }
        if self.unsettled == place {
            self.unsettled = NONE;
        }
        self.remove(place);
    }

    /// Makes the inserted keys permanent, and drops keys that are too old or too many.
    pub(crate) fn settle(&mut self, now_seconds: u32) {
        while let Some(entry) = self.entry_mut(self.unsettled) {
            entry.next = NONE;
            let (caller, newer) = (caller_of(&entry.kept.keyed.key), entry.newer);
            self.count(caller, self.unsettled);
            self.unsettled = newer;
        }
        while let Some(entry) = self.entry(self.oldest)
            && self.is_over(&entry.kept, now_seconds)
        {
            self.let_go(caller_of(&entry.kept.keyed.key));
        }
        while self.len > self.keys_max
            && let Some(caller) = self.has_most()
        {
            if self.early.is_multiple_of(self.keys_max.max(1)) {
                tracing::warn!(
                    idempotency_keys_max = self.keys_max,
                    callers = self.callers.len(),
                    "there are more idempotency keys than are kept: the oldest of the caller with \
                     the most are dropped early"
                );
            }
            self.early += 1;
            self.let_go(caller);
        }
    }

    /// Returns the caller that must lose a key.
    fn has_most(&self) -> Option<u16> {
        if planted!(OldestKeyGoes) {
            let oldest = self.entry(self.oldest)?;
            return Some(caller_of(&oldest.kept.keyed.key));
        }
        self.by_keys.last().map(|&(_, caller)| caller)
    }

    fn is_over(&self, kept: &Kept, now_seconds: u32) -> bool {
        now_seconds.saturating_sub(kept.at_seconds) >= self.retention_seconds
    }

    /// Counts the key at this place as its caller's newest.
    fn count(&mut self, caller: u16, place: u32) {
        let share = self.callers.get(&caller).copied();
        if let Some(before) = share.and_then(|share| self.entry_mut(share.newest)) {
            before.next = place;
        }
        let share = share.unwrap_or(Share {
            oldest: place,
            newest: place,
            keys: 0,
        });
        self.by_keys.remove(&(share.keys, caller));
        let share = Share {
            newest: place,
            keys: share.keys + 1,
            ..share
        };
        self.by_keys.insert((share.keys, caller));
        self.callers.insert(caller, share);
    }

    /// Drops a caller's oldest key.
    fn let_go(&mut self, caller: u16) {
        let Some(share) = self.callers.get(&caller).copied() else {
            return;
        };
        let next = self.entry(share.oldest).map_or(NONE, |entry| entry.next);
        self.by_keys.remove(&(share.keys, caller));
        if next == NONE {
            self.callers.remove(&caller);
        } else {
            let keys = share.keys - 1;
            let rest = Share {
                oldest: next,
                keys,
                ..share
            };
            self.callers.insert(caller, rest);
            self.by_keys.insert((keys, caller));
        }
        self.remove(share.oldest);
    }

    /// Frees the entry at this place, which counts against no caller any more.
    fn remove(&mut self, place: u32) {
        let room = self.room;
        let Some(entry) = self.entry_mut(place) else {
            return;
        };
        let (key, older, newer) = (entry.kept.keyed.key, entry.older, entry.newer);
        entry.newer = room;
        self.room = place;
        match self.entry_mut(older) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match self.entry_mut(newer) {
            Some(after) => after.older = older,
            None => self.newest = older,
        }
        if self.copying == place {
            self.copying = newer;
        }
        self.len -= 1;
        // Unless the key was used again since, the table still points to this entry.
        let shard = &mut self.shards[shard_of(&key)];
        if let Ok(entry) = shard.find_entry(hash(&key), |&each| each == place) {
            entry.remove();
        }
    }

    /// Puts a key into a free entry, or into a new one at the end.
    fn take_room(&mut self, entry: Entry) -> u32 {
        let room = self.room;
        if let Some(there) = self.entry_mut(room) {
            let next = there.newer;
            *there = entry;
            self.room = next;
            return room;
        }
        let is_full = |last: &Vec<Entry>| last.len() == CHUNK_KEYS;
        if self.chunks.last().is_none_or(is_full) {
            self.chunks.push(Vec::with_capacity(CHUNK_KEYS));
        }
        let full = (self.chunks.len() - 1) * CHUNK_KEYS;
        let Some(last) = self.chunks.last_mut() else {
            unreachable!("there is a chunk")
        };
        let Ok(place) = u32::try_from(full + last.len()) else {
            unreachable!("keys_max is at most 2^31")
        };
        last.push(entry);
        place
    }

    fn place(&self, key: &[u8; 16]) -> Option<u32> {
        let shard = &self.shards[shard_of(key)];
        let is_key = |&place: &u32| is_key_at(&self.chunks, place, key);
        shard.find(hash(key), is_key).copied()
    }

    fn entry(&self, place: u32) -> Option<&Entry> {
        at(&self.chunks, place)
    }

    fn entry_mut(&mut self, place: u32) -> Option<&mut Entry> {
        let place = place as usize;
        let chunk = self.chunks.get_mut(place / CHUNK_KEYS)?;
        chunk.get_mut(place % CHUNK_KEYS)
    }
}

fn at(chunks: &[Vec<Entry>], place: u32) -> Option<&Entry> {
    let place = place as usize;
    chunks.get(place / CHUNK_KEYS)?.get(place % CHUNK_KEYS)
}

fn is_key_at(chunks: &[Vec<Entry>], place: u32, key: &[u8; 16]) -> bool {
    at(chunks, place).is_some_and(|entry| is_same(&entry.kept.keyed.key, key))
}

fn shard_of(key: &[u8; 16]) -> usize {
    usize::from(key[0])
}

fn hash(key: &[u8; 16]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key[8..]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
