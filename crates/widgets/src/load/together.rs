//! Which flags of `widgets load` need each other, and which exclude each other.
//!
//! clap's own `requires` is not strict enough: it is waived if the required flag conflicts with one
//! that is given, so `--slo` with `--rate` would search for the highest rate without `--find-max`.

use clap::{ArgMatches, parser::ValueSource};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Flags that are useless without another one, and the alternative to suggest.
const NEEDS: &[(&str, &str, &str)] = &[
    (
        "slo",
        "find_max",
        "--fail-if checks a bound at the rate that --rate gives",
    ),
    (
        "find_max",
        "slo",
        "it says what must hold, as in --slo 'p99<10ms'",
    ),
    ("step", "find_max", "--duration is for one rate"),
    (
        "streams",
        "http2",
        "HTTP/1.1 has one request at a time on a connection",
    ),
    (
        "dataset_part",
        "dataset",
        "it says which widgets the server holds",
    ),
];

/// Flags that contradict each other, and why.
const EXCLUDES: &[(&str, &str, &str)] = &[
    ("find_max", "rate", "a search finds the rate itself"),
    (
        "find_max",
        "duration",
        "a search tries each rate for --step",
    ),
    (
        "find_max",
        "requests",
        "a search tries each rate for --step",
    ),
    (
        "find_max",
        "fail_if",
        "a search tries rates that miss; --slo says what must hold",
    ),
    (
        "find_max",
        "during_crash",
        "a crash would be taken for a rate that is too high",
    ),
    ("token", "token_file", "both give the token"),
    (
        "insecure",
        "ca",
        "if any certificate is trusted, no authority is needed",
    ),
];

/// Flags that contradict a value of another flag, and why.
const EXCLUDED_BY_VALUE: &[(&str, &str, &str, &str)] = &[
    (
        "rate",
        "max",
        "poisson",
        "in a closed loop, requests have no schedule",
    ),
    ("audit", "none", "audit_timeout", "there is no audit"),
    ("audit", "none", "audit_widgets_max", "there is no audit"),
];

/// Flags that name a file to write.
const FILES: [&str; 3] = ["html", "json", "hdr"];

/// Returns a path in the one spelling by which two paths can be compared, whether or not there is a
/// file yet. A link to a file is spelt as that file, which would be replaced.
fn spelt(path: &Path) -> PathBuf {
    if let Ok(file) = fs::canonicalize(path) {
        return file;
    }
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let directory = fs::canonicalize(parent.unwrap_or(Path::new(".")));
    match (directory, path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.into(),
    }
}

/// Returns whether a report replaces what is there: not a device, which takes several.
fn is_replaced(path: &Path) -> bool {
    let there = fs::metadata(path).ok();
    there.is_none_or(|there| there.is_file())
}

/// Refuses a file that is named twice: each report would replace the one before it.
fn check_files(matches: &ArgMatches) -> Result<(), String> {
    let path = |id| matches.try_get_one::<PathBuf>(id).ok().flatten();
    for (index, one) in FILES.into_iter().enumerate() {
        for other in &FILES[..index] {
            if let (Some(path), Some(same)) = (path(one), path(other))
                && spelt(path) == spelt(same)
                && is_replaced(path)
            {
                let (one, other, path) = (flag(one), flag(other), path.display());
                return Err(format!(
                    "{other} and {one} must name different files: {path} was given to both"
                ));
            }
        }
    }
    Ok(())
}

fn flag(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

/// Returns an error that says which flags do not go together.
pub(crate) fn check(matches: &ArgMatches) -> Result<(), String> {
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    for &(id, needed, why) in NEEDS {
        if given(id) && !given(needed) {
            let (id, needed) = (flag(id), flag(needed));
            return Err(format!("{id} needs {needed}: {why}"));
        }
    }
    for &(one, other, why) in EXCLUDES {
        if given(one) && given(other) {
            let (one, other) = (flag(one), flag(other));
            return Err(format!("{one} and {other} exclude each other: {why}"));
        }
    }
    for &(id, value, other, why) in EXCLUDED_BY_VALUE {
        let mut raw = matches.get_raw(id).into_iter().flatten();
        if given(id) && given(other) && raw.any(|given| given == value) {
            let (id, other) = (flag(id), flag(other));
            return Err(format!(
                "{id} {value} and {other} exclude each other: {why}"
            ));
        }
    }
    let number = |id| matches.try_get_one::<usize>(id).ok().flatten();
    if let (Some(workers), Some(connections)) = (number("workers"), number("connections"))
        && workers > connections
    {
        return Err(format!(
            "--workers must be at most --connections, {connections}: {workers} was given"
        ));
    }
    check_files(matches)?;
    let url = matches.get_one::<String>("url");
    if url.is_some_and(|url| !url.starts_with("https://")) {
        for id in ["ca", "insecure"] {
            if given(id) {
                let id = flag(id);
                return Err(format!("{id} needs a URL that begins with https://"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command};
    use std::fmt::Write as _;

    fn command() -> Command {
        super::super::Arguments::augment_args(Command::new("load"))
    }

    /// Returns a flag with a value that is valid for it. If a flag is missing here, the test fails.
    fn sample(id: &str) -> &'static [&'static str] {
        match id {
            "rate" => &["--rate", "10"],
            "duration" => &["--duration", "1s"],
            "requests" => &["--requests", "10"],
            "warm_up" => &["--warm-up", "1s"],
            "connections" => &["--connections", "8"],
            "workers" => &["--workers", "2"],
            "mix" => &["--mix", "add=1"],
            "conflicts" => &["--conflicts", "1%"],
            "dataset" => &["--dataset", "widgets=10"],
            "dataset_part" => &["--dataset-part", "1/4"],
            "seed" => &["--seed", "2"],
            "run" => &["--run", "name"],
            "streams" => &["--streams", "2"],
            "token" => &["--token", "t"],
            "token_file" => &["--token-file", "file"],
            "ca" => &["--ca", "file"],
            "timeout" => &["--timeout", "1s"],
            "audit" => &["--audit", "all"],
            "audit_widgets_max" => &["--audit-widgets-max", "10"],
            "audit_timeout" => &["--audit-timeout", "1s"],
            "fail_if" => &["--fail-if", "p99>1s"],
            "slo" => &["--slo", "p99<1s"],
            "step" => &["--step", "1s"],
            "html" => &["--html", "html"],
            "json" => &["--json", "json"],
            "hdr" => &["--hdr", "hdr"],
            "push" => &["--push", "http://h"],
            "label" => &["--label", "a=b"],
            "interval" => &["--interval", "1s"],
            "poisson" => &["--poisson"],
            "http2" => &["--http2"],
            "insecure" => &["--insecure"],
            "during_crash" => &["--during-crash"],
            "idempotency_keys" => &["--idempotency-keys"],
            "follow_changes" => &["--follow-changes"],
            "find_max" => &["--find-max"],
            "plain" => &["--plain"],
            other => {
                panic!("what does {other} go with? Give it a value here, and look at the table")
            }
        }
    }

    fn verdict(words: &[&str]) -> Result<(), String> {
        let words = ["load", "https://host"].iter().chain(words);
        let matches = command().try_get_matches_from(words);
        check(&matches.expect("clap takes each of them"))
    }

    /// In the table, `.` means that the two flags go together, `n` that one of them needs a third,
    /// and `x` that they exclude each other.
    #[test]
    fn every_pair_of_load_flags_is_allowed_or_refused_as_listed() {
        let command = command();
        let ids: Vec<&str> = command
            .get_arguments()
            .map(|argument| argument.get_id().as_str())
            .filter(|&id| id != "url")
            .collect();
        let mut table = String::new();
        for (row, one) in ids.iter().enumerate() {
            write!(table, "{:<22}", flag(one)).expect("a string takes everything");
            for other in &ids[..row] {
                let mut words = [sample(one), sample(other)].concat();
                let mut sign = '.';
                // Add the flag that is needed, and check again.
                while let Err(why) = verdict(&words) {
                    let needed = ids
                        .iter()
                        .find(|id| why.contains(&format!(" needs {}:", flag(id))));
                    let Some(needed) = needed else {
                        assert!(why.contains(" exclude each other: "), "{words:?}: {why}");
                        sign = 'x';
                        break;
                    };
                    sign = 'n';
                    words.extend(sample(needed));
                }
                table.push(sign);
            }
            table.push('\n');
        }
        expect_test::expect_file!["together.txt"].assert_eq(&table);
    }

    #[test]
    fn reports_of_a_load_must_have_different_files() {
        for (one, other) in [
            ("report", "report"),
            ("report", "./report"),
            ("/tmp/report", "/tmp/../tmp/report"),
        ] {
            let why = verdict(&["--hdr", one, "--json", other]).expect_err(other);
            let told = "--json and --hdr must name different files: ";
            assert!(why.starts_with(told), "{why}");
        }
        for different in [["nowhere/a", "nowhere/b"], ["/dev/null", "/dev/null"]] {
            let [one, other] = different;
            assert_eq!(verdict(&["--json", one, "--html", other]), Ok(()));
        }
        // The report would replace the file that the link leads to.
        let folder = tempfile::tempdir().expect("a folder");
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "").expect("written");
        std::os::unix::fs::symlink("file", &link).expect("linked");
        let [file, link] = [&file, &link].map(|path| path.to_str().expect("text"));
        verdict(&["--json", file, "--html", link]).expect_err("one file");
    }

    #[test]
    fn values_and_the_url_decide_which_load_flags_are_allowed() {
        let refused = |words: &[&str]| verdict(words).expect_err("refused");
        assert_eq!(
            refused(&["--rate", "10", "--duration", "1s", "--slo", "p99<1ms"]),
            "--slo needs --find-max: --fail-if checks a bound at the rate that --rate gives"
        );
        assert_eq!(
            refused(&["--rate", "max", "--poisson"]),
            "--rate max and --poisson exclude each other: in a closed loop, requests have no \
             schedule"
        );
        assert!(refused(&["--audit", "none", "--audit-timeout", "1m"]).contains("no audit"));
        assert!(refused(&["--workers", "65"]).contains("at most --connections, 64: 65"));
        assert_eq!(verdict(&["--workers", "64"]), Ok(()));
        let plain = ["load", "http://host", "--insecure"];
        let matches = command().try_get_matches_from(plain).expect("parsed");
        assert_eq!(
            check(&matches),
            Err("--insecure needs a URL that begins with https://".into())
        );
        assert_eq!(
            verdict(&["--find-max", "--slo", "p99<1ms", "--step", "1s"]),
            Ok(())
        );
    }
}
