//! Restarts of the whole engine, with its threads: torn tails, damage, failed syncs, full disks.

use super::{
    disk::{Faults, Kept, TestDisk},
    rig::{Rig, random, serial_number, settings},
};
use crate::{
    Client, Engine, OpenError, Settings,
    format::{SegmentHeader, read_group},
};
use std::time::Duration;
use widgets_clock::SystemClock;
use widgets_registry::{
    Ask as _, Command, Fault, Kinds as _, Lookup, Name, Port, Ports, Rejection, Store as _, Widget,
};

pub(super) fn add(number: usize) -> Command {
    Command::AddWidget {
        serial_number: serial_number(number),
        name: Name::new("widget_name", "a name").expect("within the limits"),
        ports: Ports::new(&[Port::P, Port::R]).expect("two slots"),
    }
}

pub(super) fn open(disk: &TestDisk) -> Result<Engine, OpenError> {
    Engine::open_on(disk.clone(), SystemClock::new(), random(), &settings())
}

pub(super) async fn lookup(client: &Client, number: usize) -> Option<Widget> {
    client
        .ask(Lookup(serial_number(number)))
        .await
        .expect("answered")
}

pub(super) const SEGMENT_1: &str = "journal-0000000000000001";

#[tokio::test]
async fn answered_operations_survive_a_power_cut_across_segments() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    let client = engine.client();
    for number in 0..600 {
        client.submit(add(number)).await.expect("added");
    }
    let refused = client.submit(add(7)).await.expect_err("taken");
    assert_eq!(
        refused.to_string(),
        "duplicate key value violates unique constraint \"widgets_serial_number_key\""
    );
    let engine = open(&disk.after_power_cut(Kept::Nothing)).expect("recovered");
    let client = engine.client();
    for number in 0..600 {
        assert!(lookup(&client, number).await.is_some(), "widget {number}");
    }
    assert!(lookup(&client, 600).await.is_none());
}

#[tokio::test]
async fn older_files_are_removed_after_a_checkpoint() {
    const CHECKPOINT: &str = "checkpoint-0000000000000259";
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    let client = engine.client();
    for number in 0..600 {
        client.submit(add(number)).await.expect("added");
    }
    engine.checkpoint().expect("written");
    // The files are removed piece by piece, after the checkpoint.
    let is_left = |name: &String| {
        name.as_str() < CHECKPOINT || name == SEGMENT_1 || name.ends_with("_unfinished")
    };
    for _ in 0..6000 {
        if !disk.names().iter().any(is_left) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let names = disk.names();
    let checkpoints: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with("check"))
        .collect();
    assert_eq!(checkpoints, [CHECKPOINT]);
    assert!(!names.contains(&SEGMENT_1.into()), "{names:?}");
    // Nothing has changed, so the same checkpoint still counts.
    engine.checkpoint().expect("there");
    client.submit(add(600)).await.expect("added");
    drop(engine);
    let names = disk.names();
    assert!(
        !names.iter().any(|name| name.ends_with("_unfinished")),
        "{names:?}"
    );
    let engine = open(&disk).expect("checkpoint and journal");
    let client = engine.client();
    for number in 0..=600 {
        assert!(lookup(&client, number).await.is_some(), "widget {number}");
    }
}

#[tokio::test]
async fn metrics_report_operations_checkpoints_and_read_only_state() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    let registry = prometheus::Registry::new();
    engine
        .register_metrics(&registry)
        .expect("each name is new");
    for number in 0..3 {
        engine.client().submit(add(number)).await.expect("added");
    }
    engine.checkpoint().expect("written");
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .expect("valid metrics");
    for line in [
        "widgets_widgets 3",
        "widgets_free_slots{port=\"P\"} 3",
        "widgets_associations 0",
        "widgets_batch_operations_count 3",
        "widgets_commit_duration_seconds_count 3",
        "widgets_checkpoints_total{outcome=\"ok\"} 1",
        "widgets_checkpoint_duration_seconds_count 1",
        "widgets_journal_bytes 0",
        "widgets_queue_operations 0",
        "widgets_queue_bytes 0",
        "widgets_store_read_only 0",
    ] {
        assert!(
            text.lines().any(|each| each == line),
            "{line} is not in {text}"
        );
    }
    disk.set_faults(Faults {
        fail_sync: true,
        ..Faults::default()
    });
    engine
        .client()
        .submit(add(3))
        .await
        .expect_err("not durable");
    let metrics = registry.gather();
    let read_only = metrics
        .iter()
        .find(|each| each.name() == "widgets_store_read_only");
    let value = read_only.expect("registered").get_metric()[0]
        .get_gauge()
        .get_value();
    assert!(value > 0.0);
}

#[tokio::test]
async fn a_torn_journal_tail_is_truncated_and_overwritten() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    for number in 0..3 {
        engine.client().submit(add(number)).await.expect("added");
    }
    drop(engine);
    // No seal was written, and the last group loses its end, as after a crash halfway through its
    // write.
    disk.damage(SEGMENT_1, |segment| {
        let (last, seal) = last_groups(segment);
        segment[seal..].fill(0);
        let end = segment[last..].iter().rposition(|&byte| byte != 0);
        segment[last + end.expect("not empty")] = 0;
    });
    let engine = open(&disk).expect("the torn tail is no damage");
    let client = engine.client();
    assert!(lookup(&client, 1).await.is_some());
    assert!(lookup(&client, 2).await.is_none());
    client.submit(add(3)).await.expect("added");
    drop(engine);
    let engine = open(&disk).expect("no trace of the torn tail");
    assert!(lookup(&engine.client(), 3).await.is_some());
}

/// Returns where in a segment the last two groups begin.
fn last_groups(segment: &[u8]) -> (usize, usize) {
    let header = SegmentHeader::decode(segment).expect("a segment");
    let mut groups = Vec::new();
    let mut offset = 4096;
    while let Some(group) = read_group(&segment[offset..], &header) {
        groups.push(offset);
        offset += usize::try_from(group.bytes).expect("small");
    }
    match groups[..] {
        [.., last_but_one, last] => (last_but_one, last),
        _ => panic!("there are not two groups"),
    }
}

#[tokio::test]
async fn a_seal_distinguishes_damage_of_the_last_group_from_a_torn_tail() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    for number in 0..3 {
        engine.client().submit(add(number)).await.expect("added");
    }
    drop(engine);
    let clean = disk.content(SEGMENT_1);
    let (last, seal) = last_groups(&clean);
    for at in [last, last + 47, last + 48] {
        disk.damage(SEGMENT_1, |segment| segment[at] ^= 1);
        match open(&disk).err().expect("damaged") {
            OpenError::Damaged { file, offset, .. } => {
                assert_eq!((&*file, offset), (SEGMENT_1, last as u64));
            }
            error => panic!("{error}"),
        }
        disk.damage(SEGMENT_1, |segment| segment.clone_from(&clean));
    }
    // The seal itself acknowledges nothing, so a damaged seal is a torn end.
    disk.damage(SEGMENT_1, |segment| segment[seal + 40] ^= 1);
    let engine = open(&disk).expect("nothing that was answered is damaged");
    assert!(lookup(&engine.client(), 2).await.is_some());
    drop(engine);
    // One seal is enough: a start does not add another.
    let sealed = disk.content(SEGMENT_1);
    drop(open(&disk).expect("undamaged"));
    assert!(disk.content(SEGMENT_1) == sealed, "nothing happened");
}

/// Returns a store with a checkpoint, three groups after it, and two segments.
pub(super) async fn store_with_everything() -> TestDisk {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    let client = engine.client();
    for number in 0..10 {
        client.submit(add(number)).await.expect("added");
    }
    engine.checkpoint().expect("written");
    for number in 10..13 {
        client.submit(add(number)).await.expect("added");
    }
    drop(engine);
    disk
}

#[tokio::test]
async fn a_start_fails_and_names_the_damaged_file() {
    let disk = store_with_everything().await;
    let checkpoint = "checkpoint-000000000000000b";
    drop(open(&disk).expect("undamaged"));
    // The segment's header and first group, and every part of the checkpoint.
    let damages = [(SEGMENT_1, 21), (SEGMENT_1, 4096 + 40)]
        .into_iter()
        .chain([8, 15, 22, 30, 37, 42, 4096, 4101, 4105, 4109, 4140].map(|at| (checkpoint, at)));
    for (name, at) in damages {
        let clean = disk.content(name);
        disk.damage(name, |file| file[at] ^= 1);
        match open(&disk).err().expect("damaged") {
            OpenError::Damaged { file, .. } => assert_eq!(file, name),
            error => panic!("{name} at {at}: {error}"),
        }
        disk.damage(name, |file| *file = clean);
    }
    for length in [0, 43, 4100, 4200] {
        let clean = disk.content(checkpoint);
        disk.damage(checkpoint, |file| file.truncate(length));
        let error = open(&disk).err().expect("cut off").to_string();
        assert!(error.starts_with(checkpoint), "{error}");
        disk.damage(checkpoint, |file| *file = clean);
    }
    drop(open(&disk).expect("as it was"));
}

#[tokio::test]
async fn a_gap_before_the_next_segment_is_reported_where_it_begins() {
    let disk = TestDisk::default();
    let settings = Settings {
        checkpoint_journal_bytes: 1 << 20,
        ..settings()
    };
    let open = || Engine::open_on(disk.clone(), SystemClock::new(), random(), &settings);
    let engine = open().expect("a new store");
    for number in 0..400 {
        engine.client().submit(add(number)).await.expect("added");
    }
    drop(engine);
    disk.damage(SEGMENT_1, |segment| {
        let last = segment.iter().rposition(|&byte| byte != 0);
        segment[last.expect("not empty")] ^= 1;
    });
    let error = open().err().expect("damaged").to_string();
    assert!(
        error.starts_with(&format!("{SEGMENT_1} is damaged at byte "))
            && error.ends_with(" follows in journal-0000000000000002"),
        "{error}"
    );
    // If the next segment has lost all its groups instead, the gap begins there.
    disk.damage("journal-0000000000000002", |segment| {
        segment[4096..].fill(0);
    });
    disk.damage(SEGMENT_1, |segment| {
        let last = segment.iter().rposition(|&byte| byte != 0);
        segment[last.expect("not empty")] ^= 1;
    });
    let error = open().err().expect("damaged").to_string();
    assert!(
        error.starts_with("journal-0000000000000002 is damaged at byte 4096: change "),
        "{error}"
    );
}

#[tokio::test]
async fn a_start_fails_if_the_journal_ends_before_its_checkpoint() {
    let disk = store_with_everything().await;
    // As if the disk had lost the groups that were synced before the checkpoint was.
    disk.damage(SEGMENT_1, |segment| segment[4096 + 64..].fill(0));
    let error = open(&disk).err().expect("changes are missing").to_string();
    assert!(
        error.contains("the journal ends before change 2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_checkpoint_of_an_unknown_format_version_is_reported() {
    let disk = store_with_everything().await;
    disk.damage("checkpoint-000000000000000b", |file| {
        file[8] = 9;
        let checksum = crc32fast::hash(&file[..4092]);
        file[4092..4096].copy_from_slice(&checksum.to_le_bytes());
    });
    assert_eq!(
        open(&disk).err().expect("from the future").to_string(),
        "checkpoint-000000000000000b has format version 9, and this program reads versions 1 to 2"
    );
}

#[tokio::test]
async fn a_failed_sync_leaves_its_fate_unknown_and_the_store_read_only() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    let client = engine.client();
    client.submit(add(0)).await.expect("added");
    disk.set_faults(Faults {
        fail_sync: true,
        ..Faults::default()
    });
    let unknown = client.submit(add(1)).await.expect_err("not durable");
    assert!(
        matches!(unknown, Rejection::Fault(Fault::FateUnknown { .. })),
        "{unknown}"
    );
    // The disk works again, but that proves nothing about what the kernel dropped.
    disk.set_faults(Faults::default());
    let refused = client.submit(add(2)).await.expect_err("read-only");
    assert!(
        matches!(refused, Rejection::Fault(Fault::Unavailable { .. })),
        "{refused}"
    );
    assert!(client.ready().await.is_err());
    engine.checkpoint().expect_err("read-only");
    assert!(lookup(&client, 0).await.is_some());
    assert!(lookup(&client, 1).await.is_none());
    drop(engine);
    let engine = open(&disk.after_power_cut(Kept::Nothing)).expect("recovered");
    engine
        .client()
        .submit(add(2))
        .await
        .expect("writable after the restart");
}

#[tokio::test]
async fn operations_are_refused_while_the_disk_is_full() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    let client = engine.client();
    client.submit(add(0)).await.expect("added");
    disk.set_faults(Faults {
        is_full: true,
        ..Faults::default()
    });
    let mut added = 1;
    let refused = loop {
        match client.submit(add(added)).await {
            Ok(()) => added += 1,
            Err(rejection) => break rejection,
        }
        assert!(added < 10_000, "the segment must fill up");
    };
    assert!(
        matches!(refused, Rejection::Fault(Fault::Unavailable { .. })),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("no room in the journal"),
        "{refused}"
    );
    // Most of the segment was used by then.
    assert!(added > 120, "{added}");
    assert_eq!(lookup(&client, added).await, None);
    engine.checkpoint().expect_err("it needs space too");
    assert!(lookup(&client, 0).await.is_some());
    let unready = client.ready().await.expect_err("nothing can be written");
    assert!(
        unready.to_string().contains("no room in the journal"),
        "{unready}"
    );
    disk.set_faults(Faults::default());
    // No write needs to come first, because a load balancer that checks readiness would send none.
    for _ in 0..2400 {
        if client.ready().await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.submit(add(added)).await.expect("it said so");
    assert!(
        lookup(&client, added).await.is_some(),
        "there is space again"
    );
    engine.checkpoint().expect("there is space again");
    drop(engine);
    let engine = open(&disk.after_power_cut(Kept::Nothing)).expect("recovered");
    for number in 0..=added {
        assert!(
            lookup(&engine.client(), number).await.is_some(),
            "widget {number}"
        );
    }
}

/// Readiness reports how an operation would be answered, even if none has been refused yet.
#[tokio::test]
async fn a_store_started_on_a_full_disk_is_ready_only_if_it_can_write() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    let client = engine.client();
    client.submit(add(0)).await.expect("added");
    drop(engine);
    disk.set_faults(Faults {
        is_full: true,
        ..Faults::default()
    });
    let larger = Settings {
        segment_bytes: 4 * settings().segment_bytes,
        ..settings()
    };
    for added in 1.. {
        let engine = Engine::open_on(disk.clone(), SystemClock::new(), random(), &larger);
        let engine = engine.expect("the same store");
        let client = engine.client();
        let ready = client.ready().await;
        // The seal at the end of the last process may have taken the last room.
        let written = client.submit(add(added)).await;
        assert_eq!(ready.is_ok(), written.is_ok(), "{ready:?} {written:?}");
        if ready.is_err() {
            break;
        }
        let mut filled = 10_000 * added;
        while client.submit(add(filled)).await.is_ok() {
            filled += 1;
        }
    }
}

/// The configured segment size has room, but the file of the segment is shorter and cannot grow.
#[tokio::test]
async fn a_write_without_disk_space_ends_readiness_until_space_is_free() {
    let disk = TestDisk::default();
    let engine = open(&disk).expect("a new store");
    engine.client().submit(add(0)).await.expect("added");
    drop(engine);
    let larger = Settings {
        segment_bytes: 4 * settings().segment_bytes,
        ..settings()
    };
    let engine = Engine::open_on(disk.clone(), SystemClock::new(), random(), &larger);
    let engine = engine.expect("the same store");
    let client = engine.client();
    disk.set_faults(Faults {
        is_full: true,
        ..Faults::default()
    });
    let mut added = 1;
    let refused = loop {
        match client.submit(add(added)).await {
            Ok(()) => added += 1,
            Err(rejection) => break rejection,
        }
        assert!(added < 10_000, "the file must be full");
    };
    assert!(
        refused.to_string().contains("writing the journal failed"),
        "{refused}"
    );
    for _ in 0..3 {
        let unready = client.ready().await.expect_err("nothing can be written");
        assert!(
            unready.to_string().contains("writing the journal failed"),
            "{unready}"
        );
    }
    disk.set_faults(Faults::default());
    // No write needs to come first, because a load balancer that checks readiness would send none.
    // Each check reports what the one before it found.
    drop(client.ready().await);
    client.ready().await.expect("there is space again");
    client.submit(add(added)).await.expect("it said so");
    drop(engine);
    let engine = open(&disk.after_power_cut(Kept::Nothing)).expect("recovered");
    for number in 0..=added {
        assert!(
            lookup(&engine.client(), number).await.is_some(),
            "widget {number}"
        );
    }
}

/// The queue's limits keep batches shorter than a segment. If one were longer, it must not be
/// written beyond the segment's end, nor be waited for.
#[test]
fn a_batch_longer_than_a_segment_is_refused_and_the_next_is_accepted() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let long = |number| Command::AddWidget {
        serial_number: serial_number(number),
        name: Name::new("widget_name", "n".repeat(1000)).expect("within the limits"),
        ports: Ports::NONE,
    };
    let batch: Vec<_> = (0..16).map(long).collect();
    for answer in rig.submit(&batch) {
        let refused = answer.expect_err("16 kB do not fit into 8 kB");
        assert!(
            matches!(refused, Rejection::Fault(Fault::Unavailable { .. })),
            "{refused}"
        );
    }
    assert_eq!(rig.submit(&[long(0)]), [Ok(())]);
    for name in disk.names().iter().filter(|it| it.starts_with("journal")) {
        let bytes = disk.content(name).len() as u64;
        assert_eq!(bytes, settings().segment_bytes, "{name}");
    }
}
