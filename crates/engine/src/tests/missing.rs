//! Files that are missing, or belong to another store: a start reports them, and never treats the
//! remaining files as a store.

use super::{
    disk::{Chance, Kept, TestDisk},
    recovery::{SEGMENT_1, add, lookup, open, store_with_everything},
    rig::{random, settings},
};
use crate::{Engine, OpenError, Settings};
use widgets_clock::SystemClock;
use widgets_registry::Kinds as _;

#[tokio::test]
async fn a_foreign_missing_or_damaged_store_file_stops_the_start() {
    let (disk, other) = (TestDisk::default(), TestDisk::default());
    for (disk, salts) in [(&disk, 1), (&other, 2)] {
        let mut chance = Chance(salts);
        let random: crate::Random = Box::new(move || chance.number());
        let engine = Engine::open_on(disk.clone(), SystemClock::new(), random, &settings());
        let engine = engine.expect("a new store");
        engine.client().submit(add(0)).await.expect("added");
    }
    let store = disk.content("store");
    disk.put("store", other.content("store"));
    let error = open(&disk).err().expect("another store's").to_string();
    assert!(
        error.starts_with("journal-0000000000000001 is damaged: it is of the store "),
        "{error}"
    );
    disk.lose("store");
    assert_eq!(
        open(&disk).err().expect("whose is it?").to_string(),
        "store is missing: without it the state cannot be rebuilt"
    );
    disk.put("store", store);
    drop(open(&disk).expect("as it was"));
    disk.damage("store", |store| store[20] ^= 1);
    assert!(matches!(open(&disk), Err(OpenError::Damaged { file, .. }) if file == "store"));
}

#[tokio::test]
async fn a_start_fails_if_a_segment_or_checkpoint_is_missing() {
    let disk = store_with_everything().await;
    let without = |name| {
        let disk = disk.after_power_cut(Kept::Nothing);
        disk.lose(name);
        open(&disk).err().expect("something is missing").to_string()
    };
    // The checkpoint is always needed, because the segments do not have what came before it.
    assert_eq!(
        without(SEGMENT_1),
        format!("{SEGMENT_1} is missing: without it the state cannot be rebuilt")
    );
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    for number in 0..600 {
        engine.client().submit(add(number)).await.expect("added");
    }
    engine.checkpoint().expect("written");
    drop(engine);
    // A start removes what is left of older files.
    drop(open(&disk).expect("undamaged"));
    disk.lose("checkpoint-0000000000000259");
    assert_eq!(
        open(&disk).err().expect("no beginning").to_string(),
        NO_BEGINNING
    );
}

const NO_BEGINNING: &str = "there is neither a checkpoint nor journal-0000000000000001: without one of \
                            them the state cannot be rebuilt";

/// Returns a store without a checkpoint yet, in three segments.
async fn store_of_segments() -> TestDisk {
    let disk = TestDisk::default();
    let settings = Settings {
        checkpoint_journal_bytes: 1 << 20,
        ..settings()
    };
    let engine = Engine::open_on(disk.clone(), SystemClock::new(), random(), &settings);
    let engine = engine.expect("a new store");
    for number in 0..400 {
        engine.client().submit(add(number)).await.expect("added");
    }
    drop(engine);
    assert!(disk.names().len() > 3, "{:?}", disk.names());
    disk
}

#[tokio::test]
async fn a_store_without_its_journal_is_not_treated_as_new() {
    let disk = store_of_segments().await;
    let segments: Vec<_> = disk
        .names()
        .into_iter()
        .filter(|name| name.starts_with("journal-"))
        .collect();
    // One after the other from the first on, and from the last on.
    let from_last: Vec<_> = segments.iter().rev().cloned().collect();
    for order in [segments.clone(), from_last] {
        let disk = disk.after_power_cut(Kept::Nothing);
        for name in &order[..order.len() - 1] {
            disk.lose(name);
            if order[0] == SEGMENT_1 {
                let error = open(&disk).err().expect("no beginning");
                assert_eq!(error.to_string(), NO_BEGINNING);
            }
        }
        disk.lose(&order[order.len() - 1]);
        let error = open(&disk).err().expect("nothing is left");
        assert_eq!(error.to_string(), NO_BEGINNING);
        assert_eq!(disk.names(), ["store"], "nothing is made");
    }
    // A segment that lost its content is not an unused one.
    for content in [Vec::new(), vec![0; 12 << 10]] {
        let disk = disk.after_power_cut(Kept::Nothing);
        for name in &segments {
            disk.lose(name);
        }
        disk.put(SEGMENT_1, content);
        let error = open(&disk).err().expect("damaged");
        assert!(
            matches!(&error, OpenError::Damaged { file, .. } if file == SEGMENT_1),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_start_fails_if_a_checkpoint_has_no_journal() {
    let disk = store_with_everything().await;
    for name in disk.names() {
        if name.starts_with("journal-") {
            disk.lose(&name);
        }
    }
    assert_eq!(
        open(&disk).err().expect("no journal").to_string(),
        format!("{SEGMENT_1} is missing: without it the state cannot be rebuilt")
    );
    disk.lose("store");
    assert_eq!(
        open(&disk).err().expect("whose is it?").to_string(),
        "store is missing: without it the state cannot be rebuilt"
    );
}

#[tokio::test]
async fn an_interrupted_first_start_is_completed_if_its_segment_is_unused() {
    let disk = TestDisk::default();
    drop(open(&disk).expect("a new store"));
    let unused = disk.after_power_cut(Kept::Nothing);
    let keep_first = || {
        for name in unused.names() {
            if name != SEGMENT_1 {
                unused.lose(&name);
            }
        }
    };
    keep_first();
    let engine = open(&unused).expect("nothing was answered by it");
    engine.client().submit(add(0)).await.expect("added");
    drop(engine);
    let engine = open(&unused).expect("the same store");
    assert!(lookup(&engine.client(), 0).await.is_some());
    drop(engine);
    // A segment that was written to is not an unused one, whether or not it is readable.
    let used = unused.content(SEGMENT_1);
    keep_first();
    unused.damage(SEGMENT_1, |segment| segment[4096] ^= 1);
    let error = open(&unused).err().expect("damaged");
    assert!(
        matches!(&error, OpenError::Damaged { file, offset: 4096, .. } if file == SEGMENT_1),
        "{error}"
    );
    unused.damage(SEGMENT_1, |segment| *segment = used);
    assert_eq!(
        open(&unused).err().expect("whose is it?").to_string(),
        "store is missing: without it the state cannot be rebuilt"
    );
}
