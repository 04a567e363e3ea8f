//! Output files. They are written under a temporary name in the same directory, and renamed once
//! they are complete.
//!
//! If a program ends before that (by an error, a signal, a full disk), the existing file of that
//! name is unchanged. Only a `kill -9` or a power failure leaves something behind: a file whose
//! name begins with a dot and ends with `.partial`. The next program that writes the same file
//! removes it.

use crate::os_error::explain;
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions, TryLockError},
    io::{self, BufWriter, ErrorKind, Stdout, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tempfile::NamedTempFile;

const BUFFER_BYTES: usize = 1 << 20;

/// The mode of new files: whoever can read them can read all widgets.
const MODE: u32 = 0o600;

/// What happens to an existing file of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The existing file is kept, and nothing is written.
    Refuse,
    /// The existing file is replaced once the new one is complete. Its permissions are kept.
    Replace,
}

/// A file being written. If it is dropped before it is finished, it leaves nothing behind.
pub struct Output {
    to: To,
}

enum To {
    Standard(BufWriter<Stdout>),
    /// A pipe or a device, which is not renamed.
    Device(BufWriter<File>, PathBuf),
    File {
        partial: BufWriter<NamedTempFile>,
        path: PathBuf,
        existing: Existing,
    },
    /// Nothing more is written.
    Nowhere,
}

/// Every incomplete file, for [`discard_unfinished`].
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every incomplete file, for a process that is about to exit. Any later attempt to begin
/// or finish a file blocks.
pub fn discard_unfinished() {
    let unfinished = unfinished();
    for path in &*unfinished {
        // There is nobody left to report an error to.
        drop(fs::remove_file(path));
    }
    std::mem::forget(unfinished);
}

impl Output {
    /// Begins a file; `-` is the standard output. Returns an error, as text, if the file could not
    /// be finished under this name.
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
        // Links such as /dev/stdout and the shell's `>(…)` lead to files that cannot be renamed.
        let is_device = present.as_ref().is_some_and(|present| !present.is_file());
        if is_device || path.starts_with("/dev") {
            let file = File::options().write(true).open(path);
            let file = file.map_err(|error| failed(&error))?;
            return Ok(Self {
                to: To::Device(BufWriter::with_capacity(BUFFER_BYTES, file), path.into()),
            });
        }
        // A link that leads nowhere takes the name as well.
        let is_taken = present.is_some() || fs::symlink_metadata(path).is_ok();
        if is_taken && existing == Existing::Refuse {
            return Err(exists(path));
        }
        // For a link, the file that it leads to is replaced, as if it were written in place.
        let path = match &present {
            Some(_) => path.canonicalize().map_err(|error| failed(&error))?,
            None => path.to_owned(),
        };
        let mut prefix = OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        prefix.push("-");
        let partial = partial(&path, &prefix).map_err(|error| failed(&error))?;
        let this = Self {
            to: To::File {
                partial: BufWriter::with_capacity(BUFFER_BYTES, partial),
                path,
                existing,
            },
        };
        if let To::File { partial, path, .. } = &this.to {
            discard_left_over(path, &prefix);
            if let Some(present) = &present {
                let file = partial.get_ref().as_file();
                file.set_permissions(present.permissions())
                    .map_err(|error| failed(&error))?;
            }
        }
        Ok(this)
    }

    /// Describes why writing failed, with the path.
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
            // The name is durable once its directory is synced. A directory that is writable but
            // not readable cannot be synced; the file has its name all the same.
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

/// Makes an incomplete file, locked until it is closed: if nobody holds the lock of such a file, its
/// writer is gone.
fn partial(path: &Path, prefix: &OsStr) -> io::Result<NamedTempFile> {
    loop {
        // The lock is held so that the file is registered from the moment at which it exists.
        let mut known = unfinished();
        let partial = tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(RANDOM_BYTES)
            .suffix(PARTIAL)
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory(path))
            // This error names a temporary file that means nothing to the user, so the system's
            // error is used where possible.
            .map_err(|error| match fs::metadata(directory(path)) {
                Err(error) => error,
                Ok(_) => error.kind().into(),
            })?;
        known.insert(partial.path().to_owned());
        drop(known);
        match is_claimed(&partial) {
            Ok(true) => return Ok(partial),
            outcome => {
                unfinished().remove(partial.path());
                outcome?;
            }
        }
    }
}

/// Locks an incomplete file, and reports whether it still has its name. Until it was locked, another
/// writer may have taken it for left over.
fn is_claimed(partial: &NamedTempFile) -> io::Result<bool> {
    match partial.as_file().try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let ours = partial.as_file().metadata()?;
    match fs::symlink_metadata(partial.path()) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what killed writers of this file have left behind. A file that is still being written is
/// locked.
fn discard_left_over(path: &Path, prefix: &OsStr) {
    // This is a courtesy, so failures are ignored.
    let Ok(entries) = fs::read_dir(directory(path)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        // The incomplete files of `all-2` begin as those of `all` do, and are longer.
        let is_partial = name.len() == prefix.len() + RANDOM_BYTES + PARTIAL.len()
            && name.starts_with(prefix.as_encoded_bytes())
            && name.ends_with(PARTIAL.as_bytes());
        if is_partial
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// The number of random characters in the names of incomplete files.
const RANDOM_BYTES: usize = 6;

/// The suffix of the names of incomplete files.
const PARTIAL: &str = ".partial";

fn exists(path: &Path) -> String {
    format!(
        "{} already exists: give another name, or --force to replace it once the new file is \
         complete",
        path.display()
    )
}

/// Returns the directory of a file.
fn directory(path: &Path) -> &Path {
    let directory = path.parent();
    let directory = directory.filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

impl Drop for Output {
    fn drop(&mut self) {
        if let To::File { partial, .. } = &self.to {
            // Unless the file was given its name, dropping its handle removes it.
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
    fn a_file_gets_its_final_name_only_once_complete() {
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
    fn partial_files_of_killed_writers_are_removed_and_open_ones_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        for name in [
            ".all.jsonl-Ab12Cd.partial",
            ".all.jsonl-2-Ab12Cd.partial",
            ".other-Ab12Cd.partial",
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
            4,
            "both that are written, and no partial file of theirs: {partial:?}"
        );
        assert!(
            !partial.contains(&".all.jsonl-Ab12Cd.partial".into()),
            "{partial:?}"
        );
        first.finish().unwrap();
        second.finish().unwrap();
        assert_eq!(
            names(directory.path()),
            [
                ".all.jsonl-2-Ab12Cd.partial",
                ".all.jsonl-x",
                ".other-Ab12Cd.partial",
                "all.jsonl"
            ]
        );
    }

    #[test]
    fn writers_of_the_same_file_never_remove_each_others_partial_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let output = Output::create(&path, Existing::Replace).unwrap();
                        let To::File { partial, .. } = &output.to else {
                            unreachable!("it is no device");
                        };
                        assert!(partial.get_ref().path().exists());
                    }
                });
            }
        });
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[test]
    fn a_partial_file_that_was_removed_before_its_lock_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let made = || NamedTempFile::new_in(directory.path()).unwrap();
        assert!(is_claimed(&made()).unwrap());
        let removed = made();
        fs::remove_file(removed.path()).unwrap();
        assert!(!is_claimed(&removed).unwrap());
        // Another file may have the name by now.
        fs::write(removed.path(), "another's").unwrap();
        assert!(!is_claimed(&removed).unwrap());
        let being_removed = made();
        let other = File::open(being_removed.path()).unwrap();
        other.try_lock().unwrap();
        assert!(!is_claimed(&being_removed).unwrap());
    }

    #[test]
    fn an_existing_file_is_replaced_only_on_request_and_once_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = Output::create(&path, Existing::Refuse).err().unwrap();
        assert!(refused.contains("already exists"), "{refused}");
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
    fn a_file_created_by_another_process_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all.jsonl");
        let output = Output::create(&path, Existing::Refuse).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        let refused = output.finish().unwrap_err();
        assert!(refused.contains("already exists"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    }

    #[test]
    fn writing_through_a_symlink_replaces_the_file_and_keeps_the_link() {
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
    fn a_link_that_leads_nowhere_is_refused_at_once_as_an_existing_file() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let refused = Output::create(&link, Existing::Refuse).err().unwrap();
        assert!(refused.contains("already exists"), "{refused}");
        assert_eq!(names(directory.path()), ["link"]);
    }

    #[test]
    fn writing_to_a_device_does_not_replace_it() {
        let before = fs::metadata("/dev/null").unwrap().permissions();
        let mut output = Output::create(Path::new("/dev/null"), Existing::Refuse).unwrap();
        output.write_all(b"gone").unwrap();
        output.finish().unwrap();
        let after = fs::metadata("/dev/null").unwrap();
        assert!(!after.is_file(), "it is a device still");
        assert_eq!(after.permissions(), before);
    }

    #[test]
    fn an_unwritable_path_is_reported_on_creation() {
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
