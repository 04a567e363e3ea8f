//! Why a store cannot be opened.

use crate::{
    files::STORE,
    format::{FORMAT_VERSION, FORMAT_VERSION_OLDEST, HeaderDefect},
};
use std::{io, path::PathBuf};

/// Why the data directory could not be opened. The attempt lost nothing in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The directory is not empty, and what is in it is not a store.
    #[error(
        "the directory {} is not empty and has no store in it: it has {files} other {}, such as \
         {example:?}",
        directory.display(), if *files == 1 { "entry" } else { "entries" }
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// How many files and directories are in it.
        files: usize,
        /// The name of one of them.
        example: String,
    },
    /// There is no store, and none may be created.
    #[error(
        "there is no store in {}: {}",
        directory.display(), if *is_there { "it is empty" } else { "there is no such directory" }
    )]
    NoStore {
        /// Where one was expected.
        directory: PathBuf,
        /// Whether the directory exists.
        is_there: bool,
    },
    /// A restore into the directory did not finish. What is in it was never served.
    #[error(
        "a restore into the directory {} did not finish: run it again, it starts over",
        directory.display()
    )]
    Restoring {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory is not empty.
    #[error(
        "the directory {} is not empty, it has {example:?}: a store can only be restored into an \
         empty directory",
        directory.display()
    )]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// The name of something in it.
        example: String,
    },
    /// The operating system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the file's name.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file was written by another version of the format.
    #[error(
        "{file} has format version {found}, and this program reads versions {oldest} to \
    {newest}"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The oldest version that this program reads.
        oldest: u32,
        /// The newest version, which it writes.
        newest: u32,
    },
    /// A later version of the program wrote an entry that this one does not know.
    #[error(
        "{file} has at byte {offset} an entry of kind {kind}, which this program does not know"
    )]
    UnknownKind {
        /// The file.
        file: String,
        /// The byte offset in the file at which its group begins.
        offset: u64,
        /// The kind.
        kind: u8,
    },
    /// Durable data is missing or is not as it was written. Restore a copy: starting would serve a
    /// state that never existed.
    #[error("{file} is damaged{}: {defect}", place(*offset))]
    Damaged {
        /// The file.
        file: String,
        /// The byte offset in the file; 0 if it is the header.
        offset: u64,
        /// What is wrong there.
        defect: String,
    },
    /// A file is missing without which the state cannot be rebuilt. Restore a copy.
    #[error("{file} is missing: without it the state cannot be rebuilt")]
    Missing {
        /// The file.
        file: String,
    },
    /// There is a store, but neither a checkpoint nor the beginning of the journal. Restore a copy.
    #[error(
        "there is neither a checkpoint nor {file}: without one of them the state cannot be rebuilt"
    )]
    NoBeginning {
        /// The first segment of the journal.
        file: String,
    },
    /// A setting is out of its range.
    #[error("{setting} must be {limit}, {given} was given")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its range.
        limit: String,
        /// What was given.
        given: u64,
    },
}

impl OpenError {
    /// Returns a function for `map_err` that adds what was tried when the operating system failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Returns the error for a header of this file with this defect.
    pub(crate) fn header(file: &str, defect: HeaderDefect) -> Self {
        match defect {
            HeaderDefect::Version(found) => Self::Version {
                file: file.into(),
                found,
                oldest: FORMAT_VERSION_OLDEST,
                newest: FORMAT_VERSION,
            },
            HeaderDefect::Damaged(defect) => Self::Damaged {
                file: file.into(),
                offset: 0,
                defect: defect.into(),
            },
        }
    }

    /// Checks that a file, which says that it belongs to the store `found`, belongs to this one.
    pub(crate) fn check_store(file: &str, found: u64, store: Option<u64>) -> Result<(), Self> {
        match store {
            None => Err(Self::Missing { file: STORE.into() }),
            Some(store) if store == found => Ok(()),
            Some(store) => Err(Self::Damaged {
                file: file.into(),
                offset: 0,
                defect: format!("it is of the store {found:016x}, the others are of {store:016x}"),
            }),
        }
    }
}

/// Describes where a file is damaged. Returns nothing for the header, because the defect says that.
fn place(offset: u64) -> String {
    match offset {
        0 => String::new(),
        _ => format!(" at byte {offset}"),
    }
}
