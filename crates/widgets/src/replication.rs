//! Standbys: how a store begins and goes on as one, and what the service says of it.

use crate::stores;
use std::{
    error::Error,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::watch;
use widgets_clock::SystemClock;
use widgets_engine::{DataDirectory, Engine, Follower, NoStore, Role, Settings, Source};
use widgets_pacing::Pacing;
use widgets_registry::{Position, Reason};
use widgets_replica::{
    Address, Credentials, Handle, MEDIA_TYPE, Metrics, Primary, Standbys, Status, Telling,
    Unsendable, copy, empty_directory, is_replaced, promote,
};
use widgets_server::{Replication, Sending, Tell, Told, Unsent};

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

/// The copies of an embedded store, or the one that it is itself. Clones are of the same.
#[derive(Clone)]
pub(crate) struct Replicated(Arc<Inner>);

struct Inner {
    source: Source,
    follower: Follower,
    standbys: Standbys,
    metrics: Metrics,
    credentials: Credentials,
    segment_bytes: u64,
    /// Which role it has, for each operation to look at.
    follows: AtomicBool,
    following: Mutex<Option<Following>>,
    /// The primary before is told that it was replaced, until it knows.
    telling: Mutex<Option<Telling>>,
    /// Roles change one after the other.
    changing: tokio::sync::Mutex<()>,
}

/// How a standby follows.
struct Following {
    primary: Primary,
    address: Arc<str>,
    status: Status,
    /// Gone while the role changes.
    handle: Option<Handle>,
}

/// Begins to follow, where there is a primary, and to serve those that follow this store.
pub(crate) fn start(
    engine: &Engine,
    primary: Option<Primary>,
    credentials: Credentials,
    segment_bytes: u64,
    registry: &prometheus::Registry,
) -> Result<Replicated, Box<dyn Error>> {
    let metrics = Metrics::new();
    metrics.register(registry)?;
    let source = engine.source();
    let role = source.store().role.clone();
    let inner = Inner {
        follower: engine.follower(),
        standbys: Standbys::new(source.clone(), metrics.standbys()),
        metrics,
        credentials,
        segment_bytes,
        follows: AtomicBool::new(false),
        following: Mutex::default(),
        telling: Mutex::default(),
        changing: tokio::sync::Mutex::default(),
        source,
    };
    if let Some(primary) = primary {
        inner.begin_to_follow(primary)?;
    } else if let Role::Promoted { from, address } = role {
        inner.tell_before(&from, &address);
    }
    Ok(Replicated(Arc::new(inner)))
}

impl Inner {
    fn following(&self) -> MutexGuard<'_, Option<Following>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tells(&self, telling: Option<Telling>) {
        *self.telling.lock().unwrap_or_else(PoisonError::into_inner) = telling;
    }

    fn begin_to_follow(&self, primary: Primary) -> io::Result<()> {
        let status = Status::new(Arc::new(SystemClock::new()));
        let handle = widgets_replica::follow(
            primary.clone(),
            self.source.clone(),
            self.follower.clone(),
            self.segment_bytes,
            status.clone(),
        )?;
        self.metrics.set_status(Some(status.clone()));
        *self.following() = Some(Following {
            address: primary.address.to_string().into(),
            primary,
            status,
            handle: Some(handle),
        });
        self.tells(None);
        self.follows.store(true, Ordering::Release);
        Ok(())
    }

    /// Has the primary before know that it was replaced. Where it cannot be told nothing is lost but time.
    fn tell_before(&self, from: &str, address: &str) {
        let Some(before) = from.parse().ok().and_then(Address::new) else {
            return;
        };
        let before = Primary {
            address: before,
            credentials: self.credentials.clone(),
        };
        match widgets_replica::tell(before, &self.source, address) {
            Ok(telling) => self.tells(Some(telling)),
            Err(error) => {
                tracing::error!(%error, "the primary before cannot be told that it was replaced");
            }
        }
    }

    async fn promote(&self, address: String) -> Result<String, Unsent> {
        let _one = self.changing.lock().await;
        let (primary, handle) = match &mut *self.following() {
            None => return Ok(self.told(false)),
            Some(following) => (following.primary.clone(), following.handle.take()),
        };
        let unavailable = |why: String| Unsent::Unavailable(why);
        // Waits for the group that is being written.
        let ended = tokio::task::spawn_blocking(move || drop(handle)).await;
        ended.map_err(|error| unavailable(error.to_string()))?;
        let from = primary.address.to_string();
        let promoted = promote(&self.source, &self.follower, from.clone(), address.clone()).await;
        let epoch = match promoted {
            Ok(epoch) => epoch.number(),
            Err(error) => {
                let why = error.to_string();
                let again = self.begin_to_follow(primary);
                again.map_err(|error| unavailable(error.to_string()))?;
                return Err(unavailable(why));
            }
        };
        *self.following() = None;
        self.metrics.set_status(None);
        self.follows.store(false, Ordering::Release);
        tracing::warn!(
            epoch,
            before = from,
            "promoted: this store takes operations"
        );
        self.tell_before(&from, &address);
        Ok(self.told(true))
    }

    /// What is answered to a promotion.
    fn told(&self, promoted: bool) -> String {
        let (store, end) = (self.source.store(), self.source.end());
        let position = Position {
            store: store.identity,
            epoch: store.epoch_of(end.next_sequence - 1),
            sequence: end.next_sequence - 1,
        };
        format!(
            r#"{{"promoted":{promoted},"epoch":{},"position":"{position}"}}"#,
            store.epoch()
        )
    }

    async fn replaced(&self, query: &str) -> Result<String, Unsent> {
        let malformed = || {
            Unsent::Malformed(
                "there must be store, epoch and address, as a promoted store writes them".into(),
            )
        };
        let (store, epoch) = (parameter(query, "store"), parameter(query, "epoch"));
        let hex = |text: Option<String>| u64::from_str_radix(&text?, 16).ok();
        let store = hex(store).ok_or_else(malformed)?;
        let epoch = hex(epoch).and_then(|epoch| u32::try_from(epoch).ok());
        let epoch = epoch.ok_or_else(malformed)?;
        let address = parameter(query, "address").and_then(|text| text.parse().ok());
        let address = address.and_then(Address::new).ok_or_else(malformed)?;
        let _one = self.changing.lock().await;
        if self.following().is_some() {
            return Ok(r#"{"replaced":false}"#.into());
        }
        if !is_replaced(&self.source, store, epoch) {
            return Err(Unsent::Elsewhere(format!(
                "this is store {:016x} of epoch {}, told of was store {store:016x} of epoch {epoch}",
                self.source.store().identity,
                self.source.store().epoch(),
            )));
        }
        tracing::error!(
            epoch, primary = %address,
            "this primary was replaced: it takes no operations any more, and follows the new one"
        );
        let unavailable = |why: String| Unsent::Unavailable(why);
        let demoted = self.follower.demote(address.to_string()).await;
        demoted.map_err(|error| unavailable(error.to_string()))?;
        let primary = Primary {
            address,
            credentials: self.credentials.clone(),
        };
        let follows = self.begin_to_follow(primary);
        follows.map_err(|error| unavailable(error.to_string()))?;
        Ok(r#"{"replaced":true}"#.into())
    }
}

/// A parameter of a query.
fn parameter(query: &str, wanted: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(name, _)| name == wanted)?;
    Some(value.into_owned())
}

impl Replicated {
    /// Ends what it does beside what it is asked.
    pub(crate) fn stop(&self) {
        self.0.tells(None);
        let following = self.0.following().take();
        drop(following);
    }
}

impl Replication for Replicated {
    fn primary(&self) -> Option<Arc<str>> {
        if !self.0.follows.load(Ordering::Acquire) {
            return None;
        }
        let following = self.0.following();
        following.as_ref().map(|it| it.address.clone())
    }

    fn ready(&self) -> Result<(), Reason> {
        let following = self.0.following();
        let failure = following.as_ref().and_then(|it| it.status.failure());
        failure.map_or(Ok(()), |why| {
            Err(Reason::new("it does not follow its primary", why))
        })
    }

    fn media_type(&self) -> &'static str {
        MEDIA_TYPE
    }

    fn send(&self, query: &str, stopping: watch::Receiver<bool>) -> Sending {
        let sent = self.0.standbys.clone().send(query.to_owned(), stopping);
        Box::pin(async move {
            sent.await.map_err(|unsendable| match unsendable {
                Unsendable::Malformed(must) => Unsent::Malformed(must),
                Unsendable::Elsewhere(why) => Unsent::Elsewhere(why),
                Unsendable::Busy(limit) => Unsent::Busy(limit),
                Unsendable::Unavailable(why) => Unsent::Unavailable(why),
            })
        })
    }

    fn tell(&self, what: Tell, query: &str) -> Told {
        let (inner, query) = (self.0.clone(), query.to_owned());
        Box::pin(async move {
            // On a task of its own: whoever hangs up does not leave it half done.
            let told = tokio::spawn(async move {
                match what {
                    Tell::Replaced => inner.replaced(&query).await,
                    Tell::Promote => {
                        let address = parameter(&query, "address").unwrap_or_default();
                        if address.parse().ok().and_then(Address::new).is_none() {
                            let must = "address must say where this store is found, as in https://standby:3000";
                            return Err(Unsent::Malformed(must.into()));
                        }
                        inner.promote(address).await
                    }
                }
            });
            let ended = |error: tokio::task::JoinError| Unsent::Unavailable(error.to_string());
            told.await.map_err(ended)?
        })
    }
}
