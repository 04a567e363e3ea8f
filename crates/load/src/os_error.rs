//! Errors of the operating system, with advice on what to do about them.

use std::io::{self, ErrorKind};

/// Describes an error of the operating system for people: what was attempted, with its path; the
/// cause; and the cure, if there is one.
#[must_use]
pub fn explain(what: &str, error: &io::Error) -> String {
    match cure(error.kind()) {
        Some(cure) => format!("{what}: {error}. {cure}"),
        None => format!("{what}: {error}"),
    }
}

const fn cure(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ReadOnlyFilesystem => {
            "Its file system is mounted read-only: mount it for writing, or give a path on another \
             one"
        }
        ErrorKind::StorageFull => {
            "Make room on its file system, or give a path on another one (`df -h` shows them)"
        }
        ErrorKind::QuotaExceeded => {
            "The quota is used up: make room, or give a path on another file system"
        }
        ErrorKind::PermissionDenied => {
            "The user that runs this (`id`) lacks permission: change the owner or the mode (`ls -ld` \
             shows them), or give another path"
        }
        ErrorKind::NotFound => "Correct the path, or make the directories that are missing",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "It, or a part of its path, is a file instead of a directory: give another path"
        }
        ErrorKind::IsADirectory => "It is a directory: give the path of a file",
        ErrorKind::InvalidFilename => "Give a shorter path",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_begins_with_the_path_and_ends_with_advice() {
        let error = io::Error::from_raw_os_error(30);
        assert_eq!(
            explain("writing /mnt/all.jsonl", &error),
            "writing /mnt/all.jsonl: Read-only file system (os error 30). Its file system is \
             mounted read-only: mount it for writing, or give a path on another one"
        );
        let error = io::Error::from_raw_os_error(4);
        assert_eq!(explain("reading a", &error), format!("reading a: {error}"));
    }
}
