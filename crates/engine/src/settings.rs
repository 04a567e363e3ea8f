//! The settings of the engine.

use crate::{
    OpenError,
    format::{self, ENTRY_BYTES_MAX, GROUP_ENTRIES_MAX},
};

/// More idempotency keys than any store keeps. Their places are numbered with 32 bits.
const IDEMPOTENCY_KEYS_MOST: u64 = 1 << 31;

/// The settings of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many requests may wait, and therefore how many a batch can have. Default 2,048.
    pub queue_operations_max: usize,
    /// How many bytes of text the waiting requests may have together. Default 4 MiB.
    pub queue_bytes_max: usize,
    /// How long a request may wait before it is refused, in milliseconds. Default 5,000.
    pub queue_wait_ms_max: u64,
    /// How many lists that no index serves may be under way at a time. Default 4.
    pub scans_max: usize,
    /// The size of a segment of the journal, in bytes. Default 64 MiB.
    pub segment_bytes: u64,
    /// A checkpoint is due when the journal has grown by this many bytes, or by half the size of
    /// the last checkpoint if that is more. A restart replays not much more. Default 256 MiB.
    pub checkpoint_journal_bytes: u64,
    /// How long changes are kept for their readers, in hours. Default 72.
    pub changes_retention_hours: u32,
    /// How many bytes of journal may be kept for readers of changes. What a restart needs is always
    /// kept. Default 4 GiB.
    pub changes_retention_bytes: u64,
    /// How many bytes of journal may be kept for an archive that lags. 0, the default, means that
    /// there is no archive and nothing is held.
    pub held_bytes_max: u64,
    /// How long idempotency keys are kept, in hours. Default 24.
    pub idempotency_retention_hours: u32,
    /// How many idempotency keys are kept. Default 1,000,000.
    pub idempotency_keys_max: u64,
    /// How long an answer may wait until the holder has the data it depends on, in milliseconds.
    /// `None`, the default, means that answers wait only for this store's own disk.
    pub standby_timeout_ms: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_operations_max: 2048,
            queue_bytes_max: 4 << 20,
            queue_wait_ms_max: 5000,
            scans_max: 4,
            segment_bytes: 64 << 20,
            checkpoint_journal_bytes: 256 << 20,
            changes_retention_hours: 72,
            changes_retention_bytes: 4 << 30,
            held_bytes_max: 0,
            idempotency_retention_hours: 24,
            idempotency_keys_max: 1_000_000,
            standby_timeout_ms: None,
        }
    }
}

impl Settings {
    /// Returns these settings with nothing dropped that the store keeps: no change and no
    /// idempotency key. For everything that opens a store without being its service, because only
    /// the service's own settings say how long they are kept.
    #[must_use]
    pub fn keeping_everything(self) -> Self {
        Self {
            changes_retention_hours: u32::MAX,
            changes_retention_bytes: u64::MAX,
            idempotency_retention_hours: u32::MAX,
            idempotency_keys_max: IDEMPOTENCY_KEYS_MOST,
            ..self
        }
    }

    /// Returns the smallest size of a segment that can take a whole batch of this many operations.
    #[must_use]
    pub const fn segment_bytes_min(queue_operations_max: usize) -> u64 {
        format::group_bytes(queue_operations_max * ENTRY_BYTES_MAX) + format::DATA_OFFSET
    }

    /// Checks each setting, and that they fit together.
    pub fn check(&self) -> Result<(), OpenError> {
        let operations = self.queue_operations_max;
        let refuse = |setting, limit, given| {
            Err(OpenError::Setting {
                setting,
                limit,
                given,
            })
        };
        if !(1..=GROUP_ENTRIES_MAX).contains(&self.queue_operations_max) {
            let given = self.queue_operations_max as u64;
            let limit = format!("1 to {GROUP_ENTRIES_MAX}");
            return refuse("queue_operations_max", limit, given);
        }
        if self.queue_bytes_max < 4096 {
            return refuse(
                "queue_bytes_max",
                "at least 4096".into(),
                self.queue_bytes_max as u64,
            );
        }
        let least = Self::segment_bytes_min(operations);
        if !(least..1 << 32).contains(&self.segment_bytes) {
            let limit = format!(
                "at least {least} (a whole batch of queue_operations_max = {operations}) and less than \
                 4294967296"
            );
            return refuse("segment_bytes", limit, self.segment_bytes);
        }
        Ok(())
    }
}
