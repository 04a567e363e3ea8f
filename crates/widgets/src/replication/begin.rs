//! How a store begins: what stands in its directory, or a copy of its primary's.

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

/// A copy that failed is tried again after this, then twice as long, and so on.
const COPY_AGAIN: Duration = Duration::from_millis(500);
const COPY_AGAIN_MAX: Duration = Duration::from_secs(10);

/// What a store that was opened says of itself.
pub(crate) enum Opened {
    /// It was there.
    Found,
    /// It was made just now.
    Made,
    /// It was copied from its primary just now.
    Copied,
}

/// A store, and the primary that it follows, if it does.
pub(crate) struct Begun {
    pub(crate) engine: Engine,
    pub(crate) opened: Opened,
    pub(crate) primary: Option<Primary>,
}

/// Opens the store of a service, which follows this primary if one is given. Where its directory is empty it is copied
/// first, which goes on until the primary can be reached. A standby's directory goes on to be one, without being told.
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
            let address = primary.parse().ok().and_then(Address::new).ok_or_else(|| {
                format!(
                    "the data directory {} is a standby's, and does not say of whom: start it with --follow",
                    path.display()
                )
            })?;
            Some(Primary {
                address,
                credentials,
            })
        }
        (_, None) => None,
        // Its configuration is of before: whom it was to follow is whom it has replaced.
        (Role::Promoted { from, .. }, Some(primary)) if from == primary.address.to_string() => {
            tracing::warn!(
                before = from,
                "this store was promoted and takes operations: replication.follow names the primary before, and is not followed"
            );
            None
        }
        (Role::Primary | Role::Promoted { .. }, Some(_)) => {
            return Err(format!(
                "the data directory {} has a store that is no standby: --follow needs an empty directory, into which the \
                 primary's store is copied",
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

/// What is free on the disk of a directory, if that can be told.
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
    // Nobody may be listening.
    drop(writeln!(io::stdout(), "copies the store of {address}"));
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
            tracing::warn!(error, primary = %address, "the primary's store is not copied; it is tried again");
            told = Some(error);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(COPY_AGAIN_MAX);
    }
}
