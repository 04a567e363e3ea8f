//! What surrounds the two sides: the network, time, threads, work that may block on the disk, and
//! randomness.
//!
//! A service uses [`Real`]. The simulation has its own implementation, in which a seed decides the
//! order of events and what gets lost.

use crate::{Error, Primary};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    thread::{self, JoinHandle},
};
use tokio::sync::{oneshot, watch};
use widgets_clock::{Clock, SystemClock};

/// A boxed future.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The bytes of a response as they arrive.
pub trait Incoming: Send {
    /// Returns the next bytes. An error says how the connection ended.
    fn next(&mut self) -> Doing<'_, Result<Bytes, Error>>;
}

/// Everything that primary and standby need besides the store.
pub trait Outside: Send + Sync + 'static {
    /// Sends this query to a primary and returns the bytes of the stream once the primary has begun
    /// to answer. Meanwhile each number in `reports` is sent to the primary; a later number may
    /// replace an earlier one.
    fn ask<'a>(
        &'a self,
        primary: &'a Primary,
        query: &'a str,
        reports: Option<watch::Receiver<u64>>,
    ) -> Doing<'a, Result<Box<dyn Incoming>, Error>>;

    /// Sends a request to another member: `call` is what follows `/replication/`. A response that
    /// is not a success is an error.
    fn tell<'a>(&'a self, member: &'a Primary, call: &'a str) -> Doing<'a, Result<(), Error>>;

    /// Returns the clock.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Runs work that may block on the disk, and waits for it. If the future is dropped, `work` may
    /// continue.
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Doing<'static, ()>;

    /// Starts a task that runs beside everything else until its [`Task`] is dropped.
    fn begin(&self, name: &str, work: Doing<'static, ()>) -> io::Result<Task>;

    /// Returns an unpredictable number.
    fn random(&self) -> u64;
}

/// A running task. Dropping this value ends it.
pub struct Task(Option<Box<dyn FnOnce() + Send>>);

impl Task {
    /// Creates a task that calling `end` ends; once `end` returns, the task does nothing more.
    #[must_use]
    pub fn new(end: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

/// Runs work that may block on the disk. Returns an error if it could not be completed.
pub(crate) async fn block<T: Send + 'static>(
    outside: &dyn Outside,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    let work = move || {
        // The receiver may be gone.
        drop(done.send(work()));
    };
    outside.block(Box::new(work)).await;
    let ended = |_| io::Error::other("the thread that waited for the disk ended");
    outcome.await.map_err(ended)
}

/// The network, the clock and the threads of the operating system.
pub struct Real {
    clock: Arc<dyn Clock>,
}

impl Real {
    /// Creates what a service uses.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl Default for Real {
    fn default() -> Self {
        Self::new()
    }
}

impl Outside for Real {
    fn ask<'a>(
        &'a self,
        primary: &'a Primary,
        query: &'a str,
        reports: Option<watch::Receiver<u64>>,
    ) -> Doing<'a, Result<Box<dyn Incoming>, Error>> {
        Box::pin(async move { primary.ask(query, reports).await })
    }

    fn tell<'a>(&'a self, member: &'a Primary, call: &'a str) -> Doing<'a, Result<(), Error>> {
        Box::pin(member.tell(call))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Doing<'static, ()> {
        Box::pin(async move {
            // The thread itself has reported a panic.
            drop(tokio::task::spawn_blocking(work).await);
        })
    }

    /// Runs the task on its own thread, so that it takes no time from the threads that serve
    /// requests. Ending it joins that thread.
    fn begin(&self, name: &str, work: Doing<'static, ()>) -> io::Result<Task> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    () = work => {}
                }
            });
            runtime.shutdown_background();
        };
        let thread: JoinHandle<()> = thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Task::new(move || {
            drop(stop);
            // The thread itself has reported a panic.
            drop(thread.join());
        }))
    }

    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0u8)
    }
}
