//! When files are loaded again.

use std::{fmt::Display, os::unix::fs::MetadataExt as _, path::PathBuf};

/// Files, and how they were found the last time.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    /// Their state when they were last loaded, whether that succeeded or not.
    seen: Vec<Option<Stamp>>,
    /// Why they could not be loaded then, if they could not.
    failure: Option<String>,
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
        Self {
            paths,
            seen,
            failure: None,
        }
    }

    /// Loads the files if any of them was changed, removed or restored since the last time, if they
    /// could not be loaded then, or if `forced`. Returns what came of it, or `None` if that is
    /// nothing new: nothing was loaded, or it failed again for the same reason.
    ///
    /// Files that could not be loaded are tried again although they have not changed, because the
    /// cause may be something else: their owner, their permissions, the disk.
    pub fn load<T, E: Display>(
        &mut self,
        forced: bool,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let now = stamps(&self.paths);
        let is_due = forced || now != self.seen;
        if !is_due && self.failure.is_none() {
            return None;
        }
        let loaded = load();
        let failure = loaded.as_ref().err().map(ToString::to_string);
        let is_new = is_due || failure != self.failure;
        // If loading panics, the files do not count as seen, and are tried again.
        self.seen = now;
        self.failure = failure;
        is_new.then_some(loaded)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_that_cannot_be_loaded_are_tried_at_each_call_and_reported_once_for_each_reason() {
        let mut watch = Watch::new(Vec::new());
        assert_eq!(watch.load(false, || Ok::<_, &str>(())), None);
        let mut fail = |forced, why| watch.load(forced, || Err::<(), _>(why));
        assert_eq!(fail(true, "denied"), Some(Err("denied")));
        assert_eq!(fail(false, "denied"), None);
        assert_eq!(fail(false, "no PEM"), Some(Err("no PEM")));
        assert_eq!(fail(false, "no PEM"), None);
        // Somebody asked for this attempt, and wants to know.
        assert_eq!(fail(true, "no PEM"), Some(Err("no PEM")));
        assert_eq!(watch.load(false, || Ok::<_, &str>(())), Some(Ok(())));
        assert_eq!(watch.load(false, || Ok::<_, &str>(())), None);
    }

    #[test]
    fn each_change_of_a_file_is_loaded_and_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let mut watch = Watch::new(vec![path.clone()]);
        let mut load = || watch.load(false, || fs::read(&path).map_err(|error| error.kind()));
        assert_eq!(load(), None);
        for content in ["one", "three"] {
            fs::write(&path, content).expect("written");
            assert_eq!(load(), Some(Ok(content.into())));
            assert_eq!(load(), None);
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(load(), Some(Err(std::io::ErrorKind::NotFound)));
        assert_eq!(load(), None);
    }
}
