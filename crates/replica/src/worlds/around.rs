//! What the world puts around a member: a clock that the world advances, a network that it breaks,
//! and tasks that it polls.

use super::network::{Call, Network};
use crate::{Doing, Error, Incoming, Outside, Primary, Task};
use std::{
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::sync::watch;
use widgets_clock::{Clock, Timer};
use widgets_engine::simulation::Chance;

/// The timeout for reaching another member, as in `link.rs`.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// A member's clock. All clocks advance together; their calendars differ.
pub(super) struct SimulatedClock {
    now: Arc<AtomicU64>,
    /// How many seconds its calendar is behind.
    pub(super) behind: u64,
}

impl SimulatedClock {
    pub(super) fn new(now: Arc<AtomicU64>, behind: u64) -> Self {
        Self { now, behind }
    }

    /// Returns the time that drives this clock.
    pub(super) fn time(&self) -> Arc<AtomicU64> {
        self.now.clone()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.now.load(Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_000_000_000 - self.behind) + self.now()
    }

    fn sleep(&self, _: Duration) {}

    fn timer(&self, duration: Duration) -> Timer {
        let now = self.now.clone();
        let until = self.now() + duration;
        Box::pin(poll_fn(move |_| {
            if Duration::from_micros(now.load(Ordering::Relaxed)) >= until {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
    }
}

/// The tasks that a process has begun, each with whether it was ended.
pub(super) type Begun = Arc<Mutex<Vec<(Arc<AtomicBool>, Doing<'static, ()>)>>>;

/// What surrounds one process.
pub(super) struct Around {
    pub(super) member: usize,
    pub(super) network: Network,
    pub(super) clock: Arc<SimulatedClock>,
    pub(super) begun: Begun,
    pub(super) chance: Mutex<Chance>,
}

/// Returns a member's address.
pub(super) fn address(member: usize) -> String {
    format!("http://m{member}:3000")
}

/// Returns the member with this address.
pub(super) fn member_at(address: &str) -> Option<usize> {
    let rest = address.strip_prefix("http://m")?;
    rest.split(':').next()?.parse().ok()
}

impl Around {
    fn place(to: &Primary) -> Result<usize, Error> {
        let to = member_at(&to.address.to_string());
        to.ok_or_else(|| Error::Unreachable("there is no such member".into()))
    }

    async fn call(&self, to: usize, call: Call) -> Result<(), Error> {
        let answer = self.network.call(self.member, to, call);
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(Error::Unreachable("it hung up".into()))),
            () = self.clock.timer(CONNECT_TIME_MAX) => Err(Error::Unreachable("there was no answer".into())),
        }
    }

    fn push(&self, work: Doing<'static, ()>) -> Arc<AtomicBool> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.push((ended.clone(), work));
        ended
    }
}

impl Outside for Around {
    fn ask<'a>(
        &'a self,
        primary: &'a Primary,
        query: &'a str,
        reports: Option<watch::Receiver<u64>>,
    ) -> Doing<'a, Result<Box<dyn Incoming>, Error>> {
        Box::pin(async move {
            let to = Self::place(primary)?;
            // Dropping this hangs up, whatever the reason.
            let (number, stream) = self.network.connect(self.member, to);
            if let Some(reports) = reports {
                self.push(self.network.report(number, reports));
            }
            self.call(to, Call::Ask(query.into(), number)).await?;
            let incoming: Box<dyn Incoming> = Box::new(stream);
            Ok(incoming)
        })
    }

    fn tell<'a>(&'a self, member: &'a Primary, call: &'a str) -> Doing<'a, Result<(), Error>> {
        Box::pin(async move {
            self.call(Self::place(member)?, Call::Tell(call.into()))
                .await
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Doing<'static, ()> {
        let (mut work, mut polls) = (Some(work), 0);
        Box::pin(poll_fn(move |_| {
            // Let other tasks run first.
            polls += 1;
            if polls == 1 {
                return Poll::Pending;
            }
            if let Some(work) = work.take() {
                work();
            }
            Poll::Ready(())
        }))
    }

    fn begin(&self, _: &str, work: Doing<'static, ()>) -> io::Result<Task> {
        let ended = self.push(work);
        Ok(Task::new(move || ended.store(true, Ordering::Relaxed)))
    }

    fn random(&self) -> u64 {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        self.network.draw(&mut chance)
    }
}
