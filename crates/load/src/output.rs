//! Files that are written: beside the name that they are to have, which they get when they are whole.
//!
//! Whatever ends a program before that (an error, a signal, a full disk) leaves the file that had the
//! name as it was. Only a `kill -9` or a power cut leaves something behind: a file that begins with a
//! dot and ends with `.partial`. Whoever writes the same file next removes it.

use crate::os_error::explain;
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, BufWriter, ErrorKind, Stdout, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tempfile::NamedTempFile;

const BUFFER_BYTES: usize = 1 << 20;

/// What new files get: whoever may read them reads all widgets.
const MODE: u32 = 0o600;

/// What becomes of a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is written.
    Refuse,
    /// It is replaced once the new file is whole. Who may read it stays as it was.
    Replace,
}

/// A file being written. Dropped before it is finished, it leaves nothing.
pub struct Output {
    to: To,
}

enum To {
    Standard(BufWriter<Stdout>),
    /// A pipe or a device: there is no name to give.
    Device(BufWriter<File>, PathBuf),
    File {
        partial: BufWriter<NamedTempFile>,
        path: PathBuf,
        existing: Existing,
    },
    /// Nothing is written any more.
    Nowhere,
}

/// Every file that is not whole yet, for [`discard_unfinished`].
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every file that is not whole. For a process that ends here and now: whoever begins or ends a file from
/// now on waits for that.
pub fn discard_unfinished() {
    let unfinished = unfinished();
    for path in &*unfinished {
        // Nobody is left to tell.
        drop(fs::remove_file(path));
    }
    std::mem::forget(unfinished);
}

impl Output {
    /// Begins a file; `-` is the standard output. An error, in words, where it could not be finished
    /// under this name.
    pub fn create(path: &Path, existing: Existing) -> Result<Self, String> {
        if path == Path::new("-") {
            let output = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
            return Ok(Self {
                to: To::Standard(output),
            });
        }
        let failed = |error: &io::Error| explain(&format!("writing {}", path.display()), error);
        let present = match fs::metadata(path) {
            Ok(present) => Some(present),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&error)),
        };
        if present.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(failed(&ErrorKind::IsADirectory.into()));
        }
        // The links of /dev/stdout and the shell's `>(…)` lead to files that have no name to change.
        let is_device = present.as_ref().is_some_and(|present| !present.is_file());
        if is_device || path.starts_with("/dev") {
            let file = File::options().write(true).open(path);
            let file = file.map_err(|error| failed(&error))?;
            return Ok(Self {
                to: To::Device(BufWriter::with_capacity(BUFFER_BYTES, file), path.into()),
            });
        }
        if present.is_some() && existing == Existing::Refuse {
            return Err(exists(path));
        }
        // Of a link the file that it leads to is written, as it would be in place.
        let path = match &present {
            Some(_) => path.canonicalize().map_err(|error| failed(&error))?,
            None => path.to_owned(),
        };
        let mut prefix = OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        prefix.push("-");
        // It is known from the moment at which it is there.
        let mut known = unfinished();
        let partial = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(PARTIAL)
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory(&path))
            // Its text names a file that nobody has heard of; where it is known, the system's is better.
            .map_err(|error| match fs::metadata(directory(&path)) {
                Err(error) => failed(&error),
                Ok(_) => failed(&error.kind().into()),
            })?;
        known.insert(partial.path().to_owned());
        drop(known);
        let this = Self {
            to: To::File {
                partial: BufWriter::with_capacity(BUFFER_BYTES, partial),
                path,
                existing,
            },
        };
        if let To::File { partial, path, .. } = &this.to {
            let file = partial.get_ref().as_file();
            // Held until the file is closed: who finds one that nobody holds knows that its writer is gone.
            file.try_lock().map_err(|error| failed(&error.into()))?;
            discard_left_over(path, &prefix);
            if let Some(present) = &present {
                file.set_permissions(present.permissions())
                    .map_err(|error| failed(&error))?;
            }
        }
        Ok(this)
    }

    /// Why writing failed, with where to.
    #[must_use]
    pub fn failed(&self, error: &io::Error) -> String {
        let path = match &self.to {
            To::Standard(_) => return explain("writing to the standard output", error),
            To::Nowhere => return explain("writing", error),
            To::Device(_, path) | To::File { path, .. } => path,
        };
        explain(&format!("writing {}", path.display()), error)
    }

    /// Gives the file its name, durably.
    pub fn finish(mut self) -> Result<(), String> {
        let flushed = self.flush();
        if !matches!(self.to, To::File { .. }) {
            return flushed.map_err(|error| self.failed(&error));
        }
        let To::File {
            partial,
            path,
            existing,
        } = std::mem::replace(&mut self.to, To::Nowhere)
        else {
            return Ok(());
        };
        let named = || {
            flushed?;
            let partial = partial
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            let name = partial.path().to_owned();
            let synced = partial.as_file().sync_all();
            let persisted = synced.and_then(|()| {
                let persisted = match existing {
                    Existing::Refuse => partial.persist_noclobber(&path),
                    Existing::Replace => partial.persist(&path),
                };
                persisted.map_err(|error| error.error)
            });
            unfinished().remove(&name);
            persisted?;
            // The name is durable when its directory is. One that may be written and not read cannot be
            // synced, and the file has its name all the same.
            match File::open(directory(&path)).and_then(|directory| directory.sync_all()) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
                _ => Ok(()),
            }
        };
        named().map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&path),
            _ => explain(&format!("writing {}", path.display()), &error),
        })
    }
}

/// Removes what writers of this file left that were killed. A file that is still written to is locked.
fn discard_left_over(path: &Path, prefix: &OsStr) {
    // It is a courtesy: where it cannot be done, nobody is worse off than before.
    let Ok(entries) = fs::read_dir(directory(path)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let is_partial =
            name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(PARTIAL.as_bytes());
        if is_partial
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// What the name of a file ends with that is not whole.
const PARTIAL: &str = ".partial";

fn exists(path: &Path) -> String {
    format!(
        "{} is there already: give another name, or --force to replace it once the new file is whole",
        path.display()
    )
}

/// Where a file is.
fn directory(path: &Path) -> &Path {
    let directory = path.parent();
    let directory = directory.filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

impl Drop for Output {
    fn drop(&mut self) {
        if let To::File { partial, .. } = &self.to {
            // The file itself goes with its handle, where it was not given its name.
            unfinished().remove(partial.get_ref().path());
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            To::Standard(output) => output.write(bytes),
            To::Device(output, _) => output.write(bytes),
            To::File { partial, .. } => partial.write(bytes),
            To::Nowhere => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Standard(output) => output.flush(),
            To::Device(output, _) => output.flush(),
            To::File { partial, .. } => partial.flush(),
            To::Nowhere => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        let mut output = Output::create(&path, Existing::Refuse).unwrap();
        output.write_all(b"new").unwrap();
        assert!(!path.exists());
        let partial = names(directory.path());
        assert!(
            partial.len() == 1
                && partial[0].starts_with(".all.jsonl-")
                && partial[0].ends_with(".partial"),
            "{partial:?}"
        );
        output.finish().unwrap();
        assert_eq!(names(directory.path()), ["all.jsonl"]);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "nobody else reads all widgets");
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        for name in [
            ".all.jsonl-Ab12.partial",
            ".other-Ab12.partial",
            ".all.jsonl-x",
        ] {
            fs::write(directory.path().join(name), "half").unwrap();
        }
        let first = Output::create(&path, Existing::Replace).unwrap();
        let second = Output::create(&path, Existing::Replace).unwrap();
        let partial = names(directory.path()).into_iter();
        let partial: Vec<_> = partial
            .filter(|name| name.starts_with(".all.jsonl-"))
            .collect();
        assert_eq!(
            partial.len(),
            3,
            "both that are written, and no partial file: {partial:?}"
        );
        assert!(
            !partial.contains(&".all.jsonl-Ab12.partial".into()),
            "{partial:?}"
        );
        first.finish().unwrap();
        second.finish().unwrap();
        assert_eq!(
            names(directory.path()),
            [".all.jsonl-x", ".other-Ab12.partial", "all.jsonl"]
        );
    }

    #[test]
    fn what_had_the_name_stays_until_then_and_is_replaced_only_where_that_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = Output::create(&path, Existing::Refuse).err().unwrap();
        assert!(refused.contains("is there already"), "{refused}");
        let mut given_up = Output::create(&path, Existing::Replace).unwrap();
        given_up.write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["all.jsonl"]);
        let mut output = Output::create(&path, Existing::Replace).unwrap();
        output.write_all(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640, "who may read it stays as it was");
    }

    #[test]
    fn a_file_that_somebody_else_made_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        let output = Output::create(&path, Existing::Refuse).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        let refused = output.finish().unwrap_err();
        assert!(refused.contains("is there already"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut output = Output::create(&link, Existing::Replace).unwrap();
        output.write_all(b"new").unwrap();
        output.finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn a_device_is_written_and_keeps_its_name() {
        let before = fs::metadata("/dev/null").unwrap().permissions();
        let mut output = Output::create(Path::new("/dev/null"), Existing::Refuse).unwrap();
        output.write_all(b"gone").unwrap();
        output.finish().unwrap();
        let after = fs::metadata("/dev/null").unwrap();
        assert!(!after.is_file(), "it is a device still");
        assert_eq!(after.permissions(), before);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_at_once() {
        let refused = Output::create(Path::new("/nowhere/all.jsonl"), Existing::Refuse);
        let refused = refused.err().unwrap();
        assert!(
            refused.starts_with("writing /nowhere/all.jsonl: ")
                && refused.contains("Correct the path"),
            "{refused}"
        );
        let directory = tempfile::tempdir().unwrap();
        let refused = Output::create(directory.path(), Existing::Replace)
            .err()
            .unwrap();
        assert!(refused.contains("give the path of a file"), "{refused}");
    }
}
