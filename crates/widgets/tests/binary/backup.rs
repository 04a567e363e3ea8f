//! `widgets backup`: who owns its files, and a service that has no backups to give. For what a
//! backup contains, see tests/archive/backup.py.

use crate::{
    asking::wait_until,
    postgres_server::Server,
    service::{Directory, Service, Signal, migrate, widgets},
};
use std::os::unix::fs::PermissionsExt as _;

/// An archive contains the whole data directory, so only its owner may read it, whatever the umask
/// of the caller is.
#[test]
fn an_archive_folder_is_accessible_only_to_its_owner() {
    let directory = Directory::new("backup-modes");
    let data = directory.path().join("data");
    let generated = widgets(directory.path())
        .args(["generate", "--widgets", "10", "--data-dir"])
        .arg(&data)
        .output();
    assert!(generated.expect("the binary runs").status.success());
    let archive = directory.path().join("archive");
    let taken = widgets(directory.path())
        .args(["backup", "--data-dir"])
        .arg(&data)
        .arg(format!("file://{}", archive.display()))
        .output()
        .expect("the binary runs");
    assert!(taken.status.success(), "{taken:?}");
    let (mut folders, mut files) = (vec![archive], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = path.metadata().expect("it is there");
            let mode = metadata.permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
            if metadata.is_dir() {
                folders.push(path);
            } else {
                files += 1;
            }
        }
    }
    assert!(files > 2, "{files}");
}

#[test]
fn backup_refuses_a_postgresql_service_and_suggests_pg_dump() {
    let directory = Directory::new("backup-postgres");
    let server = Server::start(&[]);
    let owner = server.database("registry", "postgres");
    migrate(directory.path(), &owner);
    let url = server.url("registry", "authenticator");
    let service = Service::start(directory.path(), &["--store", &url]);
    let to = directory.path().join("copy");
    let taken = widgets(directory.path())
        .args(["backup", &format!("http://{}", service.address), "--to"])
        .arg(&to)
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&taken.stderr);
    assert_eq!(taken.status.code(), Some(3), "{told}");
    assert!(told.contains("WG501") && told.contains("pg_dump"), "{told}");
}

/// Returns the output of a command that must succeed.
fn said(directory: &Directory, arguments: &[&str]) -> String {
    let mut command = widgets(directory.path());
    let done = command.args(arguments).output().expect("the binary runs");
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Returns what a command says that must fail with exit code 1.
fn refused(directory: &Directory, arguments: &[&str]) -> String {
    let mut command = widgets(directory.path());
    let done = command.args(arguments).output().expect("the binary runs");
    assert_eq!(done.status.code(), Some(1), "{arguments:?}: {done:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn a_backup_of_a_drill_does_not_take_the_archive_from_the_running_service() {
    let directory = Directory::new("backup-drill");
    let archive = format!("file://{}/archive", directory.path().display());
    let service = Service::start(directory.path(), &["--archive-url", &archive]);
    let url = format!("http://{}", service.address);
    let add = |name| said(&directory, &["add", name, "pump", "P", "--url", &url]);
    add("A1");
    wait_until("it is archived", || {
        let list = widgets(directory.path())
            .args(["archive", "list", &archive])
            .output();
        let listed = list.expect("the binary runs").stdout;
        String::from_utf8_lossy(&listed).contains("(entr")
    });
    said(&directory, &["restore", &archive, "--data-dir", "drill"]);
    let told = refused(&directory, &["backup", &archive, "--data-dir", "drill"]);
    assert!(
        told.contains("by another copy of this store: its writer 1 is in epoch 1, at entry ")
            && told.contains("an archive of its own"),
        "{told}"
    );
    add("LIVE");
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    let told = said(&directory, &["restore", &archive, "--data-dir", "restored"]);
    assert!(told.starts_with("restored 2 widgets"), "{told}");
    // The stopped store continues its own archive.
    said(
        &directory,
        &["backup", &archive, "--data-dir", "widgets-data"],
    );
}

#[test]
fn only_what_writes_creates_a_folder_for_an_archive() {
    let directory = Directory::new("backup-creates");
    let archive = format!("file://{}/above/archive", directory.path().display());
    for arguments in [
        &["archive", "list", &archive][..],
        &["archive", "verify", &archive],
        &["archive", "prune", &archive, "--keep", "1d"],
        &["archive", "drill", &archive, "--data-dir", "drill"],
        &["restore", &archive, "--data-dir", "restored"],
    ] {
        let told = refused(&directory, arguments);
        let expected = format!("error: there is no archive at {archive}\n");
        assert_eq!(told, expected, "{arguments:?}");
    }
    refused(&directory, &["backup", &archive, "--data-dir", "nothing"]);
    let left = std::fs::read_dir(directory.path()).expect("a folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_backup_of_an_unreachable_service_leaves_no_directory_for_an_empty_store() {
    let directory = Directory::new("backup-unreachable");
    std::fs::create_dir(directory.path().join("there")).expect("a new directory");
    for to in ["above/made", "there"] {
        let told = refused(&directory, &["backup", "http://127.0.0.1:1", "--to", to]);
        assert!(told.contains("connection refused"), "{told}");
    }
    assert!(!directory.path().join("above").exists());
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "there"];
    let told = refused(&directory, &serve);
    assert!(told.contains("did not finish"), "{told}");
}

#[test]
fn a_journal_or_archive_without_entries_is_reported_as_empty() {
    let directory = Directory::new("backup-nothing");
    let archive = format!("file://{}/archive", directory.path().display());
    let empty = format!("file://{}/empty", directory.path().display());
    said(
        &directory,
        &["generate", "--widgets", "10", "--data-dir", "data"],
    );
    let told = said(&directory, &["verify", "--data-dir", "data"]);
    assert!(told.ends_with("no entries in its journal\n"), "{told}");
    said(&directory, &["backup", &archive, "--data-dir", "data"]);
    let told = said(&directory, &["archive", "list", &archive]);
    assert!(told.contains("(no entries, epoch "), "{told}");
    // A store that has never received a request.
    let arguments = ["--archive-url", &empty, "--data-dir", "nothing"];
    let service = Service::start(directory.path(), &arguments);
    let manifest = directory.path().join("empty/manifest");
    wait_until("there is an archive", || manifest.exists());
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    let told = said(&directory, &["verify", "--data-dir", "nothing"]);
    assert!(
        told.ends_with("0 associations, no entries in its journal\n"),
        "{told}"
    );
    let beginning = "when the store was made";
    let told = said(&directory, &["archive", "list", &empty]);
    let expected = format!("every moment from {beginning} to {beginning} (no entries, epoch 1)\n");
    assert!(told.ends_with(&expected), "{told}");
    let told = said(&directory, &["archive", "verify", &empty]);
    assert!(
        told.ends_with(&format!("are intact, up to {beginning}\n")),
        "{told}"
    );
    let told = said(&directory, &["restore", &empty, "--data-dir", "restored"]);
    assert!(
        told.contains(&format!("\nup to {beginning} (position ")),
        "{told}"
    );
}
