//! How the service starts, and how it reports that it cannot.

use crate::{
    asking::{wait_for_log, wait_until},
    service::{Directory, Service, Signal, shim, widgets},
};
use expect_test::expect;
use std::{
    fs::{File, OpenOptions, Permissions},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::{
        fs::{FileExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Returns the message of a service that cannot start, and checks its exit code.
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
fn the_start_prints_the_version_the_store_and_the_address() {
    let directory = Directory::new("start");
    let data = directory.path().join("widgets-data");
    for opened in [
        format!("new store in {}", data.display()),
        "widgets-data has 0 widgets and 0 associations".into(),
    ] {
        let service = Service::start(directory.path(), &[]);
        let version = env!("CARGO_PKG_VERSION");
        let address = service.address;
        assert_eq!(
            service.printed,
            format!("widgets {version}\n{opened}\nwidgets listens on http://{address}\n")
        );
    }
}

#[test]
fn every_log_line_is_json_with_log_format_json() {
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
fn an_address_in_use_is_reported_before_a_store_is_created() {
    let directory = Directory::new("port");
    let service = Service::start(directory.path(), &[]);
    let address = service.address.to_string();
    let told = fails(
        directory.path(),
        &["--data-dir", "other", "--listen", &address],
    );
    expect![[r#"
        error: cannot listen on ADDRESS: Address already in use (os error 98): another program is listening there. Stop it, or give another port with --listen, 0 for any
    "#]].assert_eq(&told.replace(&address, "ADDRESS"));
    // The address comes first: nothing was opened or created.
    assert!(!directory.path().join("other").exists());
}

#[test]
fn serve_refuses_a_directory_of_other_files_and_leaves_it_unchanged() {
    let directory = Directory::new("foreign");
    let documents = directory.path().join("docs");
    std::fs::create_dir(&documents).expect("a directory");
    std::fs::write(documents.join("letter.txt"), "").expect("a file");
    expect![[r#"
        error: the directory docs is not empty and has no store in it: it has 1 other entry, such as "letter.txt". Give the directory of a store, or an empty or new one, with --data-dir; files of a store are named store, journal-… and checkpoint-…
    "#]]
    .assert_eq(&fails(directory.path(), &["--data-dir", "docs"]));
    assert_eq!(
        std::fs::read_dir(&documents).expect("it is there").count(),
        1
    );
}

#[test]
fn the_must_exist_setting_prevents_the_creation_of_a_store() {
    let directory = Directory::new("must_exist");
    let arguments = ["--must-exist"];
    expect![[r#"
        error: there is no store in widgets-data: there is no such directory. Correct --data-dir, or mount the volume that has the store; `widgets serve`, `generate` and `import` make a new one if store.must_exist is false
    "#]]
    .assert_eq(&fails(directory.path(), &arguments));
    assert!(!directory.path().join("widgets-data").exists());
    // An unmounted volume looks like an empty directory.
    std::fs::create_dir(directory.path().join("widgets-data")).expect("a directory");
    let told = fails(directory.path(), &arguments);
    assert!(
        told.contains("no store in widgets-data: it is empty"),
        "{told}"
    );
    Service::start(directory.path(), &[]).kill();
    Service::start(directory.path(), &arguments).kill();
}

#[test]
fn a_data_directory_accessible_to_other_users_is_logged() {
    let directory = Directory::new("exposed");
    Service::start(directory.path(), &[]).kill();
    let data = directory.path().join("widgets-data");
    let exposed = "users other than its owner can access it";
    assert!(!Service::log(directory.path()).contains(exposed));
    // Earlier versions created the directory with this mode.
    std::fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("it is ours");
    let service = Service::start(directory.path(), &[]);
    wait_for_log(
        directory.path(),
        "has mode 0755: users other than its owner can access it; `chmod -R go= widgets-data`",
    );
    service.kill();
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test gives a real process up in the end"
)]
/// Checks that the service ends at this signal although what it waits for never comes.
fn stops_during_its_start(
    directory: &Path,
    arguments: &[&str],
    variables: &[(&str, &Path)],
    waits: impl FnOnce(),
) {
    let mut service = Service::spawn_with(directory, arguments, variables);
    waits();
    let id = rustix::process::Pid::from_child(&service);
    rustix::process::kill_process(id, Signal::TERM).expect("the process is there");
    let deadline = Instant::now() + Duration::from_mins(1);
    let status = loop {
        if let Some(status) = service.try_wait().expect("a process") {
            break status;
        }
        if Instant::now() > deadline {
            service.kill().expect("the process is there");
            panic!("it does not hear the signal: {}", Service::log(directory));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
    assert!(Service::log(directory).contains("stopped during the start"));
}

#[test]
fn a_signal_during_recovery_stops_the_start() {
    let directory = Directory::new("signal_recovery");
    let path = directory.path();
    let (held, reached) = (path.join("held"), path.join("reached"));
    let shim = shim(path);
    File::create(&held).expect("a file");
    let variables = [
        ("LD_PRELOAD", shim.as_path()),
        ("HELD_SYNC", &held),
        ("HELD_SYNC_REACHED", &reached),
    ];
    let in_recovery = || wait_until("the sync is reached", || reached.exists());
    stops_during_its_start(path, &[], &variables, in_recovery);
    // The next start continues from there.
    Service::start(path, &[]).kill();
}

#[test]
fn a_signal_while_keys_are_fetched_stops_the_start() {
    let directory = Directory::new("signal_jwks");
    // This provider accepts the connection, and never answers.
    let provider = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", provider.local_addr().expect("its address"));
    let arguments = ["--jwks-url", &url, "--jwks-timeout-ms", "60s"];
    let mut connection = None;
    stops_during_its_start(directory.path(), &arguments, &[], || {
        connection = provider.accept().ok();
    });
    assert!(connection.is_some());
}

/// Lets a user run the service who is neither its owner nor root: another user, if this one is
/// root.
fn as_ordinary_user(command: &mut Command) -> &mut Command {
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

const NOBODY: u32 = 65_534;

/// Copies the program in a separate process. If this process copied it, a process that another test
/// starts meanwhile would inherit the open file, and the copy could not be run until that process
/// ends ("Text file busy").
fn copy_program(to: &Path) {
    let mut copy = Command::new("cp");
    let status = copy.arg(env!("CARGO_BIN_EXE_widgets")).arg(to).status();
    assert!(status.expect("cp runs").success());
}

#[test]
fn a_data_directory_can_be_used_below_an_unreadable_folder() {
    // In a place that every user can access, unlike the build folder.
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).expect("this is root");
    }
    let binary = parent.path().join("widgets");
    copy_program(&binary);
    // If the directory belonged to someone else, 0711 would do; its owner must not be able to read
    // it either.
    let mode = if rustix::process::getuid().is_root() {
        0o711
    } else {
        0o311
    };
    std::fs::set_permissions(parent.path(), Permissions::from_mode(mode)).expect("it is ours");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.current_dir("/").env_clear().args(arguments);
        let output = as_ordinary_user(&mut command).output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("text");
        (
            output.status.success(),
            told.replace(&parent.path().display().to_string(), "PARENT"),
        )
    };
    let data = data.display().to_string();
    // The directory existed before, so its name has most likely been durable for long.
    let (ok, told) = run(&["generate", "--widgets", "10", "--data-dir", &data]);
    assert!(ok, "{told}");
    assert!(
        told.contains("the folder PARENT cannot be synced"),
        "{told}"
    );
    let mut serve = Command::new(&binary);
    serve.current_dir("/").env_clear().stdout(Stdio::piped());
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", &data]);
    let mut service = as_ordinary_user(&mut serve).spawn().expect("it runs");
    let lines = BufReader::new(service.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let listens = lines.any(|line| line.starts_with("widgets listens on"));
    service.kill().expect("the process is there");
    service.wait().expect("a process");
    assert!(listens, "the service starts there as well");
    // If a directory cannot be created in the parent folder, the message is about that folder and
    // nothing else.
    let other = parent.path().join("other").display().to_string();
    let (ok, told) = run(&["generate", "--widgets", "10", "--data-dir", &other]);
    std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).expect("it is ours");
    if rustix::process::getuid().is_root() {
        assert!(
            !ok && told.contains("making the data directory PARENT/other: Permission denied"),
            "{told}"
        );
    } else {
        assert!(
            !ok && told.contains("syncing the folder PARENT, in which PARENT/other was made"),
            "{told}"
        );
    }
}

#[test]
fn a_data_directory_in_use_is_reported() {
    let directory = Directory::new("locked");
    let _service = Service::start(directory.path(), &[]);
    expect![[r#"
        error: the data directory widgets-data is in use by another process: stop that one, or give another directory with --data-dir
    "#]].assert_eq(&fails(directory.path(), &[]));
}

#[test]
fn a_file_given_as_data_directory_is_reported() {
    let directory = Directory::new("no_directory");
    File::create(directory.path().join("file")).expect("a file");
    expect![[r#"
        error: reading the data directory file: Not a directory (os error 20). It, or a part of its path, is a file instead of a directory: give another path
    "#]]
    .assert_eq(&fails(directory.path(), &["--data-dir", "file"]));
}

#[test]
fn a_damaged_journal_is_reported_and_prevents_the_start() {
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
        error: the data directory widgets-data is damaged: journal-0000000000000001 is damaged: its header is not as it was written: it has another checksum. Nothing was changed. Restore it from its archive (`widgets restore`) or another copy: skipping the damaged part would serve wrong data
    "#]].assert_eq(&fails(directory.path(), &[]));
    // The message describes the damage in words.
    let of = |told: &str, defect: &str| {
        let defect = format!("journal-0000000000000001 is damaged: {defect}. Nothing was changed.");
        assert!(told.contains(&defect), "{told}");
    };
    file.write_all_at(b"#!/bin/sh", 0).expect("written");
    of(
        &fails(directory.path(), &[]),
        "it does not begin like such a file: its header was overwritten, or it is another file \
         under this name",
    );
    file.write_all_at(&[0; 4096], 0).expect("written");
    of(
        &fails(directory.path(), &[]),
        "it has zeros where its header was",
    );
    file.set_len(7).expect("cut");
    of(
        &fails(directory.path(), &[]),
        "it ends before its header does",
    );
}

#[test]
fn health_finds_the_address_of_the_running_service() {
    let directory = Directory::new("health_running");
    let path = directory.path();
    // Other tests run services at the same time, from another program file.
    let binary = path.join("widgets");
    copy_program(&binary);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.current_dir("/").env_clear().args(arguments);
        command
    };
    let health = |arguments: &[&str]| {
        let output = run(&[&["health"], arguments].concat()).output();
        let output = output.expect("the binary runs");
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).expect("text"))
    };
    assert_eq!(
        health(&["--running"]),
        (
            Some(1),
            "error: no `widgets serve` is running here\n".into()
        )
    );
    // The address is in a file that the flags name relative to the service's directory.
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("its address").to_string();
    drop(free);
    std::fs::write(
        path.join("own.toml"),
        format!("http.listen = \"{address}\"\n"),
    )
    .expect("a file");
    let service = run(&["serve", "--config", "own.toml"])
        .current_dir(path)
        .stdout(Stdio::piped())
        .spawn();
    let mut service = service.expect("the binary runs");
    let lines = BufReader::new(service.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    assert!(lines.any(|line| line.starts_with("widgets listens on")));
    let answers = [
        health(&["--running"]),
        health(&["--running", "--live"]),
        health(&["--", "--listen", &address]),
        health(&["--", "--listen", "127.0.0.1:1"]),
    ];
    service.kill().expect("the process is there");
    service.wait().expect("a process");
    for answer in &answers[..3] {
        assert_eq!(*answer, (Some(0), "ok\n".into()));
    }
    assert!(
        answers[3]
            .1
            .contains("127.0.0.1:1/ready: Connection refused"),
        "{answers:?}"
    );
}

/// Each request is logged as one JSON object, whatever the format of the rest of the log is.
#[test]
fn log_requests_logs_each_request_as_json_without_its_content() {
    let directory = Directory::new("requests");
    let arguments = ["--log-requests", "--trusted-proxies", "127.0.0.1"];
    let service = Service::start(directory.path(), &arguments);
    for (path, body, id) in [
        (
            "/rpc/add_widget",
            r#"{"widget_sn":"secret","name":"","slots":[]}"#,
            "one",
        ),
        (
            "/rpc/add_widget",
            r#"{"widget_sn":"secret","name":"","slots":[]}"#,
            "two",
        ),
        ("/rpc/nothing", "{}", "three"),
    ] {
        let curl = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-H",
                "Content-Type: application/json",
            ])
            .args(["-H", &format!("X-Request-Id: {id}"), "-d", body])
            // The client that a proxy on this machine would name, after what that client made up
            // itself.
            .args(["-H", "X-Forwarded-For: 192.0.2.1, 203.0.113.9"])
            .arg(format!("http://{}{path}", service.address))
            .status();
        assert!(curl.expect("curl").success());
    }
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    let log = Service::log(directory.path());
    assert!(!log.contains("secret"), "{log}");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            assert!(line["duration_us"].is_u64(), "{line}");
            assert_eq!(line["method"], "POST");
            assert_eq!(line["address"], "203.0.113.9");
            (
                line["route"].as_str().unwrap_or_default(),
                line["status"].as_u64().unwrap_or_default(),
                line["code"].as_str(),
                line["request_id"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("add_widget", 204, None, "one"),
            ("add_widget", 409, Some("23505"), "two"),
            ("none", 404, Some("PGRST202"), "three"),
        ]
    );
}
