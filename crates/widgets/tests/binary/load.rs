//! `widgets load` as a process: its signals and its files.

use crate::service::{Directory, Service, Signal, widgets};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

const REPORTS: [&str; 3] = ["report.json", "report.html", "report.hdr"];

/// Begins a load that would last for an hour, and that replaces the reports of the last one.
fn begin(directory: &Path, url: &str) -> Child {
    for report in REPORTS {
        fs::write(directory.join(report), "old").expect("a file");
    }
    widgets(directory)
        .args([
            "load",
            url,
            "--rate",
            "200",
            "--duration",
            "1h",
            "--warm-up",
            "0s",
        ])
        .args([
            "--json", REPORTS[0], "--html", REPORTS[1], "--hdr", REPORTS[2],
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs")
}

/// Waits until the load prints a line that begins with this text.
fn wait_for_lines(child: &mut Child, start: &str) {
    let stderr = child.stderr.take().expect("a pipe");
    let mut lines = BufReader::new(stderr).lines();
    let found = lines.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.trim().starts_with(start))
    });
    assert!(found.is_some(), "it does not say {start:?}");
    // A write to a pipe that nobody reads would fail.
    std::thread::spawn(move || lines.for_each(drop));
}

fn signal(child: &Child, signal: Signal) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, signal).expect("the process is there");
}

fn content(directory: &Path) -> [String; 3] {
    REPORTS.map(|report| fs::read_to_string(directory.join(report)).expect("text"))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().expect("text"))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn sigterm_and_sigint_end_a_load_with_its_audit_and_reports() {
    let directory = Directory::new("load_signals");
    let path = directory.path();
    let service = Service::start(path, &[]);
    let before = {
        drop(fs::File::create(path.join("report.json")));
        drop(fs::File::create(path.join("report.html")));
        drop(fs::File::create(path.join("report.hdr")));
        names(path)
    };
    for each in [Signal::TERM, Signal::INT] {
        let mut child = begin(path, &format!("http://{}", service.address));
        wait_for_lines(&mut child, "1.");
        signal(&child, each);
        let output = child.wait_with_output().expect("a process");
        let report = String::from_utf8(output.stdout).expect("text");
        assert_eq!(output.status.code(), Some(0), "{report}");
        assert!(
            report.contains("The load ended early: on request."),
            "{report}"
        );
        assert!(
            report.contains("Audit: ") && report.contains(" 0 faults"),
            "{report}"
        );
        let [json, html, hdr] = content(path);
        let json: serde_json::Value = serde_json::from_str(&json).expect("a whole report");
        assert!(json["audit"].is_object(), "{json}");
        assert!(html.ends_with("</html>\n") && hdr.contains("lookup"));
        assert_eq!(names(path), before);
    }
}

#[test]
fn an_interrupted_or_killed_load_leaves_the_previous_reports() {
    let directory = Directory::new("load_ended");
    let path = directory.path();
    // This peer accepts the connection, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    let child = begin(path, &url);
    let asked = silent.accept().expect("it asks");
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().expect("a process");
    drop(asked);
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("interrupted before the load began: nothing was sent"),
        "{told}"
    );
    assert_eq!(content(path), ["old"; 3]);
    assert_eq!(names(path), ["report.hdr", "report.html", "report.json"]);

    let service = Service::start(path, &[]);
    let mut child = begin(path, &format!("http://{}", service.address));
    wait_for_lines(&mut child, "1.");
    child.kill().expect("the process is there");
    child.wait().expect("a process");
    assert_eq!(content(path), ["old"; 3]);
}

/// The first process of a container ends only at signals that it handles.
#[test]
fn a_load_running_as_pid_1_ends_at_sigterm() {
    let apart = || {
        let mut apart = Command::new("unshare");
        apart.args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        apart
    };
    let may = apart().arg("true").status();
    if !may.is_ok_and(|status| status.success()) {
        println!("NOT checked: this machine lets nobody have processes of their own numbering");
        return;
    }
    // This peer accepts the connection, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    let mut load = apart();
    load.arg(env!("CARGO_BIN_EXE_widgets"))
        .args(["load", &url, "--duration", "1h"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let outer = load.spawn().expect("unshare runs");
    let asked = silent.accept().expect("it asks");
    let children = format!("/proc/{0}/task/{0}/children", outer.id());
    let inner = fs::read_to_string(children).expect("its children");
    let term = Command::new("kill").arg(inner.trim()).status();
    assert!(term.expect("kill runs").success());
    let output = outer.wait_with_output().expect("a process");
    drop(asked);
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("interrupted before the load began"), "{told}");
}
