//! `widgets generate`, `import` and `export`, with the real store.

#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;

const WIDGETS: &str = env!("CARGO_BIN_EXE_widgets");

/// Returns a command for the binary, without any variable of this test's environment that could
/// name a store.
fn command() -> Command {
    without_variables(Command::new(WIDGETS))
}

fn without_variables(mut command: Command) -> Command {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("WIDGETS_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Runs `widgets` with these arguments. Returns whether it succeeded, and its standard error.
fn widgets(arguments: &[&str]) -> (bool, String) {
    outcome(command().args(arguments))
}

fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the lines of a file, sorted, because the order differs between stores.
fn lines(path: &Path) -> Vec<String> {
    let content = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = content.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn generated_widgets_are_exported_and_imported_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (store, copy) = (path("store"), path("copy"));
    let (made, exported, again) = (
        path("made.jsonl"),
        path("exported.jsonl"),
        path("again.jsonl"),
    );
    let of = ["--widgets", "3000", "--seed", "5", "--associated", "40%"];
    let (ok, said) = widgets(&[&["generate"][..], &of, &["--output", text(&made)]].concat());
    assert!(ok, "{said}");
    assert!(
        said.contains("--dataset widgets=3000,seed=5,associated=40%"),
        "{said}"
    );
    let (ok, said) = widgets(&[&["generate"][..], &of, &["--data-dir", text(&store)]].concat());
    assert!(ok, "{said}");
    assert!(widgets(&["export", text(&exported), "--data-dir", text(&store)]).0);
    assert_eq!(lines(&exported), lines(&made));
    let (ok, said) = widgets(&["import", text(&exported), "--data-dir", text(&copy)]);
    assert!(ok, "{said}");
    assert!(widgets(&["export", text(&again), "--data-dir", text(&copy)]).0);
    assert_eq!(lines(&again), lines(&made));
    // A store that contains something is not filled.
    let (ok, said) = widgets(&["import", text(&exported), "--data-dir", text(&copy)]);
    assert!(!ok && said.contains("already holds 3000 widgets"), "{said}");
}

#[test]
fn a_malformed_file_is_reported_with_its_line_and_imports_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (file, store) = (
        directory.path().join("file"),
        directory.path().join("store"),
    );
    let good = r#"{"serial_number":"A","name":"","slots":[{"port":"P","peer":null}]}"#;
    fs::write(
        &file,
        format!("{good}\n{}", r#"{"serial_number":"B","name":"","slots":["#),
    )
    .unwrap();
    let (ok, said) = widgets(&["import", text(&file), "--data-dir", text(&store)]);
    assert!(
        !ok && said.contains("file: line 2: it ends at column 40 in the middle of a widget"),
        "{said}"
    );
    assert!(
        !said.contains("new store") && names(&store) == ["lock"],
        "a file that is wrong leaves no store: {said} {:?}",
        names(&store)
    );
    fs::write(&file, good).unwrap();
    let (ok, said) = widgets(&["import", text(&file), "--data-dir", text(&store)]);
    assert!(ok, "nothing of the first attempt was kept: {said}");
}

#[test]
fn generate_and_export_require_exactly_one_store_or_file() {
    let (ok, said) = widgets(&["generate", "--widgets", "1"]);
    assert!(
        !ok && said.contains("--data-dir") && said.contains("WIDGETS_STORE"),
        "{said}"
    );
    let both = ["--output", "-", "--data-dir", "x"];
    let (ok, said) = widgets(&[&["generate", "--widgets", "1"][..], &both].concat());
    assert!(!ok && said.contains("give one"), "{said}");
    let both = ["--store", "postgres://h/d", "--data-dir", "x"];
    let (ok, said) = widgets(&[&["export", "-"][..], &both].concat());
    assert!(
        !ok && said.contains("--data-dir is for the embedded store"),
        "{said}"
    );
}

#[test]
fn generate_refuses_zero_widgets() {
    let (ok, said) = widgets(&["generate", "--widgets", "0", "--output", "-"]);
    assert!(
        !ok && said.contains("widgets must be 1 to 2147483648, 0 was given"),
        "{said}"
    );
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn export_from_a_missing_directory_creates_and_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (file, typo) = (path("all.jsonl"), path("typo"));
    fs::write(&file, "last night's").unwrap();
    for force in [&[][..], &["--force"]] {
        let arguments = ["export", text(&file), "--data-dir", text(&typo)];
        let (ok, said) = widgets(&[&arguments[..], force].concat());
        assert!(!ok, "{said}");
    }
    let (ok, said) = widgets(&["export", text(&path("new")), "--data-dir", text(&typo)]);
    assert!(
        !ok && said.contains("there is no store in") && said.contains("no such directory"),
        "{said}"
    );
    assert_eq!(names(directory.path()), ["all.jsonl"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "last night's");
}

#[test]
fn an_existing_output_file_is_replaced_only_with_force() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (file, store) = (path("all.jsonl"), path("store"));
    let of = ["generate", "--widgets", "10"];
    assert!(widgets(&[&of[..], &["--data-dir", text(&store)]].concat()).0);
    for place in [["--data-dir", text(&store)], ["--widgets", "10"]] {
        let command = if place[0] == "--widgets" {
            vec!["generate", "--widgets", "10", "--output", text(&file)]
        } else {
            vec!["export", text(&file), place[0], place[1]]
        };
        fs::write(&file, "old").unwrap();
        let (ok, said) = widgets(&command);
        assert!(!ok && said.contains("all.jsonl already exists: "), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        let (ok, said) = widgets(&[&command[..], &["--force"]].concat());
        assert!(ok && !said.contains("making them durable"), "{said}");
        assert_eq!(lines(&file).len(), 10);
    }
    assert_eq!(names(directory.path()), ["all.jsonl", "store"]);
}

/// Returns a `generate` that would run for hours, once there is an unfinished file of it. `signals` says
/// how it is started, because these tests may themselves have been started to ignore signals.
fn endless(signals: &str, file: &Path) -> Child {
    let mut env = Command::new("env");
    env.args([signals, WIDGETS, "generate", "--widgets", "2G"]);
    env.args(["--force", "--output", text(file)]);
    let child = without_variables(env).stderr(Stdio::null()).spawn();
    while names(file.parent().unwrap()).len() < 2 {
        std::thread::yield_now();
    }
    child.unwrap()
}

fn send(signal: Signal, to: &Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(to), signal).unwrap();
}

#[test]
fn a_signal_during_generate_leaves_the_existing_file_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.jsonl");
    fs::write(&file, "old").unwrap();
    let signals = [
        (Signal::TERM, 128 + 15),
        (Signal::INT, 128 + 2),
        // The terminal was closed.
        (Signal::HUP, 128 + 1),
    ];
    for (signal, code) in signals.repeat(20) {
        let mut child = endless("--default-signal", &file);
        send(signal, &child);
        let status = child.wait().unwrap();
        // A handler ends the process, because signals have no default action for PID 1 in a
        // container.
        assert_eq!((status.code(), status.signal()), (Some(code), None));
        assert_eq!(names(directory.path()), ["all.jsonl"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}

#[test]
fn a_command_under_nohup_outlives_its_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.jsonl");
    fs::write(&file, "old").unwrap();
    let mut child = endless("--ignore-signal=HUP", &file);
    send(Signal::HUP, &child);
    send(Signal::TERM, &child);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn import_generate_and_export_refuse_a_directory_of_other_files() {
    let directory = tempfile::tempdir().unwrap();
    let (file, documents) = (directory.path().join("f"), directory.path().join("docs"));
    fs::create_dir(&documents).unwrap();
    fs::write(documents.join("letter.txt"), "").unwrap();
    fs::write(&file, "").unwrap();
    let to = ["--data-dir", text(&documents)];
    for command in [
        &["import", text(&file)][..],
        &["generate", "--widgets", "1"],
        &["export", text(&directory.path().join("all.jsonl"))],
    ] {
        let (ok, said) = widgets(&[command, &to].concat());
        assert!(
            !ok && said.contains("is not empty and has no store in it"),
            "{said}"
        );
    }
    assert_eq!(names(&documents), ["letter.txt"]);
    assert_eq!(names(directory.path()), ["docs", "f"]);
}

#[test]
fn a_store_with_a_deleted_journal_is_reported_as_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (store, file) = (path("store"), path("all.jsonl"));
    fs::write(&file, "").unwrap();
    let (ok, said) = widgets(&["import", text(&file), "--data-dir", text(&store)]);
    assert!(ok, "{said}");
    for name in names(&store) {
        if name.starts_with("journal-") {
            fs::remove_file(store.join(name)).unwrap();
        }
    }
    let before = names(&store);
    for command in [
        &["export", text(&path("copy"))][..],
        &["import", text(&file)],
        &["serve", "--must-exist", "--listen", "127.0.0.1:0"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let (ok, said) = widgets(&[command, &["--data-dir", text(&store)]].concat());
        assert!(
            !ok && said.contains("is damaged: there is neither a checkpoint nor journal-00"),
            "{command:?}: {said}"
        );
        assert_eq!(names(&store), before, "{command:?}");
    }
    assert!(!path("copy").exists());
}

#[test]
fn the_store_can_be_set_by_flag_variable_or_configuration_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (store, configuration) = (path("store"), path("widgets.toml"));
    let (ok, said) =
        outcome(
            command()
                .env("WIDGETS_DATA_DIR", &store)
                .args(["generate", "--widgets", "10"]),
        );
    assert!(
        ok && said.contains(&format!("new store in {}", store.display())),
        "{said}"
    );
    fs::write(
        &configuration,
        format!("store.data_dir = {:?}\n", text(&store)),
    )
    .unwrap();
    let (ok, said) = widgets(&[
        "export",
        text(&path("all")),
        "--config",
        text(&configuration),
    ]);
    assert!(ok, "{said}");
    assert_eq!(lines(&path("all")).len(), 10);
    // A setting that `serve` reads and this command does not need has no effect, even if it is
    // wrong.
    let (ok, said) = outcome(
        command()
            .env("WIDGETS_CONFIG", &configuration)
            .env("WIDGETS_LISTEN", "nonsense")
            .args(["import", text(&path("all"))]),
    );
    assert!(!ok && said.contains("already holds 10 widgets"), "{said}");
    let secret = "postgres://me:hunter2@127.0.0.1:1/db?connect_timeout=1";
    let (ok, said) = outcome(command().env("WIDGETS_STORE", secret).args(["export", "-"]));
    assert!(
        !ok && said.contains("127.0.0.1:1") && !said.contains("hunter2"),
        "{said}"
    );
    // A store that must exist is not created.
    let (ok, said) = outcome(
        command()
            .env("WIDGETS_MUST_EXIST", "true")
            .env("WIDGETS_DATA_DIR", path("other"))
            .args(["generate", "--widgets", "10"]),
    );
    assert!(!ok && said.contains("there is no store in"), "{said}");
    assert!(!path("other").exists());
}
