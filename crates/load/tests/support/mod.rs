//! A real server on a store in memory that can be made to answer falsely.

#![expect(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "helpers of tests: every test file includes them and uses some"
)]

use prometheus::Registry;
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{net::TcpListener, runtime, sync::watch};
use widgets_clock::SystemClock;
use widgets_conformance::Model;
use widgets_load::{
    Protocol, TargetSettings,
    dataset::Dataset,
    report::Report,
    run::{Plan, Rate, run},
    session::{Settings, fresh_run_name},
    transfer::{Completed, Progress, Sink, TransferError, generate},
};
use widgets_registry::{
    Applied, Ask, Attempt, ChangeFilter, Changes, Command, Event, Fault, Feed, FeedError, Happened,
    Lookup, Moment, Name, Ordinal, Port, Position, Promised, Refusal, Rejection, SerialNumber,
    Store, Widget,
    query::{List, Neighbourhood, NeighbourhoodQuery, Page, Rows},
};
use widgets_server::{Api, Limits};

/// How the store lies. Unless stated otherwise, it lies once in this many writes that it could
/// accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Does not lie.
    None,
    /// Acknowledges, and does nothing.
    Drop(u64),
    /// After this many writes, forgets the last thousand once, as a restart that lost them would.
    Restart(u64),
    /// Lets only the first of two widgets know of their association.
    Asymmetric(u64),
    /// Refuses, and does nothing.
    Refuse(u64),
    /// Refuses, but applies the operation.
    RefuseAndApply(u64),
    /// Says that it is too busy and did nothing, but applies the operation.
    BusyAndApply(u64),
    /// Applies the operation, but never answers. This is no lie, because it said nothing.
    SilentAndApply(u64),
    /// Applies the operation, but says that its fate is unknown. This is no lie either.
    FateUnknown(u64),
    /// Gives a widget another name.
    Rename(u64),
    /// Gives a widget of the dataset another name when it refuses to add it a second time.
    RenameRefused,
    /// Leaves out the last row of one list in this many.
    LoseRow(u64),
    /// After this many writes, no longer answers lookups, as if it were gone.
    Deaf(u64),
    /// Leaves a change out of the feed.
    Untold(u64),
    /// Reports a change a second time, later.
    ToldTwice(u64),
    /// Reports a change after others that came later.
    ToldLate(u64),
    /// Reports a change with another name or another slot.
    ToldOtherwise(u64),
    /// Reports an operation that it refuses.
    ToldRefused(u64),
    /// Applies the operation, says that its fate is unknown, and leaves it out of the feed.
    FateUntold(u64),
}

#[derive(Default)]
struct Memory {
    model: Model,
    /// The widgets that it is being filled with.
    filled: Vec<Widget>,
    snapshot: Option<Model>,
    /// Ends of associations that a lookup does not show.
    hidden: HashSet<(SerialNumber, Port)>,
    renamed: HashSet<SerialNumber>,
    told: Vec<Event>,
    /// A change that is held back, and the number of the change after which it is reported.
    held: Option<(u64, Happened)>,
}

/// How many other changes precede one that is held back.
const HELD_BACK: u64 = 30;

impl Memory {
    fn tell(&mut self, happened: Happened) {
        let number = self.told.len() as u64 + 1;
        self.told.push(Event {
            position: position(number),
            at: Moment(number),
            by: None,
            happened,
        });
        if let Some((_, held)) = self.held.take_if(|(due, _)| *due <= number) {
            self.tell(held);
        }
    }

    fn hold(&mut self, happened: Happened) {
        self.held = Some((self.told.len() as u64 + HELD_BACK, happened));
    }
}

/// Returns the change with another name or another slot.
fn told_otherwise(happened: Happened) -> Happened {
    match happened {
        Happened::AddWidget {
            serial_number,
            ports,
            ..
        } => Happened::AddWidget {
            serial_number,
            name: Name::new("", "another").unwrap(),
            ports,
        },
        Happened::AssociateWidgets(mut one, other, port) => {
            one.ordinal = Ordinal::new((one.ordinal.get() + 1) % 3).unwrap();
            Happened::AssociateWidgets(one, other, port)
        }
        happened => happened,
    }
}

/// A store in memory.
#[derive(Clone)]
pub struct Double {
    memory: Arc<Mutex<Memory>>,
    writes: Arc<AtomicU64>,
    lie: Lie,
}

impl Double {
    pub fn new(lie: Lie) -> Self {
        Self {
            memory: Arc::default(),
            writes: Arc::default(),
            lie,
        }
    }

    /// Returns a store that does not lie and holds a dataset.
    pub fn with_dataset(dataset: &Dataset) -> Self {
        let double = Self::new(Lie::None);
        let sink = Box::new(double.clone());
        generate(dataset, sink, &mut Progress::new(None)).unwrap();
        double
    }

    /// Returns the same store, which lies from now on.
    pub fn lying(self, lie: Lie) -> Self {
        Self { lie, ..self }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Double {
    fn put(&mut self, widget: Widget, _: &[Completed]) -> Result<(), TransferError> {
        self.memory().filled.push(widget);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), TransferError> {
        // The slots are taken over as they are: operations would take the lowest free slot, which a
        // dataset need not.
        let mut memory = self.memory();
        let filled = std::mem::take(&mut memory.filled);
        memory.model = Model::from_lookups(filled).map_err(TransferError::Store)?;
        Ok(())
    }
}

impl Ask<Attempt> for Double {
    async fn ask(&self, Attempt { command, .. }: Attempt) -> Result<Applied, Rejection> {
        let silent = {
            let mut memory = self.memory();
            // An operation that is refused anyway is not counted, because no lie is possible.
            let number = self.writes.load(Ordering::Relaxed) + 1;
            let is_due = |every: u64| number.is_multiple_of(every);
            let only_pretends = match self.lie {
                Lie::Drop(every) | Lie::Refuse(every) => is_due(every),
                _ => false,
            };
            let happened = memory.model.foretell(&command);
            if only_pretends {
                memory.model.clone().apply(&command)?;
            } else {
                let applied = memory.model.apply(&command);
                if let (Err(_), Lie::ToldRefused(every), Command::AddWidget { .. }) =
                    (&applied, self.lie, &command)
                    && (memory.told.len() as u64).is_multiple_of(every)
                    && let Some(happened) = happened.clone()
                {
                    memory.tell(happened);
                }
                if let (Err(_), Lie::RenameRefused, Command::AddWidget { serial_number, .. }) =
                    (&applied, self.lie, &command)
                    && serial_number.starts_with('W')
                {
                    memory.renamed.insert(serial_number.clone());
                }
                applied?;
            }
            self.writes.store(number, Ordering::Relaxed);
            if let (false, Some(happened)) = (only_pretends, happened) {
                match self.lie {
                    Lie::Untold(every) | Lie::FateUntold(every) if is_due(every) => {}
                    Lie::ToldTwice(every) if is_due(every) => {
                        memory.tell(happened.clone());
                        memory.hold(happened);
                    }
                    Lie::ToldLate(every) if is_due(every) => memory.hold(happened),
                    Lie::ToldOtherwise(every) if is_due(every) => {
                        memory.tell(told_otherwise(happened));
                    }
                    _ => memory.tell(happened),
                }
            }
            let refusal = || Refusal::WidgetMissing {
                serial_number: SerialNumber::new("", "somebody").unwrap(),
            };
            match self.lie {
                Lie::Restart(after) if number + 1000 == after => {
                    memory.snapshot = Some(memory.model.clone());
                }
                Lie::Restart(after) if number == after => {
                    memory.model = memory.snapshot.take().unwrap();
                }
                Lie::Asymmetric(every) if is_due(every) => {
                    if let Command::AssociateWidgets(pair) = &command {
                        memory.hidden.insert((pair.widget2().clone(), pair.port()));
                    }
                }
                Lie::Rename(every) if is_due(every) => {
                    if let Command::AddWidget { serial_number, .. } = &command {
                        memory.renamed.insert(serial_number.clone());
                    }
                }
                Lie::Refuse(every) | Lie::RefuseAndApply(every) if is_due(every) => {
                    return Err(refusal().into());
                }
                Lie::BusyAndApply(every) if is_due(every) => {
                    return Err(Fault::Busy {
                        limit: "queue_operations_max 1".into(),
                        retry_after_seconds: 1,
                    }
                    .into());
                }
                Lie::FateUnknown(every) | Lie::FateUntold(every) if is_due(every) => {
                    return Err(Fault::FateUnknown {
                        reason: "a test".into(),
                    }
                    .into());
                }
                _ => {}
            }
            matches!(self.lie, Lie::SilentAndApply(every) if is_due(every))
        };
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(Applied::Now)
    }
}

impl Ask<Lookup> for Double {
    async fn ask(&self, Lookup(serial_number): Lookup) -> Result<Option<Widget>, Fault> {
        if matches!(self.lie, Lie::Deaf(after) if self.writes.load(Ordering::Relaxed) >= after) {
            std::future::pending::<()>().await;
        }
        let memory = self.memory();
        let mut widget = memory.model.lookup(&serial_number);
        if let Some(widget) = &mut widget {
            for slot in &mut widget.slots {
                if memory.hidden.contains(&(serial_number.clone(), slot.port)) {
                    slot.peer = None;
                }
            }
            if memory.renamed.contains(&serial_number) {
                widget.name = Name::new("", "another").unwrap();
            }
        }
        Ok(widget)
    }
}

impl Ask<List> for Double {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        let (mut rows, total) = self.memory().model.list(&list);
        if let (Lie::LoseRow(every), Rows::Widgets(rows)) = (self.lie, &mut rows)
            && self
                .writes
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(every)
        {
            rows.pop();
        }
        let (scanned, total) = (rows.len() as u64, list.count.then_some(total));
        Ok(Page {
            rows,
            total,
            scanned,
        })
    }
}

impl Ask<NeighbourhoodQuery> for Double {
    async fn ask(&self, _: NeighbourhoodQuery) -> Result<Option<Neighbourhood>, Fault> {
        Ok(None)
    }
}

impl Store for Double {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        Some(Arc::new(self.clone()))
    }
}

const fn position(sequence: u64) -> Position {
    Position {
        store: 1,
        epoch: 1,
        sequence,
    }
}

impl Feed for Double {
    fn newest(&self) -> Promised<Result<Position, FeedError>> {
        let newest = position(self.memory().told.len() as u64);
        Box::pin(async move { Ok(newest) })
    }

    fn oldest(&self) -> Promised<Result<Position, FeedError>> {
        let oldest = position(0);
        Box::pin(async move { Ok(oldest) })
    }

    fn read(
        &self,
        after: Position,
        filter: Arc<ChangeFilter>,
        limit: usize,
    ) -> Promised<Result<Changes, FeedError>> {
        let memory = self.memory();
        let rest = memory.told.iter();
        let rest = rest.skip_while(|event| event.position <= after);
        let looked: Vec<Event> = rest.take(limit).cloned().collect();
        let next = looked.last().map_or(after, |last| last.position);
        let changes = Changes {
            is_end: next.sequence == memory.told.len() as u64,
            next,
            events: (looked.into_iter())
                .filter(|event| filter.matches(&event.happened))
                .collect(),
        };
        Box::pin(async move { Ok(changes) })
    }

    fn reached(&self, position: Position) -> Promised<Result<(), FeedError>> {
        let double = self.clone();
        Box::pin(async move {
            let newest = double.newest().await?;
            if position <= newest {
                return Ok(());
            }
            Err(FeedError::Gone { oldest: newest })
        })
    }

    fn changed(&self, after: Position) -> Promised<()> {
        let double = self.clone();
        Box::pin(async move {
            while double.memory().told.len() as u64 <= after.sequence {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    }
}

/// A server that runs until this is dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(store: Double) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (send_address, address) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                send_address.send(listener.local_addr().unwrap()).unwrap();
                let settings = widgets_server::Settings::default();
                let api = Api::new(store, settings, Registry::new(), SystemClock::new()).unwrap();
                let limits = Limits {
                    shutdown_timeout: Duration::from_millis(200),
                    ..Limits::default()
                };
                let until = async move {
                    let _ = stopped.wait_for(|&stopped| stopped).await;
                };
                widgets_server::serve(listener, &limits, move || api.clone(), until)
                    .await
                    .unwrap();
            });
        });
        Self {
            address: address.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// Returns a plan for a few thousand requests in closed loop, with all widgets read back.
pub fn plan(url: &str) -> Plan {
    Plan {
        session: Settings {
            target: TargetSettings {
                url: url.into(),
                protocol: Protocol::Http1,
                token: None,
                ca: None,
                insecure: false,
            },
            workers: 1,
            connections: 8,
            streams: 1,
            mix: "add=36,remove=9,associate=36,dissociate=9,lookup=10"
                .parse()
                .unwrap(),
            conflicts: 0.1,
            dataset: None,
            run: fresh_run_name(),
            seed: 1,
            timeout: Duration::from_secs(5),
            audit_widgets_max: 100_000,
            interval: Duration::from_millis(100),
            during_crash: false,
            idempotency_keys: false,
            follow_changes: false,
        },
        rate: Rate::Max,
        poisson: false,
        // A number of requests ends most runs, however slow the machine is.
        duration: Duration::from_mins(10),
        requests: Some(4000),
        warm_up: Duration::ZERO,
        audit: Some(None),
        audit_timeout: Duration::from_mins(1),
        fail_if: Vec::new(),
        objectives: Vec::new(),
        step: Duration::from_secs(1),
        html: None,
        json: None,
        hdr: None,
        push: None,
        labels: Vec::new(),
        terminal: false,
    }
}

/// Loads a server on a store that lies in this way.
pub fn load(lie: Lie, adjust: impl FnOnce(&mut Plan)) -> Report {
    let server = Server::start(Double::new(lie));
    let mut plan = plan(&server.url());
    adjust(&mut plan);
    run(plan).unwrap()
}
