//! The errors of an archive.

use std::fmt;
use widgets_engine::OpenError;

/// Why an operation on an archive failed. The attempt changed nothing in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket did not do what was requested. It may succeed later.
    #[error("{what}: {why}")]
    Bucket {
        /// What was tried, with the object's name.
        what: String,
        /// The kind of failure.
        failure: Failure,
        /// The bucket's message, without credentials.
        why: String,
    },
    /// There is no archive.
    #[error("there is no archive at {url}")]
    Missing {
        /// The address.
        url: String,
    },
    /// An object is missing, or is not as it was written.
    #[error("{object} is damaged: {defect}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What is wrong with it.
        defect: String,
    },
    /// A later version of the program wrote the object.
    #[error("{object} has format version {found}, and this program reads version {known}")]
    Version {
        /// The object's name.
        object: String,
        /// The object's version.
        found: u32,
        /// The version that this program knows.
        known: u32,
    },
    /// The bucket overwrites objects that it was told to leave, so two writers could ruin the
    /// archive.
    #[error(
        "the bucket ignores conditional writes (If-None-Match, If-Match), which an archive depends \
         on: use a server that supports them"
    )]
    Unconditional,
    /// The archive belongs to another store.
    #[error(
        "the archive is of the store {found:016x}, this is the store {ours:016x}: give each store an archive \
         of its own, or restore this one (`widgets restore`)"
    )]
    OtherStore {
        /// The store of the archive.
        found: u64,
        /// The given store.
        ours: u64,
    },
    /// Another process now writes to the archive.
    #[error(
        "another process has taken over the archive (writer {writer}, this one was {ours}): two \
         services must not use the same archive.url"
    )]
    Lost {
        /// The number of the other process.
        writer: u32,
        /// The number that this process had.
        ours: u32,
    },
    /// The store was restored from the archive elsewhere and continues there.
    #[error(
        "the archive continues in epoch {found} of this store, which was restored elsewhere; this directory is \
         of epoch {ours} and was left behind"
    )]
    LeftBehind {
        /// The epoch of the archive.
        found: u32,
        /// The epoch of the directory.
        ours: u32,
    },
    /// The archive has entries that the store lacks.
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
    /// In the same epoch, the archive's history differs from the store's.
    #[error(
        "the archive has another history of this store than this directory from entry {from} on: a copy of the \
         directory was used elsewhere. Give each an archive of its own, or restore from the archive"
    )]
    OtherHistory {
        /// The first entry that differs.
        from: u64,
    },
    /// A copy of the store with an epoch of its own wrote to the archive last. A backup does not
    /// take the archive away from it.
    #[error(
        "the archive is written by another copy of this store: its writer {writer} is in epoch {}, at entry {}; \
         this directory is in epoch {}, at entry {}. Back it up to an archive of its own, such as another folder{}",
        found.0,
        found.1,
        ours.0,
        ours.1,
        if ours.0 > found.0 {
            ". If this archive is to continue from this directory, start the service on it with archive.url"
        } else {
            ""
        }
    )]
    OtherCopy {
        /// The number of the archive's writer.
        writer: u32,
        /// The epoch and the last entry of the archive.
        found: (u32, u64),
        /// The epoch and the last entry of the directory.
        ours: (u32, u64),
    },
    /// The requested moment is not in the archive.
    #[error("{0}")]
    Unreachable(String),
    /// The store, or the directory to restore into, cannot be opened.
    #[error("{0}")]
    Store(#[from] OpenError),
    /// The store to be copied cannot be read.
    #[error("{0}")]
    Source(String),
}

/// The kinds of failures of a bucket, as the metric names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The bucket denies access (401, 403).
    Refused,
    /// The bucket or the object does not exist (404).
    Missing,
    /// The bucket is unreachable, slow or failing.
    Unavailable,
}

impl Failure {
    /// All kinds.
    pub(crate) const ALL: [Self; 3] = [Self::Refused, Self::Missing, Self::Unavailable];

    /// Returns the kind's name in the metric.
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
    /// Returns whether retrying is useless, because somebody has to decide.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Unconditional
                | Self::OtherStore { .. }
                | Self::Lost { .. }
                | Self::LeftBehind { .. }
                | Self::Ahead { .. }
                | Self::OtherHistory { .. }
                | Self::OtherCopy { .. }
                | Self::Version { .. }
        )
    }

    /// Returns whether the error is the object's fault, so that another object may do.
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
