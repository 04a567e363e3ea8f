//! How the service starts, and how it says that it cannot.

use crate::service::{Directory, Service, widgets};
use expect_test::expect;
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// What a service says that cannot start, and its exit code.
fn fails(directory: &Path, arguments: &[&str]) -> String {
    let output = widgets(directory)
        .env("WIDGETS_LISTEN", "127.0.0.1:0")
        .args(["serve", "--log-filter", "off"])
        .args(arguments)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn people_are_told_what_was_opened_and_where_it_listens() {
    let directory = Directory::new("start");
    for _ in 0..2 {
        let service = Service::start(directory.path(), &[]);
        let version = env!("CARGO_PKG_VERSION");
        let address = service.address;
        assert_eq!(
            service.printed,
            format!(
                "widgets {version}\nwidgets-data has 0 widgets and 0 associations\n\
                 widgets listens on http://{address}\n"
            )
        );
    }
}

#[test]
fn logs_are_json_for_programs() {
    let directory = Directory::new("json");
    let service = Service::start(directory.path(), &["--log-format", "json"]);
    let taken = service.address.to_string();
    let arguments = [
        "--log-format",
        "json",
        "--data-dir",
        "other",
        "--listen",
        &taken,
    ];
    let mut refused = Service::spawn(directory.path(), &arguments);
    assert_eq!(refused.wait().expect("a process").code(), Some(1));
    let log = Service::log(directory.path());
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(
            line["timestamp"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
    assert!(
        log.contains("\"level\":\"ERROR\"") && log.contains("cannot listen"),
        "{log}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let directory = Directory::new("port");
    let service = Service::start(directory.path(), &[]);
    let address = service.address.to_string();
    let told = fails(
        directory.path(),
        &["--data-dir", "other", "--listen", &address],
    );
    expect![[r#"
        error: cannot listen on ADDRESS: Address already in use (os error 98): another program listens there. Stop it, or give another port by --listen, 0 for any
    "#]].assert_eq(&told.replace(&address, "ADDRESS"));
}

#[test]
fn a_data_directory_in_use_is_named() {
    let directory = Directory::new("locked");
    let _service = Service::start(directory.path(), &[]);
    expect![[r#"
        error: the data directory widgets-data is in use by another process: stop that one, or give another directory by --data-dir
    "#]].assert_eq(&fails(directory.path(), &[]));
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let directory = Directory::new("no_directory");
    File::create(directory.path().join("file")).expect("a file");
    expect![[r#"
        error: opening the data directory file: File exists (os error 17)
    "#]]
    .assert_eq(&fails(directory.path(), &["--data-dir", "file"]));
}

#[test]
fn damage_is_named_and_stops_the_start() {
    let directory = Directory::new("damage");
    Service::start(directory.path(), &[]).kill();
    let segment = directory
        .path()
        .join("widgets-data/journal-0000000000000001");
    let file = OpenOptions::new()
        .write(true)
        .open(segment)
        .expect("the segment");
    // Within its header.
    file.write_all_at(b"?", 20).expect("written");
    expect![[r#"
        error: the data directory widgets-data is damaged: journal-0000000000000001 is damaged at byte 0: it does not begin with the header of such a file. Nothing was changed. Restore a copy of the directory; starting without the damaged part would serve a state that never was
    "#]].assert_eq(&fails(directory.path(), &[]));
}
