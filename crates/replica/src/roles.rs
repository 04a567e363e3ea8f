//! Which role a store has, and how that changes: it follows, is promoted, and is replaced.

use crate::{
    Address, Credentials, Error, Metrics, Outside, Primary, Standbys, Status, Task, Unsendable,
    follow::follow,
    outside::block,
    promote::{is_replaced, promote, tell},
};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use widgets_engine::{Follower, Role, Source};
use widgets_registry::Position;

/// The copies of a store, or the one that it is itself. Clones are of the same.
#[derive(Clone)]
pub struct Roles(Arc<Inner>);

struct Inner {
    outside: Arc<dyn Outside>,
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
    telling: Mutex<Option<Task>>,
    /// Roles change one after the other.
    changing: tokio::sync::Mutex<()>,
}

/// How a standby follows.
struct Following {
    primary: Primary,
    address: Arc<str>,
    status: Status,
    /// Gone while the role changes.
    task: Option<Task>,
}

impl Roles {
    /// Begins to follow, where there is a primary, and to serve those that follow this store, whose segments have so
    /// many bytes. `credentials` are for whoever it has to reach.
    pub fn start(
        outside: Arc<dyn Outside>,
        source: Source,
        follower: Follower,
        primary: Option<Primary>,
        credentials: Credentials,
        segment_bytes: u64,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let role = source.store().role.clone();
        let standbys = Standbys::new(outside.clone(), source.clone(), metrics.standbys());
        let inner = Inner {
            outside,
            source,
            follower,
            standbys,
            metrics,
            credentials,
            segment_bytes,
            follows: AtomicBool::new(false),
            following: Mutex::default(),
            telling: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        if let Some(primary) = primary {
            inner.begin_to_follow(primary)?;
        } else if let Role::Promoted { from, address } = role {
            inner.tell_before(&from, &address);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Ends what it does beside what it is asked.
    pub fn stop(&self) {
        self.0.tells(None);
        let following = self.0.following().take();
        drop(following);
    }

    /// The address of the primary, where this store follows one.
    #[must_use]
    pub fn primary(&self) -> Option<Arc<str>> {
        if !self.0.follows.load(Ordering::Acquire) {
            return None;
        }
        let following = self.0.following();
        following.as_ref().map(|it| it.address.clone())
    }

    /// Why it does not follow, where it is to and has not for a while.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let following = self.0.following();
        following.as_ref().and_then(|it| it.status.failure())
    }

    /// Those that this store is sent to.
    #[must_use]
    pub fn standbys(&self) -> Standbys {
        self.0.standbys.clone()
    }

    /// Makes it the primary, if it is a standby: what is answered to who asked for that. The query has the `address` at which
    /// this store is found.
    pub async fn promote(&self, query: &str) -> Result<String, Unsendable> {
        let address = parameter(query, "address").unwrap_or_default();
        if address.parse().ok().and_then(Address::new).is_none() {
            let must = "address must say where this store is found, as in https://standby:3000";
            return Err(Unsendable::Malformed(must.into()));
        }
        self.0.promote(address).await
    }

    /// Hears that another store has replaced it: what is answered. The query is what a promoted store tells.
    pub async fn replaced(&self, query: &str) -> Result<String, Unsendable> {
        self.0.replaced(query).await
    }
}

impl Inner {
    fn following(&self) -> MutexGuard<'_, Option<Following>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tells(&self, telling: Option<Task>) {
        let mut known = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, telling);
        drop(known);
        drop(before);
    }

    fn begin_to_follow(&self, primary: Primary) -> io::Result<()> {
        let status = Status::new(self.outside.clock());
        let task = follow(
            &self.outside,
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
            task: Some(task),
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
        match tell(&self.outside, before, &self.source, address) {
            Ok(telling) => self.tells(Some(telling)),
            Err(error) => {
                tracing::error!(%error, "the primary before cannot be told that it was replaced");
            }
        }
    }

    async fn promote(&self, address: String) -> Result<String, Unsendable> {
        let _one = self.changing.lock().await;
        let (primary, task) = match &mut *self.following() {
            None => return Ok(self.told(false)),
            Some(following) => (following.primary.clone(), following.task.take()),
        };
        let unavailable = |error: io::Error| Unsendable::Unavailable(error.to_string());
        let ended = block(&*self.outside, move || drop(task)).await;
        ended.map_err(unavailable)?;
        let from = primary.address.to_string();
        let promoted = promote(
            &*self.outside,
            &self.source,
            &self.follower,
            from.clone(),
            address.clone(),
        )
        .await;
        let epoch = match promoted {
            Ok(epoch) => epoch.number(),
            Err(error) => {
                let why = error.to_string();
                self.begin_to_follow(primary).map_err(unavailable)?;
                return Err(Unsendable::Unavailable(why));
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

    async fn replaced(&self, query: &str) -> Result<String, Unsendable> {
        let malformed = || {
            Unsendable::Malformed(
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
            return Err(Unsendable::Elsewhere(format!(
                "this is store {:016x} of epoch {}, told of was store {store:016x} of epoch {epoch}",
                self.source.store().identity,
                self.source.store().epoch(),
            )));
        }
        tracing::error!(
            epoch, primary = %address,
            "this primary was replaced: it takes no operations any more, and follows the new one"
        );
        let unavailable = |error: Error| Unsendable::Unavailable(error.to_string());
        let demoted = self.follower.demote(address.to_string()).await;
        demoted.map_err(|error| unavailable(error.into()))?;
        let primary = Primary {
            address,
            credentials: self.credentials.clone(),
        };
        let follows = self.begin_to_follow(primary);
        follows.map_err(|error| unavailable(Error::Start(error)))?;
        Ok(r#"{"replaced":true}"#.into())
    }
}

/// A parameter of a query.
fn parameter(query: &str, wanted: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(name, _)| name == wanted)?;
    Some(value.into_owned())
}
