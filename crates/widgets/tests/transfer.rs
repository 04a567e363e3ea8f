//! `widgets generate`, `import` and `export`, with the real store.

#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

use std::{fs, path::Path, process::Command};

const WIDGETS: &str = env!("CARGO_BIN_EXE_widgets");

/// Runs `widgets` with these arguments: whether it succeeded, and its standard error.
fn widgets(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(WIDGETS).args(arguments).output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The lines of a file, sorted: stores have an order of their own.
fn lines(path: &Path) -> Vec<String> {
    let content = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = content.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_dataset_goes_into_a_store_and_out_and_in_again() {
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
    // A store that holds something is not filled.
    let (ok, said) = widgets(&["import", text(&exported), "--data-dir", text(&copy)]);
    assert!(!ok && said.contains("holds 3000 widgets already"), "{said}");
}

#[test]
fn a_file_with_a_mistake_changes_nothing_and_is_told_where() {
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
        !ok && said.contains("file: line 2: EOF while parsing"),
        "{said}"
    );
    fs::write(&file, good).unwrap();
    let (ok, said) = widgets(&["import", text(&file), "--data-dir", text(&store)]);
    assert!(ok, "nothing of the first attempt was kept: {said}");
}

#[test]
fn one_place_must_be_named() {
    let (ok, said) = widgets(&["generate", "--widgets", "1"]);
    assert!(
        !ok && said.contains("--data-dir") && said.contains("--output"),
        "{said}"
    );
    let (ok, said) = widgets(&["generate", "--widgets", "0", "--output", "-"]);
    assert!(
        !ok && said.contains("widgets must be 1 to 2147483648, 0 was given"),
        "{said}"
    );
}
