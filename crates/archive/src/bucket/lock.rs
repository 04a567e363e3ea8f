//! Locks the manifest of an archive in a folder, which has no conditional writes.

use super::{NO_FILE, failed::of_kind, is_odd};
use crate::{Error, error::Failure};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The file whose lock guards the manifest.
const LOCK: &str = "manifest.lock";

/// The pause before another attempt while another process holds the lock.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// Locks the manifest in this folder until the file that is returned is closed, also by the end of
/// the process. Gives up after `time_max`: another process may have stopped while it holds the
/// lock, and a file server may keep the lock of a machine that is gone.
pub(super) async fn lock(folder: &Path, time_max: Duration) -> Result<File, Error> {
    let path = folder.join(LOCK);
    if is_odd(path.clone()).await {
        return Err(Error::Damaged {
            object: LOCK.into(),
            defect: NO_FILE.into(),
        });
    }
    let (failure, why) = match tokio::time::timeout(time_max, wait_for(path)).await {
        Ok(Ok(lock)) => return Ok(lock),
        Ok(Err(error)) => (of_kind(error.kind()), error.to_string()),
        Err(_) => (
            Failure::Unavailable,
            format!(
                "{LOCK} could not be locked within {} s, another process may hold it",
                time_max.as_secs()
            ),
        ),
    };
    Err(Error::Bucket {
        what: "locking the manifest".into(),
        failure,
        why,
    })
}

async fn wait_for(path: PathBuf) -> io::Result<File> {
    loop {
        let path = path.clone();
        let tried = tokio::task::spawn_blocking(move || try_lock(&path));
        if let Some(lock) = tried.await.map_err(io::Error::other)?? {
            return Ok(lock);
        }
        tokio::time::sleep(LOCK_AGAIN).await;
    }
}

/// Returns the locked file, or `None` while another process holds the lock.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn waiting_for_the_lock_of_a_folder_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = lock(folder.path(), LONG).await.expect("it is free");
        let refused = lock(folder.path(), Duration::from_millis(50)).await;
        let error = refused.expect_err("it is held").to_string();
        assert!(
            error.contains("locking the manifest") && error.contains(LOCK),
            "{error}"
        );
        // The archiver waits for somebody who holds the lock only for a moment.
        let waiting = lock(folder.path(), LONG);
        let freed = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        let (locked, ()) = tokio::join!(waiting, freed);
        locked.expect("it is free again");
    }
}
