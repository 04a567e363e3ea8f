//! Whether the journal takes what operations write: it had room for what was asked last, and took the last group.

use crate::{disk::DiskFile, format, journal::Journal};
use widgets_registry::Reason;

/// What callers read while the disk is full.
const NO_ROOM: &str = "no room in the journal";

/// Of an operation with short names.
const LEAST_PAYLOAD_BYTES: usize = 256;

/// Why nothing can be written, as the journal has shown.
#[derive(Default)]
pub(super) struct Room {
    /// How many bytes the journal had no room for; 0 where it has room.
    missed_bytes: u64,
    /// Why the last group could not be written, and how many bytes it had.
    not_written: Option<(Reason, usize)>,
}

impl Room {
    /// Makes room for a group of so many bytes. What could not be had is asked for again, however little is asked for
    /// now: so readiness tells when there is room again.
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
            // Whoever failed to make room has logged why.
            Err(error) => {
                self.missed_bytes = bytes;
                Err(Reason::new(NO_ROOM, error.to_string()))
            }
        }
    }

    /// Where the last group could not be written, sees whether one could be now.
    pub(super) fn rehearse<F: DiskFile>(&mut self, journal: &Journal<F>) {
        self.not_written
            .take_if(|(_, bytes)| journal.rehearse(*bytes).is_ok());
    }

    /// Sees at a start whether a disk takes what an operation would write, so that readiness does not wait for the
    /// first that is refused.
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

    /// A group was written.
    pub(super) fn written(&mut self) {
        self.not_written = None;
    }

    /// A group of so many bytes could not be written.
    pub(super) fn not_written(&mut self, reason: Reason, bytes: usize) {
        self.not_written = Some((reason, bytes));
    }

    /// Why an operation could not be written now.
    pub(super) fn missing(&self) -> Option<Reason> {
        if self.missed_bytes > 0 {
            return Some(NO_ROOM.into());
        }
        self.not_written.as_ref().map(|(reason, _)| reason.clone())
    }
}
