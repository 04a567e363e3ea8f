//! A member: a machine with its disk, and the process on it, whose parts take steps when the world
//! says so.

use super::{
    around::{Around, Begun, SimulatedClock, address, member_at},
    disk::{Crash, SimulatedDisk},
    ledger::Ledger,
    network::{Call, Calling, Network},
};
use crate::{Credentials, Doing, Error, Metrics, Outside, Primary, Roles, Store, Unsendable, copy};
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use widgets_clock::Clock as _;
use widgets_conformance::Model;
use widgets_engine::{
    Named, Role, Settings,
    simulation::{Chance, Steps},
};
use widgets_registry::SerialNumber;

pub(super) type Engine = Steps<SimulatedDisk, SimulatedClock>;

/// Epochs that a member knows to have ended.
pub(super) type Over = Arc<Mutex<BTreeSet<u32>>>;

/// The pause after a failed copy.
const COPY_AGAIN: Duration = Duration::from_millis(500);

/// How a step of a process ended.
pub(super) enum Ended {
    Well,
    Crashed,
}

pub(super) struct Member {
    pub(super) number: usize,
    pub(super) disk: SimulatedDisk,
    pub(super) process: Option<Process>,
    /// The member that it is configured to follow.
    pub(super) follows: Option<usize>,
    pub(super) clock: Arc<SimulatedClock>,
    /// The last change that it had durably.
    pub(super) durable: Option<(u32, u64)>,
    /// Its own epochs that it has confirmed as ended.
    pub(super) over: Over,
    /// When its process began.
    pub(super) started: u64,
    /// When it was last a primary.
    pub(super) led: u64,
    /// The epochs in which it was the primary. What it wrote in them may appear at a later start.
    pub(super) reigns: BTreeSet<u32>,
    /// The last holder that it is known to have named.
    named: Option<Named>,
}

pub(super) struct Process {
    /// `None` while its store is copied.
    pub(super) engine: Option<Engine>,
    pub(super) roles: Option<Roles>,
    tasks: Vec<(Arc<AtomicBool>, Doing<'static, ()>)>,
    begun: Begun,
    outside: Arc<dyn Outside>,
    network: Network,
    /// Whether the copy is complete.
    copied: Arc<AtomicBool>,
    stopping: watch::Sender<bool>,
    /// How far its changes were read; `model` is the state there.
    pub(super) read: u64,
    pub(super) model: Arc<Model>,
}

pub(super) fn primary(member: usize) -> Primary {
    let uri = address(member).parse().expect("an address");
    Primary {
        address: crate::Address::new(uri).expect("an address"),
        credentials: Credentials::default(),
    }
}

/// Runs a part of a process, and returns an error if it crashes.
fn run<T>(part: impl FnOnce() -> T) -> Result<T, ()> {
    match catch_unwind(AssertUnwindSafe(part)) {
        Ok(done) => Ok(done),
        Err(cause) if cause.is::<Crash>() => Err(()),
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

pub(super) fn poll<T>(future: &mut (impl Future<Output = T> + Unpin + ?Sized)) -> Poll<T> {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(future).poll(&mut context)
}

impl Member {
    pub(super) fn new(
        number: usize,
        seed: u64,
        now: &Arc<AtomicU64>,
        is_deaf: bool,
        behind: u64,
    ) -> Self {
        Self {
            number,
            disk: SimulatedDisk::new(seed, is_deaf),
            process: None,
            follows: None,
            clock: Arc::new(SimulatedClock::new(now.clone(), behind)),
            durable: None,
            over: Arc::default(),
            started: 0,
            led: 0,
            reigns: BTreeSet::new(),
            named: None,
        }
    }

    /// Sets its calendar to the right time.
    pub(super) fn set_on_time(&mut self) {
        let now = self.clock.time();
        self.clock = Arc::new(SimulatedClock::new(now, 0));
    }

    /// Starts a process. The error is the message of the start.
    pub(super) fn start(
        &mut self,
        network: &Network,
        settings: &Settings,
        ledger: &Ledger,
        seed: u64,
    ) -> Result<Ended, String> {
        let begun: Begun = Arc::default();
        let outside: Arc<dyn Outside> = Arc::new(Around {
            member: self.number,
            network: network.clone(),
            clock: self.clock.clone(),
            begun: begun.clone(),
            chance: Mutex::new(Chance(seed)),
        });
        let mut process = Process {
            engine: None,
            roles: None,
            tasks: Vec::new(),
            begun,
            outside,
            network: network.clone(),
            copied: Arc::default(),
            stopping: watch::Sender::new(false),
            read: 0,
            model: Arc::default(),
        };
        if let Some(from) = self.follows
            && !self.disk.has_store()
        {
            process.begin_copy(self.disk.clone(), from, settings.clone());
            self.process = Some(process);
            return Ok(Ended::Well);
        }
        match run(|| process.open(self, settings, ledger, seed)) {
            Ok(opened) => opened?,
            Err(()) => return Ok(Ended::Crashed),
        }
        self.process = Some(process);
        Ok(Ended::Well)
    }

    /// Runs a step of the process.
    pub(super) fn step(&mut self, step: impl FnOnce(&mut Process)) -> Ended {
        let Some(process) = &mut self.process else {
            return Ended::Well;
        };
        match run(|| step(process)) {
            Ok(()) => Ended::Well,
            Err(()) => Ended::Crashed,
        }
    }

    /// Returns whether the copy that it waited for is complete, so that it can open it.
    pub(super) fn has_copied(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|it| it.engine.is_none() && it.copied.load(Ordering::Relaxed))
    }

    pub(super) fn engine(&self) -> Option<&Engine> {
        self.process.as_ref()?.engine.as_ref()
    }

    /// Returns whether it takes operations, according to its store.
    pub(super) fn leads(&self) -> bool {
        self.reign().is_some()
    }

    /// Returns the number of its data directory.
    pub(super) fn id(&self) -> Option<u64> {
        Some(self.engine()?.source().store().member)
    }

    /// Returns the holder, according to its history.
    pub(super) fn holder(&self) -> Option<u64> {
        let holder = self.engine()?.source().holding().holder;
        holder.map(|named| named.member)
    }

    /// Returns the previous holder, which does not know yet that it is no longer the holder,
    /// according to its history.
    pub(super) fn leaving(&self) -> Option<u64> {
        let leaving = self.engine()?.source().holding().leaving;
        leaving.map(|named| named.member)
    }

    /// Returns whether it has named another holder since the last call.
    pub(super) fn holder_is_new(&mut self) -> bool {
        let holder = self.engine().and_then(|it| it.source().holding().holder);
        let is_new = holder.is_some() && holder != self.named;
        self.named = holder.or(self.named);
        is_new
    }

    /// Returns its roles, once its store is open.
    pub(super) fn roles(&self) -> Option<&Roles> {
        self.process.as_ref()?.roles.as_ref()
    }

    /// Returns why it does not follow, in its own words.
    pub(super) fn why_not(&self) -> String {
        let why = self.roles().and_then(Roles::failure);
        why.unwrap_or_else(|| "it says that it does".into())
    }

    /// Returns the epoch in which it takes operations, if it does.
    pub(super) fn reign(&self) -> Option<u32> {
        let store = self.engine()?.source().store();
        (!store.is_standby()).then(|| store.epoch())
    }
}

impl Process {
    fn begin_copy(&mut self, disk: SimulatedDisk, from: usize, settings: Settings) {
        let (outside, copied) = (self.outside.clone(), self.copied.clone());
        let copying = async move {
            while let Err(_error) =
                copy(&outside, &primary(from), disk.clone(), &settings, || None).await
            {
                outside.clock().timer(COPY_AGAIN).await;
            }
            copied.store(true, Ordering::Relaxed);
        };
        self.tasks.push((Arc::default(), Box::pin(copying)));
    }

    /// Opens its store as `widgets/replication/begin.rs` does.
    fn open(
        &mut self,
        member: &Member,
        settings: &Settings,
        ledger: &Ledger,
        seed: u64,
    ) -> Result<(), String> {
        let mut numbers = Chance(seed ^ 1);
        let random = Box::new(move || numbers.number());
        let engine = Steps::open(&member.disk, &member.clock, random, settings);
        let engine = engine.map_err(|error| error.to_string())?;
        let (source, follower) = (engine.source(), engine.follower());
        let acknowledging = engine.acknowledging();
        let store = source.store();
        let configured = member.follows.map(primary);
        let follows = match (&store.role, configured) {
            (Role::Standby { .. }, Some(configured)) => Some(configured),
            (Role::Standby { primary: address }, None) => {
                let known = member_at(address).ok_or("a standby that does not say of whom")?;
                Some(primary(known))
            }
            (Role::Primary | Role::Promoted { .. }, _) => None,
        };
        let roles = Roles::start(
            self.outside.clone(),
            Store {
                source,
                follower,
                acknowledging,
            },
            follows,
            Credentials::default(),
            settings.segment_bytes,
            Metrics::new(),
        );
        self.roles = Some(roles.map_err(|error| error.to_string())?);
        self.read = engine.oldest().sequence;
        self.model = ledger.state(&store, self.read);
        self.engine = Some(engine);
        Ok(())
    }

    pub(super) fn begin(&mut self, task: Doing<'static, ()>) {
        self.tasks.push((Arc::default(), task));
    }

    /// Polls one of its tasks, or each of them once.
    pub(super) fn turn(&mut self, chance: &mut Chance) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        self.tasks.append(&mut begun);
        drop(begun);
        self.tasks
            .retain(|(ended, _)| !ended.load(Ordering::Relaxed));
        if self.tasks.is_empty() {
            return;
        }
        let first = chance.below(self.tasks.len());
        let count = if chance.below(2) == 0 {
            1
        } else {
            self.tasks.len()
        };
        let mut done = Vec::new();
        for each in 0..count {
            let chosen = (first + each) % self.tasks.len();
            let (ended, task) = &mut self.tasks[chosen];
            if !ended.load(Ordering::Relaxed) && poll(task).is_ready() {
                done.push(chosen);
            }
        }
        done.sort_unstable();
        for chosen in done.into_iter().rev() {
            drop(self.tasks.swap_remove(chosen));
        }
    }

    /// Takes a call from another member.
    pub(super) fn hear(&mut self, calling: Calling, this: usize, over: Over) {
        let Calling {
            from, call, answer, ..
        } = calling;
        let (Some(roles), Some(engine)) = (self.roles.clone(), &self.engine) else {
            // The process does not listen before the copy is complete.
            return;
        };
        let source = engine.source();
        let network = self.network.clone();
        match call {
            Call::Ask(query, number) => {
                let Some(answer) = answer else {
                    return;
                };
                let (reported, reports) = mpsc::channel(1);
                let stopping = self.stopping.subscribe();
                let sending = roles.standbys().send(query, reports, stopping);
                self.begin(Box::pin(async move {
                    let sent = sending.await;
                    network.linger().await;
                    let answer = Some(answer).filter(|_| network.reaches(this, from));
                    let (told, sent) = match sent {
                        Ok(sent) => (Ok(()), Some(sent)),
                        Err(error) => (Err(refused(error)), None),
                    };
                    if let Some(answer) = answer {
                        drop(answer.send(told));
                    }
                    if let Some((body, sending)) = sent {
                        let answering = network.answer(number, body);
                        join([sending, answering, network.reports(number, reported)]).await;
                    }
                }));
            }
            Call::Tell(call) => self.begin(Box::pin(async move {
                let (what, query) = call.split_once('?').unwrap_or((&call, ""));
                let own = source.store().epoch();
                let told = match what {
                    "replaced" => roles.replaced(query).await,
                    "hand-over" => roles.hand_over(query).await,
                    "handed-over" => roles.handed_over(query).await,
                    _ => roles.promote(query).await,
                };
                let ends = |told: &String| {
                    told.contains("\"replaced\":true") || told.contains("\"handed_over\":true")
                };
                if told.as_ref().is_ok_and(ends) {
                    let mut over = over.lock().unwrap_or_else(PoisonError::into_inner);
                    over.insert(own);
                }
                let answer = answer.filter(|_| network.reaches(this, from));
                if let Some(answer) = answer {
                    drop(answer.send(told.map(drop).map_err(refused)));
                }
            })),
        }
    }

    /// Checks that the state is the model's.
    pub(super) fn check_state(&self, serial_numbers: &[SerialNumber]) -> Result<(), String> {
        let Some(engine) = &self.engine else {
            return Ok(());
        };
        for serial_number in serial_numbers {
            let (found, expected) = (
                engine.lookup(serial_number),
                self.model.lookup(serial_number),
            );
            if found != expected {
                return Err(format!("it has {found:?}, the model {expected:?}"));
            }
        }
        let (found, expected) = (
            engine.counts().widgets,
            self.model.serial_numbers().count() as u64,
        );
        if found == expected {
            Ok(())
        } else {
            Err(format!(
                "it has {found} widgets, the model {expected} after entry {}",
                self.read
            ))
        }
    }
}

/// Waits until all of them have ended.
async fn join(mut all: [Doing<'static, ()>; 3]) {
    let mut ended = [false; 3];
    std::future::poll_fn(move |_| {
        for (each, ended) in all.iter_mut().zip(&mut ended) {
            *ended = *ended || poll(each).is_ready();
        }
        if ended == [true; 3] {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Returns the error that a member reads from a refusal.
fn refused(error: Unsendable) -> Error {
    let (status, why) = match error {
        Unsendable::Malformed(why) => (400, why),
        Unsendable::Elsewhere(why) => (410, why),
        Unsendable::Busy(why) => (503, format!(r#"{{"code":"WG503","details":"{why}"}}"#)),
        Unsendable::Unknown(why) => (503, format!(r#"{{"code":"WG505","details":"{why}"}}"#)),
        other => (503, format!("{other:?}")),
    };
    Error::Answered { status, why }
}
