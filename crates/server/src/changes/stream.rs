//! Streams of changes without an end.

use super::{asked::Format, encode};
use crate::{metrics::gauge, pieces::Pieces};
use hyper::body::Bytes;
use prometheus::{IntGauge, Registry};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use widgets_registry::{ChangeFilter, Changes, Feed, FeedError, Position, query::Asker};

/// How often a stream that has no selected changes to send sends a heartbeat. More often only if
/// connections may not be idle for that long.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The limits of a piece: this many changes, and no further change after this many bytes. A
/// subscriber that does not read holds two pieces, one in each place on the way to its connection.
const PIECE_CHANGES: usize = 256;
const PIECE_BYTES: usize = 16 << 10;

/// The subscribers to the changes, and whether they may continue.
pub(crate) struct Subscribers {
    count: IntGauge,
    /// The number of subscribers of each asker.
    askers: Mutex<HashMap<Asker, usize>>,
    most: usize,
    stopping: watch::Sender<bool>,
}

impl Subscribers {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            count: gauge(
                "widgets_changes_subscribers",
                "The number of open streams of changes.",
            ),
            askers: Mutex::default(),
            most,
            stopping: watch::channel(false).0,
        })
    }

    /// Registers the metric of their number.
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.count.clone()))
    }

    /// Admits another subscriber of this asker. An error names the limit.
    pub(crate) fn join(self: &Arc<Self>, asker: Asker) -> Result<Subscriber, String> {
        let mut askers = self.askers();
        let mine = askers.get(&asker).copied().unwrap_or_default();
        let (all, most) = (askers.values().sum::<usize>(), self.most);
        if all >= most {
            return Err(format!("changes.subscribers_max = {most}"));
        }
        let share = Asker::share(most);
        if mine >= share {
            return Err(format!(
                "{share} of changes.subscribers_max = {most} for one"
            ));
        }
        askers.insert(asker, mine + 1);
        self.count.inc();
        let all = self.clone();
        Ok(Subscriber { all, asker })
    }

    fn askers(&self) -> MutexGuard<'_, HashMap<Asker, usize>> {
        // No code that holds this lock can panic halfway through a change.
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every stream, including those that begin later.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}

/// One subscriber.
pub(crate) struct Subscriber {
    all: Arc<Subscribers>,
    asker: Asker,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut askers = self.all.askers();
        if let Entry::Occupied(mut mine) = askers.entry(self.asker) {
            *mine.get_mut() -= 1;
            if *mine.get() == 0 {
                mine.remove();
            }
        }
        self.all.count.dec();
    }
}

/// What ends a stream, besides its client.
pub(super) struct Ends {
    /// Every stream ends when this is true.
    pub(super) stopping: watch::Receiver<bool>,
    /// How long the sender is still authorised, if that is limited.
    pub(super) left: Option<Duration>,
}

/// Streams the changes after a position from a task on the current runtime, as a body that
/// continues as long as changes come.
pub(super) fn start(
    feed: Arc<dyn Feed>,
    after: Position,
    filter: Arc<ChangeFilter>,
    format: Format,
    silence_max: Duration,
    subscriber: Subscriber,
    ends: Ends,
) -> Pieces {
    let Ends { stopping, left } = ends;
    let (pieces, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let _subscriber = subscriber;
        let follower = Follower {
            feed,
            after,
            filter,
            format,
            heartbeat: HEARTBEAT.min(silence_max),
            spoke: Instant::now(),
            pieces,
            stopping,
        };
        match left {
            // Ends between two pieces, because each is handed over whole.
            Some(left) => drop(tokio::time::timeout(left, follower.follow()).await),
            None => follower.follow().await,
        }
    });
    Pieces::new(body)
}

struct Follower {
    feed: Arc<dyn Feed>,
    after: Position,
    filter: Arc<ChangeFilter>,
    format: Format,
    heartbeat: Duration,
    /// When something was last sent.
    spoke: Instant,
    pieces: mpsc::Sender<Bytes>,
    stopping: watch::Receiver<bool>,
}

impl Follower {
    async fn follow(mut self) {
        // The head of the answer is sent with it, so that a browser knows that it is connected.
        if !self.send(encode::beginning(self.format)).await {
            return;
        }
        let pieces = self.pieces.clone();
        // Names may be long: how many changes fit is estimated from the previous piece.
        let mut limit = PIECE_CHANGES / 8;
        loop {
            // Nothing is read for a client that has not taken the previous piece.
            let place = tokio::select! {
                biased;
                _ = self.stopping.wait_for(|&stopping| stopping) => return,
                place = pieces.reserve() => place,
            };
            let Ok(place) = place else { return };
            let read = self.feed.read(self.after, self.filter.clone(), limit);
            let changes = match read.await {
                Ok(changes) => changes,
                Err(FeedError::Gone { oldest }) => {
                    tracing::info!(after = %self.after, %oldest, "a subscriber lagged behind what is kept");
                    return;
                }
                Err(error @ (FeedError::Off | FeedError::Fault(_))) => {
                    tracing::warn!(%error, "a stream of changes ends");
                    return;
                }
            };
            let Changes {
                events,
                next,
                is_end,
            } = changes;
            let (mut piece, told) = encode::piece(self.format, &events, PIECE_BYTES);
            // The remaining changes are read again: keeping them would take many times the memory
            // of a piece.
            let last = events.get(told.saturating_sub(1));
            let is_whole = told == events.len();
            self.after = match last {
                Some(last) if !is_whole => last.position,
                _ => next,
            };
            if told > 0 {
                let bytes_each = piece.len().div_ceil(told).max(1);
                limit = (PIECE_BYTES / bytes_each).clamp(1, PIECE_CHANGES);
            }
            // A filter may select nothing for a long time, while many changes are examined.
            if piece.is_empty() && self.spoke.elapsed() >= self.heartbeat {
                piece = encode::heartbeat(self.format, self.after);
            }
            if piece.is_empty() {
                drop(place);
            } else {
                place.send(piece);
                self.spoke = Instant::now();
            }
            if is_whole && is_end && !self.wait().await {
                return;
            }
        }
    }

    /// Waits for the next change, and sends heartbeats meanwhile. Returns false if the stream ends.
    async fn wait(&mut self) -> bool {
        let mut changed = self.feed.changed(self.after);
        loop {
            tokio::select! {
                biased;
                _ = self.stopping.wait_for(|&stopping| stopping) => return false,
                () = self.pieces.closed() => return false,
                () = &mut changed => return true,
                () = tokio::time::sleep_until(self.spoke + self.heartbeat) => {}
            }
            if !self.send(encode::heartbeat(self.format, self.after)).await {
                return false;
            }
        }
    }

    /// Hands a piece over once the client has taken the previous one. Returns false if the stream
    /// ends.
    async fn send(&mut self, piece: Bytes) -> bool {
        if piece.is_empty() {
            return true;
        }
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|&stopping| stopping) => false,
            sent = self.pieces.send(piece) => {
                self.spoke = Instant::now();
                sent.is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use widgets_registry::Promised;

    /// A feed without an end. Each read examines one change, takes a second, and selects nothing.
    struct Unselected;

    impl Feed for Unselected {
        fn newest(&self) -> Promised<Result<Position, FeedError>> {
            self.oldest()
        }

        fn oldest(&self) -> Promised<Result<Position, FeedError>> {
            Box::pin(std::future::ready(Ok(position(0))))
        }

        fn read(
            &self,
            after: Position,
            _: Arc<ChangeFilter>,
            _: usize,
        ) -> Promised<Result<Changes, FeedError>> {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Changes {
                    events: Vec::new(),
                    next: position(after.sequence + 1),
                    is_end: false,
                })
            })
        }

        fn reached(&self, _: Position) -> Promised<Result<(), FeedError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn changed(&self, _: Position) -> Promised<()> {
            Box::pin(std::future::pending())
        }
    }

    fn position(sequence: u64) -> Position {
        Position {
            store: 1,
            epoch: 1,
            sequence,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_examines_many_changes_in_vain_sends_heartbeats() {
        for format in [Format::Events, Format::Lines] {
            let (pieces, mut body) = mpsc::channel(1);
            let (_stop, stopping) = watch::channel(false);
            let follower = Follower {
                feed: Arc::new(Unselected),
                after: position(0),
                filter: Arc::default(),
                format,
                heartbeat: HEARTBEAT,
                spoke: Instant::now(),
                pieces,
                stopping,
            };
            let following = tokio::spawn(follower.follow());
            let mut expected = vec![
                encode::beginning(format),
                encode::heartbeat(format, position(15)),
                encode::heartbeat(format, position(30)),
            ];
            expected.retain(|piece| !piece.is_empty());
            for expected in expected {
                let sent = tokio::time::timeout(4 * HEARTBEAT, body.recv()).await;
                assert_eq!(sent, Ok(Some(expected)));
            }
            drop(body);
            let ended = tokio::time::timeout(4 * HEARTBEAT, following).await;
            ended.expect("nobody reads it").expect("no panic");
        }
    }
}
