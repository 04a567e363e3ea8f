//! The journal as it is read from outside: the durable groups, from any sequence number that is
//! kept.
//!
//! A [`Log`] knows which segments exist, and has the newest groups in memory. Readers that are up
//! to date read from memory; readers that lag read segments through their own file handles. The
//! owner of the state knows no readers: it publishes each group once it is durable, and readers see
//! nothing else. So readers never slow the owner down, however many they are and however slow.
//!
//! If answers wait for another machine, readers of changes see only what is acknowledged. Copies of
//! the store see everything that is durable.
//!
//! Segments that a restart no longer needs are kept for a while for readers of changes.

mod feed;
mod group;
mod seals;
mod segments;
mod source;

pub(crate) use feed::EngineFeed;
pub use group::LoggedGroup;
pub(crate) use segments::{KeptSegment, check_kept, release, retained};
pub use source::{HeldCheckpoint, JournalEnd, JournalHold, Source, SourceError};

use crate::{
    Disk, DiskFile, Settings,
    checkpoint::Written,
    format::{
        Entries, EntryDefect, GroupStamp, Happened as Entry, JournaledChange, SegmentHeader,
        StoreHeader, group_bytes,
    },
    state::Holding,
};
use segments::{Groups, Held, Place, Retention, read_groups};
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
    time::Duration,
};
use tokio::sync::{Semaphore, watch};
use widgets_registry::{
    Author, ChangeFilter, Changes, Event, Fault, FeedError, Happened, Moment, Name, Position,
    Reason, SerialNumber,
};

/// How many bytes of the newest groups stay in memory.
const RING_BYTES_MAX: usize = if cfg!(test) { 2 << 10 } else { 4 << 20 };

/// How many bytes of entries one call reads before it lets others have their turn.
const READ_BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };

/// The approximate size of a change in the journal, used to avoid reading more than is requested.
const CHANGE_BYTES: usize = 256;

/// How many lagging readers read segments at a time. The others wait for their turn, so that a
/// thousand of them do not take a thousand threads and buffers.
const DISK_READERS: usize = 8;

/// How many places in segments are remembered, two per reader: those where readers stopped most
/// recently.
const PLACES_MAX: usize = 2048;

/// The shortest time between two notifications of those that wait for changes.
const HERALD_PAUSE: Duration = Duration::from_millis(5);

/// Opens files for reading.
pub(crate) trait FilesToRead: Send + Sync {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
}

impl<D: Disk> FilesToRead for D {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.open_to_read(name)?))
    }
}

/// The durable part of the journal.
pub(crate) struct Log {
    /// Which store this is. A promotion changes it.
    store: RwLock<Arc<StoreHeader>>,
    files: Box<dyn FilesToRead>,
    retention: Retention,
    inner: Mutex<Inner>,
    /// The holder.
    holding: Mutex<Holding>,
    /// Entries before this one may be shown, as far as they are durable. `u64::MAX` if nothing
    /// waits for another machine; 0 if it is not known yet.
    shown: AtomicU64,
    /// The turns of lagging readers at the disk.
    turns: Arc<Semaphore>,
    /// Whether somebody waits for the next group. Only then must the herald be woken.
    awaited: AtomicBool,
    herald: Mutex<Herald>,
    told: watch::Sender<u64>,
    /// The end of the journal, published with each commit, for the few readers that keep a copy.
    appended: watch::Sender<u64>,
}

struct Inner {
    /// The sequence number after the last durable entry.
    next_sequence: u64,
    /// When that entry was committed, in microseconds since 1970.
    at: u64,
    /// The running hash over all durable groups.
    chain: u64,
    /// The first entry that is not archived. The segments with entries from here on are kept.
    /// `None` if nothing is archived.
    held: Option<u64>,
    /// What every other copy holds, by the number of its hold.
    holds: Vec<(u64, Held)>,
    /// The number of the next hold.
    next_hold: u64,
    /// The newest durable checkpoint.
    checkpoint: Option<Written>,
    /// The checkpoints that are being copied, by first sequence number, once for each copy.
    held_checkpoints: Vec<u64>,
    /// The segments that are kept, without gaps. The last one is being written.
    segments: VecDeque<KeptSegment>,
    /// The newest groups, without gaps.
    ring: VecDeque<Arc<LoggedGroup>>,
    ring_bytes: usize,
    /// Where the entry with each of these sequence numbers begins. The most recently used place is
    /// last.
    places: VecDeque<(u64, Place)>,
}

#[derive(Default)]
struct Herald {
    thread: Option<Thread>,
    is_closed: bool,
}

impl Log {
    /// Returns the log of a journal that was just opened. Everything in `segments` before `end` is
    /// durable.
    pub(crate) fn new(
        store: StoreHeader,
        files: impl FilesToRead + 'static,
        segments: VecDeque<KeptSegment>,
        end: JournalEnd,
        checkpoint: Option<Written>,
        settings: &Settings,
    ) -> Self {
        let JournalEnd {
            next_sequence,
            at,
            chain,
        } = end;
        let (told, _) = watch::channel(next_sequence);
        Self {
            store: RwLock::new(Arc::new(store)),
            files: Box::new(files),
            retention: Retention::new(settings),
            inner: Mutex::new(Inner {
                next_sequence,
                at,
                chain,
                held: segments::held_at_first(settings),
                holds: Vec::new(),
                next_hold: 0,
                checkpoint,
                held_checkpoints: Vec::new(),
                segments,
                ring: VecDeque::new(),
                ring_bytes: 0,
                places: VecDeque::new(),
            }),
            holding: Mutex::default(),
            shown: AtomicU64::new(u64::MAX),
            turns: Arc::new(Semaphore::new(DISK_READERS)),
            awaited: AtomicBool::new(false),
            herald: Mutex::default(),
            told,
            appended: watch::channel(next_sequence).0,
        }
    }

    /// Returns which store this is.
    pub(crate) fn store(&self) -> Arc<StoreHeader> {
        let store = self.store.read();
        store.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the description of the store, which must be durable.
    pub(crate) fn set_store(&self, store: StoreHeader) {
        let mut held = self.store.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(store);
        drop(held);
        // What some readers wait for may never come now.
        self.told.send_modify(|_| ());
    }

    /// Publishes a durable group in this segment. `next_chain` is the running hash over it and all
    /// before it.
    pub(crate) fn publish(
        &self,
        segment: &SegmentHeader,
        stamp: GroupStamp,
        next_chain: u64,
        entries: u32,
        payload: &[u8],
    ) {
        let group = Arc::new(LoggedGroup {
            first_sequence: stamp.first_sequence,
            entries,
            at: stamp.at,
            chain: stamp.chain,
            payload: payload.into(),
        });
        let mut inner = self.lock();
        inner.next_sequence = group.next_sequence();
        inner.at = stamp.at;
        inner.chain = next_chain;
        match inner.segments.back_mut() {
            Some(last) if last.header.number == segment.number => {
                if last.first_at == 0 {
                    last.first_at = stamp.at;
                }
            }
            _ => inner.segments.push_back(KeptSegment {
                header: *segment,
                first_sequence: stamp.first_sequence,
                first_at: stamp.at,
                bytes: 0,
            }),
        }
        if let Some(last) = inner.segments.back_mut() {
            last.bytes += group_bytes(group.payload.len());
        }
        inner.ring_bytes += group.payload.len();
        inner.ring.push_back(group);
        while inner.ring_bytes > RING_BYTES_MAX
            && let Some(oldest) = inner.ring.pop_front()
        {
            inner.ring_bytes -= oldest.payload.len();
        }
        let next_sequence = inner.next_sequence;
        drop(inner);
        if self.appended.receiver_count() > 0 {
            self.appended.send_replace(next_sequence);
        }
        self.wake_herald();
    }

    fn wake_herald(&self) {
        if self.awaited.swap(false, Ordering::AcqRel)
            && let Some(thread) = &self.herald().thread
        {
            thread.unpark();
        }
    }

    /// Allows readers of changes to see durable entries before this one; 0 means that this is not
    /// known.
    pub(crate) fn show(&self, next_sequence: u64) {
        self.shown.store(next_sequence, Ordering::Release);
        self.wake_herald();
    }

    /// Returns the entry after the last one that may be shown. Returns `None` if that is not known
    /// yet.
    fn shown(&self) -> Option<u64> {
        let shown = self.shown.load(Ordering::Acquire);
        if planted!(ToldBeforeAcknowledged) {
            return Some(self.lock().next_sequence);
        }
        (shown > 0).then(|| shown.min(self.lock().next_sequence))
    }

    /// Returns the holder.
    pub(crate) fn holding(&self) -> Holding {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the holder, once a record that names it is durable.
    pub(crate) fn set_holding(&self, holding: Holding) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = holding;
    }

    /// Drops segments that are needed neither by a restart, which begins in segment `needed`, nor
    /// by readers of changes, nor by copies. Returns the number of the first segment that is kept.
    pub(crate) fn release(&self, needed: u64) -> u64 {
        let mut inner = self.lock();
        let at = inner.at;
        let mut held: Vec<_> = inner.holds.iter().map(|(_, held)| *held).collect();
        held.extend(inner.held.map(|from| self.retention.archived(from)));
        let segments = &mut inner.segments;
        self.retention.release(segments, needed, at, &held)
    }

    /// Records a durable checkpoint. Returns the older ones that must stay, because they are being
    /// copied.
    pub(crate) fn checkpoint_written(&self, written: Written) -> Vec<u64> {
        let mut inner = self.lock();
        inner.checkpoint = Some(written);
        inner.held_checkpoints.clone()
    }

    /// Returns the position after the newest entry that may be shown. Returns `None` if that is not
    /// known yet.
    pub(crate) fn newest_shown(&self) -> Option<Position> {
        self.shown().map(|shown| self.position(shown - 1))
    }

    /// Returns the position after the newest durable entry.
    pub(crate) fn newest(&self) -> Position {
        let next_sequence = self.lock().next_sequence;
        self.position(next_sequence - 1)
    }

    /// Returns the position before the oldest entry that is kept.
    pub(crate) fn oldest(&self) -> Position {
        let oldest = self.lock().oldest();
        self.position(oldest - 1)
    }

    fn position(&self, sequence: u64) -> Position {
        position(&self.store(), sequence)
    }

    /// Returns the groups after `after` from memory, or `None` if memory no longer has them.
    fn read_ring(&self, after: Position) -> Result<Option<Groups>, FeedError> {
        let inner = self.lock();
        self.check(&inner, after)?;
        Ok(inner.ring_from(after.sequence + 1, READ_BYTES_MAX))
    }

    /// Returns the groups after `after` from segments. May wait for the disk.
    fn read_segments(&self, after: Position, limit: usize) -> Result<Groups, FeedError> {
        self.check(&self.lock(), after)?;
        let bytes_max = READ_BYTES_MAX.min((limit + 1).saturating_mul(CHANGE_BYTES));
        match self.segments_from(after.sequence + 1, bytes_max) {
            Ok(groups) => Ok(groups),
            Err(error) => {
                // The segment may have been dropped meanwhile.
                self.check(&self.lock(), after)?;
                tracing::error!(%error, "reading the journal for subscribers failed");
                let reason = Reason::new("the journal cannot be read", error.to_string());
                Err(Fault::Unavailable { reason }.into())
            }
        }
    }

    /// Returns the groups from the one with this entry on, from segments. The entry must be kept
    /// and durable.
    fn segments_from(&self, first: u64, bytes_max: usize) -> io::Result<Groups> {
        let (segments, place, end) = {
            let mut inner = self.lock();
            let place = inner.take_place(first);
            let start = inner
                .segments
                .partition_point(|it| it.first_sequence <= first);
            let start = start.saturating_sub(1);
            let segments: Vec<_> = inner.segments.range(start..).copied().collect();
            (segments, place, inner.next_sequence)
        };
        let (groups, place) = read_groups(&*self.files, &segments, place, first, end, bytes_max)?;
        if let (Some(place), Some(last)) = (place, groups.list.last()) {
            self.lock().put_place(last.next_sequence(), place);
        }
        Ok(groups)
    }

    /// Checks that what follows this position can be read.
    fn check(&self, inner: &Inner, after: Position) -> Result<(), FeedError> {
        let is_ours =
            self.position(after.sequence) == after && after.sequence < inner.next_sequence;
        let oldest = inner.oldest();
        if is_ours && after.sequence + 1 >= oldest {
            return Ok(());
        }
        let oldest = self.position(oldest - 1);
        Err(FeedError::Gone { oldest })
    }

    /// Reports whether everything up to this position is durable here, however old it is. Returns
    /// false if it may still come from a primary.
    pub(crate) fn has(&self, position: Position) -> Result<bool, FeedError> {
        let inner = self.lock();
        // Read after taking the lock, because the epoch of a group is known before the group.
        let store = self.store();
        let is_named = self::position(&store, position.sequence) == position
            || planted!(EpochOfPositionIgnored);
        if planted!(ReadAfterIgnored) {
            return Ok(true);
        }
        if is_named && position.sequence < inner.next_sequence {
            drop(inner);
            return Ok(self.shown().is_some_and(|shown| position.sequence < shown));
        }
        // An epoch that is not known yet begins after everything that is here.
        let may_come = store.is_standby()
            && store.identity == position.store
            && position.sequence >= inner.next_sequence
            && (is_named || position.epoch > store.epoch());
        if may_come {
            return Ok(false);
        }
        let oldest = self::position(&store, inner.oldest() - 1);
        Err(FeedError::Gone { oldest })
    }

    /// Returns the changes in these groups that pass the filter.
    fn changes(
        &self,
        groups: &Groups,
        after: Position,
        filter: &ChangeFilter,
        limit: usize,
    ) -> Result<Changes, FeedError> {
        let shown = self.shown().ok_or_else(not_known)?;
        self.changes_before(shown, groups, after, filter, limit)
    }

    /// Returns the changes in these groups that pass the filter and are before the entry `shown`.
    fn changes_before(
        &self,
        shown: u64,
        groups: &Groups,
        after: Position,
        filter: &ChangeFilter,
        limit: usize,
    ) -> Result<Changes, FeedError> {
        let (mut events, mut next) = (Vec::new(), after.sequence);
        let store = self.store();
        'groups: for group in &groups.list {
            let mut entries = Entries::new(&group.payload);
            for sequence in group.first_sequence..group.next_sequence() {
                let entry = entries
                    .read()
                    .map_err(|defect| unreadable(defect, sequence))?;
                if sequence <= after.sequence {
                    continue;
                }
                if events.len() == limit || sequence >= shown {
                    break 'groups;
                }
                next = sequence;
                let Entry::Change(change) = &entry.happened else {
                    continue;
                };
                if planted!(ToldWithGap) && groups.are_old && sequence == after.sequence + 1 {
                    continue;
                }
                let happened = happened(change);
                if filter.matches(&happened) {
                    events.push(Event {
                        position: position(
                            &store,
                            if planted!(ToldWithOnePosition) {
                                group.first_sequence
                            } else {
                                sequence
                            },
                        ),
                        at: Moment(group.at),
                        by: entry.author.and_then(Author::new),
                        happened,
                    });
                }
            }
        }
        let next = position(&store, next);
        let is_end = next.sequence + 1 >= shown;
        Ok(Changes {
            events,
            next,
            is_end,
        })
    }

    /// Returns up to `limit` changes after a position that pass the filter. May wait for the disk.
    pub(crate) fn read(
        &self,
        after: Position,
        filter: &ChangeFilter,
        limit: usize,
    ) -> Result<Changes, FeedError> {
        let groups = match self.read_ring(after)? {
            Some(groups) => groups,
            None => self.read_segments(after, limit)?,
        };
        let changes = self.changes(&groups, after, filter, limit)?;
        // The next call continues after the last entry that was looked at, and finding its place
        // takes long.
        let next = changes.next.sequence + 1;
        if let Some(place) = groups.place_of(next) {
            self.lock().put_place(next, place);
        }
        Ok(changes)
    }

    /// Returns up to `limit` durable changes after a position, whether or not they may be shown.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn read_durable(&self, after: Position, limit: usize) -> Result<Changes, FeedError> {
        let groups = match self.read_ring(after)? {
            Some(groups) => groups,
            None => self.read_segments(after, limit)?,
        };
        let end = self.newest().sequence + 1;
        self.changes_before(end, &groups, after, &ChangeFilter::default(), limit)
    }

    /// Reports whether the place in the segments of the changes after this position is remembered.
    /// Returns `None` if memory has the changes.
    #[cfg(test)]
    pub(crate) fn knows_where(&self, after: Position) -> Option<bool> {
        let inner = self.lock();
        let first = after.sequence + 1;
        let in_memory = first >= inner.next_sequence || inner.ring_from(first, 1).is_some();
        let is_known = inner.places.iter().any(|(sequence, _)| *sequence == first);
        (!in_memory).then_some(is_known)
    }

    /// Notifies waiting readers if more may be shown than before. Returns the entry up to which
    /// everything may be shown.
    pub(crate) fn tell(&self) -> u64 {
        let next_sequence = self.shown().unwrap_or_default();
        self.told.send_if_modified(|told| {
            let is_more = *told < next_sequence;
            *told = next_sequence;
            is_more
        });
        next_sequence
    }

    /// Notifies waiting readers until the log is closed.
    pub(crate) fn herald_changes(&self) {
        self.herald().thread = Some(std::thread::current());
        loop {
            let next_sequence = self.tell();
            if self.herald().is_closed {
                return;
            }
            if self.told.receiver_count() > 0 {
                self.awaited.store(true, Ordering::Release);
                // What was published before `awaited` was set has woken nobody.
                if self.shown().unwrap_or_default() > next_sequence {
                    continue;
                }
            }
            std::thread::park();
            std::thread::sleep(HERALD_PAUSE);
        }
    }

    /// Makes the herald notify waiting readers of the next group.
    fn await_herald(&self) {
        self.awaited.store(true, Ordering::Release);
        if let Some(thread) = &self.herald().thread {
            thread.unpark();
        }
    }

    /// Ends the herald.
    pub(crate) fn close(&self) {
        let mut herald = self.herald();
        herald.is_closed = true;
        if let Some(thread) = &herald.thread {
            thread.unpark();
        }
    }

    fn herald(&self) -> MutexGuard<'_, Herald> {
        // No code that holds the lock can panic halfway through a change.
        self.herald.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn position(store: &StoreHeader, sequence: u64) -> Position {
    Position {
        store: store.identity,
        epoch: store.epoch_of(sequence),
        sequence,
    }
}

impl Inner {
    /// Returns the sequence number of the oldest entry that is kept, or of the next entry if none
    /// is.
    fn oldest(&self) -> u64 {
        let first = self.segments.front().map(|first| first.first_sequence);
        first.unwrap_or(self.next_sequence)
    }

    /// Returns the groups from the one with this entry on from memory, or `None` if memory no
    /// longer has them.
    fn ring_from(&self, first: u64, bytes_max: usize) -> Option<Groups> {
        let begins = self.ring.front().map(|oldest| oldest.first_sequence);
        if first < self.next_sequence && begins.is_none_or(|begins| begins > first) {
            return None;
        }
        let start = self
            .ring
            .partition_point(|group| group.next_sequence() <= first);
        let mut groups = Groups::default();
        for group in self.ring.range(start..) {
            if groups.bytes >= bytes_max {
                break;
            }
            groups.push(group.clone());
        }
        Some(groups)
    }

    fn take_place(&mut self, sequence: u64) -> Option<Place> {
        let at = self
            .places
            .iter()
            .position(|(known, _)| *known == sequence)?;
        self.places.remove(at).map(|(_, place)| place)
    }

    fn put_place(&mut self, sequence: u64, place: Place) {
        if self.places.len() == PLACES_MAX {
            self.places.pop_front();
        }
        self.places.push_back((sequence, place));
    }
}

/// Returns the error for readers while it is not known what was acknowledged.
pub(crate) fn not_known() -> FeedError {
    let reason = Reason::from("it is not known yet which operations the standby has");
    Fault::Unavailable { reason }.into()
}

fn unreadable(defect: EntryDefect, sequence: u64) -> FeedError {
    let details = format!("change {sequence}: {defect:?}");
    let reason = Reason::new("the journal cannot be read", details);
    Fault::Unavailable { reason }.into()
}

/// Converts a journaled change to its form in the feed.
fn happened(change: &JournaledChange<'_>) -> Happened {
    let place = |(serial_number, ordinal): (&str, _)| widgets_registry::Place {
        serial_number: stored(SerialNumber::new("widget_sn", serial_number)),
        ordinal,
    };
    match change {
        JournaledChange::AddWidget {
            serial_number,
            name,
            ports,
        } => Happened::AddWidget {
            serial_number: stored(SerialNumber::new("widget_sn", serial_number)),
            name: stored(Name::new("widget_name", name)),
            ports: *ports,
        },
        JournaledChange::RemoveWidget {
            serial_number,
            freed,
        } => Happened::RemoveWidget {
            serial_number: stored(SerialNumber::new("widget_sn", serial_number)),
            freed: freed.iter().copied().map(place).collect(),
        },
        JournaledChange::AssociateWidgets(pair) => {
            Happened::AssociateWidgets(place(pair.one), place(pair.other), pair.port)
        }
        JournaledChange::RemoveAssociation(pair) => {
            Happened::RemoveAssociation(place(pair.one), place(pair.other), pair.port)
        }
    }
}

/// Unwraps text that was valid when it was written, and whose checksum is right.
fn stored<T>(text: Result<T, widgets_registry::Refusal>) -> T {
    match text {
        Ok(text) => text,
        Err(refusal) => unreachable!("journaled text is within its limits: {refusal}"),
    }
}
