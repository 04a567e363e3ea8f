//! Standbys: how a store begins and goes on as one, and what the service says of it.

mod begin;
mod roles;

pub(crate) use begin::{Begun, Opened, open};

use std::{
    error::Error,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch;
use widgets_clock::SystemClock;
use widgets_engine::{Engine, Follower, Role, Source};
use widgets_registry::Reason;
use widgets_replica::{
    Address, Credentials, Handle, MEDIA_TYPE, Metrics, Primary, Standbys, Status, Telling,
    Unsendable,
};
use widgets_server::{Replication, Sending, Tell, Told, Unsent};

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
