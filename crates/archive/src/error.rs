//! What can go wrong with an archive.

use std::fmt;
use widgets_engine::OpenError;

/// Why something could not be done with an archive. Nothing in the store was lost by trying.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket did not do what it was asked. It may yet.
    #[error("{what}: {why}")]
    Bucket {
        /// What was tried, with the object's name.
        what: String,
        /// What kind of failure it is.
        failure: Failure,
        /// What the bucket said, without credentials.
        why: String,
    },
    /// There is no archive.
    #[error("there is no archive at {url}")]
    Missing {
        /// Where.
        url: String,
    },
    /// An object is not as it was written, or is not there.
    #[error("{object} is damaged: {defect}")]
    Damaged {
        /// Its name.
        object: String,
        /// What is wrong with it.
        defect: String,
    },
    /// A later version of the program wrote it.
    #[error("{object} has format version {found}, this program reads version {known}")]
    Version {
        /// Its name.
        object: String,
        /// Its version.
        found: u32,
        /// The one that is known.
        known: u32,
    },
    /// The bucket overwrites what it was told to leave: then two writers could ruin the archive.
    #[error(
        "the bucket ignores conditional writes (If-None-Match, If-Match), which an archive rests on: take a \
         server that has them"
    )]
    Unconditional,
    /// The archive is of another store.
    #[error(
        "the archive is of the store {found:016x}, this is the store {ours:016x}: give each store an archive \
         of its own, or restore this one (`widgets restore`)"
    )]
    OtherStore {
        /// Whose it is.
        found: u64,
        /// Which store was given.
        ours: u64,
    },
    /// Another process writes to the archive now.
    #[error(
        "another process has taken over the archive (writer {writer}, this one was {ours}): two services must \
         not have the same archive.url"
    )]
    Lost {
        /// The number of the other one.
        writer: u32,
        /// The number that this one had.
        ours: u32,
    },
    /// The store was restored from the archive elsewhere, and goes on there.
    #[error(
        "the archive goes on in epoch {found} of this store, which was restored elsewhere; this directory is \
         of epoch {ours} and was left behind"
    )]
    LeftBehind {
        /// The epoch of the archive.
        found: u32,
        /// The epoch of the directory.
        ours: u32,
    },
    /// The archive has what the store has not.
    #[error(
        "the archive has entries up to {found} that are not in this directory, which {}: an older copy was \
         put back, or the disk lost what it had synced. Restore from the archive",
        if *ours == 0 { "has none".into() } else { format!("ends with entry {ours}") }
    )]
    Ahead {
        /// The last entry of the archive.
        found: u64,
        /// The last entry of the store.
        ours: u64,
    },
    /// The archive has another history than the store, in the same epoch.
    #[error(
        "the archive has another history of this store than this directory from entry {from} on: a copy of the \
         directory was used elsewhere. Give each an archive of its own, or restore from the archive"
    )]
    OtherHistory {
        /// The entry.
        from: u64,
    },
    /// The moment that was asked for is not in the archive.
    #[error("{0}")]
    Unreachable(String),
    /// The store, or the directory to restore into.
    #[error("{0}")]
    Store(#[from] OpenError),
    /// Reading the store that is copied.
    #[error("{0}")]
    Source(String),
}

/// Kinds of failures of a bucket, as the metric tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does not let us (401, 403).
    Refused,
    /// The bucket or the object is not there (404).
    Missing,
    /// It cannot be reached, is slow, or fails.
    Unavailable,
}

impl Failure {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Refused, Self::Missing, Self::Unavailable];

    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Missing => "missing",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Error {
    /// Whether trying again is of no use: somebody has to decide.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Unconditional
                | Self::OtherStore { .. }
                | Self::Lost { .. }
                | Self::LeftBehind { .. }
                | Self::Ahead { .. }
                | Self::OtherHistory { .. }
                | Self::Version { .. }
        )
    }

    /// Whether it is an object's fault, so that another one may do.
    pub(crate) const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Bucket {
                    failure: Failure::Missing,
                    ..
                }
        )
    }
}
