//! The command line and the configuration, as text in and text out.

use crate::service::{Directory, widgets};
use expect_test::{Expect, expect, expect_file};
use std::{path::Path, process::Command};

/// Returns the exit code, standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let code = output.status.code().expect("not ended by a signal");
    (code, text(output.stdout), text(output.stderr))
}

/// Runs `widgets` in a directory with this `widgets.toml`.
fn with_file(directory: &Path, content: &str, arguments: &[&str]) -> (i32, String, String) {
    std::fs::write(directory.join("widgets.toml"), content).expect("a file");
    run(widgets(directory)
        .args(arguments)
        .args(["--config", "widgets.toml"]))
}

#[test]
fn the_help_of_serve_matches_its_snapshot() {
    let directory = Directory::new("help");
    // The width must not depend on this terminal.
    let (code, help, _) = run(widgets(directory.path())
        .env_remove("COLUMNS")
        .args(["serve", "--help"]));
    assert_eq!(code, 0);
    expect_file!["serve_help.txt"].assert_eq(&help);
}

/// Returns the flags that a help shows.
pub(crate) fn flags(help: &str) -> Vec<&str> {
    help.lines()
        .filter_map(|line| {
            let rest = line
                .trim_start()
                .trim_start_matches("-h, ")
                .trim_start_matches("-V, ");
            let shown = line.starts_with("  ") && rest.starts_with("--");
            shown.then(|| rest.split([' ', '[', '=']).next().unwrap_or_default())
        })
        .collect()
}

pub(crate) fn help(arguments: &[&str]) -> String {
    let directory = Directory::new("help_of");
    let mut command = widgets(directory.path());
    let (code, help, told) = run(command.env_remove("COLUMNS").args(arguments));
    assert_eq!((code, told.as_str()), (0, ""), "{arguments:?}");
    help
}

#[test]
fn the_help_of_a_command_lists_its_own_and_the_most_used_flags() {
    for (command, own) in [
        (
            &["export"][..],
            &[
                "--force",
                "--config",
                "--help",
                "--store",
                "--data-dir",
                "--must-exist",
            ][..],
        ),
        (
            &["import"],
            &[
                "--config",
                "--help",
                "--store",
                "--data-dir",
                "--must-exist",
            ],
        ),
        (
            &["generate"],
            &[
                "--widgets",
                "--seed",
                "--associated",
                "--output",
                "--force",
                "--config",
                "--help",
                "--store",
                "--data-dir",
                "--must-exist",
            ],
        ),
        (
            &["migrate"],
            &[
                "--config",
                "--check",
                "--changes",
                "--index-names",
                "--index-free-slots",
                "--citus",
                "--shards",
                "--move-widgets",
                "--help",
                "--store",
                "--store-password",
                "--store-password-file",
                "--postgres-connect-timeout-ms",
                "--log-format",
                "--log-filter",
            ],
        ),
        (
            &["health"],
            &[
                "--live",
                "--running",
                "--config",
                "--help",
                "--listen",
                "--tls-certificate",
                "--tls-key",
                "--tls-client-ca",
                "--tls-client-certificates",
            ],
        ),
    ] {
        let help = help(&[command, &["--help"]].concat());
        let mut shown = flags(&help);
        let mut own = own.to_vec();
        shown.sort_unstable();
        own.sort_unstable();
        assert_eq!(shown, own, "{command:?}");
    }
}

#[test]
fn help_shows_all_flags_or_one_section_on_request() {
    let first = help(&["serve", "--help"]);
    let all = help(&["serve", "--help", "--all"]);
    assert_eq!(help(&["serve", "--all", "--help"]), all);
    assert!(flags(&first).len() < 20 && flags(&all).len() > 40);
    for flag in flags(&first) {
        assert!(flags(&all).contains(&flag), "{flag}");
    }
    let (_, variables, _) = run(widgets(Directory::new("keys").path()).args(["config", "example"]));
    for line in variables.lines().filter(|line| line.starts_with("# --")) {
        let flag = line
            .trim_start_matches("# ")
            .split(',')
            .next()
            .unwrap_or_default();
        assert!(flags(&all).contains(&flag), "{flag}");
    }
    let engine = help(&["serve", "--help", "engine"]);
    assert!(engine.contains("--segment-bytes") && !engine.contains("--listen"));
}

#[test]
fn a_misspelt_command_or_flag_gets_a_suggestion() {
    let directory = Directory::new("slips");
    for (arguments, meant) in [
        (&["srve"][..], "'serve'"),
        (&["serve", "--prot", "1"], "'--port'"),
        (&["serve", "--port", "1"], "'--listen'"),
        (&["serve", "--lisen", "x"], "'--listen'"),
        (&["serve", "--conections-max", "1"], "'--connections-max'"),
        (&["load", "h", "--duratoin", "1s"], "'--duration'"),
    ] {
        let (code, _, told) = run(widgets(directory.path()).args(arguments));
        assert_eq!(code, 2, "{arguments:?}");
        assert!(told.contains("similar") && told.contains(meant), "{told}");
    }
}

#[test]
fn a_negative_number_is_reported_as_an_invalid_value_of_its_flag() {
    let directory = Directory::new("below_zero");
    for (arguments, flag) in [
        (&["list", "--limit", "-1"][..], "--limit"),
        (&["serve", "--connections-max", "-1"], "--connections-max"),
        (&["load", "h", "--rate", "-1"], "--rate"),
        (&["generate", "--widgets", "-5"], "--widgets"),
    ] {
        let (code, _, told) = run(widgets(directory.path()).args(arguments));
        assert_eq!(code, 2, "{arguments:?}");
        assert!(
            told.contains(flag) && !told.contains("unexpected"),
            "{told}"
        );
    }
}

#[test]
fn a_failed_write_is_reported_with_the_name_of_the_file() {
    let directory = Directory::new("written_to");
    let mut generate = widgets(directory.path());
    let (code, _, told) = run(generate.args(["generate", "--widgets", "100", "--data-dir", "d"]));
    assert_eq!(code, 0, "{told}");
    let mut export = widgets(directory.path());
    let (code, _, told) = run(export.args(["export", "--data-dir", "d", "/dev/full"]));
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("writing /dev/full: No space left"), "{told}");
}

/// What was moved is durable by then.
#[test]
fn transfers_succeed_although_nobody_reads_their_last_line() {
    let directory = Directory::new("unread");
    for arguments in [
        &["generate", "--widgets", "100", "--data-dir", "d"][..],
        &["export", "--data-dir", "d", "all.jsonl"],
        &["import", "--data-dir", "other", "all.jsonl"],
    ] {
        let full = std::fs::File::create("/dev/full").expect("a device");
        let mut command = widgets(directory.path());
        let status = command.args(arguments).stderr(full).status();
        assert!(status.expect("a process").success(), "{arguments:?}");
    }
    let mut verify = widgets(directory.path());
    let (code, shown, _) = run(verify.args(["verify", "--data-dir", "other"]));
    assert!(code == 0 && shown.contains("100 widgets"), "{shown}");
}

#[test]
fn a_token_file_that_cannot_be_read_is_an_error_of_the_command_line() {
    let directory = Directory::new("no_token");
    let mut load = widgets(directory.path());
    let (code, _, told) = run(load.args(["load", "http://127.0.0.1:1", "--token-file", "missing"]));
    assert!(code == 2 && told.contains("missing"), "{code}: {told}");
}

#[test]
fn quantities_accept_units_in_files_variables_and_flags() {
    let directory = Directory::new("units");
    let file = "[http]\nidle_timeout_ms = \"1m 30s\"\n[engine]\nsegment_bytes = \"32MiB\"\n";
    std::fs::write(directory.path().join("widgets.toml"), file).expect("a file");
    let (code, shown, told) = run(widgets(directory.path())
        .env("WIDGETS_REQUEST_TIMEOUT_MS", "75s")
        .args(["config", "show", "--config", "widgets.toml"])
        .args(["--connections-max", "10k", "--listen", "localhost:3001"]));
    assert_eq!((code, told.as_str()), (0, ""));
    for line in [
        "idle_timeout_ms = 90000 ",
        "request_timeout_ms = 75000 ",
        "segment_bytes = 33554432 ",
        "connections_max = 10000 ",
        "listen = \"127.0.0.1:3001\" ",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[test]
fn invalid_combinations_of_load_flags_are_refused() {
    let directory = Directory::new("load_flags");
    // Nothing is contacted: nobody listens at this address.
    let slo = ["--rate", "10", "--duration", "1s", "--slo", "p99<10ms"];
    for (arguments, why) in [
        (&slo[..], "--slo needs --find-max"),
        (&["--find-max"], "--find-max needs --slo"),
        (
            &["--rate", "5k", "--workers", "65"],
            "--workers must be at most --connections, 64",
        ),
    ] {
        let mut command = widgets(directory.path());
        let (code, _, told) = run(command.args(["load", "192.0.2.1:1"]).args(arguments));
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(why) && told.contains("Usage: "), "{told}");
    }
}

#[test]
fn an_invalid_command_line_exits_with_2() {
    let directory = Directory::new("usage");
    for arguments in [&["sevre"][..], &["serve", "--lisen", "x"], &["config"], &[]] {
        let (code, _, told) = run(widgets(directory.path()).args(arguments));
        assert_eq!(code, 2, "{arguments:?}");
        assert!(told.contains("Usage: widgets"), "{told}");
    }
}

#[test]
fn the_example_configuration_has_every_key_with_its_default() {
    let directory = Directory::new("example");
    let (code, example, _) = run(widgets(directory.path()).args(["config", "example"]));
    assert_eq!(code, 0);
    let checked = with_file(directory.path(), &example, &["config", "check"]);
    assert_eq!(
        checked,
        (0, "the configuration is right\n".into(), String::new())
    );
    let (_, shown, _) = with_file(directory.path(), &example, &["config", "show"]);
    let (_, defaults, _) = run(widgets(directory.path()).args(["config", "show"]));
    let values = |shown: &str| -> Vec<String> {
        let lines = shown
            .lines()
            .map(|line| line.split(" # ").next().unwrap_or_default());
        lines.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(values(&shown), values(&defaults));
    assert!(
        shown
            .lines()
            .filter(|line| line.contains(" = "))
            .all(|line| line.contains("widgets.toml:"))
    );
    assert!(
        defaults
            .lines()
            .filter(|line| line.contains(" = "))
            .all(|line| line.ends_with("# default"))
    );
    // What is shown is itself a valid file.
    let (_, again, _) = with_file(directory.path(), &shown, &["config", "show"]);
    assert_eq!(values(&again), values(&defaults));
}

#[test]
fn flags_override_variables_which_override_the_file_and_defaults() {
    let directory = Directory::new("precedence");
    let file = "[http]\nworkers = 1\nconnections_max = 1\nlisten = \"[::1]:1\"\n";
    std::fs::write(directory.path().join("widgets.toml"), file).expect("a file");
    let mut command = widgets(directory.path());
    command.env("WIDGETS_CONFIG", "widgets.toml");
    command
        .env("WIDGETS_WORKERS", "2")
        .env("WIDGETS_CONNECTIONS_MAX", "2");
    // Variables of other programs with the same prefix must not matter.
    command.env("WIDGETS_PORT", "tcp://10.0.0.1:80");
    let (code, shown, _) = run(command.args(["config", "show", "--workers", "3"]));
    assert_eq!(code, 0);
    let line = |key: &str| {
        let line = shown
            .lines()
            .find(|line| line.starts_with(key))
            .expect("the key");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("workers"), "workers = 3 # --workers");
    assert_eq!(
        line("connections_max"),
        "connections_max = 2 # WIDGETS_CONNECTIONS_MAX"
    );
    assert_eq!(line("listen"), "listen = \"[::1]:1\" # widgets.toml:4");
    assert_eq!(line("data_dir"), "data_dir = \"widgets-data\" # default");
}

/// Checks an invalid configuration file: `config check` and `serve` give the same message.
fn refused(name: &str, content: &str, arguments: &[&str], told: &Expect) {
    let directory = Directory::new(name);
    let (code, printed, problems) = with_file(
        directory.path(),
        content,
        &[&["config", "check"], arguments].concat(),
    );
    told.assert_eq(&problems);
    assert_eq!((code, printed.as_str()), (1, ""));
    let (code, printed, error) =
        with_file(directory.path(), content, &[&["serve"], arguments].concat());
    assert_eq!((code, printed.as_str()), (2, ""));
    assert_eq!(error, format!("error: {problems}"));
    assert!(
        !directory.path().join("widgets-data").exists(),
        "nothing is opened before"
    );
}

#[test]
fn every_problem_in_a_configuration_file_is_reported_with_its_line() {
    let content = "\
[http]
listen = 3000
connections_max = 0
lisen = \"\"

[engine]
segment_bytes = \"x\"
queue_bytes_max = 0xFFFF_FFFF_FFFF

[strange]
key = 1

[log]
filter = \"loud\"
format
";
    let told = expect![[r#"
        widgets.toml:2: http.listen must be an IP address (or localhost) and a port, such as 127.0.0.1:3000 or [::1]:3000 in quotes, a value of type integer was given
        widgets.toml:3: http.connections_max must be an integer from 1 to 1000000, 0 was given
        widgets.toml:4: [http] has no key "lisen"; did you mean "listen"?
        widgets.toml:7: engine.segment_bytes must be an integer from 5728 to 4294967295, "x" was given
        widgets.toml:8: engine.queue_bytes_max must be an integer from 4096 to 1073741824, 281474976710655 was given
        widgets.toml:10: unknown section "strange"; the sections are [http], [auth], [store], [engine], [changes], [idempotency], [archive], [replication], [postgres], [log]
        widgets.toml:14: log.filter must be a level (off, error, warn, info, debug or trace), or several, such as "info,widgets_engine=debug", "loud" was given
        widgets.toml:15: key with no value, expected `=`
        --idle-timeout-ms: http.idle_timeout_ms must be an integer from 100 to 86400000, "soon" was given
    "#]];
    refused("problems", content, &["--idle-timeout-ms", "soon"], &told);
}

#[test]
fn segments_too_small_for_a_whole_batch_are_refused() {
    let told = expect![[r#"
        widgets.toml:1: engine.segment_bytes must be at least 3233840 (a whole batch of queue_operations_max = 2048) and less than 4294967296, 8192 was given
    "#]];
    refused("together", "engine.segment_bytes = 8192\n", &[], &told);
}

#[test]
fn a_store_password_requires_a_database_and_a_single_source() {
    let told = expect![[r#"
        store.password is for a PostgreSQL database: name it by store.url
    "#]];
    refused("password", "store.password = \"a\"\n", &[], &told);
    let told = expect![[r#"
        store.password_file is for a PostgreSQL database: name it by store.url
    "#]];
    refused("password", "store.password_file = \"a\"\n", &[], &told);
    let database = ["--store", "postgres://me@host/db"];
    let told = expect![[r#"
        store.password and store.password_file must not be given together
    "#]];
    let both = "store.password = \"a\"\nstore.password_file = \"b\"\n";
    refused("password", both, &database, &told);
    let told = expect![[r#"
        store.password and a password in store.url must not be given together
    "#]];
    let in_url = ["--store", "postgres://me:secret@host/db"];
    refused("password", "store.password = \"a\"\n", &in_url, &told);
}

#[test]
fn a_missing_password_file_is_reported_before_connecting() {
    let directory = Directory::new("password-file");
    let database = [
        "--store",
        "postgres://me@127.0.0.1:1/db",
        "--store-password-file",
        "missing",
    ];
    for command in [
        &["config", "check"][..],
        &["serve"],
        &["migrate"],
        &["export", "a"],
    ] {
        let (code, _, error) = with_file(directory.path(), "", &[command, &database].concat());
        assert_eq!(code, 1, "{command:?}: {error}");
        let told = error.contains("store.password_file: missing: No such file");
        assert!(told, "{command:?}: {error}");
    }
}

#[test]
fn secrets_in_an_invalid_store_url_are_masked() {
    let told = expect![[r#"
        --store: store.url must be "embedded", or the URL of a PostgreSQL database such as "postgres://user@host/database", "mysql://user:***@host/db?***" was given
    "#]];
    refused(
        "secrets",
        "",
        &["--store", "mysql://user:password@host/db?password=secret"],
        &told,
    );
    let told = expect![[r#"
        --store: store.url must be "embedded", or the URL of a PostgreSQL database such as "postgres://user@host/database", "host=h password=***" was given
    "#]];
    let connection_string = ["--store", "host=h password=hunter2"];
    refused("secrets", "", &connection_string, &told);
}

#[test]
fn a_missing_configuration_file_is_reported() {
    let directory = Directory::new("missing_file");
    let (code, _, told) =
        run(widgets(directory.path()).args(["config", "check", "--config", "nowhere.toml"]));
    assert_eq!(code, 1);
    expect![[r#"
        the configuration file nowhere.toml cannot be read: No such file or directory (os error 2). Correct the path, or make the directories that are missing
    "#]]
    .assert_eq(&told);
}

#[test]
fn invalid_arguments_exit_with_2_and_failures_with_1() {
    let directory = Directory::new("misuse");
    let path = directory.path();
    std::fs::write(path.join("wrong.toml"), "[http]\nlisten = \"foo\"\n").expect("a file");
    std::fs::write(path.join("empty"), "").expect("a file");
    let load = |url: &'static str| vec!["load", url, "--duration", "1s"];
    for (code, arguments) in [
        (2, vec!["serve", "--listen", "foo"]),
        (2, vec!["serve", "--listen", "0.0.0.0:0"]),
        (2, vec!["serve", "--config", "wrong.toml"]),
        (2, vec!["serve", "--migrate"]),
        (2, vec!["serve", "--segment-bytes", "6000"]),
        (2, vec!["serve", "--help", "nonsense"]),
        (2, vec!["config", "show", "--config", "wrong.toml"]),
        (2, vec!["migrate"]),
        (2, vec!["migrate", "--store", "ftp://x"]),
        (2, vec!["export", "all"]),
        (2, vec!["export", "all", "--store", "ftp://x"]),
        (
            2,
            vec![
                "import",
                "empty",
                "--store",
                "postgres://h/d",
                "--data-dir",
                "x",
            ],
        ),
        (
            2,
            vec![
                "generate",
                "--widgets",
                "1",
                "--output",
                "x",
                "--data-dir",
                "x",
            ],
        ),
        (2, vec!["get", "E", "--url", "ftp://x"]),
        (2, vec!["list", "--url", "http://x/?a=b"]),
        (
            2,
            vec!["add", "E", "F", "--url", "http://x", "--ca", "none"],
        ),
        (2, vec!["watch", "--since", "yesterday"]),
        (2, load("ftp://x")),
        (2, load("http://me:secret@x")),
        (2, [&load("http://x")[..], &["--interval", "1ns"]].concat()),
        // These commands are asked whether something is right, so their answer is 1.
        (1, vec!["config", "check", "--config", "wrong.toml"]),
        (1, vec!["health", "--listen", "foo"]),
        (1, vec!["serve", "--must-exist", "--listen", "127.0.0.1:0"]),
        (1, vec!["import", "none", "--data-dir", "x"]),
        (1, vec!["get", "E", "--url", "http://127.0.0.1:1"]),
        (1, load("http://127.0.0.1:1")),
    ] {
        let (found, _, told) = run(widgets(path).args(&arguments));
        assert_eq!(found, code, "{arguments:?}: {told}");
    }
    let (_, _, told) = run(widgets(path).args(["serve", "--help", "nonsense"]));
    assert!(
        told.contains("there is no section 'nonsense'")
            && told.contains(
                "auth, store, engine, changes, idempotency, archive, replication, postgres, log"
            ),
        "{told}"
    );
}

#[test]
fn usage_errors_do_not_depend_on_environment_variables() {
    let directory = Directory::new("usage");
    for arguments in [
        &["get"][..],
        &["load", "--ratee", "1"],
        &["config", "show", "--nonsense"],
        &["load", "http://h", "--duration", "10"],
    ] {
        let plain = run(widgets(directory.path()).args(arguments));
        let set = run(widgets(directory.path())
            .args(arguments)
            .env("WIDGETS_URL", "http://x")
            .env("WIDGETS_TOKEN", "secret")
            .env("WIDGETS_LISTEN", "127.0.0.1:1"));
        assert_eq!(plain, set, "{arguments:?}");
        assert_eq!(plain.0, 2);
    }
    let (_, _, told) = run(widgets(directory.path()).arg("get"));
    assert!(
        told.contains("Usage: widgets get [OPTIONS] <SERIAL_NUMBER>"),
        "{told}"
    );
}
