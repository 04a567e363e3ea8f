//! What is around the two sides: the network, time, threads, what may wait for the disk, and randomness.
//!
//! A service has [`Real`]. The simulation has its own, in which a seed decides what comes when, and what gets lost.

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

/// Something that is under way.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The bytes of an answer as they come.
pub trait Incoming: Send {
    /// The next ones. An error says how the connection ended.
    fn next(&mut self) -> Doing<'_, Result<Bytes, Error>>;
}

/// All that following and being followed needs beside the store.
pub trait Outside: Send + Sync + 'static {
    /// Asks a primary for the stream of this query: its bytes, once it has begun to answer. Each number of `reports` is told to
    /// it meanwhile, or a later one.
    fn ask<'a>(
        &'a self,
        primary: &'a Primary,
        query: &'a str,
        reports: Option<watch::Receiver<u64>>,
    ) -> Doing<'a, Result<Box<dyn Incoming>, Error>>;

    /// Tells another member something: `call` is what comes after `/replication/`. An answer that is no success is an error.
    fn tell<'a>(&'a self, member: &'a Primary, call: &'a str) -> Doing<'a, Result<(), Error>>;

    /// What time it is.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Does what may wait for the disk, and waits for it. Where it is given up, `work` may go on.
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Doing<'static, ()>;

    /// Begins something that goes on beside everything else, until its [`Task`] is dropped.
    fn begin(&self, name: &str, work: Doing<'static, ()>) -> io::Result<Task>;

    /// A number that nobody can guess.
    fn random(&self) -> u64;
}

/// Something that goes on. Dropping it ends that.
pub struct Task(Option<Box<dyn FnOnce() + Send>>);

impl Task {
    /// One that is ended by this call, after which it does nothing more.
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

/// Does what may wait for the disk; an error where it could not be done to its end.
pub(crate) async fn block<T: Send + 'static>(
    outside: &dyn Outside,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    let work = move || {
        // Whoever waited may have gone.
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
    /// What a service has around it.
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
            // A panic has been reported by its thread.
            drop(tokio::task::spawn_blocking(work).await);
        })
    }

    /// On a thread of its own: what it does takes no time from those who serve requests. Ending it waits for that thread.
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
            // A panic has been reported by its thread.
            drop(thread.join());
        }))
    }

    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0u8)
    }
}
