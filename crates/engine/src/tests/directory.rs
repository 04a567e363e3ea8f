//! A directory of the operating system: who owns it, who has access, and what is created.

use super::{
    recovery::{add, lookup},
    rig::settings,
};
use crate::{DataDirectory, Engine, NoStore, OpenError};
use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};
use widgets_clock::SystemClock;
use widgets_pacing::{Mode, Pacing};
use widgets_registry::Kinds as _;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a new directory")
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().expect("text"))
        .collect();
    names.sort_unstable();
    names
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is this user's");
}

fn refused(path: &Path, no_store: NoStore) -> String {
    let refused = DataDirectory::open(path, no_store).expect_err("refused");
    let directory = path.display().to_string();
    refused.to_string().replace(&directory, "DIRECTORY")
}

#[tokio::test]
async fn a_data_directory_is_durable_and_locked_while_open() {
    let directory = temporary();
    let path = directory.path().join("data");
    let engine = Engine::open(&path, &settings()).expect("a new directory");
    for number in 0..300 {
        engine.client().submit(add(number)).await.expect("added");
    }
    engine.checkpoint().expect("written");
    engine.client().submit(add(300)).await.expect("added");
    let second = Engine::open(&path, &settings());
    let second = second.err().expect("it is in use");
    assert!(matches!(second, OpenError::Locked), "{second}");
    drop(engine);
    let engine = Engine::open(&path, &settings()).expect("the lock is gone");
    for number in 0..=300 {
        assert!(
            lookup(&engine.client(), number).await.is_some(),
            "widget {number}"
        );
    }
}

#[test]
fn a_non_empty_directory_without_a_store_is_refused_and_unchanged() {
    let directory = temporary();
    let path = directory.path();
    for name in ["b.txt", "a.txt", "checkpoint-1", "journal-of-a-journey"] {
        fs::write(path.join(name), "").expect("a file");
    }
    for no_store in [NoStore::Make, NoStore::Refuse] {
        assert_eq!(
            refused(path, no_store),
            "the directory DIRECTORY is not empty and has no store in it: it has 4 other entries, \
             such as \"a.txt\""
        );
    }
    assert_eq!(
        names(path),
        ["a.txt", "b.txt", "checkpoint-1", "journal-of-a-journey"]
    );
}

#[test]
fn harmless_files_do_not_prevent_opening_a_data_directory() {
    let directory = temporary();
    let path = directory.path();
    fs::create_dir(path.join("lost+found")).expect("a directory");
    // A first start that was killed leaves these.
    for name in ["lock", "journal-0000000000000001_unfinished"] {
        fs::write(path.join(name), "").expect("a file");
    }
    let data = DataDirectory::open(path, NoStore::Make).expect("it may make a store");
    assert!(data.is_new());
    let pacing = Pacing::new(Mode::Never, Arc::new(SystemClock::new()), ());
    drop(Engine::open_in(data, &settings(), Arc::new(pacing)).expect("a new store"));
    // In a directory that has a store, other files are ignored.
    fs::write(path.join("notes.txt"), "").expect("a file");
    let data = DataDirectory::open(path, NoStore::Refuse).expect("there is a store");
    assert!(!data.is_new());
}

#[test]
fn a_missing_store_is_refused_without_creating_anything() {
    let directory = temporary();
    let path = directory.path().join("typo");
    assert_eq!(
        refused(&path, NoStore::Refuse),
        "there is no store in DIRECTORY: there is no such directory"
    );
    assert!(!path.exists());
    fs::create_dir(&path).expect("a directory");
    assert_eq!(
        refused(&path, NoStore::Refuse),
        "there is no store in DIRECTORY: it is empty"
    );
    assert_eq!(names(&path), [""; 0]);
}

/// Opening a pipe blocks until its other end is opened, which may never happen.
#[tokio::test]
async fn a_pipe_in_place_of_a_store_file_is_refused_without_blocking() {
    let directory = temporary();
    let path = directory.path().join("data");
    let engine = Engine::open(&path, &settings()).expect("a new directory");
    engine.client().submit(add(0)).await.expect("added");
    engine.checkpoint().expect("written");
    engine.client().submit(add(1)).await.expect("added");
    drop(engine);
    let mut tried = 0;
    let is_read = |name: &String| name == "lock" || crate::files::is_store(name);
    for name in names(&path).into_iter().filter(is_read) {
        let (file, aside) = (path.join(&name), directory.path().join(&name));
        fs::rename(&file, &aside).expect("moved");
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.expect("mkfifo").success());
        let (told, tells) = std::sync::mpsc::channel();
        let opened = path.clone();
        std::thread::spawn(move || {
            let verified = crate::verify(&opened, &settings());
            let served = Engine::open(&opened, &settings());
            drop(told.send((verified.err(), served.err())));
        });
        let (verified, served) = tells
            .recv_timeout(std::time::Duration::from_mins(2))
            .expect("nobody waits for the pipe");
        for refused in [verified, served] {
            let refused = refused.expect("it cannot be read").to_string();
            let file = file.display();
            let wanted = format!("{file} is not a regular file, such as a pipe or a directory");
            assert!(refused.contains(&wanted), "{refused}");
        }
        fs::remove_file(&file).expect("removed");
        fs::rename(&aside, &file).expect("moved back");
        tried += 1;
    }
    // At least the lock, the file `store`, a checkpoint and a segment.
    assert!(tried >= 4, "{tried}");
    let engine = Engine::open(&path, &settings()).expect("as it was");
    assert!(lookup(&engine.client(), 1).await.is_some());
}

#[test]
fn created_files_are_accessible_only_to_their_owner() {
    let directory = temporary();
    let path = directory.path().join("above/data");
    drop(Engine::open(&path, &settings()).expect("a new directory"));
    assert_eq!(mode(&path), 0o700);
    let names = names(&path);
    assert!(names.len() > 1, "{names:?}");
    for name in names {
        assert_eq!(mode(&path.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn access_of_other_users_to_the_data_directory_is_reported() {
    let directory = temporary();
    let path = directory.path().join("data");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .expect("a directory");
    drop(Engine::open(&path, &settings()).expect("a new store"));
    let exposure = || {
        let data = DataDirectory::open(&path, NoStore::Refuse).expect("there is a store");
        let exposure = data.exposure().expect("its modes are read");
        exposure.map(|text| text.replace(&path.display().to_string(), "DIRECTORY"))
    };
    assert_eq!(exposure(), None);
    set_mode(&path.join("journal-0000000000000001"), 0o640);
    assert_eq!(
        exposure().as_deref(),
        Some(
            "DIRECTORY/journal-0000000000000001 has mode 0640: users other than its owner can access its \
             copies"
        )
    );
    set_mode(&path, 0o2750);
    assert_eq!(
        exposure().as_deref(),
        Some(
            "the data directory DIRECTORY has mode 2750: users other than its owner can access it"
        )
    );
}
