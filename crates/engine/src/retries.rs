//! Retries: which keys were used, for what, and with which outcome.
//!
//! A key that comes again gets its first outcome again, and nothing is applied twice. Owned by the
//! owner of the state, made durable with the operations themselves, and carried by checkpoints. Keys
//! are kept for a time and up to a number: past it the caller that has most loses its oldest. So a caller
//! with no more than its even share loses none before their time, however many another one uses.
//!
//! What a key costs is 52 bytes in chunks, which are used again, and about 10 in a table; nothing stalls
//! as they grow, as there is one chunk more at a time and the table grows by shards.

mod outcome;

pub(crate) use outcome::Outcome;

use crate::{Settings, format::Keyed};
use hashbrown::HashTable;
use siphasher::sip128::SipHasher24;
use std::collections::{BTreeMap, BTreeSet};
use widgets_registry::{Attempt, IdempotencyKey};

/// Keys lie in chunks of so many. Tests have few.
const CHUNK_KEYS: usize = if cfg!(test) { 4 } else { 4096 };

/// A power of two, for the first byte of a key's digest.
const SHARDS: usize = 256;

/// Where a digest of a key says whose share it counts against. Two bytes: what is known of callers takes a bounded
/// memory, and callers that meet in one number have one share together.
const CALLER: std::ops::Range<usize> = 6..8;

/// No place.
const NONE: u32 = u32::MAX;

/// In place of the next key of a caller: this one is not durable, and no caller's yet.
const UNSETTLED: u32 = u32::MAX - 1;

/// The digests of a key and of what it is used for. Persisted by their values: what is hashed never changes.
///
/// Two bytes of the key's are not of it: they say whose share it counts against. So a caller that comes again
/// by another way finds its key, and a journal of before there were shares is read as it is.
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

/// Whose share this key counts against.
fn caller_of(key: &[u8; 16]) -> u16 {
    u16::from_le_bytes([key[CALLER.start], key[CALLER.start + 1]])
}

/// Whether two digests are of one key, whoever's share it counts against.
fn is_same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one[..CALLER.start] == other[..CALLER.start] && one[CALLER.end..] == other[CALLER.end..]
}

/// A key that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) keyed: Keyed,
    /// When, in seconds since 1970.
    pub(crate) at_seconds: u32,
    pub(crate) outcome: Outcome,
}

const _: () = assert!(
    size_of::<Kept>() == 40,
    "the memory of a million keys hangs on this"
);

/// What is known of a key that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// How that went, if it was for the same request.
    pub(crate) outcome: Option<Outcome>,
    /// It is durable.
    pub(crate) is_settled: bool,
}

/// A place: a key that was used, or room for one.
struct Entry {
    kept: Kept,
    /// The one that was used before it, and the one after it; of room, the next room.
    older: u32,
    newer: u32,
    /// The next one of its caller.
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

/// Every key that is kept.
pub(crate) struct Retries {
    keys_max: u64,
    retention_seconds: u32,
    /// Places, some of which are room.
    chunks: Vec<Vec<Entry>>,
    /// The first room.
    room: u32,
    /// By the order of their use.
    oldest: u32,
    newest: u32,
    len: u64,
    /// The first that is not durable.
    unsettled: u32,
    /// The place of each key that was not used again after it.
    shards: Box<[HashTable<u32>]>,
    callers: BTreeMap<u16, Share>,
    /// How many keys each caller has: the last one has most.
    by_keys: BTreeSet<(u32, u16)>,
    /// How many went before their time.
    early: u64,
    /// What a checkpoint copies next, and how many more.
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

    /// How many keys are kept.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many the caller has that has most.
    pub(crate) fn most_of_a_caller(&self) -> u64 {
        self.by_keys.last().map_or(0, |&(keys, _)| u64::from(keys))
    }

    /// How many callers have keys.
    #[cfg(test)]
    pub(crate) fn callers(&self) -> usize {
        self.callers.len()
    }

    /// How many went before their time.
    pub(crate) fn early(&self) -> u64 {
        self.early
    }

    /// The keys in the order of their use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Kept> {
        let first = self.entry(self.oldest);
        std::iter::successors(first, |entry| self.entry(entry.newer)).map(|entry| &entry.kept)
    }

    /// A checkpoint begins to copy the keys that there are now.
    pub(crate) fn begin_copy(&mut self) {
        (self.copying, self.to_copy) = (self.oldest, self.len);
    }

    /// The next key that is to be copied, the oldest first. Where some went since the copying began, as many newer
    /// ones come in their places.
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

    /// Nothing is left to copy.
    pub(crate) fn is_copied(&self) -> bool {
        self.to_copy == 0 || self.copying == NONE
    }

    /// What is known of this key at this time; `None` where it is free.
    pub(crate) fn find(&self, keyed: &Keyed, now_seconds: u32) -> Option<Found> {
        let entry = self.entry(self.place(&keyed.key)?)?;
        let kept = &entry.kept;
        let is_same = kept.keyed.request == keyed.request;
        (!self.is_over(kept, now_seconds)).then_some(Found {
            outcome: is_same.then_some(kept.outcome),
            is_settled: entry.next != UNSETTLED,
        })
    }

    /// Remembers a key. One that is there already as it is now, as where a checkpoint is newer than
    /// the part of the journal that is replayed, changes nothing.
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

    /// Takes back the key that was inserted last, as its operation was not applied.
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

    /// What was inserted stays. Lets go of what is too old or too much.
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
                    "more idempotency keys than are kept: the oldest of the caller that has most go \
                     before their time"
                );
            }
            self.early += 1;
            self.let_go(caller);
        }
    }

    /// The caller that must make room.
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

    /// The key at this place is its caller's newest.
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

    /// Lets go of a caller's oldest key.
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

    /// Makes room of a place, which no caller counts any more.
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
        // Unless the key was used again since.
        let shard = &mut self.shards[shard_of(&key)];
        if let Ok(entry) = shard.find_entry(hash(&key), |&each| each == place) {
            entry.remove();
        }
    }

    /// Puts a key where there is room, or behind all.
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
            unreachable!("keys_max is far below 2^32")
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
