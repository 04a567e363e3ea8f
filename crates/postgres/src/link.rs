//! A connection of a lane that is made again when it breaks, and what is said of that.
//!
//! The log has one line for each connection that was lost, with the reason, and one for each that is
//! there again; of attempts that fail it has the first one, and those with another reason. Callers are
//! told less: [`OpenError::reason`].

use crate::{
    OpenError, backoff::backoff, connect::Connected, migrations, queue::Lane, shared::Shared,
};
use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use widgets_clock::Clock;

/// The pauses between attempts to connect.
const RECONNECT_LEAST: Duration = Duration::from_millis(50);
const RECONNECT_MOST: Duration = Duration::from_secs(1);

/// What the connections of a lane share.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// How many are up.
    up: AtomicUsize,
    /// Why attempts to connect fail, as the log has been told.
    told: Mutex<Option<String>>,
    /// Changes where one of them met a server that takes no writes.
    left: watch::Sender<()>,
}

impl Links {
    /// Says that the server takes no writes: another one may be the primary by now, and no connection
    /// of the lane stays where it is.
    pub(crate) fn leave(&self) {
        self.left.send_replace(());
    }

    /// Hears of that.
    pub(crate) fn left(&self) -> watch::Receiver<()> {
        self.left.subscribe()
    }

    /// Whether this is news, and not what was said last.
    fn tell(&self, news: Option<String>) -> bool {
        // A string is put in whole.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told != news && {
            *told = news;
            true
        }
    }
}

/// A connection of a lane.
pub(crate) struct Link<C: Clock> {
    shared: Arc<Shared<C>>,
    lane: Lane,
    connected: Option<Connected>,
    /// How many attempts have failed since it was up.
    attempt: u32,
    /// Whether there was a connection before.
    again: bool,
}

impl<C: Clock> Link<C> {
    pub(crate) fn new(shared: Arc<Shared<C>>, lane: Lane) -> Self {
        Self {
            shared,
            lane,
            connected: None,
            attempt: 0,
            again: false,
        }
    }

    /// Whether there is a connection.
    pub(crate) const fn is_up(&self) -> bool {
        self.connected.is_some()
    }

    /// The connection, which is made where there is none. Where that fails and the lane has no other,
    /// its requests are refused from now on.
    pub(crate) async fn connected(&mut self) -> Result<&Connected, OpenError> {
        let connected = match self.connected.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        Ok(self.connected.insert(connected))
    }

    async fn connect(&mut self) -> Result<Connected, OpenError> {
        let Self { shared, lane, .. } = self;
        let links = &shared.links[*lane as usize];
        match connect_and_check(shared, *lane).await {
            Ok(connected) => {
                links.up.fetch_add(1, Ordering::Relaxed);
                shared.metrics.connections.inc();
                shared.queue.set_reachable(*lane);
                if links.tell(None) || self.again {
                    tracing::info!(lane = lane.name(), "connected to the database again");
                }
                self.attempt = 0;
                self.again = true;
                Ok(connected)
            }
            Err(error) => {
                if links.tell(Some(error.to_string())) {
                    tracing::warn!(%error, lane = lane.name(), "no connection to the database: it is tried again and again");
                }
                if links.up.load(Ordering::Relaxed) == 0 {
                    shared.refuse(*lane, &error.reason());
                }
                Err(error)
            }
        }
    }

    /// Waits before the next attempt to connect.
    pub(crate) async fn pause(&mut self) {
        let Self {
            shared, attempt, ..
        } = self;
        let pause = backoff(RECONNECT_LEAST, RECONNECT_MOST, *attempt, shared.random);
        *attempt = attempt.saturating_add(1);
        shared.clock.timer(pause).await;
    }

    /// Gives up the connection, for this reason.
    pub(crate) fn lose(&mut self, reason: &str) {
        if self.close() {
            tracing::warn!(
                reason,
                lane = self.lane.name(),
                "a connection to the database was lost"
            );
        }
    }

    /// Lets the connection go; says whether there was one.
    pub(crate) fn close(&mut self) -> bool {
        let was_up = mem::take(&mut self.connected).is_some();
        if was_up {
            self.shared.links[self.lane as usize]
                .up
                .fetch_sub(1, Ordering::Relaxed);
            self.shared.metrics.connections.dec();
        }
        was_up
    }
}

impl<C: Clock> Drop for Link<C> {
    fn drop(&mut self) {
        self.close();
    }
}

async fn connect_and_check<C: Clock>(
    shared: &Shared<C>,
    lane: Lane,
) -> Result<Connected, OpenError> {
    let timeout = shared.settings.connect_timeout();
    let connected = match lane {
        // A standby may not have what was answered; a lookup tells where it is from by itself.
        Lane::Lists if !shared.target.may_read_from_standby() => {
            shared.target.connect_to_write(timeout).await?
        }
        // A standby is behind, and nobody can listen there.
        Lane::Operations | Lane::Changes => shared.target.connect_to_write(timeout).await?,
        Lane::Reads | Lane::Lists => shared.target.connect(timeout).await?,
    };
    let check = migrations::check_served(&connected.client);
    match tokio::time::timeout(timeout, check).await {
        Ok(checked) => checked.map(|()| connected),
        Err(_) => Err(OpenError::Connect {
            target: shared.target.to_string(),
            reason: format!("no answer within {} ms", timeout.as_millis()),
        }),
    }
}
