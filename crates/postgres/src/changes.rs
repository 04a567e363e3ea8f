//! The feed of changes as subscribers see it: the newest rows from memory, older ones from the
//! database.
//!
//! The functions of migration 6 decide the order of the rows, and ensure that nobody can miss one.
//! This module turns the rows into events. One task [follows](crate::follow) the feed for everybody
//! who waits. While nobody waits, it queries nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_postgres::Row;
use widgets_registry::{
    Author, ChangeFilter, Changes, Event, Fault, Feed, FeedError, Happened, Moment, Name, Ordinal,
    Place, Port, Ports, Position, Promised, Reason, SerialNumber,
};

/// The maximum size in bytes of the newest changes that are kept in memory.
const RING_BYTES_MAX: usize = 4 << 20;

/// The approximate size in bytes of an event without its texts.
const EVENT_BYTES: usize = 256;

/// The maximum number of reads that wait for the connection that answers them. Others wait for
/// room, unless there is no connection: then all wait for the same attempt to connect.
const READS_MAX: usize = 64;

/// Which store the feed belongs to, and which changes it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    store: u64,
    /// Each epoch with the newest change when it began, in ascending order.
    epochs: Vec<(u32, u64)>,
    pub(crate) newest: u64,
    pub(crate) oldest: u64,
}

impl State {
    pub(crate) const STATEMENT: &str =
        "SELECT store, epochs, afters, newest, oldest FROM widgets.changes_state()";

    /// Reads the state from a row. Returns `None` if the feed is off.
    pub(crate) fn read(row: &Row) -> Result<Option<Self>, tokio_postgres::Error> {
        let store: Option<i64> = row.try_get(0)?;
        let Some(store) = store else {
            return Ok(None);
        };
        let epochs: Vec<i32> = row.try_get(1)?;
        let afters: Vec<i64> = row.try_get(2)?;
        let (newest, oldest): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        let epochs = epochs.into_iter().map(i32::cast_unsigned);
        Ok(Some(Self {
            store: store.cast_unsigned(),
            epochs: epochs
                .zip(afters.into_iter().map(i64::cast_unsigned))
                .collect(),
            newest: newest.cast_unsigned(),
            oldest: oldest.cast_unsigned(),
        }))
    }

    pub(crate) fn position(&self, sequence: u64) -> Position {
        let begun = self
            .epochs
            .iter()
            .rev()
            .find(|(_, after)| *after < sequence);
        let (epoch, _) = begun.or(self.epochs.first()).copied().unwrap_or_default();
        Position {
            store: self.store,
            epoch,
            sequence,
        }
    }

    /// Checks that this store issued the position and keeps all changes after it.
    pub(crate) fn check(&self, after: Position) -> Result<(), FeedError> {
        let kept = self.oldest..=self.newest;
        if after == self.position(after.sequence) && kept.contains(&after.sequence) {
            return Ok(());
        }
        let oldest = self.position(self.oldest);
        Err(FeedError::Gone { oldest })
    }

    /// Reports whether this state belongs to the same history as `earlier`, possibly longer.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        self.store == earlier.store && self.epochs == earlier.epochs
    }
}

/// Changes that were committed together.
pub(crate) struct Batch {
    events: Vec<Event>,
    bytes: usize,
}

impl Batch {
    fn last(&self) -> u64 {
        self.events
            .last()
            .map_or(0, |event| event.position.sequence)
    }
}

/// The changes after a number, and the feed's state after they were read.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) state: State,
    pub(crate) batches: Vec<Arc<Batch>>,
    /// Whether there were no further changes.
    pub(crate) is_end: bool,
}

impl Found {
    /// The maximum number of rows that are read at once.
    pub(crate) const ROWS_MAX: i32 = 32;

    pub(crate) fn new(state: State, rows: &[Row]) -> Result<Self, String> {
        let batches = rows
            .iter()
            .map(|row| batch(&state, row).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            state,
            is_end: batches.len() < usize::try_from(Self::ROWS_MAX).unwrap_or_default(),
            batches,
        })
    }
}

/// A read that waits for the database.
pub(crate) struct Read {
    /// The number after which changes are read; `None` to read only the state.
    pub(crate) after: Option<u64>,
    pub(crate) reply: oneshot::Sender<Result<Found, FeedError>>,
}

pub(crate) type Reads = mpsc::Receiver<Read>;

/// The end of the feed, shared by all its readers.
pub(crate) struct Tail {
    reads: mpsc::Sender<Read>,
    ring: Mutex<Ring>,
    /// The number of the newest change, for those who wait.
    told: watch::Sender<u64>,
    waiting: AtomicUsize,
    begins: Notify,
    /// How many rounds have begun and how many are done; `None` while nobody follows the feed.
    rounds: watch::Sender<Option<Rounds>>,
    nudged: Notify,
    closed: watch::Sender<bool>,
}

/// Rounds of reading the end of the feed. When a round is done, everything that was committed
/// before it began is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rounds {
    begun: u64,
    done: u64,
}

#[derive(Default)]
struct Ring {
    /// The state last read from the database, while the feed is followed.
    state: Option<State>,
    /// `batches` holds everything after this number.
    after: u64,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// The position after the newest change that this process knows of.
    known: Option<Position>,
}

impl Tail {
    pub(crate) fn new() -> (Self, Reads) {
        let (reads, receiver) = mpsc::channel(READS_MAX);
        let tail = Self {
            reads,
            ring: Mutex::default(),
            told: watch::channel(0).0,
            waiting: AtomicUsize::new(0),
            begins: Notify::new(),
            rounds: watch::channel(None).0,
            nudged: Notify::new(),
            closed: watch::channel(false).0,
        };
        (tail, receiver)
    }

    /// Records that this process has committed changes up to here.
    pub(crate) fn committed(&self, newest: Position) {
        self.lock().know(newest);
    }

    /// Ends all reading, because the store is closing.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Reports whether anybody waits for changes.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until somebody waits for changes.
    pub(crate) async fn awaited(&self) {
        while !self.is_awaited() {
            self.begins.notified().await;
        }
    }

    /// Begins to follow the feed after its newest change. Earlier changes are read from the
    /// database.
    pub(crate) fn begin(&self, state: State) {
        let newest = state.newest;
        let mut ring = self.lock();
        ring.batches.clear();
        ring.bytes = 0;
        ring.after = newest;
        ring.know(state.position(newest));
        ring.state = Some(state);
        drop(ring);
        self.rounds.send_replace(Some(Rounds::default()));
        self.tell(newest);
    }

    /// Stops following: the end of the feed is no longer known.
    pub(crate) fn end(&self) {
        let mut ring = self.lock();
        ring.state = None;
        ring.batches.clear();
        ring.bytes = 0;
        drop(ring);
        self.rounds.send_replace(None);
    }

    /// Records that the end of the feed is about to be read again.
    pub(crate) fn begin_round(&self) {
        self.rounds.send_modify(|rounds| {
            if let Some(rounds) = rounds {
                rounds.begun += 1;
            }
        });
    }

    /// Waits until somebody wants to know the end of the feed.
    pub(crate) async fn nudged(&self) {
        self.nudged.notified().await;
    }

    /// Waits until everything that is committed by now is in memory. One query serves everybody who
    /// waits at the time. Returns false if nobody follows the feed.
    async fn refreshed(&self) -> bool {
        let mut rounds = self.rounds.subscribe();
        let Some(Rounds { begun, .. }) = *rounds.borrow() else {
            return false;
        };
        self.nudged.notify_one();
        let news = rounds.wait_for(|rounds| rounds.is_none_or(|rounds| rounds.done > begun));
        news.await.is_ok_and(|rounds| rounds.is_some())
    }

    /// Returns the number at which the ring ends, while the feed is followed.
    pub(crate) fn followed(&self) -> Option<u64> {
        let ring = self.lock();
        ring.state.as_ref().map(|_| ring.newest())
    }

    /// Appends what was read after the ring's end. Returns false if it belongs to another history.
    pub(crate) fn extend(&self, found: Found) -> bool {
        let mut ring = self.lock();
        let newest = ring.newest();
        let goes_on = ring
            .state
            .as_ref()
            .is_some_and(|state| found.state.continues(state))
            && found.state.oldest <= newest;
        if !goes_on {
            return false;
        }
        for batch in found.batches {
            ring.bytes += batch.bytes;
            ring.batches.push_back(batch);
        }
        let newest = ring.newest();
        while ring.bytes > RING_BYTES_MAX
            && let Some(oldest) = ring.batches.pop_front()
        {
            ring.bytes -= oldest.bytes;
            ring.after = oldest.last();
        }
        ring.know(found.state.position(newest));
        ring.state = Some(State {
            newest,
            ..found.state
        });
        drop(ring);
        self.rounds.send_modify(|rounds| {
            if let Some(rounds) = rounds
                && found.is_end
            {
                rounds.done = rounds.begun;
            }
        });
        self.tell(newest);
        true
    }

    fn tell(&self, newest: u64) {
        self.told.send_if_modified(|told| {
            let is_news = *told != newest;
            *told = newest;
            is_news
        });
    }

    /// Returns the batches after this position from memory, or `None` if memory does not hold them
    /// all.
    fn recent(&self, after: Position) -> Option<Vec<Arc<Batch>>> {
        let ring = self.lock();
        let state = ring.state.as_ref()?;
        if after.sequence < ring.after || state.check(after).is_err() {
            return None;
        }
        let start = ring
            .batches
            .partition_point(|batch| batch.last() <= after.sequence);
        Some(ring.batches.range(start..).cloned().collect())
    }

    async fn ask(&self, after: Option<u64>) -> Result<Found, FeedError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.reads.send(Read { after, reply }).await;
        let answered = match asked {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        answered.unwrap_or_else(|| {
            let reason = Reason::from("the store has stopped");
            Err(Fault::Unavailable { reason }.into())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // No code under this lock can panic halfway through a change.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn newest(&self) -> u64 {
        self.batches.back().map_or(self.after, |batch| batch.last())
    }

    fn know(&mut self, newest: Position) {
        let is_later = |known: Position| {
            known.store != newest.store
                || (known.epoch, known.sequence) < (newest.epoch, newest.sequence)
        };
        if self.known.is_none_or(is_later) {
            self.known = Some(newest);
        }
    }
}

/// The feed that reads from a [`Tail`].
pub(crate) struct PostgresFeed(pub(crate) Arc<Tail>);

impl Feed for PostgresFeed {
    fn newest(&self) -> Promised<Result<Position, FeedError>> {
        let tail = self.0.clone();
        Box::pin(async move {
            let state = tail.ask(None).await?.state;
            Ok(state.position(state.newest))
        })
    }

    fn oldest(&self) -> Promised<Result<Position, FeedError>> {
        let tail = self.0.clone();
        Box::pin(async move {
            let state = tail.ask(None).await?.state;
            Ok(state.position(state.oldest))
        })
    }

    fn read(
        &self,
        after: Position,
        filter: Arc<ChangeFilter>,
        limit: usize,
    ) -> Promised<Result<Changes, FeedError>> {
        let tail = self.0.clone();
        Box::pin(async move {
            if let Some(batches) = tail.recent(after) {
                if !batches.is_empty() || limit == 0 {
                    return Ok(wanted(&batches, false, after, &filter, limit));
                }
                // The answer must include everything that was acknowledged before the request.
                if tail.refreshed().await
                    && let Some(batches) = tail.recent(after)
                {
                    let is_end = batches.is_empty();
                    return Ok(wanted(&batches, is_end, after, &filter, limit));
                }
            }
            let found = tail.ask(Some(after.sequence)).await?;
            found.state.check(after)?;
            Ok(wanted(&found.batches, found.is_end, after, &filter, limit))
        })
    }

    /// The primary has everything that it ever issued, so there is nothing to wait for. This
    /// queries the database, because a failover may have lost what this process remembers.
    fn reached(&self, position: Position) -> Promised<Result<(), FeedError>> {
        let tail = self.0.clone();
        Box::pin(async move {
            let state = tail.ask(None).await?.state;
            if position == state.position(position.sequence) && position.sequence <= state.newest {
                return Ok(());
            }
            let oldest = state.position(state.oldest);
            Err(FeedError::Gone { oldest })
        })
    }

    fn changed(&self, after: Position) -> Promised<()> {
        let tail = self.0.clone();
        Box::pin(async move {
            let mut told = tail.told.subscribe();
            let _waits = Waits::begin(&tail);
            // An error means that the store is gone, so there is nothing to wait for.
            drop(told.wait_for(|&newest| newest > after.sequence).await);
        })
    }

    fn known_newest(&self) -> Option<Position> {
        self.0.lock().known
    }
}

/// Somebody waits for changes until this is dropped.
struct Waits<'a>(&'a Tail);

impl<'a> Waits<'a> {
    fn begin(tail: &'a Tail) -> Self {
        tail.waiting.fetch_add(1, Ordering::AcqRel);
        tail.begins.notify_one();
        Self(tail)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Returns the changes that match the filter, `limit` at most.
fn wanted(
    batches: &[Arc<Batch>],
    is_end: bool,
    after: Position,
    filter: &ChangeFilter,
    limit: usize,
) -> Changes {
    let (mut events, mut next) = (Vec::new(), after);
    let all = batches.iter().flat_map(|batch| &batch.events);
    for event in all.filter(|event| event.position.sequence > after.sequence) {
        if events.len() == limit {
            return Changes {
                events,
                next,
                is_end: false,
            };
        }
        next = event.position;
        if filter.matches(&event.happened) {
            events.push(event.clone());
        }
    }
    Changes {
        events,
        next,
        is_end,
    }
}

/// Converts a row to events.
fn batch(state: &State, row: &Row) -> Result<Batch, String> {
    let columns = Columns::read(row).map_err(|error| error.to_string())?;
    let mut bytes = 0;
    let mut events = Vec::new();
    for (sequence, (happened, by)) in (columns.first..).zip(columns.happened()?) {
        bytes += EVENT_BYTES + text_bytes(&happened) + by.as_deref().map_or(0, str::len);
        events.push(Event {
            position: Position {
                store: state.store,
                epoch: columns.epoch,
                sequence,
            },
            at: Moment(columns.at),
            by,
            happened,
        });
    }
    Ok(Batch { events, bytes })
}

fn text_bytes(happened: &Happened) -> usize {
    match happened {
        Happened::AddWidget {
            serial_number,
            name,
            ..
        } => serial_number.len() + name.len(),
        Happened::RemoveWidget {
            serial_number,
            freed,
        } => {
            let freed = freed.iter().map(|place| place.serial_number.len());
            serial_number.len() + freed.sum::<usize>()
        }
        Happened::AssociateWidgets(one, other, _) | Happened::RemoveAssociation(one, other, _) => {
            one.serial_number.len() + other.serial_number.len()
        }
    }
}

type Texts = Vec<String>;
type Maybe = Vec<Option<String>>;

/// A row of `widgets.read_changes`. A null array is read as an empty one.
struct Columns {
    first: u64,
    at: u64,
    epoch: u32,
    add_sns: Texts,
    add_names: Texts,
    add_ports: [Maybe; 3],
    add_by: Maybe,
    pair_sns1: Texts,
    pair_slots1: Vec<i32>,
    pair_sns2: Texts,
    pair_slots2: Vec<i32>,
    pair_ports: Texts,
    pair_associates: Vec<bool>,
    pair_by: Maybe,
    remove_sns: Texts,
    remove_by: Maybe,
    freed_of: Vec<i32>,
    freed_sns: Texts,
    freed_slots: Vec<i32>,
}

impl Columns {
    const STATEMENT: &str = "
        SELECT first, at, epoch, add_sns, add_names, add_ports1, add_ports2, add_ports3, add_by,
            pair_sns1, pair_slots1, pair_sns2, pair_slots2, pair_ports, pair_associates, pair_by,
            remove_sns, remove_by, freed_of, freed_sns, freed_slots
        FROM widgets.read_changes($1, $2)";

    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        fn array<'a, T>(row: &'a Row, index: usize) -> Result<Vec<T>, tokio_postgres::Error>
        where
            Vec<T>: tokio_postgres::types::FromSql<'a>,
        {
            row.try_get::<_, Option<Vec<T>>>(index)
                .map(Option::unwrap_or_default)
        }
        let (first, at): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let epoch: i32 = row.try_get(2)?;
        Ok(Self {
            first: first.cast_unsigned(),
            at: at.cast_unsigned(),
            epoch: epoch.cast_unsigned(),
            add_sns: array(row, 3)?,
            add_names: array(row, 4)?,
            add_ports: [array(row, 5)?, array(row, 6)?, array(row, 7)?],
            add_by: array(row, 8)?,
            pair_sns1: array(row, 9)?,
            pair_slots1: array(row, 10)?,
            pair_sns2: array(row, 11)?,
            pair_slots2: array(row, 12)?,
            pair_ports: array(row, 13)?,
            pair_associates: array(row, 14)?,
            pair_by: array(row, 15)?,
            remove_sns: array(row, 16)?,
            remove_by: array(row, 17)?,
            freed_of: array(row, 18)?,
            freed_sns: array(row, 19)?,
            freed_slots: array(row, 20)?,
        })
    }

    /// Returns what happened and who did it, in the order in which changes are numbered.
    fn happened(&self) -> Result<Vec<(Happened, Option<Author>)>, String> {
        let mut all = Vec::new();
        for (index, sn) in self.add_sns.iter().enumerate() {
            let ports: Vec<Port> = self
                .add_ports
                .iter()
                .filter_map(|ports| ports.get(index)?.as_deref())
                .map(port)
                .collect::<Result<_, _>>()?;
            let name = self.add_names.get(index).map_or("", |name| name);
            let happened = Happened::AddWidget {
                serial_number: serial_number(sn)?,
                name: Name::new("widget_name", name).map_err(|refusal| refusal.to_string())?,
                ports: Ports::new(&ports).map_err(|refusal| refusal.to_string())?,
            };
            all.push((happened, author(&self.add_by, index)));
        }
        for (index, sn1) in self.pair_sns1.iter().enumerate() {
            let text = |texts: &'_ Texts| texts.get(index).cloned().unwrap_or_default();
            let one = place(sn1, self.pair_slots1.get(index))?;
            let other = place(&text(&self.pair_sns2), self.pair_slots2.get(index))?;
            let port = port(&text(&self.pair_ports))?;
            let associates = self.pair_associates.get(index).copied();
            let happened = if associates.unwrap_or_default() {
                Happened::AssociateWidgets(one, other, port)
            } else {
                Happened::RemoveAssociation(one, other, port)
            };
            all.push((happened, author(&self.pair_by, index)));
        }
        let mut freed: Vec<Vec<Place>> = vec![Vec::new(); self.remove_sns.len()];
        for (index, of) in self.freed_of.iter().enumerate() {
            let sn = self.freed_sns.get(index).map_or("", |sn| sn);
            let place = place(sn, self.freed_slots.get(index))?;
            let of = usize::try_from(of - 1).ok();
            of.and_then(|of| freed.get_mut(of))
                .ok_or("a slot that no removal freed")?
                .push(place);
        }
        for (index, (sn, freed)) in self.remove_sns.iter().zip(freed).enumerate() {
            let happened = Happened::RemoveWidget {
                serial_number: serial_number(sn)?,
                freed,
            };
            all.push((happened, author(&self.remove_by, index)));
        }
        Ok(all)
    }
}

/// The statement that reads rows after a number.
pub(crate) const READ: &str = Columns::STATEMENT;

fn serial_number(text: &str) -> Result<SerialNumber, String> {
    SerialNumber::new("widget_sn", text).map_err(|refusal| refusal.to_string())
}

fn port(text: &str) -> Result<Port, String> {
    Port::parse(text).map_err(|refusal| refusal.to_string())
}

fn author(by: &Maybe, index: usize) -> Option<Author> {
    by.get(index)?.as_deref().and_then(Author::new)
}

/// The database counts slots from 1.
fn place(sn: &str, slot: Option<&i32>) -> Result<Place, String> {
    let ordinal = slot.and_then(|slot| Ordinal::new(u8::try_from(slot - 1).ok()?));
    Ok(Place {
        serial_number: serial_number(sn)?,
        ordinal: ordinal.ok_or_else(|| format!("the slot {slot:?} of {sn}"))?,
    })
}
