//! A connection of a lane that is made again when it breaks, and what is said of that.
//!
//! The log has one line for each connection that was lost, with the reason, and one for each that is
//! there again. Attempts that fail are told once for the whole store: the first one, and those whose reason
//! no lane has met since it had a connection. Callers are told less: [`OpenError::reason`].

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
    /// How many are up.
    up: AtomicUsize,
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
}

/// So many reasons of a lane are known at once. A server that goes and comes gives three or four, in any order.
const REASONS_MAX: usize = 16;

/// Why each lane's attempts to connect have failed since it had a connection.
#[derive(Debug, Default)]
pub(crate) struct Failing(Mutex<[VecDeque<String>; LANES]>);

impl Failing {
    /// A lane's attempt failed, for this reason. Says whether that is news: neither this lane nor another
    /// one has met it.
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

    /// A lane has a connection. Says whether it was without one.
    fn over(&self, lane: Lane) -> bool {
        !mem::take(&mut self.lock()[lane as usize]).is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, [VecDeque<String>; LANES]> {
        // A string is put in whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Why the connection broke, once it has; nothing of one that is not there.
    pub(crate) async fn broken(&self) -> String {
        match &self.connected {
            Some(connected) => connected.broken().await,
            None => future::pending().await,
        }
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

    /// Makes the first connection of a store. A schema that this program does not work with is left to
    /// the caller to tell: the store is not opened then.
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

    /// There is a connection.
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

    /// An attempt to connect failed.
    fn failed(&self, error: &OpenError) {
        let Self { shared, lane, .. } = self;
        if shared.failing.met(*lane, &error.to_string()) {
            tracing::warn!(%error, lane = lane.name(), "no connection to the database: it is tried again and again");
        }
        if shared.links[*lane as usize].up.load(Ordering::Relaxed) == 0 {
            shared.refuse(*lane, &error.reason());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_news_once_whatever_comes_between() {
        let failing = Failing::default();
        assert!(failing.met(Lane::Operations, "reset"));
        assert!(failing.met(Lane::Operations, "refused"));
        for lane in [Lane::Operations, Lane::Lists] {
            assert!(!failing.met(lane, "reset"));
        }
        assert!(failing.over(Lane::Operations));
        assert!(!failing.over(Lane::Operations));
        // The lists still know one.
        assert!(!failing.met(Lane::Operations, "reset"));
        assert!(failing.met(Lane::Operations, "refused"));
    }

    #[test]
    fn no_more_reasons_are_known_than_may_be() {
        let failing = Failing::default();
        for number in 0..=REASONS_MAX {
            assert!(failing.met(Lane::Reads, &number.to_string()));
        }
        assert!(!failing.met(Lane::Reads, "1"));
        assert!(failing.met(Lane::Reads, "0"));
    }
}
