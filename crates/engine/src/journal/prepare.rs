//! The next segment of the journal, prepared in the background.
//!
//! Filling a segment with zeros takes tens of milliseconds, so the owner of the journal takes one
//! that is ready, and requests the one after it. It waits only if it is faster than the disk. If
//! the disk is full, the owner gets the error at once, and the preparer keeps trying.

use super::{Random, Segment, create_segment};
use crate::{
    disk::{Disk, DiskFile},
    format::SegmentHeader,
    throttle::Throttle,
};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_clock::Clock;

/// How long the preparer waits after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How often the waiting preparer checks whether the journal was closed.
const RETRY_STEP: Duration = Duration::from_millis(20);

/// Where the preparer puts a segment and the journal takes it.
pub(crate) struct NextSegment<F> {
    slot: Mutex<Slot<F>>,
    changed: Condvar,
}

struct Slot<F> {
    /// The number of the segment to prepare, if one is wanted.
    wanted: Option<u64>,
    ready: Option<Segment<F>>,
    /// Why the last attempt failed.
    failure: Option<Arc<io::Error>>,
    /// Whether the owner of the journal waits, so that the preparer must not rest.
    awaited: bool,
    closed: bool,
}

impl<F> NextSegment<F> {
    /// Requests the segment with this number.
    pub(crate) fn new(number: u64) -> Self {
        let slot = Slot {
            wanted: Some(number),
            ready: None,
            failure: None,
            awaited: false,
            closed: false,
        };
        Self {
            slot: Mutex::new(slot),
            changed: Condvar::new(),
        }
    }

    /// Takes the next segment and requests the one after it.
    pub(super) fn take(&self) -> Result<Segment<F>, Arc<io::Error>> {
        let mut slot = self.lock();
        loop {
            if let Some(segment) = slot.ready.take() {
                slot.wanted = Some(segment.header.number + 1);
                slot.awaited = false;
                self.changed.notify_all();
                return Ok(segment);
            }
            if let Some(failure) = &slot.failure {
                return Err(failure.clone());
            }
            slot.awaited = true;
            slot = self.wait(slot);
        }
    }

    /// Ends the preparer, because no more segments are wanted.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn is_awaited(&self) -> bool {
        self.lock().awaited
    }

    fn wait<'a>(&self, slot: MutexGuard<'a, Slot<F>>) -> MutexGuard<'a, Slot<F>> {
        self.changed
            .wait(slot)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Slot<F>> {
        // No code that holds the lock can panic halfway through a change.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prepares segments.
pub(crate) struct Preparer<D: Disk, C> {
    disk: D,
    clock: Arc<C>,
    random: Random,
    store: u64,
    segment_bytes: u64,
    next_segment: Arc<NextSegment<D::File>>,
}

impl<D: Disk, C: Clock> Preparer<D, C> {
    pub(crate) fn new(
        disk: D,
        clock: Arc<C>,
        random: Random,
        store: u64,
        segment_bytes: u64,
        next_segment: Arc<NextSegment<D::File>>,
    ) -> Self {
        Self {
            disk,
            clock,
            random,
            store,
            segment_bytes,
            next_segment,
        }
    }

    /// Prepares every segment that is wanted, until the journal is closed.
    pub(crate) fn run(mut self) {
        loop {
            let mut slot = self.next_segment.lock();
            while slot.wanted.is_none() && !slot.closed {
                slot = self.next_segment.wait(slot);
            }
            let closed = slot.closed;
            drop(slot);
            if closed {
                return;
            }
            if self.step().is_err() {
                self.wait_for_retry();
            }
        }
    }

    /// Prepares the segment that is wanted, if one is.
    pub(crate) fn step(&mut self) -> Result<(), Arc<io::Error>> {
        let Some(number) = self.next_segment.lock().wanted else {
            return Ok(());
        };
        let salt = (self.random)();
        let header = SegmentHeader::new(self.store, number, salt);
        let made = self.make(header).map_err(Arc::new);
        let mut slot = self.next_segment.lock();
        let outcome = match made {
            Ok(segment) => {
                if slot.failure.take().is_some() {
                    tracing::info!(
                        number,
                        "the next segment of the journal was created after all"
                    );
                }
                slot.ready = Some(segment);
                slot.wanted = None;
                Ok(())
            }
            Err(error) => {
                if slot.failure.is_none() && !slot.closed {
                    tracing::error!(%error, number, "creating the next segment of the journal \
                    failed; trying again");
                }
                slot.failure = Some(error.clone());
                Err(error)
            }
        };
        self.next_segment.changed.notify_all();
        outcome
    }

    /// Reports whether the owner of the journal would wait for the next segment.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn must_step(&self) -> bool {
        let slot = self.next_segment.lock();
        slot.ready.is_none() && slot.failure.is_none()
    }

    fn make(&self, header: SegmentHeader) -> io::Result<Segment<D::File>> {
        let mut throttle = Throttle::new(self.clock.clone());
        throttle.begin_piece();
        create_segment(&self.disk, header, self.segment_bytes, |file| {
            if self.next_segment.is_closed() {
                return Err(io::Error::other("the journal was closed"));
            }
            if !self.next_segment.is_awaited() {
                file.sync()?;
                throttle.rest();
            }
            throttle.begin_piece();
            Ok(())
        })
    }

    fn wait_for_retry(&self) {
        let until = self.clock.now() + RETRY;
        while self.clock.now() < until && !self.next_segment.is_closed() {
            self.clock.sleep(RETRY_STEP);
        }
    }
}
