//! Answers of many rows that are being made: how many at a time, and whose is next.
//!
//! A list, a neighbourhood or a page of changes is copied out of the store and then written, which
//! takes some megabytes and some milliseconds of a worker. So the number of such answers being made
//! is limited across all connections. The others wait. They are admitted in turn, one per asker. So
//! an asker with one request waits for at most one request of each other asker, however many those
//! send. The number of waiting requests is limited as well, per asker and in total.
//!
//! While a worker writes such an answer, it serves its other connections in between: see [`Pace`].

use crate::metrics::gauge;
use prometheus::{IntGauge, Registry};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;
use widgets_registry::query::Asker;

/// How many may wait for their turn. Each takes only the
/// memory of its parsed request.
const WAITING_MAX: usize = 512;

/// How many of one asker may wait.
const WAITING_PER_ASKER_MAX: usize = Asker::share(WAITING_MAX);

/// How many bytes are written before the worker's other tasks run.
const PIECE_BYTES: usize = 32 << 10;

/// The answers being made, and those that wait.
#[derive(Debug)]
pub(crate) struct Making {
    at_once_max: usize,
    table: Mutex<Table>,
    /// How many wait.
    waiting: IntGauge,
}

#[derive(Debug, Default)]
struct Table {
    /// The askers whose answers are being made.
    under_way: Vec<Asker>,
    waiting: usize,
    /// The number that the next waiter gets.
    number: u64,
    /// The askers with waiting requests, the next one first.
    askers: VecDeque<(Asker, VecDeque<Waiter>)>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    told: oneshot::Sender<Turn>,
}

impl Table {
    /// Reports whether one more answer of this asker may be made, if `at_once_max` may be made at a
    /// time.
    fn has_place(&self, asker: Asker, at_once_max: usize) -> bool {
        let mine = self.under_way.iter().filter(|&&each| each == asker).count();
        self.under_way.len() < at_once_max && mine < Asker::share(at_once_max)
    }

    /// Takes out the first waiter that may proceed, with its asker.
    fn next(&mut self, at_once_max: usize) -> Option<(Asker, Waiter)> {
        let has_place = |(asker, _): &(Asker, _)| self.has_place(*asker, at_once_max);
        let place = self.askers.iter().position(has_place)?;
        let (asker, mut waiters) = self.askers.remove(place)?;
        let next = waiters.pop_front();
        if !waiters.is_empty() {
            self.askers.push_back((asker, waiters));
        }
        self.waiting -= usize::from(next.is_some());
        next.map(|next| (asker, next))
    }

    fn leave(&mut self, asker: Asker, number: u64) {
        let Some(place) = self.askers.iter().position(|(each, _)| *each == asker) else {
            return;
        };
        let (_, waiters) = &mut self.askers[place];
        let before = waiters.len();
        waiters.retain(|each| each.number != number);
        self.waiting -= before - waiters.len();
        if waiters.is_empty() {
            self.askers.remove(place);
        }
    }
}

/// Permission to make an answer, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Making>, Asker);

/// A place among those that wait, until it is dropped.
struct Waiting {
    making: Arc<Making>,
    asker: Asker,
    number: u64,
}

impl Making {
    pub(crate) fn new(at_once_max: usize) -> Arc<Self> {
        Arc::new(Self {
            at_once_max,
            table: Mutex::default(),
            waiting: gauge(
                "widgets_answers_waiting",
                "Lists, neighbourhoods and pages of changes that wait until others are made.",
            ),
        })
    }

    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.waiting.clone()))
    }

    /// Waits for a turn. If too many wait already, the error names the limit.
    pub(crate) async fn turn(self: &Arc<Self>, asker: Asker) -> Result<Turn, String> {
        let (told, waiting) = {
            let mut table = self.lock();
            if table.has_place(asker, self.at_once_max) {
                table.under_way.push(asker);
                return Ok(Turn(self.clone(), asker));
            }
            let place = table.askers.iter().position(|(each, _)| *each == asker);
            let mine = place.map_or(0, |place| table.askers[place].1.len());
            let limit = |most| Err(format!("{most} answers of many rows that wait"));
            if mine >= WAITING_PER_ASKER_MAX {
                return limit(WAITING_PER_ASKER_MAX);
            }
            if table.waiting >= WAITING_MAX {
                return limit(WAITING_MAX);
            }
            let (tell, told) = oneshot::channel();
            let number = table.number;
            let waiter = Waiter { number, told: tell };
            match place {
                Some(place) => table.askers[place].1.push_back(waiter),
                None => table.askers.push_back((asker, [waiter].into())),
            }
            table.number += 1;
            table.waiting += 1;
            self.waiting.inc();
            let making = self.clone();
            let waiting = Waiting {
                making,
                asker,
                number,
            };
            (told, waiting)
        };
        let turn = told.await;
        drop(waiting);
        // A waiter gets its turn before it is removed.
        turn.map_err(|_| "an answer that was forgotten".into())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that holds this lock can panic halfway through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut table = self.0.lock();
            let place = table.under_way.iter().position(|&each| each == self.1);
            if let Some(place) = place {
                table.under_way.swap_remove(place);
            }
            let next = table.next(self.0.at_once_max);
            if let Some((asker, _)) = &next {
                table.under_way.push(*asker);
            }
            next
        };
        if let Some((asker, next)) = next {
            // If the receiver has hung up, it drops the turn, which passes to the next one.
            drop(next.told.send(Self(self.0.clone(), asker)));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.making.lock().leave(self.asker, self.number);
        self.making.waiting.dec();
    }
}

/// Paces the writing of an answer: a piece at a time, up to its maximum length.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_max: usize,
    pause_at: usize,
}

/// The answer would be longer than this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong(pub(crate) usize);

impl Pace {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            pause_at: PIECE_BYTES,
        }
    }

    /// Checks the answer's length in bytes so far, and lets other tasks run from time to time. Must
    /// be called for every row.
    pub(crate) async fn row(&mut self, bytes: usize) -> Result<(), TooLong> {
        self.check(bytes)?;
        self.pause(bytes).await;
        Ok(())
    }

    /// Checks the answer's length in bytes so far. Must be called for every column of a row: one
    /// row can have thousands of them.
    pub(crate) const fn check(&self, bytes: usize) -> Result<(), TooLong> {
        if self.fits(bytes) {
            Ok(())
        } else {
            Err(TooLong(self.bytes_max))
        }
    }

    /// Reports whether an answer may have this many bytes.
    pub(crate) const fn fits(&self, bytes: usize) -> bool {
        bytes <= self.bytes_max
    }

    pub(crate) async fn pause(&mut self, bytes: usize) {
        if bytes >= self.pause_at {
            self.pause_at = bytes + PIECE_BYTES;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn turned<F>(future: Pin<&mut F>) -> Turn
    where
        F: Future<Output = Result<Turn, String>>,
    {
        match poll(future) {
            Poll::Ready(Ok(turn)) => turn,
            other => panic!("it has no turn: {other:?}"),
        }
    }

    #[test]
    fn waiting_requests_are_served_one_per_caller_in_turn() {
        let making = Making::new(1);
        let (greedy, modest) = (Asker(1), Asker(2));
        let first = turned(pin!(making.turn(greedy)));
        let mut second = pin!(making.turn(greedy));
        let mut third = pin!(making.turn(greedy));
        let mut other = pin!(making.turn(modest));
        for waiting in [&mut second, &mut third] {
            assert!(poll(waiting.as_mut()).is_pending());
        }
        assert!(poll(other.as_mut()).is_pending());
        drop(first);
        let turn = turned(second.as_mut());
        assert!(poll(other.as_mut()).is_pending(), "one at a time");
        drop(turn);
        assert!(poll(third.as_mut()).is_pending(), "it is the other's turn");
        drop(turned(other.as_mut()));
        drop(turned(third.as_mut()));
        assert!(making.lock().under_way.is_empty());
    }

    /// However long the answers of one asker take, another asker's is made at once.
    #[test]
    fn one_caller_gets_at_most_three_quarters_of_the_turns() {
        let making = Making::new(4);
        let (greedy, modest) = (Asker(1), Asker(2));
        let mut turns: Vec<_> = (0..3).map(|_| turned(pin!(making.turn(greedy)))).collect();
        let mut fourth = pin!(making.turn(greedy));
        assert!(poll(fourth.as_mut()).is_pending());
        let mine = turned(pin!(making.turn(modest)));
        // A turn that no waiter may take goes to the next request.
        drop(mine);
        assert!(poll(fourth.as_mut()).is_pending());
        let mine = turned(pin!(making.turn(modest)));
        turns.pop();
        drop(turned(fourth.as_mut()));
        drop((mine, turns));
        assert!(making.lock().under_way.is_empty());
    }

    #[test]
    fn a_cancelled_request_frees_its_turn_and_its_queue_place() {
        let making = Making::new(1);
        let first = turned(pin!(making.turn(Asker(1))));
        {
            let mut told = pin!(making.turn(Asker(2)));
            let mut not_told = pin!(making.turn(Asker(2)));
            assert!(poll(told.as_mut()).is_pending());
            assert!(poll(not_told.as_mut()).is_pending());
            drop(first);
            assert_eq!(making.lock().waiting, 1);
        }
        assert_eq!(making.waiting.get(), 0);
        let table = making.lock();
        assert_eq!((table.under_way.len(), table.waiting), (0, 0));
        assert!(table.askers.is_empty());
    }

    #[test]
    fn the_queue_for_turns_is_limited_per_caller_and_in_total() {
        let making = Making::new(1);
        let _first = turned(pin!(making.turn(Asker(1))));
        let mut waiting = Vec::new();
        let mut wait = |asker| {
            let mut turn = Box::pin(making.turn(asker));
            match poll(turn.as_mut()) {
                Poll::Pending => {
                    waiting.push(turn);
                    None
                }
                Poll::Ready(told) => Some(told.expect_err("there is no turn")),
            }
        };
        let mut refused = |asker| std::iter::repeat_with(|| wait(asker)).flatten().next();
        let limit = "384 answers of many rows that wait";
        assert_eq!(refused(Asker(1)).as_deref(), Some(limit));
        let limit = "512 answers of many rows that wait";
        assert_eq!(refused(Asker(2)).as_deref(), Some(limit));
        assert_eq!(waiting.len(), WAITING_MAX);
        assert_eq!(making.waiting.get(), 512);
    }
}
