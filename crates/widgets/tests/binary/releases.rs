//! What earlier releases wrote can be read: data directories, dumps, configuration files and
//! reports, which the programs of those releases created (`release/fixtures`).

use crate::{
    asking::{answer, ask, connect},
    command_line::run,
    postgres_server::{self, Server, binary},
    service::{Directory, Service, migrate, widgets},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the folder of each release.
fn releases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/releases");
    let entries = fs::read_dir(folder).expect("tests/releases");
    let releases: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(!releases.is_empty());
    releases
}

/// Returns a file of a release as text.
fn text(release: &Path, name: &str) -> String {
    let path = release.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

/// Returns what a data directory exports.
fn exported(directory: &Directory, data: &str) -> String {
    let (code, out, told) =
        run(widgets(directory.path()).args(["export", "-", "--data-dir", data]));
    assert_eq!(code, 0, "{told}");
    out
}

/// Checks that everything in the earlier answer is in the present one: members may be added, but
/// none may change.
fn assert_told_again(before: &Value, now: &Value) {
    let rows = |value: &Value| value.as_array().cloned().expect("an array");
    let (before, now) = (rows(before), rows(now));
    assert!(before.len() > 100, "{}", before.len());
    assert_eq!(before.len(), now.len());
    for (before, now) in before.iter().zip(&now) {
        for (member, value) in before.as_object().expect("an object") {
            assert_eq!(Some(value), now.get(member), "{member} of {before}");
        }
    }
}

/// Longer than any release is old.
const FOR_EVER: [&str; 4] = [
    "--changes-retention-hours",
    "1000000",
    "--idempotency-retention-hours",
    "1000000",
];

/// Sends the first and the refused request of `release/fixtures` again, with their keys.
fn assert_keys_are_known(service: &Service) {
    let again = |key: &str, widget_sn: &str, name: &str, slots: &str| {
        let body = format!(
            "{{\"widget_sn\":\"{widget_sn}\",\"widget_name\":\"{name}\",\"slots\":{slots}}}"
        );
        let headers = format!("Content-Type: application/json\r\nIdempotency-Key: \"{key}\"\r\n");
        let line = "POST /rpc/add_widget";
        ask(&mut connect(service), line, &headers, &body).0
    };
    let slots = "[\"P\",\"R\",\"R\"]";
    // Without its key it would be refused, because the widget exists.
    assert_eq!(again("key-1", "w-1", "name ä \\\" 1", slots), 204);
    assert_eq!(again("key-63", "w-1", "refused", "[]"), 409);
    assert_eq!(again("key-63", "w-1", "another", "[]"), 422);
}

#[test]
fn data_directories_of_every_release_are_read() {
    for release in releases() {
        let dump = text(&release, "widgets.jsonl");
        for how in ["stopped", "killed"] {
            let directory = Directory::new("release");
            let data = directory.path().join("widgets-data");
            fs::create_dir(&data).expect("a directory");
            let archive = release.join(how).with_extension("tar.gz");
            let mut tar = Command::new("tar");
            tar.arg("--extract").arg("--file").arg(&archive);
            let (code, _, told) = run(tar.arg("--directory").arg(&data));
            assert_eq!(code, 0, "{told}");
            let service = Service::start(directory.path(), &FOR_EVER);
            let (status, now) = answer(&service, "", "GET /changes?limit=1000", "");
            assert_eq!(status, 200, "{now}");
            let json = |text: &str| serde_json::from_str(text).expect("JSON");
            let before = text(&release, &format!("{how}.changes.json"));
            assert_told_again(&json(&before), &json(&now));
            assert_keys_are_known(&service);
            drop(service);
            // Converted if necessary, and started a second time.
            let service = Service::start(directory.path(), &FOR_EVER);
            assert_keys_are_known(&service);
            drop(service);
            let now = exported(&directory, "widgets-data");
            assert_eq!(lines(&dump), lines(&now), "{}: {how}", release.display());
        }
    }
}

/// Returns what an export of this database contains.
fn exported_from(directory: &Directory, url: &str) -> String {
    let (code, out, told) = run(widgets(directory.path()).args(["export", "-", "--store", url]));
    assert_eq!(code, 0, "{told}");
    out
}

/// Each dump is restored as docs/operations.md describes, on a server without any of the roles.
#[test]
fn databases_of_every_release_are_migrated() {
    for release in releases() {
        let server = Server::start(&["fsync=off"]);
        let client = |name: &str| {
            let mut client = Command::new(binary(name));
            client.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]);
            client.arg(server.port.to_string());
            client
        };
        postgres_server::run(client("createdb").arg("registry"));
        postgres_server::run(
            client("pg_restore")
                .args(["--dbname=registry", "--no-owner", "--no-privileges"])
                .arg("--exit-on-error")
                .arg(release.join("postgres.dump")),
        );
        let directory = Directory::new("release_database");
        migrate(directory.path(), &server.url("registry", "postgres"));
        let url = server.url("registry", "authenticator");
        let service = Service::start(
            directory.path(),
            &[["--store", url.as_str()].as_slice(), &FOR_EVER].concat(),
        );
        let dump = text(&release, "widgets.jsonl");
        let changes = release.join("postgres.changes.json");
        // The first release had neither changes nor idempotency keys in a database.
        if changes.exists() {
            let (status, now) = answer(&service, "", "GET /changes?limit=1000", "");
            assert_eq!(status, 200, "{now}");
            let json = |text: &str| serde_json::from_str(text).expect("JSON");
            let before = text(&release, "postgres.changes.json");
            assert_told_again(&json(&before), &json(&now));
            assert_keys_are_known(&service);
        }
        drop(service);
        let now = exported_from(&directory, &server.url("registry", "postgres"));
        assert_eq!(lines(&dump), lines(&now), "{}", release.display());
    }
}

#[test]
fn dumps_of_every_release_are_imported() {
    for release in releases() {
        let directory = Directory::new("release_dump");
        let dump = release.join("widgets.jsonl");
        let mut import = widgets(directory.path());
        let (code, _, told) = run(import.arg("import").arg(&dump).args(["--data-dir", "new"]));
        assert_eq!(code, 0, "{told}");
        let now = exported(&directory, "new");
        assert_eq!(lines(&text(&release, "widgets.jsonl")), lines(&now));
    }
}

#[test]
fn configuration_files_and_reports_of_every_release_are_read() {
    for release in releases() {
        let directory = Directory::new("release_files");
        let mut check = widgets(directory.path());
        check.args(["config", "check", "--config"]);
        let (code, _, told) = run(check.arg(release.join("widgets.toml")));
        assert_eq!((code, told.as_str()), (0, ""), "{}", release.display());
        let report = release.join("report.json");
        let mut compare = widgets(directory.path());
        let (code, out, told) = run(compare.args(["load", "compare"]).args([&report, &report]));
        assert_eq!((code, told.as_str()), (0, ""), "{out}");
    }
}
