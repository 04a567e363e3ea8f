//! Rests for background work, so that the journal's syncs find the disk free.

use std::{sync::Arc, time::Duration};
use widgets_clock::Clock;

/// After a piece of work, background work rests this many times as long as the piece took. So it
/// has at most a third of the disk's time, on a fast disk and on a slow one.
const REST_FACTOR: u32 = 2;

/// The longest rest. A disk that hangs must not delay background work, or a shutdown, even further.
const REST_MAX: Duration = Duration::from_millis(200);

/// Background work writes and syncs this many bytes, then rests. A sync of the journal that comes
/// meanwhile waits at most for these.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Paces work that is done in pieces.
pub(crate) struct Throttle<C> {
    clock: Arc<C>,
    piece_began: Duration,
}

impl<C: Clock> Throttle<C> {
    pub(crate) fn new(clock: Arc<C>) -> Self {
        let piece_began = clock.now();
        Self { clock, piece_began }
    }

    /// Begins a piece of work.
    pub(crate) fn begin_piece(&mut self) {
        self.piece_began = self.clock.now();
    }

    /// Ends a piece of work and rests.
    pub(crate) fn rest(&mut self) {
        let worked = self.clock.now().saturating_sub(self.piece_began);
        self.clock.sleep((worked * REST_FACTOR).min(REST_MAX));
    }
}
