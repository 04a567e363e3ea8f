//! Completions and manual pages: generated from the commands, so none can be missing.

use crate::{
    command_line::{flags, help, run},
    service::{Directory, widgets},
};
use std::{fs, process::Command};

/// Returns the words that the real bash offers for the last word of a command line.
fn offered(script: &str, line: &[&str]) -> Vec<String> {
    let ask = format!(
        "{script}\nCOMP_WORDS=({words})\nCOMP_CWORD={last}\n\
         _widgets widgets {word:?} {before:?}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words = line.join(" "),
        last = line.len() - 1,
        word = line.last().copied().unwrap_or_default(),
        before = line
            .get(line.len().wrapping_sub(2))
            .copied()
            .unwrap_or_default(),
    );
    let (code, offered, told) = run(Command::new("bash").args(["--norc", "-c", &ask]));
    assert_eq!((code, told.as_str()), (0, ""), "{line:?}");
    offered.lines().map(Into::into).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let directory = Directory::new("completions");
    let (code, script, told) = run(widgets(directory.path()).args(["completions", "bash"]));
    assert_eq!((code, told.as_str()), (0, ""));
    assert_eq!(offered(&script, &["widgets", "ser"]), ["serve"]);
    assert_eq!(offered(&script, &["widgets", "config", "ch"]), ["check"]);
    // A flag that `--help` shows only with `--all`.
    assert_eq!(
        offered(&script, &["widgets", "serve", "--idle-"]),
        ["--idle-timeout-ms"]
    );
    assert_eq!(offered(&script, &["widgets", "completions", "f"]), ["fish"]);
}

#[test]
fn completion_scripts_of_all_shells_contain_every_command() {
    let directory = Directory::new("completions_of_shells");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, script, told) = run(widgets(directory.path()).args(["completions", shell]));
        assert_eq!((code, told.as_str()), (0, ""), "{shell}");
        for name in commands(&help(&["--help"])) {
            assert!(script.contains(&name), "{shell} lacks {name}");
        }
    }
}

/// Returns the commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = list.take_while(|line| !line.is_empty());
    // Continued lines are indented further.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<_> = names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(Into::into)
        .collect();
    assert!(names.len() > 2, "{help}");
    names
}

#[test]
fn every_command_has_a_manual_page_with_every_flag() {
    let directory = Directory::new("manual");
    let (code, out, told) = run(widgets(directory.path()).args(["manual", "--output", "."]));
    assert_eq!((code, out.as_str(), told.as_str()), (0, "", ""));
    let page = |name: &str| {
        let page = fs::read_to_string(directory.path().join(format!("{name}.1")));
        // roff escapes dashes.
        page.expect("a page").replace("\\-", "-")
    };
    let check = |words: &[&str]| {
        let page = page(
            &["widgets"]
                .iter()
                .chain(words)
                .copied()
                .collect::<Vec<_>>()
                .join("-"),
        );
        let all = help(&[words, &["--help", "--all"]].concat());
        for flag in flags(&all) {
            assert!(page.contains(flag), "the page of {words:?} lacks {flag}");
        }
    };
    for name in commands(&help(&["--help"])) {
        check(&[&name]);
        assert!(page("widgets").contains(&name), "{name}");
    }
    for name in commands(&help(&["config", "--help"])) {
        check(&["config", &name]);
    }
    // The flags of the configuration, with their variables and defaults.
    assert!(page("widgets-serve").contains("WIDGETS_IDLE_TIMEOUT_MS"));
    assert!(page("widgets-serve").contains("75000"));
    assert_eq!(
        run(widgets(directory.path()).args(["manual", "config", "check"])).1,
        fs::read_to_string(directory.path().join("widgets-config-check.1")).expect("a page")
    );
}

#[test]
fn an_unknown_manual_page_or_output_folder_is_reported() {
    let directory = Directory::new("no_manual");
    let told = |expected: i32, arguments: &[&str]| {
        let (code, out, told) = run(widgets(directory.path()).arg("manual").args(arguments));
        assert_eq!((code, out.as_str()), (expected, ""), "{arguments:?}");
        told
    };
    assert_eq!(
        told(2, &["config", "chek"]),
        "error: widgets config has no command `chek`; its commands are check, show, example\n"
    );
    assert_eq!(
        told(2, &["serve", "http"]),
        "error: widgets serve has no subcommands, `http` was given\n"
    );
    assert_eq!(
        told(1, &["--output", "gone"]),
        "error: cannot write gone/widgets.1: No such file or directory (os error 2)\n"
    );
}
