//! A session: the workers, the stretches of load that they are given, and the audit at the end.

mod preflight;
mod settings;
mod timeline;

pub use settings::Settings;
pub use timeline::{EndedEarly, Observer, Point, Stretch, Tick};

use crate::{
    Error,
    audit::Findings,
    clock::{Clock, unix_time},
    feed::{FeedFindings, Follower},
    interrupt::Interrupts,
    partition::Share,
    schedule::{Arrivals, Extent},
    worker::{self, LoadDone, Order, SharedRecorder, WorkerSettings, lock},
};
use preflight::preflight;
use std::{ops::ControlFlow, thread, time::Duration};
use timeline::Collector;
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

/// Without a connection for this long, a run that expects no crash ends.
const UNREACHABLE: Duration = Duration::from_secs(3);

/// The workers, ready for load.
pub struct Session {
    settings: Settings,
    clock: Clock,
    workers: Vec<Worker>,
    feed: Option<Follower>,
    interrupts: Interrupts,
}

struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    recorder: SharedRecorder,
}

impl Session {
    /// Checks the server and starts the workers.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            checked = preflight(&settings) => checked?,
            () = interrupts.next() => return Err(Error::Interrupted),
        }
        let clock = Clock::start();
        let share = Share {
            run: settings.run.as_str().into(),
            partition: 0,
            partitions: settings.lanes() as u32,
            dataset: settings.dataset.map(|(dataset, _)| dataset),
            part: settings.dataset.map_or((0, 1), |(_, part)| part),
            own_max: (settings.audit_widgets_max as usize / settings.lanes()).max(16),
        };
        let feed = if settings.follow_changes {
            let started = Follower::start(&settings, &share, clock);
            tokio::select! {
                started = started => Some(started?),
                () = interrupts.next() => return Err(Error::Interrupted),
            }
        } else {
            None
        };
        let mut workers = Vec::new();
        let mut first = 0;
        for worker in 0..settings.workers {
            let spread = settings.connections % settings.workers;
            let connections =
                settings.connections / settings.workers + usize::from(worker < spread);
            let worker_settings = WorkerSettings {
                target: settings.target.clone(),
                worker,
                workers: settings.workers,
                connections,
                streams: settings.streams,
                first_lane: (first * settings.streams) as u32,
                share: share.clone(),
                mix: settings.mix,
                conflicts: settings.conflicts,
                seed: settings.seed,
                timeout: settings.timeout,
                during_crash: settings.during_crash,
                idempotency_keys: settings.idempotency_keys,
                feed: feed.as_ref().and_then(|feed| feed.reporter(worker)),
                clock,
            };
            first += connections;
            let recorder = SharedRecorder::default();
            let (orders, receiver) = mpsc::unbounded_channel();
            let for_worker = recorder.clone();
            thread::Builder::new()
                .name(format!("load-{worker}"))
                .spawn(move || {
                    // If a worker cannot start, its orders remain unanswered, which ends the run.
                    if let Err(error) = worker::run(&worker_settings, for_worker.clone(), receiver)
                    {
                        lock(&for_worker).connect_error = Some(error.to_string());
                    }
                })
                .map_err(Error::Thread)?;
            workers.push(Worker { orders, recorder });
        }
        Ok(Self {
            settings,
            clock,
            workers,
            feed,
            interrupts,
        })
    }

    /// Returns the settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends requests as scheduled, until the end of the extent, a signal (Ctrl-C, SIGTERM), or an
    /// observer's request. After a second signal, outstanding answers are not waited for.
    pub async fn load(
        &mut self,
        arrivals: Arrivals,
        extent: Extent,
        observer: &mut dyn Observer,
    ) -> Result<Stretch, Error> {
        let start = self.clock.now();
        let cpu = self.cpu_time();
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            let order = Order::Load {
                arrivals,
                extent,
                start,
                done,
            };
            drop(worker.orders.send(order));
            answers.push(answer);
        }
        let (workers, interrupts) = (&self.workers, &mut self.interrupts);
        let mut finished = std::pin::pin!(async {
            let mut unsent = 0;
            for answer in answers {
                let LoadDone { unsent: each } = answer.await.map_err(|_| dead(workers))?;
                unsent += each;
            }
            Ok::<u64, Error>(unsent)
        });
        let mut collector = Collector::new(start, self.settings.lanes(), arrivals.rate());
        let mut ticks = interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                unsent = &mut finished => {
                    collector.stretch.unsent = unsent?;
                    break;
                }
                _ = ticks.tick() => {
                    let wish = collector.collect(workers, self.clock.now(), observer);
                    let gone = collector.unreachable(self.settings.interval) > UNREACHABLE;
                    if let Some(cause) = collector.connect_error.clone()
                        && gone && !self.settings.during_crash
                    {
                        interrupt(workers);
                        let why = EndedEarly::Unreachable(cause);
                        collector.stretch.ended_early.get_or_insert(why);
                    } else if wish.is_break() && end(&mut collector.stretch, workers).is_break() {
                        break;
                    }
                }
                () = interrupts.next() => {
                    if end(&mut collector.stretch, workers).is_break() {
                        break;
                    }
                }
            }
        }
        let now = self.clock.now();
        // The rest of an interval is too short for a point of its own, but counts.
        let _ = collector.collect(workers, now, observer);
        let mut stretch = collector.stretch;
        stretch.elapsed = now.saturating_sub(start);
        stretch.cpu = self.cpu_time().saturating_sub(cpu);
        for worker in workers {
            stretch
                .examples
                .append(&mut lock(&worker.recorder).examples);
        }
        Ok(stretch)
    }

    /// Returns the CPU time that sending and receiving has used so far.
    fn cpu_time(&self) -> Duration {
        let following = self.feed.as_ref().map_or(Duration::ZERO, Follower::cpu);
        cpu_time().saturating_sub(following)
    }

    /// Waits until the feed of changes, if it is followed, has been read to its present end.
    pub async fn catch_up(&mut self, patience: Duration) -> Result<(), Error> {
        let Some(feed) = &self.feed else {
            return Ok(());
        };
        tokio::select! {
            reached = timeout(patience, feed.catch_up()) => {
                reached.unwrap_or_else(|_| Err(Error::Feed(feed.trouble())))
            }
            () = self.interrupts.next() => Err(Error::AuditInterrupted),
        }
    }

    /// Returns the findings from the feed of changes, if it was followed, and stops following it.
    pub fn feed_findings(&mut self) -> Option<FeedFindings> {
        self.feed.take().map(Follower::finish)
    }

    /// Reads back what was acknowledged: all of it, or a sample of at most `widgets_max` widgets.
    /// `patience` limits the whole audit. If the server is gone, it waits no longer than a stretch
    /// of load does.
    pub async fn audit(
        &mut self,
        widgets_max: Option<u64>,
        patience: Duration,
    ) -> Result<Findings, Error> {
        let mut answers = Vec::new();
        let lanes = self.settings.lanes() as u64;
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            let widgets_max = widgets_max.map(|max| max.div_ceil(lanes));
            drop(worker.orders.send(Order::Audit { widgets_max, done }));
            answers.push(answer);
        }
        let (workers, interrupts) = (&self.workers, &mut self.interrupts);
        let all = async {
            let mut findings = Findings::default();
            for answer in answers {
                findings.add(answer.await.map_err(|_| dead(workers))?);
            }
            Ok(findings)
        };
        let settings = &self.settings;
        tokio::select! {
            findings = timeout(patience, all) => findings.map_err(|_| Error::AuditLate {
                seconds: patience.as_secs(),
            })?,
            error = unanswered(settings, self.clock, workers), if !settings.during_crash => Err(error),
            () = interrupts.next() => Err(Error::AuditInterrupted),
        }
    }
}

/// Returns once an audit has had no answer for too long: three seconds if the server cannot be
/// reached, and three seconds plus the timeout of a request if it merely does not answer.
async fn unanswered(settings: &Settings, clock: Clock, workers: &[Worker]) -> Error {
    let (mut answered, mut since) = (0, clock.now());
    let mut ticks = interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (mut now_answered, mut cause) = (0, None);
        for worker in workers {
            let recorder = lock(&worker.recorder);
            now_answered += recorder.read_back;
            cause = cause.or_else(|| recorder.connect_error.clone());
        }
        let now = clock.now();
        if now_answered > answered {
            (answered, since) = (now_answered, now);
        }
        let silent = now.saturating_sub(since);
        let patience = match cause {
            Some(_) => UNREACHABLE,
            None => UNREACHABLE + settings.timeout,
        };
        if silent > patience {
            let seconds = silent.as_secs();
            let cause = cause.unwrap_or_else(|| "its connections are open".into());
            return Error::AuditUnreachable { seconds, cause };
        }
    }
}

/// Handles a user's request to end a stretch: the first stops sending; after the second, answers
/// are not waited for either.
fn end(stretch: &mut Stretch, workers: &[Worker]) -> ControlFlow<()> {
    interrupt(workers);
    if stretch.ended_early.is_some() {
        stretch.ended_early = Some(EndedEarly::AtOnce);
        return ControlFlow::Break(());
    }
    stretch.ended_early = Some(EndedEarly::OnRequest);
    ControlFlow::Continue(())
}

fn interrupt(workers: &[Worker]) {
    for worker in workers {
        drop(worker.orders.send(Order::Interrupt));
    }
}

fn dead(workers: &[Worker]) -> Error {
    let mut errors = workers.iter();
    let cause = errors.find_map(|worker| lock(&worker.recorder).connect_error.clone());
    Error::Worker(cause.unwrap_or_else(|| "it panicked".into()))
}

/// Returns a name for a run that no other run has had, from the wall clock in milliseconds.
#[must_use]
pub fn fresh_run_name() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = unix_time().as_millis();
    let mut name = Vec::new();
    while rest > 0 {
        name.push(char::from(DIGITS[(rest % 36) as usize]));
        rest /= 36;
    }
    name.push('L');
    name.iter().rev().collect()
}

/// Returns the CPU time of this process so far, or zero if the system does not report it.
fn cpu_time() -> Duration {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return Duration::ZERO;
    };
    // The second field, in parentheses, may contain anything. After it, user and system time are
    // the 12th and 13th fields (proc_pid_stat(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// Runs a session's future on a new runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}
