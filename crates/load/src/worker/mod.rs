//! A worker: one thread, some connections, and their lanes.
//!
//! A lane has at most one request in flight and a separate partition. When a lane becomes free, it
//! takes the next request that is due. While lanes are idle, the dispatcher hands each request to
//! one of them at the moment at which it is due. So a backlog needs no memory: it is the schedule
//! itself.

mod lane;

use crate::{
    audit::Findings,
    client::{Channel, Target, TargetSettings, channels},
    clock::{Clock, Timer},
    feed::Reporter,
    mix::Mix,
    partition::{Partition, Share},
    schedule::{Arrivals, Extent, Next, Schedule},
    stats::Measured,
};
use lane::lane;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{LocalSet, spawn_local},
    time::sleep,
};

/// The settings that every worker gets at its start.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) target: TargetSettings,
    pub(crate) worker: usize,
    pub(crate) workers: usize,
    /// This worker's number of connections.
    pub(crate) connections: usize,
    /// Lanes per connection.
    pub(crate) streams: usize,
    /// The number of its first lane among all lanes.
    pub(crate) first_lane: u32,
    pub(crate) share: Share,
    pub(crate) mix: Mix,
    pub(crate) conflicts: f64,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
    /// Whether the audit waits for a server that cannot be reached.
    pub(crate) during_crash: bool,
    pub(crate) idempotency_keys: bool,
    /// Where completed operations are reported, if the feed is followed.
    pub(crate) feed: Option<Reporter>,
    pub(crate) clock: Clock,
}

/// What a worker is told to do.
pub(crate) enum Order {
    /// Send requests. Answered once the last of them is complete.
    Load {
        arrivals: Arrivals,
        extent: Extent,
        start: Duration,
        done: oneshot::Sender<LoadDone>,
    },
    /// Let no further request become due.
    Interrupt,
    /// Read widgets back and compare them.
    Audit {
        /// The maximum for each lane; `None` for all.
        widgets_max: Option<u64>,
        done: oneshot::Sender<Findings>,
    },
}

/// How a stretch of load ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadDone {
    /// Requests that were due but never sent.
    pub(crate) unsent: u64,
}

/// What a worker reports while it runs.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) measured: Measured,
    /// The first wrong answers as text.
    pub(crate) examples: Vec<String>,
    /// The last reason why a connection could not be made.
    pub(crate) connect_error: Option<String>,
    pub(crate) lanes_connected: usize,
    /// Lookups of an audit that were answered: the audit continues as long as this grows.
    pub(crate) read_back: u64,
}

/// The recorder that a worker shares with its observers.
pub(crate) type SharedRecorder = Arc<Mutex<Recorder>>;

/// No code under the lock can leave its data half changed.
pub(crate) fn lock(recorder: &SharedRecorder) -> std::sync::MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the tasks of one worker share.
struct Shared {
    clock: Clock,
    timeout: Duration,
    during_crash: bool,
    recorder: SharedRecorder,
    feed: Option<Reporter>,
    schedule: RefCell<Option<Schedule>>,
    slots: Vec<Slot>,
    idle: RefCell<VecDeque<usize>>,
    in_flight: Cell<usize>,
    /// Notified when the schedule is new or has ended, or when a lane has become idle.
    changed: Notify,
    /// Notified when no request is in flight any more.
    drained: Notify,
}

/// Where a lane finds its next task.
#[derive(Default)]
struct Slot {
    task: Cell<Option<Task>>,
    waker: Cell<Option<Waker>>,
}

enum Task {
    /// A request that was or is due at this time.
    Request(Duration),
    Audit(Option<u64>, mpsc::UnboundedSender<Findings>),
}

/// Runs a worker until nobody can give it orders any more.
pub(crate) fn run(
    settings: &WorkerSettings,
    recorder: SharedRecorder,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let target = Target::new(&settings.target).map_err(io::Error::other)?;
    LocalSet::new().block_on(&runtime, async {
        let target = Rc::new(target);
        let lanes: Vec<Channel> = (0..settings.connections)
            .flat_map(|_| channels(&target, settings.streams))
            .collect();
        let shared = Rc::new(Shared {
            clock: settings.clock,
            timeout: settings.timeout,
            during_crash: settings.during_crash,
            recorder,
            feed: settings.feed.clone(),
            schedule: RefCell::new(None),
            slots: lanes.iter().map(|_| Slot::default()).collect(),
            idle: RefCell::default(),
            in_flight: Cell::new(0),
            changed: Notify::new(),
            drained: Notify::new(),
        });
        for (index, channel) in lanes.into_iter().enumerate() {
            let mut share = settings.share.clone();
            share.partition = settings.first_lane + index as u32;
            let keys = settings
                .idempotency_keys
                .then(|| format!("{}-{}-", share.run, share.partition));
            let partition = Partition::new(share, settings.mix, settings.conflicts, settings.seed);
            spawn_local(lane(shared.clone(), index, channel, partition, keys));
        }
        let timer = Timer::new(settings.clock)?;
        spawn_local(dispatch(shared.clone(), timer));
        while let Some(order) = orders.recv().await {
            obey(settings, &shared, &mut orders, order).await;
        }
        Ok(())
    })
}

async fn obey(
    settings: &WorkerSettings,
    shared: &Rc<Shared>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    order: Order,
) {
    match order {
        Order::Load {
            arrivals,
            extent,
            start,
            done,
        } => {
            let place = (settings.worker as u64, settings.workers as u64);
            // Each stretch of load has a different seed, so that it does not repeat the gaps of the
            // previous one.
            let seed = settings.seed ^ start.as_nanos() as u64;
            let schedule = Schedule::new(arrivals, extent, start, place, seed);
            *shared.schedule.borrow_mut() = Some(schedule);
            shared.changed.notify_one();
            let mut listening = true;
            while !shared.is_drained() {
                tokio::select! {
                    () = shared.drained.notified() => {}
                    () = sleep(Duration::from_millis(10)) => {}
                    order = orders.recv(), if listening => {
                        listening = order.is_some();
                        if !matches!(order, Some(Order::Audit { .. })) {
                            shared.interrupt();
                        }
                    }
                }
            }
            let schedule = shared.schedule.borrow_mut().take();
            let unsent = schedule.map_or(0, |schedule| schedule.overdue(shared.clock.now()));
            // After an abort, nobody may be waiting any more.
            let _ = done.send(LoadDone { unsent });
        }
        Order::Interrupt => {}
        Order::Audit { widgets_max, done } => {
            let (sender, mut findings) = mpsc::unbounded_channel();
            shared.idle.borrow_mut().clear();
            for index in 0..shared.slots.len() {
                shared.assign(index, Task::Audit(widgets_max, sender.clone()));
            }
            drop(sender);
            let mut all = Findings::default();
            while let Some(each) = findings.recv().await {
                all.add(each);
            }
            let _ = done.send(all);
        }
    }
}

impl Shared {
    fn assign(&self, index: usize, task: Task) {
        self.slots[index].task.set(Some(task));
        if let Some(waker) = self.slots[index].waker.take() {
            waker.wake();
        }
    }

    fn interrupt(&self) {
        if let Some(schedule) = &mut *self.schedule.borrow_mut() {
            schedule.stop(self.clock.now());
        }
        self.changed.notify_one();
    }

    /// Reports whether the schedule is over and every request is complete.
    fn is_drained(&self) -> bool {
        let schedule = self.schedule.borrow();
        let over = schedule
            .as_ref()
            .is_none_or(|schedule| schedule.peek(self.clock.now()) == Next::Over);
        over && self.in_flight.get() == 0
    }

    /// Returns a lane's next task: a request at once if one is due, or else whatever the dispatcher
    /// assigns to it.
    async fn next(&self, index: usize) -> Task {
        if let Some(task) = self.slots[index].task.take() {
            return task;
        }
        let next = self
            .schedule
            .borrow_mut()
            .as_mut()
            .map(|schedule| schedule.take(self.clock.now()));
        if let Some(Next::Due(due)) = next {
            return Task::Request(due);
        }
        self.idle.borrow_mut().push_back(index);
        self.changed.notify_one();
        poll_fn(|context| {
            if let Some(task) = self.slots[index].task.take() {
                return Poll::Ready(task);
            }
            self.slots[index].waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

/// The shortest time between two wake-ups of the dispatcher: at more than 5,000 requests a second
/// it hands over several at a time. A wake-up for each request would take CPU time from a service
/// on the same machine, which clients on other machines do not. The delay is included in the
/// latency and in the lag.
const TICK: Duration = Duration::from_micros(200);

/// Hands requests to idle lanes when they are due.
async fn dispatch(shared: Rc<Shared>, timer: Timer) {
    let mut woken = Duration::ZERO;
    loop {
        let next = {
            let mut schedule = shared.schedule.borrow_mut();
            let idle = !shared.idle.borrow().is_empty();
            match schedule.as_mut() {
                Some(schedule) if idle => schedule.take(shared.clock.now()),
                _ => Next::Over,
            }
        };
        match next {
            Next::Due(due) => {
                if let Some(index) = shared.idle.borrow_mut().pop_front() {
                    shared.assign(index, Task::Request(due));
                }
            }
            Next::At(time) => {
                tokio::select! {
                    biased;
                    // A failing timer would make the loop spin and run late, which the lag would
                    // show.
                    _ = timer.wait_until(time.max(woken + TICK)) => woken = shared.clock.now(),
                    () = shared.changed.notified() => {}
                }
            }
            Next::Over => shared.changed.notified().await,
        }
    }
}
