//! A restore drill for archives of format 1: an archive is kept here exactly as the program that
//! wrote it left it, and every later program must restore it to its newest moment, to an earlier
//! one, and across a restart.
//!
//! `newest.txt` has the widgets in the store when the archive was complete, one per line, and
//! `earlier.txt` those at the position in `earlier`, as `/widgets` returned them at those times.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::{collections::BTreeSet, fs, path::Path};
use widgets_archive::{ArchiveUrl, Bucket, Retries, Target, restore, verify};
use widgets_engine::{Bulk, DataDirectory, NoStore, Settings};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format_1");

/// Returns a copy of the archive, because opening an archive in a folder may write a lock there.
fn copied(to: &Path) -> Bucket {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("made");
        for entry in fs::read_dir(from).expect("read") {
            let entry = entry.expect("read");
            let to = to.join(entry.file_name());
            if entry.file_type().expect("known").is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).expect("copied");
            }
        }
    }
    copy(&Path::new(FOLDER).join("archive"), to);
    let url = format!("file://{}", to.display());
    let url: ArchiveUrl = url.parse().expect("a folder");
    Bucket::open(&url, Retries::Bucket).expect("opened")
}

/// Returns the widgets of a directory as the export writes them, one per line, in any order.
fn lines(path: &Path) -> BTreeSet<String> {
    let directory = DataDirectory::open(path, NoStore::Refuse).expect("a store");
    let bulk = Bulk::open(directory, &Settings::default()).expect("opened");
    bulk.widgets()
        .map(|widget| {
            let slots = widget.slots.iter().map(|slot| {
                let peer = slot.peer.as_ref().map(ToString::to_string);
                format!("{}:{}", slot.port, peer.unwrap_or_default())
            });
            let slots: Vec<_> = slots.collect();
            let (number, name) = (&widget.serial_number, &widget.name);
            format!("{number} {name} {}", slots.join(" "))
        })
        .collect()
}

fn expected(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(FOLDER).join(name)).expect("kept here");
    text.lines().map(Into::into).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_format_1_is_restored() {
    let folder = tempfile::tempdir().expect("a folder");
    let bucket = copied(&folder.path().join("archive"));
    let (manifest, report) = verify(&bucket, |_, _| {}).await.expect("verified");
    assert_eq!(report.problems, []);
    assert!(!manifest.checkpoints.is_empty() && manifest.stretches.len() > 1);
    let position = fs::read_to_string(Path::new(FOLDER).join("earlier")).expect("kept here");
    let position = position.trim().parse().expect("a position");
    for (target, name) in [
        (Target::Newest, "newest.txt"),
        (Target::Position(position), "earlier.txt"),
    ] {
        let path = folder.path().join(name);
        restore(&bucket, &path, target, &Settings::default(), |_| {})
            .await
            .expect("restored");
        assert_eq!(lines(&path), expected(name), "{name}");
    }
}
