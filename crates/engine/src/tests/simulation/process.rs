//! A process of the service: the API over an engine whose parts make their steps when the world
//! says so.

use super::{
    client::{self, Responding},
    disk::SimulatedDisk,
};
use crate::{
    Client, OpenError, Settings,
    simulation::{Chance, Steps},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Runtime;
use widgets_clock::{Clock, Timer};
use widgets_conformance::linearizability;
use widgets_pacing::Mode;
use widgets_registry::{Ask, Fault, Request, Store};
use widgets_server::Api;

/// A clock that moves only when it is told to.
#[derive(Default)]
pub(super) struct SimulatedClock {
    now: AtomicU64,
    /// By how many seconds the calendar was set back.
    set_back: AtomicU64,
}

impl SimulatedClock {
    pub(super) fn set(&self, now: Duration) {
        let microseconds = u64::try_from(now.as_micros()).expect("not for ages");
        self.now.store(microseconds, Ordering::Relaxed);
    }

    /// Resets the clock for a new world.
    pub(super) fn restart(&self) {
        self.set(Duration::ZERO);
        self.set_back.store(0, Ordering::Relaxed);
    }

    /// Sets only the calendar back.
    pub(super) fn set_back(&self, seconds: u64) {
        self.set_back.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, duration: Duration) {
        self.set(self.now() + duration);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.now.load(Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        let set_back = self.set_back.load(Ordering::Relaxed);
        Duration::from_secs(1_000_000_000 - set_back) + self.now()
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }

    /// Never completes: a run ends before any timer would.
    fn timer(&self, _: Duration) -> Timer {
        Box::pin(std::future::pending())
    }
}

/// The store of an API that has no process.
#[derive(Clone)]
pub(super) struct Nobody;

impl<R: Request> Ask<R> for Nobody {
    async fn ask(&self, _: R) -> Result<R::Answer, R::Error> {
        unreachable!("a process gives the API its own store")
    }
}

impl Store for Nobody {
    async fn ready(&self) -> Result<(), Fault> {
        unreachable!("a process gives the API its own store")
    }
}

pub(super) struct Process {
    pub(super) engine: Steps<SimulatedDisk, SimulatedClock>,
    api: Api<Client>,
    /// The runtime with the task of the API's mailbox, if it has one.
    runtime: Option<Runtime>,
}

impl Process {
    /// Recovers the contents of the disk.
    pub(super) fn start(
        disk: &SimulatedDisk,
        clock: &Arc<SimulatedClock>,
        api: &Api<Nobody>,
        settings: &Settings,
        mut salts: Chance,
        has_mailbox: bool,
    ) -> Result<Self, OpenError> {
        let random = Box::new(move || salts.number());
        // In half of the simulations, operations accumulate between commits.
        let mode = if has_mailbox {
            Mode::Always
        } else {
            Mode::Never
        };
        let engine = Steps::paced(disk, clock, random, settings, mode)?;
        let mut client = engine.client();
        let runtime = has_mailbox.then(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime without input and output")
        });
        if let Some(runtime) = &runtime {
            let _entered = runtime.enter();
            client = client.on_current_runtime();
        }
        Ok(Self {
            engine,
            api: api.with_store(client),
            runtime,
        })
    }

    /// Sends a request, which arrives when the response is first polled.
    pub(super) fn respond(
        &self,
        request: &linearizability::Request,
        key: Option<&str>,
    ) -> Responding {
        let (api, request) = (self.api.clone(), client::http(request, key));
        Box::pin(async move { api.respond(request).await })
    }

    /// Requests this path. If `is_counted`, asks for the number of rows.
    pub(super) fn get(&self, path: &str, is_counted: bool) -> Responding {
        let (api, request) = (self.api.clone(), client::get(path, is_counted));
        Box::pin(async move { api.respond(request).await })
    }

    /// Runs the owner's turn. If the owner would wait for the next segment, that is prepared first;
    /// otherwise chance decides whether it is. Returns false once the queue is closed and empty.
    pub(super) fn own(&mut self, chance: &mut Chance) -> bool {
        let may_wait = self.engine.preparer.must_step() && !self.engine.would_wait();
        if may_wait && chance.below(2) == 0 {
            self.engine.prepare();
        }
        self.deliver();
        self.engine.own()
    }

    /// Lets the mailbox's task deliver its requests and answers.
    pub(super) fn deliver(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(tokio::task::yield_now());
        }
    }
}
