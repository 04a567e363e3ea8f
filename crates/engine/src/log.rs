//! The journal read from outside: the groups that are durable, from any sequence number that is kept.
//!
//! A [`Log`] knows which segments there are, and has the newest groups in memory. Who is up to date
//! reads from there; who lags reads segments by file handles of its own. The owner of the state knows
//! no reader: it publishes each group once it is durable, and readers see nothing else. So they never
//! slow it down, however many they are and however slow.
//!
//! Segments that a restart does not need any more are kept for a while for those who ask for changes.

mod feed;
mod segments;

pub(crate) use feed::EngineFeed;
pub(crate) use segments::{KeptSegment, release, retained};

use crate::{
    Disk, DiskFile, Settings,
    files::segment_name,
    format::{
        Entries, EntryDefect, GroupStamp, Happened as Entry, JournaledChange, SegmentHeader,
        StoreHeader,
    },
};
use segments::{Groups, Place, Retention, read_groups};
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::Duration,
};
use tokio::sync::watch;
use widgets_registry::{
    Author, ChangeFilter, Changes, Event, Fault, FeedError, Happened, Moment, Name, Position,
    Reason, SerialNumber,
};

/// So many bytes of the newest groups stay in memory.
const RING_BYTES_MAX: usize = if cfg!(test) { 2 << 10 } else { 4 << 20 };

/// One call looks at so many bytes of entries: then others have their turn.
const READ_BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };

/// So many places in segments are remembered, those where readers stopped last.
const PLACES_MAX: usize = 1024;

/// Those who wait for changes are told at most so often.
const HERALD_PAUSE: Duration = Duration::from_millis(5);

/// A group that is durable.
pub(crate) struct LoggedGroup {
    pub(crate) first_sequence: u64,
    pub(crate) entries: u32,
    pub(crate) at: u64,
    pub(crate) payload: Box<[u8]>,
}

impl LoggedGroup {
    fn next_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.entries)
    }
}

/// Opens segments to read them.
pub(crate) trait SegmentFiles: Send + Sync {
    fn open(&self, number: u64) -> io::Result<Box<dyn DiskFile>>;
}

impl<D: Disk> SegmentFiles for D {
    fn open(&self, number: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.open_to_read(&segment_name(number))?))
    }
}

/// The durable part of the journal.
pub(crate) struct Log {
    store: StoreHeader,
    files: Box<dyn SegmentFiles>,
    retention: Retention,
    inner: Mutex<Inner>,
    /// Somebody waits for the next group: only then the herald needs to be woken.
    awaited: AtomicBool,
    herald: Mutex<Herald>,
    told: watch::Sender<u64>,
}

struct Inner {
    /// The sequence number after the last entry that is durable.
    next_sequence: u64,
    /// When that was committed.
    at: u64,
    /// Those that are kept, without gaps. The last one is written to.
    segments: VecDeque<KeptSegment>,
    /// The newest groups, without gaps.
    ring: VecDeque<Arc<LoggedGroup>>,
    ring_bytes: usize,
    /// Where the entry of a sequence number begins, the place that was used last at the end.
    places: VecDeque<(u64, Place)>,
}

#[derive(Default)]
struct Herald {
    thread: Option<Thread>,
    is_closed: bool,
}

impl Log {
    /// The log of a journal that was just opened: all in `segments` before `next_sequence` is durable.
    pub(crate) fn new(
        store: StoreHeader,
        files: impl SegmentFiles + 'static,
        segments: VecDeque<KeptSegment>,
        next_sequence: u64,
        at: u64,
        settings: &Settings,
    ) -> Self {
        let (told, _) = watch::channel(next_sequence);
        Self {
            store,
            files: Box::new(files),
            retention: Retention::new(settings),
            inner: Mutex::new(Inner {
                next_sequence,
                at,
                segments,
                ring: VecDeque::new(),
                ring_bytes: 0,
                places: VecDeque::new(),
            }),
            awaited: AtomicBool::new(false),
            herald: Mutex::default(),
            told,
        }
    }

    /// A group in this segment is durable.
    pub(crate) fn publish(
        &self,
        segment: &SegmentHeader,
        stamp: GroupStamp,
        entries: u32,
        payload: &[u8],
    ) {
        let group = Arc::new(LoggedGroup {
            first_sequence: stamp.first_sequence,
            entries,
            at: stamp.at,
            payload: payload.into(),
        });
        let mut inner = self.lock();
        inner.next_sequence = group.next_sequence();
        inner.at = stamp.at;
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
            }),
        }
        inner.ring_bytes += group.payload.len();
        inner.ring.push_back(group);
        while inner.ring_bytes > RING_BYTES_MAX
            && let Some(oldest) = inner.ring.pop_front()
        {
            inner.ring_bytes -= oldest.payload.len();
        }
        drop(inner);
        if self.awaited.swap(false, Ordering::AcqRel)
            && let Some(thread) = &self.herald().thread
        {
            thread.unpark();
        }
    }

    /// Lets segments go that neither a restart needs, which begins in segment `needed`, nor those who
    /// ask for changes. The number of the first that stays.
    pub(crate) fn release(&self, needed: u64) -> u64 {
        let mut inner = self.lock();
        let at = inner.at;
        self.retention.release(&mut inner.segments, needed, at)
    }

    /// After the newest entry that is durable.
    pub(crate) fn newest(&self) -> Position {
        let next_sequence = self.lock().next_sequence;
        self.position(next_sequence - 1)
    }

    /// Before the oldest entry that is kept.
    pub(crate) fn oldest(&self) -> Position {
        let oldest = self.lock().oldest();
        self.position(oldest - 1)
    }

    fn position(&self, sequence: u64) -> Position {
        Position {
            store: self.store.identity,
            epoch: self.store.epoch_of(sequence),
            sequence,
        }
    }

    /// The groups from the one after `after` on, from memory: `None` where that has not got them.
    fn read_ring(&self, after: Position) -> Result<Option<Groups>, FeedError> {
        let inner = self.lock();
        self.check(&inner, after)?;
        let first = after.sequence + 1;
        if first < inner.next_sequence
            && inner
                .ring
                .front()
                .is_none_or(|it| it.first_sequence > first)
        {
            return Ok(None);
        }
        let start = inner
            .ring
            .partition_point(|group| group.next_sequence() <= first);
        let mut groups = Groups::default();
        for group in inner.ring.range(start..) {
            if groups.bytes >= READ_BYTES_MAX {
                break;
            }
            groups.push(group.clone());
        }
        Ok(Some(groups))
    }

    /// The same from segments, which may wait for the disk.
    fn read_segments(&self, after: Position) -> Result<Groups, FeedError> {
        let first = after.sequence + 1;
        let (segments, place, end) = {
            let mut inner = self.lock();
            self.check(&inner, after)?;
            let place = inner.take_place(first);
            let start = inner
                .segments
                .partition_point(|it| it.first_sequence <= first);
            let start = start.saturating_sub(1);
            let segments: Vec<_> = inner.segments.range(start..).copied().collect();
            (segments, place, inner.next_sequence)
        };
        match read_groups(&*self.files, &segments, place, first, end, READ_BYTES_MAX) {
            Ok((groups, place)) => {
                if let (Some(place), Some(last)) = (place, groups.list.last()) {
                    self.lock().put_place(last.next_sequence(), place);
                }
                Ok(groups)
            }
            Err(error) => {
                // It may have been let go meanwhile.
                self.check(&self.lock(), after)?;
                tracing::error!(%error, "reading the journal for those who ask for changes failed");
                let reason = Reason::new("the journal cannot be read", error.to_string());
                Err(Fault::Unavailable { reason }.into())
            }
        }
    }

    /// Whether what comes after this position can be read.
    fn check(&self, inner: &Inner, after: Position) -> Result<(), FeedError> {
        let is_ours = after.store == self.store.identity
            && after.epoch == self.store.epoch_of(after.sequence)
            && after.sequence < inner.next_sequence;
        let oldest = inner.oldest();
        if is_ours && after.sequence + 1 >= oldest {
            return Ok(());
        }
        let oldest = self.position(oldest - 1);
        Err(FeedError::Gone { oldest })
    }

    /// The changes in these groups that are wanted.
    fn changes(
        &self,
        groups: &Groups,
        after: Position,
        filter: &ChangeFilter,
        limit: usize,
    ) -> Result<Changes, FeedError> {
        let (mut events, mut next) = (Vec::new(), after.sequence);
        'groups: for group in &groups.list {
            let mut entries = Entries::new(&group.payload);
            for sequence in group.first_sequence..group.next_sequence() {
                let entry = entries
                    .read()
                    .map_err(|defect| unreadable(defect, sequence))?;
                if sequence <= after.sequence {
                    continue;
                }
                if events.len() == limit {
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
                        position: self.position(if planted!(ToldWithOnePosition) {
                            group.first_sequence
                        } else {
                            sequence
                        }),
                        at: Moment(group.at),
                        by: entry.author.and_then(Author::new),
                        happened,
                    });
                }
            }
        }
        let next = self.position(next);
        let is_end = next.sequence + 1 >= self.lock().next_sequence;
        Ok(Changes {
            events,
            next,
            is_end,
        })
    }

    /// Up to `limit` wanted changes after a position. May wait for the disk.
    pub(crate) fn read(
        &self,
        after: Position,
        filter: &ChangeFilter,
        limit: usize,
    ) -> Result<Changes, FeedError> {
        let groups = match self.read_ring(after)? {
            Some(groups) => groups,
            None => self.read_segments(after)?,
        };
        self.changes(&groups, after, filter, limit)
    }

    /// Tells those who wait, until the log is closed.
    pub(crate) fn herald_changes(&self) {
        self.herald().thread = Some(std::thread::current());
        loop {
            let next_sequence = self.lock().next_sequence;
            self.told.send_if_modified(|told| {
                let is_more = *told < next_sequence;
                *told = next_sequence;
                is_more
            });
            if self.herald().is_closed {
                return;
            }
            if self.told.receiver_count() > 0 {
                self.awaited.store(true, Ordering::Release);
                // What was published just before that has not woken anybody.
                if self.lock().next_sequence > next_sequence {
                    continue;
                }
            }
            std::thread::park();
            std::thread::sleep(HERALD_PAUSE);
        }
    }

    /// Has those who wait told of the next group.
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
        // Nothing in here can panic halfway through a change.
        self.herald.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The sequence number of the oldest entry that is kept, or of the next one.
    fn oldest(&self) -> u64 {
        let first = self.segments.front().map(|first| first.first_sequence);
        first.unwrap_or(self.next_sequence)
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

fn unreadable(defect: EntryDefect, sequence: u64) -> FeedError {
    let details = format!("change {sequence}: {defect:?}");
    let reason = Reason::new("the journal cannot be read", details);
    Fault::Unavailable { reason }.into()
}

/// A change as it is told.
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

/// Text that was valid when it was written, and whose checksum is right.
fn stored<T>(text: Result<T, widgets_registry::Refusal>) -> T {
    match text {
        Ok(text) => text,
        Err(refusal) => unreachable!("journaled text is within its limits: {refusal}"),
    }
}
