//! Standbys: how a store begins and goes on as one, and what the service says of it.

use crate::stores;
use std::{
    error::Error,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::sync::watch;
use widgets_clock::SystemClock;
use widgets_engine::{DataDirectory, Engine, NoStore, Role, Settings};
use widgets_pacing::Pacing;
use widgets_registry::Reason;
use widgets_replica::{
    Address, Credentials, Handle, MEDIA_TYPE, Metrics, Primary, Standbys, Status, Unsendable, copy,
    empty_directory,
};
use widgets_server::{Replication, Sending, Unsent};

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
            copy_store(primary, &directory, settings)?;
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

fn copy_store(
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
    loop {
        let error = match runtime.block_on(copy(primary, directory.clone(), settings)) {
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

/// The copies of an embedded store, or the one that it is itself.
pub(crate) struct Replicated {
    standbys: Standbys,
    following: Option<(Arc<str>, Status)>,
}

/// Begins to follow, where there is a primary, and to serve those that follow this store.
pub(crate) fn start(
    engine: &Engine,
    primary: Option<Primary>,
    segment_bytes: u64,
    metrics: &prometheus::Registry,
) -> Result<(Replicated, Option<Handle>), Box<dyn Error>> {
    let status = primary
        .as_ref()
        .map(|_| Status::new(Arc::new(SystemClock::new())));
    let measured = Metrics::new(status.clone());
    measured.register(metrics)?;
    let (mut following, mut handle) = (None, None);
    if let (Some(primary), Some(status)) = (primary, status) {
        following = Some((primary.address.to_string().into(), status.clone()));
        let (source, follower) = (engine.source(), engine.follower());
        handle = Some(widgets_replica::follow(
            primary,
            source,
            follower,
            segment_bytes,
            status,
        )?);
    }
    let replicated = Replicated {
        standbys: Standbys::new(engine.source(), measured.standbys()),
        following,
    };
    Ok((replicated, handle))
}

impl Replication for Replicated {
    fn primary(&self) -> Option<Arc<str>> {
        self.following.as_ref().map(|(primary, _)| primary.clone())
    }

    fn ready(&self) -> Result<(), Reason> {
        let failure = self
            .following
            .as_ref()
            .and_then(|(_, status)| status.failure());
        failure.map_or(Ok(()), |why| {
            Err(Reason::new("it does not follow its primary", why))
        })
    }

    fn media_type(&self) -> &'static str {
        MEDIA_TYPE
    }

    fn send(&self, query: &str, stopping: watch::Receiver<bool>) -> Sending {
        let sent = self.standbys.clone().send(query.to_owned(), stopping);
        Box::pin(async move {
            sent.await.map_err(|unsendable| match unsendable {
                Unsendable::Malformed(must) => Unsent::Malformed(must),
                Unsendable::Elsewhere(why) => Unsent::Elsewhere(why),
                Unsendable::Busy(limit) => Unsent::Busy(limit),
                Unsendable::Unavailable(why) => Unsent::Unavailable(why),
            })
        })
    }
}
