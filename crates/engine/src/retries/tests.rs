//! Keys against the simplest model that does the same.

use super::*;
use widgets_registry::{
    Author, Command, Pair, Port, SerialNumber, State as _, decide, query::Asker,
};

fn settings(keys_max: u64) -> Settings {
    Settings {
        idempotency_keys_max: keys_max,
        idempotency_retention_hours: 1,
        ..Settings::default()
    }
}

/// Returns keys of three callers, in a few shards and with few hashes.
fn keyed(key: u8, request: u8) -> Keyed {
    let mut digest = [key; 16];
    digest[0] = key % 2;
    digest[CALLER].copy_from_slice(&[key % 3, 0]);
    digest[8..].fill(key % 5);
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

/// The simplest model that does the same.
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

    fn settle(&mut self, keys_max: usize, now: u32) {
        self.0.retain(|kept| now - kept.at_seconds < 3600);
        while self.0.len() > keys_max {
            let caller = |kept: &Kept| kept.keyed.key[CALLER.start];
            let keys_of = |it| self.0.iter().filter(|kept| caller(kept) == it).count();
            let most = (0..3).max_by_key(|&it| (keys_of(it), it));
            let oldest = self.0.iter().position(|kept| Some(caller(kept)) == most);
            self.0.remove(oldest.expect("it has some"));
        }
    }
}

/// What is being copied while keys are added and dropped.
#[derive(Default)]
struct Copying {
    /// The keys that existed when the copying began, and were not dropped since.
    wanted: Vec<Kept>,
    copied: Vec<Kept>,
    is_on: bool,
}

#[test]
fn keys_are_found_until_they_expire_or_their_caller_has_too_many() {
    let mut chance = crate::tests::Chance(9);
    for keys_max in [1, 3, 5, 12, 100] {
        let mut retries = Retries::new(&settings(keys_max));
        let (mut model, mut now, mut copying) = (Model::default(), 1000, Copying::default());
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
                retries.undo_insert();
            } else {
                retries.settle(now);
                model.settle(usize::try_from(keys_max).expect("few"), now);
            }
            assert_eq!(retries.len(), model.0.len() as u64);
            assert!(retries.iter().eq(&model.0));
            for key in 0..30 {
                for request in 1..3 {
                    let keyed = keyed(key, request);
                    // The keys of a failed commit are gone, and the others are durable.
                    let found = retries.find(&keyed, now);
                    let found = found.map(|found| Found {
                        is_settled: true,
                        ..found
                    });
                    assert_eq!(found, model.find(&keyed, now));
                }
            }
            copying.wanted.retain(|kept| model.0.contains(kept));
            if !copying.is_on {
                retries.begin_copy();
                copying = Copying {
                    wanted: model.0.clone(),
                    copied: Vec::new(),
                    is_on: true,
                };
            }
            copying.copied.extend(retries.copy_next());
            if retries.is_copied() {
                let is_copied = |kept: &Kept| copying.copied.contains(kept);
                assert!(copying.wanted.iter().all(is_copied));
                assert!(copying.copied.is_sorted_by_key(|kept| kept.at_seconds));
                copying.is_on = false;
            }
        }
        assert!(retries.chunks.len() * CHUNK_KEYS <= 100 + 2 * CHUNK_KEYS);
    }
}

/// A caller with no more than its even share loses nothing, however many other callers there are
/// and however many keys they use.
#[test]
fn each_caller_keeps_its_even_share_of_the_keys() {
    let key = |caller: u8, number: u16| {
        let mut digest = [caller; 16];
        digest[..2].copy_from_slice(&number.to_le_bytes());
        digest[CALLER].copy_from_slice(&[caller, 1]);
        Kept {
            keyed: Keyed {
                key: digest,
                request: [1; 16],
            },
            at_seconds: 7,
            outcome: Outcome::Accepted,
        }
    };
    let mut retries = Retries::new(&settings(1000));
    let mut numbers = 0..;
    let modest: Vec<_> = numbers.by_ref().take(100).map(|it| key(0, it)).collect();
    for &kept in &modest {
        retries.insert(kept);
    }
    retries.settle(7);
    // Nine other callers, one after the other, each with more keys than all may have together.
    for (caller, number) in (1..10).flat_map(|caller| (0..1100).map(move |it| (caller, it))) {
        retries.insert(key(caller, number));
        retries.settle(7);
    }
    assert_eq!(retries.len(), 1000);
    assert!(
        modest
            .iter()
            .all(|kept| retries.find(&kept.keyed, 7).is_some())
    );
    assert_eq!(retries.most_of_a_caller(), 100);
    assert_eq!(retries.early(), 100 + 9 * 1100 - 1000);
    // A caller that uses more than its share loses its own keys, the oldest first.
    retries.insert(key(0, 5000));
    retries.settle(7);
    assert_eq!(retries.find(&modest[0].keyed, 7), None);
    assert!(retries.find(&modest[1].keyed, 7).is_some());
}

/// The bytes of a digest that identify the share are not part of the key.
#[test]
fn a_key_is_found_whichever_share_it_counts_against() {
    let mut retries = Retries::new(&settings(10));
    let [mut here, mut there] = [kept(1, 5); 2];
    here.keyed.key[CALLER].fill(1);
    there.keyed.key[CALLER].fill(2);
    retries.insert(here);
    retries.settle(5);
    let found = retries.find(&there.keyed, 5).expect("it is the same key");
    assert_eq!(found.outcome, Some(here.outcome));
}

/// The journal that is replayed over a checkpoint can have keys that the checkpoint has as well.
#[test]
fn a_key_inserted_again_by_replay_is_kept_once() {
    let mut retries = Retries::new(&settings(10));
    for key in [1, 2, 1, 2, 3] {
        retries.insert(kept(key, 5));
    }
    assert_eq!(retries.len(), 3);
}

/// A state in which nothing exists, or everything is as the test says.
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
fn the_exact_answer_is_rebuilt_from_every_stored_outcome() {
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
    let command = Command::RemoveWidget {
        serial_number: SerialNumber::new("widget_sn", "E").expect("valid"),
    };
    let key = IdempotencyKey::new("k").expect("a key");
    let attempt = |author: &str, asker: u64| Attempt {
        command: command.clone(),
        author: Author::new(author),
        key: Some(key.clone()),
        asker: Asker(asker),
    };
    let keyed = digest(&[7; 16], &key, &attempt("alice", 1));
    let nobody = digest(&[7; 16], &key, &attempt("", 1));
    assert!(
        !is_same(&keyed.key, &nobody.key),
        "keys belong to their callers"
    );
    assert_eq!(keyed.request, nobody.request);
    let elsewhere = digest(&[8; 16], &key, &attempt("alice", 1));
    assert!(!is_same(&keyed.key, &elsewhere.key));
    let other = digest(&[7; 16], &key, &attempt("alice", 2));
    assert!(is_same(&keyed.key, &other.key));
    assert_ne!(caller_of(&keyed.key), caller_of(&other.key));
    let hex = [keyed.key, keyed.request].map(|it| format!("{:032x}", u128::from_be_bytes(it)));
    let hex = hex.concat();
    // All bytes but the two of the caller are the same as before there were shares.
    assert_eq!(hex[..12], *"e4005f143d56");
    assert_eq!(
        hex[16..],
        *"bedd310af6f4e8a8ded2ec47003ad30dd29488386e4b593a"
    );
    assert_eq!(hex[12..16], *"7bcd");
}
