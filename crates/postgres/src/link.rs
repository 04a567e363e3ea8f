//! A connection of a lane, which is reconnected when it breaks, and the log lines about that.
//!
//! The log has one line for each lost connection, with the reason, and one for each restored
//! connection. Failed attempts are logged once for the whole store: the first one, and those whose
//! reason no lane has met since it last had a connection. Callers are told less:
//! [`OpenError::reason`].

use crate::{
    OpenError,
    backoff::backoff,
    connected::Connected,
    migrations,
    queue::{LANES, Lane},
    shared::Shared,
};
use std::{
    collections::VecDeque,
    future, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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
    /// How many connections are up.
    up: AtomicUsize,
    /// Changes when one of them meets a server that takes no writes.
    left: watch::Sender<()>,
}

impl Links {
    /// Records that the server accepts no writes. Another server may be the primary by now, so all
    /// connections of the lane leave this one.
    pub(crate) fn leave(&self) {
        self.left.send_replace(());
    }

    /// Returns a receiver that is notified of this.
    pub(crate) fn left(&self) -> watch::Receiver<()> {
        self.left.subscribe()
    }
}

/// The maximum number of reasons that are remembered for each lane. A server that goes down and
/// comes back causes three or four, in any order.
const REASONS_MAX: usize = 16;

/// Why each lane's attempts to connect have failed since it last had a connection.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    reasons: Mutex<[VecDeque<String>; LANES]>,
    /// Changes when a lane gets a connection.
    over: watch::Sender<()>,
}

impl Failing {
    /// Records the reason of a lane's failed attempt. Returns whether it is new, to this lane and
    /// to the others.
    fn met(&self, lane: Lane, reason: &str) -> bool {
        let mut lanes = self.lock();
        let is_known = lanes.iter().flatten().any(|known| known == reason);
        let reasons = &mut lanes[lane as usize];
        if !reasons.iter().any(|known| known == reason) {
            if reasons.len() == REASONS_MAX {
                reasons.pop_front();
            }
            reasons.push_back(reason.into());
        }
        !is_known
    }

    /// Records that a lane has a connection, so that the others try at once. Returns whether it had
    /// none.
    fn over(&self, lane: Lane) -> bool {
        self.over.send_replace(());
        !mem::take(&mut self.lock()[lane as usize]).is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, [VecDeque<String>; LANES]> {
        // A panic cannot leave a string half written.
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of a lane.
pub(crate) struct Link<C: Clock> {
    shared: Arc<Shared<C>>,
    lane: Lane,
    connected: Option<Connected>,
    /// How many attempts have failed since the connection was last up.
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

    /// Reports whether the connection is up.
    pub(crate) const fn is_up(&self) -> bool {
        self.connected.is_some()
    }

    /// Waits until the connection breaks and returns why. Waits for ever if there is none.
    pub(crate) async fn broken(&self) -> String {
        match &self.connected {
            Some(connected) => connected.broken().await,
            None => future::pending().await,
        }
    }

    /// Returns the connection, after connecting if there is none. If connecting fails and the lane
    /// has no other connection, its requests are refused from then on.
    pub(crate) async fn connected(&mut self) -> Result<&Connected, OpenError> {
        let connected = match self.connected.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        Ok(self.connected.insert(connected))
    }

    /// Establishes the first connection of a store. Returns an error only for a schema that this
    /// program cannot work with, because the store is not opened then.
    pub(crate) async fn open(&mut self) -> Result<(), OpenError> {
        match connect_and_check(&self.shared, self.lane).await {
            Ok(connected) => self.connected = Some(self.up(connected)),
            Err(error @ OpenError::Schema(_)) => return Err(error),
            Err(error) => self.failed(&error),
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<Connected, OpenError> {
        match connect_and_check(&self.shared, self.lane).await {
            Ok(connected) => Ok(self.up(connected)),
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Records that the connection is up.
    fn up(&mut self, connected: Connected) -> Connected {
        let Self { shared, lane, .. } = self;
        shared.links[*lane as usize]
            .up
            .fetch_add(1, Ordering::Relaxed);
        shared.metrics.connections.inc();
        shared.queue.set_reachable(*lane);
        if shared.failing.over(*lane) || self.again {
            tracing::info!(lane = lane.name(), "connected to the database again");
        }
        self.attempt = 0;
        self.again = true;
        connected
    }

    /// Records that an attempt to connect failed.
    fn failed(&self, error: &OpenError) {
        let Self { shared, lane, .. } = self;
        if shared.failing.met(*lane, &error.to_string()) {
            tracing::warn!(%error, lane = lane.name(), "no connection to the database; trying \
            again until there is one");
        }
        if shared.links[*lane as usize].up.load(Ordering::Relaxed) == 0 {
            shared.refuse(*lane, &error.reason());
        }
    }

    /// Waits before the next attempt to connect, at most until another connection succeeds: when the
    /// database is back, it is back for every lane.
    pub(crate) async fn pause(&mut self) {
        let Self {
            shared, attempt, ..
        } = self;
        let pause = backoff(RECONNECT_LEAST, RECONNECT_MOST, *attempt, shared.random);
        *attempt = attempt.saturating_add(1);
        let mut over = shared.failing.over.subscribe();
        tokio::select! {
            () = shared.clock.timer(pause) => {}
            _ = over.changed() => {}
        }
    }

    /// Drops the connection and logs the reason.
    pub(crate) fn lose(&mut self, reason: &str) {
        if self.close() {
            tracing::warn!(
                reason,
                lane = self.lane.name(),
                "a connection to the database was lost"
            );
        }
    }

    /// Drops the connection. Returns whether there was one.
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
        // A standby may lack operations that have already been answered. Lookups need no such rule,
        // because their answer also says whether it comes from a standby.
        Lane::Lists if !shared.target.may_read_from_standby() => {
            shared.target.connect_to_write(timeout).await?
        }
        // A standby lags behind, and does not support `LISTEN`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_reason_is_reported_once_until_recovery() {
        let failing = Failing::default();
        assert!(failing.met(Lane::Operations, "reset"));
        assert!(failing.met(Lane::Operations, "refused"));
        for lane in [Lane::Operations, Lane::Lists] {
            assert!(!failing.met(lane, "reset"));
        }
        assert!(failing.over(Lane::Operations));
        assert!(!failing.over(Lane::Operations));
        // The lane for lists still remembers this reason.
        assert!(!failing.met(Lane::Operations, "reset"));
        assert!(failing.met(Lane::Operations, "refused"));
    }

    #[test]
    fn the_oldest_failure_reason_is_forgotten_beyond_the_maximum() {
        let failing = Failing::default();
        for number in 0..=REASONS_MAX {
            assert!(failing.met(Lane::Reads, &number.to_string()));
        }
        assert!(!failing.met(Lane::Reads, "1"));
        assert!(failing.met(Lane::Reads, "0"));
    }
}
