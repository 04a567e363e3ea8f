//! The state of an open connection, and how it is asked to leave.

use super::super::metrics::{ConnectionMetrics, Cut};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// What all connections share.
#[derive(Default)]
pub(in super::super) struct Turns {
    /// How many connections have come. Idle times are compared by this number, because reading a
    /// clock would cost every request time.
    pub(super) came: AtomicU64,
    /// How many were asked to leave and have not decided yet.
    pub(super) undecided: AtomicUsize,
    /// A connection has decided or left.
    pub(super) changed: Notify,
}

/// The state of an open connection.
pub(in super::super) struct Seat {
    requests: AtomicUsize,
    /// How many of the requests wait for more of their bodies.
    awaited: AtomicUsize,
    /// Whether it is to end despite its requests, if all of them wait for bodies.
    gives_way: AtomicBool,
    /// How many connections had come when it last became idle.
    pub(super) idle_since: AtomicU64,
    was_asked: AtomicBool,
    turns: Arc<Turns>,
    is_cut: AtomicBool,
    /// Whether it was asked to leave and has not decided yet.
    is_told: AtomicBool,
    told: Notify,
}

/// A request, until its answer was taken.
pub(in super::super) struct Busy(Arc<Seat>);

/// A body that is still incomplete.
pub(in super::super) struct Awaited(Arc<Seat>);

impl Seat {
    pub(in super::super) fn new(turns: Arc<Turns>) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            awaited: AtomicUsize::new(0),
            gives_way: AtomicBool::new(false),
            idle_since: AtomicU64::new(turns.came.load(Ordering::Relaxed)),
            was_asked: AtomicBool::new(false),
            turns,
            is_cut: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            told: Notify::new(),
        })
    }

    /// Marks a request as under way until the result is dropped.
    pub(in super::super) fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.was_asked.store(true, Ordering::Relaxed);
        self.decided();
        Busy(self.clone())
    }

    /// Marks a request's body as incomplete until the result is dropped.
    pub(in super::super) fn awaited(self: &Arc<Self>) -> Awaited {
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Awaited(self.clone())
    }

    /// Reports whether it has requests and all their bodies are incomplete, so that nothing was
    /// applied.
    pub(super) fn only_awaits(&self) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        requests > 0 && self.awaited.load(Ordering::Relaxed) == requests
    }

    pub(in super::super) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Ends the connection even if requests are under way. Returns whether it was not ending
    /// already.
    pub(in super::super) fn cut(&self) -> bool {
        let was_cut = self.is_cut.swap(true, Ordering::Relaxed);
        self.told.notify_one();
        !was_cut
    }

    /// Asks it to leave, if it is idle when it looks.
    pub(super) fn tell(&self) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.turns.undecided.fetch_add(1, Ordering::Relaxed);
        }
        self.told.notify_one();
    }

    /// Asks it to leave, if all its requests wait for bodies when it looks.
    pub(super) fn tell_to_give_way(&self) {
        self.gives_way.store(true, Ordering::Relaxed);
        self.tell();
    }

    pub(super) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Records that it has decided: it stays or has left, and nobody waits for it any more.
    pub(super) fn decided(&self) {
        if self.is_told.load(Ordering::Relaxed) && self.is_told.swap(false, Ordering::Relaxed) {
            // A thread that sees this also sees the place that became free.
            self.turns.undecided.fetch_sub(1, Ordering::Release);
            self.turns.changed.notify_one();
        }
    }

    /// Completes when the connection must end: it was cut, or its place is needed and it is idle or
    /// gives way.
    pub(in super::super) async fn ends(&self, metrics: &ConnectionMetrics) {
        loop {
            self.told.notified().await;
            if self.is_cut.load(Ordering::Relaxed) {
                return;
            }
            // If a request has arrived meanwhile, another connection must leave.
            let gives_way = self.gives_way.swap(false, Ordering::Relaxed);
            if self.is_idle() || gives_way && self.only_awaits() {
                return metrics.cut(Cut::Full);
            }
            self.decided();
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Seat {
            requests,
            idle_since,
            turns,
            ..
        } = &*self.0;
        let came = turns.came.load(Ordering::Relaxed);
        idle_since.store(came, Ordering::Relaxed);
        requests.fetch_sub(1, Ordering::Relaxed);
    }
}
