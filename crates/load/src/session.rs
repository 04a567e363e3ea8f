//! A session: the workers, the stretches of load that they are given, and the audit at the end.

use crate::{
    Error,
    audit::Findings,
    client::{Request, Target, TargetSettings, channels},
    clock::{Clock, unix_time},
    dataset::{BLOCK_WIDGETS, Dataset},
    mix::Mix,
    partition::Share,
    schedule::{Arrivals, Extent},
    stats::{Measured, Percentiles},
    worker::{self, LoadDone, Order, Recorder, SharedRecorder, WorkerSettings, lock},
};
use serde::{Deserialize, Serialize};
use std::{ops::ControlFlow, rc::Rc, thread, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

/// Without a connection for so long, a run that expects no crash is over.
const UNREACHABLE: Duration = Duration::from_secs(3);

/// How a session is set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub target: TargetSettings,
    /// Threads.
    pub workers: usize,
    /// Connections of all workers together.
    pub connections: usize,
    /// Requests in flight on one connection: 1 over HTTP/1.1.
    pub streams: usize,
    /// What is asked for.
    pub mix: Mix,
    /// The share of requests that are made to be refused.
    pub conflicts: f64,
    /// A dataset that the server holds, and which part of how many of it this run may touch.
    pub dataset: Option<(Dataset, (u32, u32))>,
    /// The start of the serial numbers that the run makes.
    pub run: String,
    /// What the choices are made from.
    pub seed: u64,
    /// A request without an answer is given up after so long.
    pub timeout: Duration,
    /// So many widgets are remembered for the audit, sixteen bytes each.
    pub audit_widgets_max: u64,
    /// How long a stretch each point of the timeline covers.
    pub interval: Duration,
    /// Go on while the server cannot be reached.
    pub during_crash: bool,
}

impl Settings {
    /// Requests that can be in flight together.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        self.connections * self.streams
    }

    /// Checks each setting and how they hang together.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |setting: &'static str, limit: String, given: String| {
            Err(Error::Setting {
                setting,
                limit,
                given,
            })
        };
        let within = |setting, value: usize, max: usize| {
            let wrong = !(1..=max).contains(&value);
            if wrong {
                refuse(setting, format!("1 to {max}"), value.to_string())
            } else {
                Ok(())
            }
        };
        within("workers", self.workers, 256)?;
        within("connections", self.connections, 65_536)?;
        within("streams", self.streams, 1024)?;
        if self.workers > self.connections {
            let limit = format!("at most the number of connections, {}", self.connections);
            return refuse("workers", limit, self.workers.to_string());
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
        if !(1..=64).contains(&self.run.len()) || !self.run.bytes().all(plain) {
            let limit = "1 to 64 ASCII letters, digits, dots or underscores".into();
            return refuse("run", limit, format!("{:?}", self.run));
        }
        if self.interval < Duration::from_millis(50) {
            return refuse(
                "interval",
                "at least 50ms".into(),
                format!("{:?}", self.interval),
            );
        }
        if self.timeout < Duration::from_millis(1) {
            return refuse(
                "timeout",
                "at least 1ms".into(),
                format!("{:?}", self.timeout),
            );
        }
        if let Some((_, (part, parts))) = self.dataset
            && part >= parts
        {
            let limit = "PART/PARTS with PART from 1 to PARTS".into();
            return refuse(
                "dataset-part",
                limit,
                format!("{}/{parts}", u64::from(part) + 1),
            );
        }
        Ok(())
    }
}

/// One point of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where it ends, in seconds from the stretch's start.
    pub at_seconds: f64,
    /// How long it is, in seconds.
    pub seconds: f64,
    /// Requests that came to an end in it, a second.
    pub requests_per_second: f64,
    /// How many of them the service failed.
    pub errors: u64,
    /// How many answers were wrong.
    pub wrong: u64,
    /// Their latency.
    pub latency: Percentiles,
}

/// What an observer is told at every interval.
pub struct Tick<'a> {
    /// The stretch that just passed.
    pub point: Point,
    /// What was measured in it.
    pub measured: &'a Measured,
    /// What was measured since the stretch's start.
    pub total: &'a Measured,
    /// Requests that are due a second; none in closed loop.
    pub offered_per_second: Option<f64>,
    /// Lanes with a connection, of so many.
    pub lanes: (usize, usize),
    /// Why there are no connections, if there are none.
    pub connect_error: Option<&'a str>,
}

/// Somebody who watches a stretch of load.
pub trait Observer {
    /// Called at every interval. `Break` ends the stretch early, as a user may wish.
    fn tick(&mut self, tick: &Tick<'_>) -> ControlFlow<()>;
}

/// What came of a stretch of load.
#[derive(Debug, Default)]
pub struct Stretch {
    /// What was measured.
    pub total: Measured,
    /// The same over time.
    pub points: Vec<Point>,
    /// From its start to its last answer.
    pub elapsed: Duration,
    /// Processor time that the generator took, all threads together.
    pub cpu: Duration,
    /// Requests that were due and not sent before the end.
    pub unsent: u64,
    /// The first wrong answers, in words.
    pub examples: Vec<String>,
    /// Why it ended early, if it did.
    pub ended_early: Option<EndedEarly>,
}

/// Why a stretch of load ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedEarly {
    /// The user wished so.
    OnRequest,
    /// The server could not be reached for this reason.
    Unreachable(String),
}

impl EndedEarly {
    /// The reason in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::OnRequest => "on request".into(),
            Self::Unreachable(cause) => format!("the server cannot be reached: {cause}"),
        }
    }

    /// Whether there is somebody left to ask.
    #[must_use]
    pub const fn server_is_there(&self) -> bool {
        matches!(self, Self::OnRequest)
    }
}

/// The workers, ready for load.
pub struct Session {
    settings: Settings,
    clock: Clock,
    workers: Vec<Worker>,
}

struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    recorder: SharedRecorder,
}

impl Session {
    /// Checks the server and starts the workers.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        preflight(&settings).await?;
        let clock = Clock::start();
        let share = Share {
            run: settings.run.as_str().into(),
            partition: 0,
            partitions: settings.lanes() as u32,
            dataset: settings.dataset.map(|(dataset, _)| dataset),
            part: settings.dataset.map_or((0, 1), |(_, part)| part),
            own_max: (settings.audit_widgets_max as usize / settings.lanes()).max(16),
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
                clock,
            };
            first += connections;
            let recorder = SharedRecorder::default();
            let (orders, receiver) = mpsc::unbounded_channel();
            let for_worker = recorder.clone();
            thread::Builder::new()
                .name(format!("load-{worker}"))
                .spawn(move || {
                    // A worker that cannot start lets its orders go unanswered, which ends the run.
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
        })
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends requests as scheduled, until the extent's end, an interrupt (Ctrl-C) or an observer's wish.
    pub async fn load(
        &mut self,
        arrivals: Arrivals,
        extent: Extent,
        observer: &mut dyn Observer,
    ) -> Result<Stretch, Error> {
        let start = self.clock.now();
        let cpu = cpu_time();
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
        let mut finished = std::pin::pin!(async {
            let mut unsent = 0;
            for answer in answers {
                let LoadDone { unsent: each } = answer.await.map_err(|_| self.dead())?;
                unsent += each;
            }
            Ok::<u64, Error>(unsent)
        });
        let mut collector = Collector::new(start, self.settings.lanes(), arrivals.rate());
        let mut ticks = interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut interrupts = 0;
        loop {
            tokio::select! {
                unsent = &mut finished => {
                    collector.stretch.unsent = unsent?;
                    break;
                }
                _ = ticks.tick() => {
                    let wish = collector.collect(&self.workers, self.clock.now(), observer);
                    let gone = collector.unreachable(self.settings.interval) > UNREACHABLE;
                    if let Some(cause) = collector.connect_error.clone()
                        && gone && !self.settings.during_crash
                    {
                        self.interrupt();
                        let why = EndedEarly::Unreachable(cause);
                        collector.stretch.ended_early.get_or_insert(why);
                    } else if wish.is_break() {
                        self.interrupt();
                        collector.stretch.ended_early.get_or_insert(EndedEarly::OnRequest);
                    }
                }
                signal = tokio::signal::ctrl_c() => {
                    signal.map_err(Error::Thread)?;
                    interrupts += 1;
                    if interrupts > 1 {
                        return Err(Error::Aborted);
                    }
                    self.interrupt();
                    collector.stretch.ended_early.get_or_insert(EndedEarly::OnRequest);
                }
            }
        }
        let now = self.clock.now();
        // The rest of an interval is too short to stand for itself, but counts.
        let _ = collector.collect(&self.workers, now, observer);
        let mut stretch = collector.stretch;
        stretch.elapsed = now.saturating_sub(start);
        stretch.cpu = cpu_time().saturating_sub(cpu);
        for worker in &self.workers {
            stretch
                .examples
                .append(&mut lock(&worker.recorder).examples);
        }
        Ok(stretch)
    }

    /// Reads back what was acknowledged: all of it, or a sample of so many widgets. Waits so long for
    /// the answers.
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
        let all = async {
            let mut findings = Findings::default();
            for answer in answers {
                findings.add(answer.await.map_err(|_| self.dead())?);
            }
            Ok(findings)
        };
        tokio::select! {
            findings = timeout(patience, all) => findings.map_err(|_| Error::AuditLate {
                seconds: patience.as_secs(),
            })?,
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(Error::Thread)?;
                Err(Error::Aborted)
            }
        }
    }

    fn interrupt(&self) {
        for worker in &self.workers {
            drop(worker.orders.send(Order::Interrupt));
        }
    }

    fn dead(&self) -> Error {
        let mut errors = self.workers.iter();
        let cause = errors.find_map(|worker| lock(&worker.recorder).connect_error.clone());
        Error::Worker(cause.unwrap_or_else(|| "it panicked".into()))
    }
}

/// Gathers what the workers record.
struct Collector {
    start: Duration,
    lanes: usize,
    offered_per_second: Option<f64>,
    last: Duration,
    spare: Measured,
    interval: Measured,
    stretch: Stretch,
    connect_error: Option<String>,
    /// Intervals in a row without any connection.
    unreachable: u32,
}

impl Collector {
    fn new(start: Duration, lanes: usize, offered_per_second: Option<f64>) -> Self {
        Self {
            start,
            lanes,
            offered_per_second,
            last: start,
            spare: Measured::default(),
            interval: Measured::default(),
            stretch: Stretch::default(),
            connect_error: None,
            unreachable: 0,
        }
    }

    fn unreachable(&self, interval: Duration) -> Duration {
        interval * self.unreachable
    }

    fn collect(
        &mut self,
        workers: &[Worker],
        now: Duration,
        observer: &mut dyn Observer,
    ) -> ControlFlow<()> {
        self.interval.clear();
        let mut connected = 0;
        self.connect_error = None;
        for worker in workers {
            self.spare.clear();
            {
                let Recorder {
                    measured,
                    lanes_connected,
                    connect_error,
                    ..
                } = &mut *lock(&worker.recorder);
                std::mem::swap(measured, &mut self.spare);
                connected += *lanes_connected;
                if self.connect_error.is_none() {
                    self.connect_error.clone_from(connect_error);
                }
            }
            self.interval.add(&self.spare);
        }
        self.unreachable = if connected == 0 {
            self.unreachable + 1
        } else {
            0
        };
        self.stretch.total.add(&self.interval);
        let seconds = now.saturating_sub(self.last).as_secs_f64();
        self.last = now;
        let point = Point {
            at_seconds: now.saturating_sub(self.start).as_secs_f64(),
            seconds,
            requests_per_second: self.interval.requests() as f64 / seconds.max(1e-9),
            errors: self.interval.errors(),
            wrong: self.interval.wrong,
            latency: Percentiles::from(&self.interval.latency()),
        };
        self.stretch.points.push(point);
        let tick = Tick {
            point,
            measured: &self.interval,
            total: &self.stretch.total,
            offered_per_second: self.offered_per_second,
            lanes: (connected, self.lanes),
            connect_error: self.connect_error.as_deref(),
        };
        observer.tick(&tick)
    }
}

/// Asks the server a few questions whose answers are known, before anything is sent.
async fn preflight(settings: &Settings) -> Result<(), Error> {
    let target = Target::new(&settings.target).map_err(Error::Target)?;
    let mut lanes = channels(&Rc::new(target), 1);
    let Some(channel) = lanes.first_mut() else {
        return Ok(());
    };
    let mut questions = vec![(format!("{}-0-0", settings.run), false)];
    if let Some((dataset, (part, parts))) = settings.dataset {
        // Only of this run's part: earlier runs may have changed the others.
        let last = dataset.blocks().checked_sub(part + 1);
        let last = last.map(|rest| rest / parts * parts + part);
        for block in last.into_iter().flat_map(|last| [part, last]) {
            let mut serial_number = String::new();
            Dataset::write_serial_number(block * BLOCK_WIDGETS, &mut serial_number);
            questions.push((serial_number, true));
        }
    }
    for (serial_number, exists) in questions {
        let request = Request {
            path: format!("/widgets/{serial_number}"),
            body: None,
        };
        let asked = async {
            channel.connect().await?;
            let answer = channel.exchange(&request, settings.timeout).await;
            answer.map_err(|failure| failure.cause)
        };
        let answer = timeout(settings.timeout, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", settings.timeout)));
        let answer = answer.map_err(Error::Unreachable)?;
        let code = worker::code(answer.body);
        match (answer.status, code.as_deref(), exists) {
            (200, _, true) | (404, Some("WG001"), false) => {}
            (200, _, false) => {
                return Err(Error::RunTaken {
                    run: settings.run.clone(),
                });
            }
            (404, Some("WG001"), true) => return Err(Error::NoDataset { serial_number }),
            (401 | 403, ..) => {
                return Err(Error::Token {
                    status: answer.status,
                });
            }
            (status, ..) => {
                let body = String::from_utf8_lossy(answer.body);
                let body: String = body.chars().take(200).collect();
                return Err(Error::Strange {
                    path: request.path,
                    status,
                    body,
                });
            }
        }
    }
    Ok(())
}

/// A name for a run that no other run has had: from the wall clock, to the millisecond.
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

/// Processor time of this process so far; zero where the system does not tell.
fn cpu_time() -> Duration {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return Duration::ZERO;
    };
    // The second field, in parentheses, may hold anything. After it, user and system time are the
    // 12th and 13th (proc_pid_stat(5)).
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

/// Runs a session's future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}
