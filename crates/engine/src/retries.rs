//! Retries: which keys were used, for what, and with which outcome.
//!
//! A key that comes again gets its first outcome again, and nothing is applied twice. Owned by the
//! owner of the state, made durable with the operations themselves, and carried by checkpoints. Keys
//! are kept for a time and up to a number: past it the oldest go early. What a key costs is 40 bytes
//! in a ring by age and about 10 in a table; nothing stalls as they grow, as the ring grows by chunks
//! and the table by shards.

use crate::{Settings, format::Keyed};
use hashbrown::HashTable;
use siphasher::sip128::SipHasher24;
use std::collections::VecDeque;
use widgets_registry::{Author, Command, IdempotencyKey, Refusal};

/// Keys lie in chunks of so many. Tests have few.
const CHUNK_KEYS: usize = if cfg!(test) { 4 } else { 4096 };

/// A power of two, for the first byte of a key's digest.
const SHARDS: usize = 256;

macro_rules! outcomes {
    ($($(#[doc = $meaning:literal])+ $outcome:ident = $byte:literal,)+) => {
        /// How a keyed operation went. Together with the operation it makes the answer again.
        /// Persisted: never renumber.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Outcome {
            $($(#[doc = $meaning])+ $outcome = $byte,)+
        }

        impl Outcome {
            pub(crate) fn to_byte(self) -> u8 {
                self as u8
            }

            pub(crate) fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$outcome),)+
                    _ => None,
                }
            }
        }
    };
}

outcomes! {
    /// It was applied.
    Accepted = 0,
    /// 23505.
    SerialNumberTaken = 1,
    /// WG001: the widget, or the one named first.
    FirstMissing = 2,
    /// WG001: the one named second.
    SecondMissing = 3,
    /// WG002: the one named first.
    FirstHasNoFreeSlot = 4,
    /// WG002: the one named second.
    SecondHasNoFreeSlot = 5,
    /// WG003.
    AlreadyAssociated = 6,
    /// WG004.
    NotAssociated = 7,
}

impl Outcome {
    /// The outcome of this command. `None` for a refusal that no state is needed for: it is given
    /// before anything is decided.
    pub(crate) fn of<T>(command: &Command, decided: &Result<T, Refusal>) -> Option<Self> {
        let Err(refusal) = decided else {
            return Some(Self::Accepted);
        };
        let is_second = |serial_number| match command {
            Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
                pair.widget2() == serial_number
            }
            Command::AddWidget { .. } | Command::RemoveWidget { .. } => false,
        };
        Some(match refusal {
            Refusal::SerialNumberTaken { .. } => Self::SerialNumberTaken,
            Refusal::WidgetMissing { serial_number } if is_second(serial_number) => {
                Self::SecondMissing
            }
            Refusal::WidgetMissing { .. } => Self::FirstMissing,
            Refusal::NoFreeSlot { serial_number, .. } if is_second(serial_number) => {
                Self::SecondHasNoFreeSlot
            }
            Refusal::NoFreeSlot { .. } => Self::FirstHasNoFreeSlot,
            Refusal::AlreadyAssociated { .. } => Self::AlreadyAssociated,
            Refusal::NotAssociated { .. } => Self::NotAssociated,
            _ => return None,
        })
    }

    /// What was answered to this command. `None` where it cannot have had this outcome.
    pub(crate) fn answer(self, command: &Command) -> Option<Result<(), Refusal>> {
        let pair = match command {
            Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => Some(pair),
            Command::AddWidget { .. } | Command::RemoveWidget { .. } => None,
        };
        Some(Err(match (self, command) {
            (Self::Accepted, _) => return Some(Ok(())),
            (Self::SerialNumberTaken, Command::AddWidget { serial_number, .. }) => {
                Refusal::SerialNumberTaken {
                    serial_number: serial_number.clone(),
                }
            }
            (Self::FirstMissing, Command::RemoveWidget { serial_number }) => {
                Refusal::WidgetMissing {
                    serial_number: serial_number.clone(),
                }
            }
            (Self::FirstMissing, _) => Refusal::WidgetMissing {
                serial_number: pair?.widget1().clone(),
            },
            (Self::SecondMissing, _) => Refusal::WidgetMissing {
                serial_number: pair?.widget2().clone(),
            },
            (Self::FirstHasNoFreeSlot, Command::AssociateWidgets(pair)) => Refusal::NoFreeSlot {
                serial_number: pair.widget1().clone(),
                port: pair.port(),
            },
            (Self::SecondHasNoFreeSlot, Command::AssociateWidgets(pair)) => Refusal::NoFreeSlot {
                serial_number: pair.widget2().clone(),
                port: pair.port(),
            },
            (Self::AlreadyAssociated, Command::AssociateWidgets(pair)) => {
                Refusal::AlreadyAssociated {
                    widget1: pair.widget1().clone(),
                    widget2: pair.widget2().clone(),
                    port: pair.port(),
                }
            }
            (Self::NotAssociated, Command::RemoveAssociation(pair)) => Refusal::NotAssociated {
                widget1: pair.widget1().clone(),
                widget2: pair.widget2().clone(),
                port: pair.port(),
            },
            _ => return None,
        }))
    }
}

/// The digests of a key and of what it is used for. Persisted by their values: what is hashed never changes.
pub(crate) fn digest(
    secret: &[u8; 16],
    author: Option<&Author>,
    key: &IdempotencyKey,
    command: &Command,
) -> Keyed {
    let hash = |bytes: &[u8]| SipHasher24::new_with_key(secret).hash(bytes).as_bytes();
    let key = hash(&key.digested(author));
    let request = hash(&command.digested());
    Keyed { key, request }
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

/// Every key that is kept.
pub(crate) struct Retries {
    keys_max: u64,
    retention_seconds: u32,
    /// By age. Keys are numbered in the order of their use.
    chunks: VecDeque<Vec<Kept>>,
    /// The number of the first key in the first chunk.
    chunk_first: u64,
    first: u64,
    next: u64,
    /// Those below it are durable.
    settled: u64,
    /// The number of each key that was not used again after it, cut to 32 bits.
    shards: Box<[HashTable<u32>]>,
    /// How many went before their time.
    early: u64,
}

impl Retries {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            keys_max: settings.idempotency_keys_max,
            retention_seconds: settings.idempotency_retention_hours.saturating_mul(3600),
            chunks: VecDeque::new(),
            chunk_first: 0,
            first: 0,
            next: 0,
            settled: 0,
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            early: 0,
        }
    }

    /// How many keys are kept.
    pub(crate) fn len(&self) -> u64 {
        self.next - self.first
    }

    /// The numbers of the keys that are kept, from the oldest to the one after the newest.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.first..self.next
    }

    /// The key of this number, which is in [`Self::range`].
    pub(crate) fn get(&self, number: u64) -> Option<&Kept> {
        if !self.range().contains(&number) {
            return None;
        }
        place(&self.chunks, self.chunk_first, number)
    }

    /// What is known of this key at this time; `None` where it is free.
    pub(crate) fn find(&self, keyed: &Keyed, now_seconds: u32) -> Option<Found> {
        let number = self.number(&keyed.key)?;
        let kept = self.get(number)?;
        let is_same = kept.keyed.request == keyed.request;
        (!self.is_over(kept, now_seconds)).then_some(Found {
            outcome: is_same.then_some(kept.outcome),
            is_settled: number < self.settled,
        })
    }

    /// Remembers a key. One that is there already as it is now, as where a checkpoint is newer than
    /// the part of the journal that is replayed, changes nothing.
    pub(crate) fn insert(&mut self, kept: Kept) {
        let there = self.number(&kept.keyed.key);
        if there.and_then(|number| self.get(number)) == Some(&kept) {
            return;
        }
        let number = self.next;
        if self
            .chunks
            .back()
            .is_none_or(|last| last.len() == CHUNK_KEYS)
        {
            self.chunks.push_back(Vec::with_capacity(CHUNK_KEYS));
        }
        if let Some(last) = self.chunks.back_mut() {
            last.push(kept);
        }
        self.next += 1;
        let short = short(number);
        if let Some(there) = self.entry_mut(&kept.keyed.key) {
            *there = short;
            return;
        }
        let (chunks, chunk_first, first) = (&self.chunks, self.chunk_first, self.first);
        let hash_of = |&short: &u32| {
            let number = long(short, first);
            place(chunks, chunk_first, number).map_or(0, |kept| hash(&kept.keyed.key))
        };
        self.shards[shard_of(&kept.keyed.key)].insert_unique(hash(&kept.keyed.key), short, hash_of);
    }

    /// Takes back the key that was inserted last, as its operation was not applied.
    pub(crate) fn undo_insert(&mut self) {
        let Some(last) = self.next.checked_sub(1).filter(|&last| last >= self.first) else {
            return;
        };
        if let Some(kept) = self.get(last).copied() {
            self.forget(last, &kept.keyed.key);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.pop();
            if chunk.is_empty() {
                self.chunks.pop_back();
            }
        }
        self.next = last;
    }

    /// What was inserted stays. Lets go of what is too old or too much.
    pub(crate) fn settle(&mut self, now_seconds: u32) {
        self.settled = self.next;
        while let Some(oldest) = self.get(self.first).copied() {
            let is_over = self.is_over(&oldest, now_seconds);
            if !is_over && self.len() <= self.keys_max {
                break;
            }
            if !is_over {
                if self.early.is_multiple_of(self.keys_max.max(1)) {
                    tracing::warn!(
                        idempotency_keys_max = self.keys_max,
                        "more idempotency keys than are kept: the oldest go before their time"
                    );
                }
                self.early += 1;
            }
            self.forget(self.first, &oldest.keyed.key);
            self.first += 1;
            if self.first - self.chunk_first >= CHUNK_KEYS as u64 {
                self.chunks.pop_front();
                self.chunk_first += CHUNK_KEYS as u64;
            }
        }
    }

    /// How many went before their time.
    pub(crate) fn early(&self) -> u64 {
        self.early
    }

    fn is_over(&self, kept: &Kept, now_seconds: u32) -> bool {
        now_seconds.saturating_sub(kept.at_seconds) >= self.retention_seconds
    }

    /// Takes the key's number out of the table, unless the key was used again since.
    fn forget(&mut self, number: u64, key: &[u8; 16]) {
        let short = short(number);
        let shard = &mut self.shards[shard_of(key)];
        if let Ok(entry) = shard.find_entry(hash(key), |&each| each == short) {
            entry.remove();
        }
    }

    fn number(&self, key: &[u8; 16]) -> Option<u64> {
        let shard = &self.shards[shard_of(key)];
        let short = shard.find(hash(key), |&short| self.is_key(short, key));
        short.map(|&short| long(short, self.first))
    }

    fn entry_mut(&mut self, key: &[u8; 16]) -> Option<&mut u32> {
        let (chunks, chunk_first, first) = (&self.chunks, self.chunk_first, self.first);
        let is_key = |&short: &u32| {
            place(chunks, chunk_first, long(short, first))
                .is_some_and(|kept| kept.keyed.key == *key)
        };
        self.shards[shard_of(key)].find_mut(hash(key), is_key)
    }

    fn is_key(&self, short: u32, key: &[u8; 16]) -> bool {
        let kept = self.get(long(short, self.first));
        kept.is_some_and(|kept| kept.keyed.key == *key)
    }
}

fn place(chunks: &VecDeque<Vec<Kept>>, chunk_first: u64, number: u64) -> Option<&Kept> {
    let place = usize::try_from(number - chunk_first).ok()?;
    chunks.get(place / CHUNK_KEYS)?.get(place % CHUNK_KEYS)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
fn short(number: u64) -> u32 {
    number as u32
}

/// The number of a key that is kept, from its lower half: all that are kept are near the first.
fn long(number: u32, first: u64) -> u64 {
    first + u64::from(number.wrapping_sub(short(first)))
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
mod tests {
    use super::*;
    use widgets_registry::{Pair, Port, SerialNumber, State as _, decide};

    fn settings(keys_max: u64) -> Settings {
        Settings {
            idempotency_keys_max: keys_max,
            idempotency_retention_hours: 1,
            ..Settings::default()
        }
    }

    fn keyed(key: u8, request: u8) -> Keyed {
        // All in a few shards, and few hashes.
        let mut digest = [key; 16];
        digest[0] = key % 2;
        digest[8..].fill(key % 3);
        Keyed {
            key: digest,
            request: [request; 16],
        }
    }

    fn kept(key: u8, at_seconds: u32) -> Kept {
        Kept {
            keyed: keyed(key, 1),
            at_seconds,
            outcome: Outcome::NotAssociated,
        }
    }

    /// The simplest thing that does the same.
    #[derive(Default)]
    struct Model(Vec<Kept>);

    impl Model {
        fn find(&self, keyed: &Keyed, now: u32) -> Option<Found> {
            let kept = self.0.iter().rev().find(|kept| kept.keyed.key == keyed.key);
            let kept = kept.filter(|kept| now - kept.at_seconds < 3600)?;
            Some(Found {
                outcome: (kept.keyed.request == keyed.request).then_some(kept.outcome),
                is_settled: true,
            })
        }
    }

    #[test]
    fn keys_are_found_until_they_are_too_old_or_too_many() {
        let mut chance = crate::tests::Chance(9);
        for keys_max in [1, 3, 5, 12, 100] {
            let mut retries = Retries::new(&settings(keys_max));
            let (mut model, mut now) = (Model::default(), 1000);
            for _ in 0..600 {
                now += u32::try_from(chance.below(400)).expect("few");
                let before = model.0.len();
                for _ in 0..chance.below(4) {
                    let next = kept(u8::try_from(chance.below(30)).expect("few"), now);
                    if retries.find(&next.keyed, now).is_none() {
                        retries.insert(next);
                        model.0.push(next);
                    }
                }
                if chance.below(4) == 0 {
                    // The commit failed.
                    while model.0.len() > before {
                        model.0.pop();
                        retries.undo_insert();
                    }
                } else {
                    retries.settle(now);
                    model.0.retain(|kept| now - kept.at_seconds < 3600);
                    let over = model
                        .0
                        .len()
                        .saturating_sub(usize::try_from(keys_max).expect("few"));
                    model.0.drain(..over);
                }
                assert_eq!(retries.len(), model.0.len() as u64);
                let kept: Vec<_> = retries
                    .range()
                    .filter_map(|each| retries.get(each))
                    .collect();
                assert!(kept.iter().copied().eq(&model.0));
                for key in 0..30 {
                    for request in 1..3 {
                        let keyed = keyed(key, request);
                        // Those of a commit that failed are gone, and the others are durable.
                        let found = retries.find(&keyed, now);
                        let found = found.map(|found| Found {
                            is_settled: true,
                            ..found
                        });
                        assert_eq!(found, model.find(&keyed, now));
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_that_is_replayed_over_a_checkpoint_is_there_once() {
        let mut retries = Retries::new(&settings(10));
        for key in [1, 2, 1, 2, 3] {
            retries.insert(kept(key, 5));
        }
        assert_eq!(retries.len(), 3);
    }

    /// A state in which nothing is there, or everything is as it is told.
    struct Told {
        missing: Option<&'static str>,
        full: Option<&'static str>,
        associated: bool,
    }

    impl widgets_registry::State for Told {
        type Handle = u8;

        fn find(&self, serial_number: &SerialNumber) -> Option<u8> {
            (self.missing != Some(serial_number)).then(|| serial_number.as_bytes()[0])
        }

        fn free_slot(&self, widget: u8, _: Port) -> Option<widgets_registry::Ordinal> {
            let is_full = self.full.is_some_and(|full| full.as_bytes()[0] == widget);
            (!is_full).then(|| widgets_registry::Ordinal::new(0))?
        }

        fn slot_to(&self, _: u8, _: Port, _: u8) -> Option<widgets_registry::Ordinal> {
            self.associated.then(|| widgets_registry::Ordinal::new(0))?
        }
    }

    #[test]
    fn every_refusal_is_made_again_as_it_was() {
        let text = |text| SerialNumber::new("widget_sn", text).expect("valid");
        let pair = Pair::new(text("a"), text("b"), Port::R).expect("two widgets");
        let commands = [
            Command::AddWidget {
                serial_number: text("a"),
                name: widgets_registry::Name::new("name", "").expect("valid"),
                ports: widgets_registry::Ports::NONE,
            },
            Command::RemoveWidget {
                serial_number: text("a"),
            },
            Command::AssociateWidgets(pair.clone()),
            Command::RemoveAssociation(pair),
        ];
        let mut codes = Vec::new();
        for command in &commands {
            for missing in [None, Some("a"), Some("b")] {
                for full in [None, Some("a"), Some("b")] {
                    for associated in [false, true] {
                        let state = Told {
                            missing,
                            full,
                            associated,
                        };
                        let decided = decide(&state, command).map(|_| ());
                        let outcome = Outcome::of(command, &decided).expect("it rests on a state");
                        assert_eq!(Outcome::from_byte(outcome.to_byte()), Some(outcome));
                        assert_eq!(outcome.answer(command), Some(decided));
                        codes.push(outcome.to_byte());
                    }
                }
            }
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes, (0..8).collect::<Vec<_>>(), "every outcome was met");
        assert_eq!(Outcome::from_byte(8), None);
        assert!(
            Told {
                missing: None,
                full: None,
                associated: false
            }
            .find(&text("a"))
            .is_some()
        );
    }

    #[test]
    fn digests_never_change() {
        let author = Author::new("alice").expect("a name");
        let key = IdempotencyKey::new("k").expect("a key");
        let command = Command::RemoveWidget {
            serial_number: SerialNumber::new("widget_sn", "E").expect("valid"),
        };
        let keyed = digest(&[7; 16], Some(&author), &key, &command);
        let nobody = digest(&[7; 16], None, &key, &command);
        assert_ne!(keyed.key, nobody.key, "keys belong to their callers");
        assert_eq!(keyed.request, nobody.request);
        assert_ne!(
            keyed.key,
            digest(&[8; 16], Some(&author), &key, &command).key
        );
        let hex = [keyed.key, keyed.request].map(|it| format!("{:032x}", u128::from_be_bytes(it)));
        let hex = hex.concat();
        assert_eq!(
            hex,
            "e4005f143d563659bedd310af6f4e8a8ded2ec47003ad30dd29488386e4b593a"
        );
    }
}
