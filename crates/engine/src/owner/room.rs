//! Whether the journal accepts what operations write: whether it had room for the last request, and
//! whether the last group could be written.

use crate::{disk::DiskFile, format, journal::Journal};
use widgets_registry::Reason;

/// What callers read while the disk is full.
const NO_ROOM: &str = "no room in the journal";

/// The payload of an operation with short names.
const LEAST_PAYLOAD_BYTES: usize = 256;

/// Why nothing can be written, as far as the journal has shown.
#[derive(Default)]
pub(super) struct Room {
    /// How many bytes the journal had no room for; 0 if it has room.
    missed_bytes: u64,
    /// Why the last group could not be written, and its size in bytes; none if it was written.
    not_written: Option<(Reason, usize)>,
}

impl Room {
    /// Reserves room for a group of `bytes`. If an earlier reservation failed, its size is
    /// requested again even if less is needed now, so that readiness notices when there is room
    /// again.
    pub(super) fn reserve<F: DiskFile>(
        &mut self,
        journal: &mut Journal<F>,
        bytes: u64,
    ) -> Result<(), Reason> {
        let bytes = bytes.max(self.missed_bytes);
        match journal.reserve(bytes) {
            Ok(()) => {
                self.missed_bytes = 0;
                Ok(())
            }
            // The reason was logged where making room failed.
            Err(error) => {
                // What no segment can take would be missed for ever.
                if bytes <= journal.segment_room() {
                    self.missed_bytes = bytes;
                }
                Err(Reason::new(NO_ROOM, error.to_string()))
            }
        }
    }

    /// If the last group could not be written, checks whether one could be written now.
    pub(super) fn rehearse<F: DiskFile>(&mut self, journal: &Journal<F>) {
        self.not_written
            .take_if(|(_, bytes)| journal.rehearse(*bytes).is_ok());
    }

    /// Checks at the start whether the disk accepts what an operation would write, so that
    /// readiness reports a failure before the first operation is refused.
    pub(super) fn look<F: DiskFile>(&mut self, journal: &mut Journal<F>) {
        let room = format::group_bytes(LEAST_PAYLOAD_BYTES);
        if self.reserve(journal, room).is_err() {
            return;
        }
        let bytes = usize::try_from(room).unwrap_or(usize::MAX);
        if let Err(error) = journal.rehearse(bytes) {
            tracing::error!(%error, "nothing can be written to the journal");
            let reason = Reason::new("writing the journal failed", error.to_string());
            self.not_written(reason, bytes);
        }
    }

    /// Records that a group was written.
    pub(super) fn written(&mut self) {
        self.not_written = None;
    }

    /// Records that a group of `bytes` could not be written.
    pub(super) fn not_written(&mut self, reason: Reason, bytes: usize) {
        self.not_written = Some((reason, bytes));
    }

    /// Returns why an operation could not be written now, if so.
    pub(super) fn missing(&self) -> Option<Reason> {
        if self.missed_bytes > 0 {
            return Some(NO_ROOM.into());
        }
        self.not_written.as_ref().map(|(reason, _)| reason.clone())
    }
}
