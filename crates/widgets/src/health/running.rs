//! Finds the service that runs here: the process of `widgets serve` on this machine or in this
//! container, through the kernel. Its flags and variables say where it listens.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

/// A process that serves.
#[derive(Debug)]
struct Serving {
    process: PathBuf,
    /// What follows `serve` on its command line.
    arguments: Vec<OsString>,
}

/// Replaces this process with a `widgets health` that has the flags, variables and directory of the
/// service that runs here. Returns only if that fails, with the reason.
pub(super) fn ask_as_it_was_started(live: bool) -> String {
    let serving = match find(Path::new("/proc")) {
        Ok(serving) => serving,
        Err(why) => return why,
    };
    let Serving { process, arguments } = serving;
    let mut command = Command::new("/proc/self/exe");
    command.arg("health");
    if live {
        command.arg("--live");
    }
    command.arg("--").args(arguments);
    // In a container both processes have the same variables. Elsewhere another user's may not be
    // readable.
    if let Ok(variables) = fs::read(process.join("environ")) {
        command.env_clear().envs(pairs(&variables));
    }
    if let Ok(directory) = fs::read_link(process.join("cwd")) {
        command.current_dir(directory);
    }
    let error = command.exec();
    format!("asking as {} was started: {error}", process.display())
}

/// Finds the only process that serves.
fn find(proc: &Path) -> Result<Serving, String> {
    let failed = |error: io::Error| format!("looking for `widgets serve` in /proc: {error}");
    let own = identity(Path::new("/proc/self/exe"));
    let mut found = Vec::new();
    for entry in fs::read_dir(proc).map_err(failed)? {
        let process = entry.map_err(failed)?.path();
        let is_process = process
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        // A process that has ended meanwhile cannot be read.
        let line = fs::read(process.join("cmdline"));
        let Some(arguments) = line
            .ok()
            .filter(|_| is_process)
            .and_then(|line| serving(&line))
        else {
            continue;
        };
        // If its program can be seen, it must be the same file as this one.
        let program = identity(&process.join("exe"));
        if program.is_none() || program == own {
            found.push(Serving { process, arguments });
        }
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(serving), None) => Ok(serving),
        (None, _) => Err("no `widgets serve` is running here".into()),
        (Some(_), Some(_)) => Err(
            "more than one `widgets serve` is running here: name one by its flags, as in `widgets \
             health --listen 127.0.0.1:3000`"
                .into(),
        ),
    }
}

/// Returns which file this is, whatever its name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Returns what follows `serve` if this is a command line of `widgets`.
fn serving(line: &[u8]) -> Option<Vec<OsString>> {
    let mut words = line
        .strip_suffix(b"\0")?
        .split(|&byte| byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()));
    let program = words.next()?;
    let is_ours = Path::new(&program).file_name() == Some(OsStr::new("widgets"));
    let serves = words.next()? == "serve";
    (is_ours && serves).then(|| words.collect())
}

fn pairs(variables: &[u8]) -> Vec<(OsString, OsString)> {
    let pair = |variable: &[u8]| {
        let equals = variable.iter().position(|&byte| byte == b'=')?;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some((text(&variable[..equals]), text(&variable[equals + 1..])))
    };
    variables
        .split(|&byte| byte == 0)
        .filter_map(pair)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Option<Vec<String>> {
        let words = serving(line)?.into_iter();
        Some(
            words
                .map(|word| word.into_string().expect("text"))
                .collect(),
        )
    }

    #[test]
    fn only_command_lines_of_widgets_serve_are_recognised() {
        assert_eq!(
            words(b"/usr/local/bin/widgets\0serve\0--listen\0[::]:8080\0"),
            Some(vec!["--listen".into(), "[::]:8080".into()])
        );
        assert_eq!(words(b"widgets\0serve\0"), Some(Vec::new()));
        for other in [
            &b""[..],
            b"widgets\0health\0--running\0",
            b"docker-init\0--\0widgets\0serve\0",
            b"/bin/sh\0serve\0",
            b"widgets\0",
        ] {
            assert_eq!(words(other), None, "{other:?}");
        }
    }

    #[test]
    fn exactly_one_running_service_must_be_found() {
        let proc = tempfile::tempdir().expect("a directory");
        let process = |id: &str, line: &[u8]| {
            let process = proc.path().join(id);
            fs::create_dir(&process).expect("a directory");
            fs::write(process.join("cmdline"), line).expect("a file");
        };
        process("7", b"/bin/sh\0-c\0widgets serve\0");
        process("self", b"widgets\0serve\0");
        let none = find(proc.path()).expect_err("a shell is none");
        assert_eq!(none, "no `widgets serve` is running here");
        process("8", b"widgets\0serve\0--listen\0a\0");
        let one = find(proc.path()).expect("one");
        assert_eq!(one.arguments, ["--listen", "a"]);
        process("9", b"widgets\0serve\0");
        let two = find(proc.path()).expect_err("which one?");
        assert!(two.starts_with("more than one"), "{two}");
    }

    #[test]
    fn environment_variables_are_parsed_into_pairs() {
        let text = |text: &str| OsString::from(text);
        assert_eq!(
            pairs(b"A=b=c\0NONE\0E=\0"),
            [(text("A"), text("b=c")), (text("E"), text(""))]
        );
    }
}
