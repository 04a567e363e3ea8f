//! `widgets load --during-crash` against the real service, which is killed and restarted under
//! load.

use std::{
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const WIDGETS: &str = env!("CARGO_BIN_EXE_widgets");

/// A service that is killed when this is dropped.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start(data_dir: &Path, listen: &str) -> Option<Self> {
        let mut child = Command::new(WIDGETS)
            .args(["serve", "--listen", listen, "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            Some(line.split_once("http://")?.1.to_owned())
        })?;
        // Its output stays open, so that it never writes to a closed pipe.
        thread::spawn(move || lines.for_each(drop));
        Some(Self { child, address })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SIGKILL: nothing is answered, nothing is closed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How many times the service is killed during one load.
const KILLS: usize = 5;

/// Returns the text of a load's report, and its log.
fn load_over_kills(more: &[&str]) -> io::Result<(String, String)> {
    let not_started = || io::Error::other("the service does not start");
    let directory = tempfile::tempdir()?;
    let data_dir = directory.path().join("data");
    let mut service = Service::start(&data_dir, "127.0.0.1:0").ok_or_else(not_started)?;
    let address = service.address.clone();
    let load = Command::new(WIDGETS)
        .args([
            "load",
            &format!("http://{address}"),
            "--during-crash",
            "--plain",
        ])
        .args(["--rate", "max", "--duration", "10s", "--warm-up", "0s"])
        .args(["--connections", "16", "--audit", "all"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(800));
        drop(service);
        service = Service::start(&data_dir, &address).ok_or_else(not_started)?;
    }
    let output = load.wait_with_output()?;
    drop(service);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{log}");
    // The crash was noticed: connections were reopened.
    assert!(!text.contains(" 0 reconnects"), "{text}\n{log}");
    assert!(text.contains(", 0 faults"), "{text}\n{log}");
    Ok((text, log))
}

#[test]
fn no_acknowledged_operation_is_lost_in_kills_under_load() {
    // The feed of changes is followed across the kills. It must agree about the operations without
    // an answer.
    let (text, log) = load_over_kills(&["--follow-changes"]).unwrap();
    assert_eq!(text.matches(", 0 faults").count(), 2, "{text}\n{log}");
    // The fates of some operations were unknown until the audit.
    assert!(
        !text.contains(" and 0 operations of unknown fate"),
        "{text}\n{log}"
    );
}

#[test]
fn with_idempotency_keys_no_fate_is_unknown_after_kills() {
    let (text, log) = load_over_kills(&["--idempotency-keys", "--follow-changes"]).unwrap();
    assert_eq!(text.matches(", 0 faults").count(), 2, "{text}\n{log}");
    assert!(text.contains(" sent again"), "{text}\n{log}");
    assert!(
        text.contains(" and 0 operations of unknown fate"),
        "{text}\n{log}"
    );
}

/// A request with a key is sent again while there is no server. Meanwhile, the load says that it has
/// no connection.
#[test]
fn a_load_with_idempotency_keys_reports_a_lost_service() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(&directory.path().join("data"), "127.0.0.1:0").unwrap();
    let mut load = Command::new(WIDGETS)
        .args(["load", &format!("http://{}", service.address)])
        .args(["--during-crash", "--idempotency-keys", "--plain"])
        .args(["--rate", "max", "--duration", "10s", "--warm-up", "0s"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(load.stderr.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains(" failed ")), "it has begun");
    drop(service);
    let reported = lines.any(|line| line.contains("no connection: "));
    load.kill().unwrap();
    load.wait().unwrap();
    assert!(reported);
}
