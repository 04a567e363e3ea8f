//! Whether files have changed.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf};

/// Files, and their state when they were last checked.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

/// Identifies a version of a file: which file it is, its length, and its last write. A symbolic
/// link is followed, because orchestrators replace mounted secrets by changing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Watch {
    /// Watches these files from now on.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let seen = stamps(&paths);
        Self { paths, seen }
    }

    /// Reports whether any of them was changed, removed or restored since the last time.
    pub fn changed(&mut self) -> bool {
        let now = stamps(&self.paths);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    };
    paths.iter().map(stamp).collect()
}
