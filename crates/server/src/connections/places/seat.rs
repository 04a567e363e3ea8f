//! What is known of an open connection, and how it is told to leave.

use super::super::metrics::{ConnectionMetrics, Cut};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// What all connections have together.
#[derive(Default)]
pub(in super::super) struct Turns {
    /// How many have come: what idle ones are compared by, as a clock would cost each request.
    pub(super) came: AtomicU64,
    /// How many were told to leave of which it is not known yet whether they do.
    pub(super) undecided: AtomicUsize,
    /// One has decided, or left.
    pub(super) changed: Notify,
}

/// What is known of an open connection.
pub(in super::super) struct Seat {
    requests: AtomicUsize,
    /// How many of these wait for more of their bodies.
    awaited: AtomicUsize,
    /// Whether it is to end although something is asked, if all of that waits for bodies.
    gives_way: AtomicBool,
    /// How many connections had come when nothing was asked any more.
    pub(super) idle_since: AtomicU64,
    was_asked: AtomicBool,
    turns: Arc<Turns>,
    is_cut: AtomicBool,
    /// Whether it was told to leave, and has not decided.
    is_told: AtomicBool,
    told: Notify,
}

/// A request, until it is answered and its answer was taken.
pub(in super::super) struct Busy(Arc<Seat>);

/// A body of which more is to come.
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

    /// Something is asked, until what is returned is dropped.
    pub(in super::super) fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.was_asked.store(true, Ordering::Relaxed);
        self.decided();
        Busy(self.clone())
    }

    /// More of a request's body is to come, until what is returned is dropped.
    pub(in super::super) fn awaited(self: &Arc<Self>) -> Awaited {
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Awaited(self.clone())
    }

    /// Whether nothing was applied of what is asked, as no body has come.
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

    /// Ends the connection, whatever is asked on it. Whether it was not ending yet.
    pub(in super::super) fn cut(&self) -> bool {
        let was_cut = self.is_cut.swap(true, Ordering::Relaxed);
        self.told.notify_one();
        !was_cut
    }

    /// Asks it to leave if it is idle then.
    pub(super) fn tell(&self) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.turns.undecided.fetch_add(1, Ordering::Relaxed);
        }
        self.told.notify_one();
    }

    /// Asks it to leave if all that is asked waits for bodies then.
    pub(super) fn tell_to_give_way(&self) {
        self.gives_way.store(true, Ordering::Relaxed);
        self.tell();
    }

    pub(super) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Nobody waits for it any more: it stays, or has left.
    pub(super) fn decided(&self) {
        if self.is_told.load(Ordering::Relaxed) && self.is_told.swap(false, Ordering::Relaxed) {
            // Whoever sees it sees the room that was made.
            self.turns.undecided.fetch_sub(1, Ordering::Release);
            self.turns.changed.notify_one();
        }
    }

    /// Done when the connection is to end: it was cut, or its place is needed and it is idle, or gives way.
    pub(in super::super) async fn ends(&self, metrics: &ConnectionMetrics) {
        loop {
            self.told.notified().await;
            if self.is_cut.load(Ordering::Relaxed) {
                return;
            }
            // Where something was asked meanwhile, another one must leave.
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
