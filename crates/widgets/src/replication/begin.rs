//! How a store begins: with what its directory contains, or with a copy of its primary's store.

use crate::stores;
use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};
use widgets_engine::{DataDirectory, Engine, NoStore, Role, Settings};
use widgets_pacing::Pacing;
use widgets_replica::{Address, Credentials, Outside, Primary, Real, copy, empty_directory};

/// The pause after a failed copy; it doubles with each further one.
const COPY_AGAIN: Duration = Duration::from_millis(500);
const COPY_AGAIN_MAX: Duration = Duration::from_secs(10);

/// How a store came to be open.
pub(crate) enum Opened {
    /// It existed.
    Found,
    /// It was created now.
    Made,
    /// It was copied from its primary now.
    Copied,
}

/// A store, and the primary that it follows, if it does.
pub(crate) struct Begun {
    pub(crate) engine: Engine,
    pub(crate) opened: Opened,
    pub(crate) primary: Option<Primary>,
}

/// Opens the store of a service, which follows this primary if one is given. If its directory is
/// empty, the primary's store is copied first, repeatedly until the primary can be reached. The
/// directory of a standby stays one even if no primary is given.
pub(crate) fn open(
    path: &Path,
    no_store: NoStore,
    settings: &Settings,
    pacing: Arc<Pacing>,
    primary: Option<Primary>,
    credentials: Credentials,
) -> Result<Begun, String> {
    let mut opened = Opened::Found;
    if let Some(primary) = &primary
        && no_store == NoStore::Make
    {
        let empty = empty_directory(path).map_err(|error| stores::explained(path, &error))?;
        if let Some(directory) = empty {
            copy_store(path, primary, &directory, settings)?;
            opened = Opened::Copied;
        }
    }
    let (engine, is_new) = stores::open_engine(path, no_store, settings, pacing)?;
    if is_new {
        opened = Opened::Made;
    }
    let role = engine.source().store().role.clone();
    let primary = match (role, primary) {
        (Role::Standby { .. }, Some(primary)) => Some(primary),
        (Role::Standby { primary }, None) => {
            let address = primary.parse::<Address>().map_err(|_| {
                format!(
                    "the data directory {} belongs to a standby, and does not say of which \
                     primary: start it with --follow",
                    path.display()
                )
            })?;
            Some(Primary {
                address,
                credentials,
            })
        }
        (_, None) => None,
        // The configuration is outdated: it names the primary that this store has replaced.
        (Role::Promoted { from, .. }, Some(primary)) if from == primary.address.to_string() => {
            tracing::warn!(
                before = from,
                "this store was promoted and accepts operations: it does not follow its old \
                 primary, which replication.follow names"
            );
            None
        }
        (Role::Primary | Role::Promoted { .. }, Some(_)) => {
            return Err(format!(
                "the data directory {} has a store that is not a standby: --follow needs an empty \
                 directory, into which it copies the primary's store",
                path.display()
            ));
        }
    };
    Ok(Begun {
        engine,
        opened,
        primary,
    })
}

/// Returns the free space on the disk of a directory, if it can be determined.
fn room(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn copy_store(
    path: &Path,
    primary: &Primary,
    directory: &DataDirectory,
    settings: &Settings,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting to copy: {error}"))?;
    let address = &primary.address;
    // Standard output may be closed.
    drop(writeln!(io::stdout(), "copying the store of {address}"));
    let (mut told, mut pause) = (None, COPY_AGAIN);
    let outside: Arc<dyn Outside> = Arc::new(Real::new());
    loop {
        let copying = copy(&outside, primary, directory.clone(), settings, || {
            room(path)
        });
        let error = match runtime.block_on(copying) {
            Ok(copied) => {
                tracing::info!(
                    widgets = copied.counts.widgets,
                    next_sequence = copied.end.next_sequence,
                    primary = %address,
                    "copied"
                );
                return Ok(());
            }
            Err(error) => error.to_string(),
        };
        if told.as_ref() != Some(&error) {
            tracing::warn!(error, primary = %address, "the primary's store could not be copied; \
            trying again");
            told = Some(error);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(COPY_AGAIN_MAX);
    }
}
