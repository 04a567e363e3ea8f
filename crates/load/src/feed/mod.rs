//! Follows the feed of changes while the load runs, and compares it with the answers.
//!
//! A thread requests one page after the other, across restarts of the server. It passes the
//! changes, and what the lanes report about their operations, to the ledger. Nothing of this delays
//! the load.

mod effect;
mod ledger;

pub(crate) use effect::{Effect, removal};
pub(crate) use ledger::{Ledger, Settled};

use crate::{clock::Clock, error::Error, partition::Share, session::Settings};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;
use widgets_client::{Changes, ChangesAfter, Client};

/// How long the server is asked to wait for a change. Requests to the follower wait at most as
/// long.
const WAIT: Duration = Duration::from_millis(250);

/// The pause before a server that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// The result of comparing the feed with the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedFindings {
    /// Changes of this run whose operation was found.
    pub changes_checked: u64,
    /// Those of them whose answers had left their fate unknown.
    pub doubts_told: u64,
    /// Changes of widgets that do not belong to this run. They are not checked.
    pub of_others: u64,
    /// Acknowledged operations without a change.
    pub never_told: u64,
    /// Changes that were reported more than once.
    pub told_twice: u64,
    /// Changes that nobody requested, or whose operation was refused.
    pub unasked: u64,
    /// Changes in an order that does not explain the answers.
    pub out_of_order: u64,
    /// Changes with the wrong names or slots.
    pub altered: u64,
    /// The first findings as text.
    pub examples: Vec<String>,
}

impl FeedFindings {
    /// Returns how many faults of the server were found.
    #[must_use]
    pub const fn faults(&self) -> u64 {
        self.never_told + self.told_twice + self.unasked + self.out_of_order + self.altered
    }
}

/// Where one worker's lanes report their completed operations.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    settled: Arc<Mutex<Vec<Settled>>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Reporter {
    /// Reports an operation that was acknowledged, or whose fate is unknown.
    pub(crate) fn settle(&self, settled: Settled) {
        lock(&self.settled).push(settled);
    }

    /// Reports whether the feed has reported an operation of unknown fate. Returns `None` if the
    /// feed was not read to its end.
    pub(crate) fn is_told(&self, lane: u32, effect: &Effect) -> Option<bool> {
        lock(&self.ledger).is_told(lane, effect)
    }
}

/// No code under a lock can leave its data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that follows the feed until this is dropped.
pub(crate) struct Follower {
    reporters: Vec<Reporter>,
    ledger: Arc<Mutex<Ledger>>,
    /// Each request is answered once all changes up to that time have been read.
    asks: Sender<oneshot::Sender<()>>,
    /// Why the thread has ended, or why it makes no progress.
    trouble: Arc<Mutex<Option<String>>>,
    /// CPU time that the thread has used, in nanoseconds.
    cpu: Arc<AtomicU64>,
}

impl Follower {
    /// Starts to follow the feed, beginning with the next change.
    pub(crate) async fn start(
        settings: &Settings,
        share: &Share,
        clock: Clock,
    ) -> Result<Self, Error> {
        let target = &settings.target;
        let secure = target.url.starts_with("https://");
        let client = Client::new(&widgets_client::Settings {
            url: target.url.clone(),
            token: target.token.clone(),
            ca: target.ca.clone().filter(|_| secure),
            insecure: target.insecure && secure,
            timeout: settings.timeout,
        });
        let client = client.map_err(|error| Error::Target(error.to_string()))?;
        let ledger = Arc::new(Mutex::new(Ledger::new(share.clone())));
        let reporters: Vec<Reporter> = (0..settings.workers)
            .map(|_| Reporter {
                settled: Arc::default(),
                ledger: ledger.clone(),
            })
            .collect();
        let (asks, asked) = channel();
        let follower = Self {
            reporters: reporters.clone(),
            ledger: ledger.clone(),
            asks,
            trouble: Arc::default(),
            cpu: Arc::default(),
        };
        let (begun, begins) = oneshot::channel();
        let (trouble, cpu) = (follower.trouble.clone(), follower.cpu.clone());
        thread::Builder::new()
            .name("load-feed".into())
            .spawn(move || {
                let mut changes = client.changes(ChangesAfter::Now, None, &[]);
                let first = changes.next_page(Duration::ZERO);
                let is_begun = first.is_ok();
                // After a signal, nobody may be waiting any more.
                let first = first.map(drop).map_err(|error| error.to_string());
                let told = begun.send(first).is_ok();
                if is_begun && told {
                    let reading = Reading {
                        client: &client,
                        reporters,
                        ledger,
                        clock,
                        trouble,
                        cpu,
                    };
                    reading.follow(changes, &asked);
                }
            })
            .map_err(Error::Thread)?;
        let first = begins.await;
        let first = first.map_err(|_| Error::Thread(io::Error::other("a thread ended")))?;
        first.map_err(Error::Feed)?;
        Ok(follower)
    }

    pub(crate) fn reporter(&self, worker: usize) -> Option<Reporter> {
        self.reporters.get(worker).cloned()
    }

    /// Waits until all changes up to now have been read.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        let (ask, answer) = oneshot::channel();
        // If the thread has ended, no answer comes either.
        drop(self.asks.send(ask));
        answer.await.map_err(|_| Error::Feed(self.trouble()))?;
        lock(&self.ledger).was_read();
        Ok(())
    }

    /// Returns the CPU time that the thread has used.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu.load(Ordering::Relaxed))
    }

    /// Returns what hinders the follower, as far as that is known.
    pub(crate) fn trouble(&self) -> String {
        let trouble = lock(&self.trouble).clone();
        trouble.unwrap_or_else(|| "it was not read to its end in time".into())
    }

    /// Returns the findings, once everything has been read.
    pub(crate) fn finish(self) -> FeedFindings {
        lock(&self.ledger).finish()
    }
}

/// The state of the thread.
struct Reading<'a> {
    client: &'a Client,
    reporters: Vec<Reporter>,
    ledger: Arc<Mutex<Ledger>>,
    clock: Clock,
    trouble: Arc<Mutex<Option<String>>>,
    cpu: Arc<AtomicU64>,
}

/// A caller that waits until everything up to this position has been read. The position is `None`
/// until the server has been asked for it.
struct Waiting {
    position: Option<String>,
    ask: oneshot::Sender<()>,
}

impl Reading<'_> {
    fn follow(self, mut changes: Changes<'_>, asked: &Receiver<oneshot::Sender<()>>) {
        let mut waiting = Vec::new();
        loop {
            loop {
                match asked.try_recv() {
                    Ok(ask) => waiting.push(Waiting {
                        position: None,
                        ask,
                    }),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let outcome = self.turn(&mut changes, &mut waiting);
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            let cpu = Duration::try_from(cpu).unwrap_or_default();
            self.cpu.store(cpu.as_nanos() as u64, Ordering::Relaxed);
            let Err(error) = outcome else {
                *lock(&self.trouble) = None;
                continue;
            };
            *lock(&self.trouble) = Some(error.to_string());
            let passes = matches!(
                error,
                widgets_client::Error::Unreachable { .. } | widgets_client::Error::Unavailable(_)
            );
            if !passes {
                return;
            }
            thread::sleep(RETRY);
        }
    }

    /// Reads what is available, or waits a little for more.
    fn turn(
        &self,
        changes: &mut Changes<'_>,
        waiting: &mut Vec<Waiting>,
    ) -> Result<(), widgets_client::Error> {
        if waiting.iter().any(|each| each.position.is_none()) {
            let mut from_now = self.client.changes(ChangesAfter::Now, None, &[]);
            from_now.next_page(Duration::ZERO)?;
            for each in waiting.iter_mut() {
                let end = from_now.position().map(str::to_owned);
                each.position = each.position.take().or(end);
            }
        }
        let page = changes.next_page(WAIT)?;
        let heard = self.clock.now();
        self.settle();
        let mut ledger = lock(&self.ledger);
        for (change, _) in &page {
            ledger.tell(change, heard);
        }
        drop(ledger);
        let read = changes.position();
        for each in waiting.extract_if(.., |each| read >= each.position.as_deref()) {
            // The caller may have given up.
            let _ = each.ask.send(());
        }
        Ok(())
    }

    /// Collects the completed operations from the lanes.
    fn settle(&self) {
        for reporter in &self.reporters {
            let settled = std::mem::take(&mut *lock(&reporter.settled));
            let mut ledger = lock(&self.ledger);
            for settled in settled {
                ledger.settle(settled);
            }
        }
    }
}
