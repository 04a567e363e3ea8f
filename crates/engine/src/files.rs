//! The names of the files in the data directory, and which of them recovery still needs.

use crate::disk::{Disk, DiskFile};
use std::io;

/// The end of a file's name until the file is complete and durable, and again while the file is
/// removed piece by piece. A start removes such files.
pub(crate) const UNFINISHED: &str = "_unfinished";

/// The file that says which store this is.
pub(crate) const STORE: &str = "store";

/// A file in the directory while a copy is restored into it. A start refuses such a directory.
pub(crate) const RESTORING: &str = "restore_unfinished";

const SEGMENT: &str = "journal-";
const CHECKPOINT: &str = "checkpoint-";

/// Returns the name of a segment of the journal.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{SEGMENT}{number:016x}")
}

/// Returns the name of the checkpoint from which the journal is replayed from this entry on.
pub(crate) fn checkpoint_name(first_sequence: u64) -> String {
    format!("{CHECKPOINT}{first_sequence:016x}")
}

/// The files of the data directory, each kind in ascending order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The numbers of the segments.
    pub(crate) segments: Vec<u64>,
    /// The first sequence numbers of the checkpoints.
    pub(crate) checkpoints: Vec<u64>,
    /// The names of files that were never finished, or whose removal was not.
    pub(crate) unfinished: Vec<String>,
    /// Whether the file `store` exists.
    pub(crate) has_store: bool,
}

impl Files {
    /// Lists the files by kind. Names that the engine never uses belong to others, and are left
    /// alone.
    pub(crate) fn list(disk: &impl Disk) -> io::Result<Self> {
        let mut files = Self::default();
        for name in disk.list()? {
            if is_unfinished(&name) {
                files.unfinished.push(name);
            } else if name == STORE {
                files.has_store = true;
            } else if let Some(number) = number(&name, SEGMENT) {
                files.segments.push(number);
            } else if let Some(first_sequence) = number(&name, CHECKPOINT) {
                files.checkpoints.push(first_sequence);
            }
        }
        files.segments.sort_unstable();
        files.checkpoints.sort_unstable();
        Ok(files)
    }

    /// Reports whether there is a store, or a part of one.
    pub(crate) fn is_store(&self) -> bool {
        self.has_store || !self.segments.is_empty() || !self.checkpoints.is_empty()
    }
}

/// Reports whether a file with this name is a part of a store. A directory without any such file
/// has no store.
pub(crate) fn is_store(name: &str) -> bool {
    name == STORE || number(name, SEGMENT).or(number(name, CHECKPOINT)).is_some()
}

/// Reports whether the name is one of a file that the engine never finished, or whose removal it
/// never finished.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(UNFINISHED).is_some_and(is_store)
}

fn number(name: &str, kind: &str) -> Option<u64> {
    let digits = name.strip_prefix(kind)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (format!("{number:016x}") == digits).then_some(number)
}

/// Creates an empty unfinished file for this name. Replaces one that an earlier failure left.
pub(crate) fn create_unfinished<D: Disk>(disk: &D, name: &str) -> io::Result<D::File> {
    let unfinished = format!("{name}{UNFINISHED}");
    if disk.list()?.contains(&unfinished) {
        disk.remove(&unfinished)?;
    }
    disk.create(&unfinished)
}

/// Gives an unfinished file, which must be synced, its name, durably.
pub(crate) fn finish(disk: &impl Disk, name: &str) -> io::Result<()> {
    disk.rename(&format!("{name}{UNFINISHED}"), name)?;
    disk.sync_directory()
}

/// Removes an unfinished file after a failure, which frees its space. A start would remove it too.
pub(crate) fn discard(disk: &impl Disk, name: &str) {
    let unfinished = format!("{name}{UNFINISHED}");
    if let Err(error) = disk.remove(&unfinished) {
        tracing::warn!(%error, file = unfinished, "removing an unfinished file failed");
    }
}

/// Returns the files that the checkpoint at `first_sequence`, which must be durable with its name,
/// and the journal from `segment` on make obsolete, the oldest segment before newer ones. What an
/// unfinished removal left of such files is among them.
pub(crate) fn obsolete(
    disk: &impl Disk,
    first_sequence: u64,
    segment: u64,
) -> io::Result<Vec<String>> {
    let mut names = disk.list()?;
    names.retain(|name| {
        let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
        number(name, SEGMENT).is_some_and(|number| number < segment)
            || number(name, CHECKPOINT).is_some_and(|first| first < first_sequence)
    });
    names.sort_unstable();
    Ok(names)
}

/// A file is removed in pieces of this many bytes. The files of tests are small.
const REMOVED_PIECE_BYTES: u64 = if cfg!(test) { 6 << 10 } else { 2 << 20 };

/// Removes files piece by piece.
///
/// If a file system tells its disk what it no longer uses (`discard`), every sync waits meanwhile:
/// more than 100 ms for a file of 380 MB, some milliseconds for 2 MiB.
///
/// The process may end at any piece. A file that is shorter than it was is damaged, so no file may
/// get shorter under a name under which it is read.
pub(crate) struct Removal<F> {
    names: Vec<String>,
    /// Whether the files have names that a start removes, durably.
    is_begun: bool,
    file: Option<F>,
}

impl<F: DiskFile> Removal<F> {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self {
            names,
            is_begun: false,
            file: None,
        }
    }

    /// Renames the files, or removes one piece. Returns whether there is more.
    pub(crate) fn step<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<bool> {
        let Some(name) = self.names.last() else {
            return Ok(false);
        };
        if !self.is_begun {
            self.begin(disk)?;
            return Ok(true);
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => disk.open(name)?,
        };
        if file.shorten(REMOVED_PIECE_BYTES)? > 0 {
            file.sync()?;
            self.file = Some(file);
        } else {
            disk.remove(name)?;
            self.names.pop();
        }
        Ok(!self.names.is_empty())
    }

    /// Gives every file a name that a start removes, durably. The directory is synced even if all
    /// files have such a name, because the removal that renamed them may have failed to sync it.
    fn begin(&mut self, disk: &impl Disk) -> io::Result<()> {
        for name in &mut self.names {
            if !name.ends_with(UNFINISHED) {
                let unfinished = format!("{name}{UNFINISHED}");
                disk.rename(name, &unfinished)?;
                *name = unfinished;
            }
        }
        disk.sync_directory()?;
        self.is_begun = true;
        Ok(())
    }
}
