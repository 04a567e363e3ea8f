//! A process of the service: the API over an engine whose parts make their steps when the world says so.

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

/// A clock that only moves when it is told to.
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

    /// The clock of a world that begins.
    pub(super) fn restart(&self) {
        self.set(Duration::ZERO);
        self.set_back.store(0, Ordering::Relaxed);
    }

    /// Sets the calendar back, and nothing else.
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

    /// Never over: a run ends before any of them.
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
    /// Where the task of the API's mailbox is, if it has one.
    runtime: Option<Runtime>,
}

impl Process {
    /// Recovers what the disk has.
    pub(super) fn start(
        disk: &SimulatedDisk,
        clock: &Arc<SimulatedClock>,
        api: &Api<Nobody>,
        settings: &Settings,
        mut salts: Chance,
        has_mailbox: bool,
    ) -> Result<Self, OpenError> {
        let random = Box::new(move || salts.number());
        // One half of the simulations lets operations gather between commits.
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

    /// Sends a request; it arrives when the answer is polled first.
    pub(super) fn respond(
        &self,
        request: &linearizability::Request,
        key: Option<&str>,
    ) -> Responding {
        let (api, request) = (self.api.clone(), client::http(request, key));
        Box::pin(async move { api.respond(request).await })
    }

    /// Asks for what is at this path, with its number of rows where that `is_counted`.
    pub(super) fn get(&self, path: &str, is_counted: bool) -> Responding {
        let (api, request) = (self.api.clone(), client::get(path, is_counted));
        Box::pin(async move { api.respond(request).await })
    }

    /// The owner's turn. Where it would wait for the next segment, that is made before; elsewhere
    /// chance decides. False once the queue is closed and empty.
    pub(super) fn own(&mut self, chance: &mut Chance) -> bool {
        let may_wait = self.engine.preparer.must_step() && !self.engine.would_wait();
        if may_wait && chance.below(2) == 0 {
            self.engine.prepare();
        }
        self.deliver();
        self.engine.own()
    }

    /// The mailbox's task brings what is in it to where it is to go: requests and answers.
    pub(super) fn deliver(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(tokio::task::yield_now());
        }
    }
}
