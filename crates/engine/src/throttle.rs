//! Rests for background work, so that the journal's syncs find the disk free.

use std::{sync::Arc, time::Duration};
use widgets_clock::Clock;

/// After a piece of work, background work rests this many times as long as the piece took: on a fast
/// disk and on a slow one it has a third of the disk's time at most.
const REST_FACTOR: u32 = 2;

/// No rest is longer: a disk that hangs must not delay background work, or a shutdown, further.
const REST_MAX: Duration = Duration::from_millis(200);

/// Background work writes and syncs so many bytes, then rests: a sync of the journal that comes
/// meanwhile waits for no more than these.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Paces work that comes in pieces.
pub(crate) struct Throttle<C> {
    clock: Arc<C>,
    piece_began: Duration,
}

impl<C: Clock> Throttle<C> {
    pub(crate) fn new(clock: Arc<C>) -> Self {
        let piece_began = clock.now();
        Self { clock, piece_began }
    }

    /// A piece of work begins.
    pub(crate) fn begin_piece(&mut self) {
        self.piece_began = self.clock.now();
    }

    /// A piece of work ended: rests.
    pub(crate) fn rest(&mut self) {
        let worked = self.clock.now().saturating_sub(self.piece_began);
        self.clock.sleep((worked * REST_FACTOR).min(REST_MAX));
    }
}
