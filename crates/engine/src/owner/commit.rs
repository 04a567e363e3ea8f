//! How the owner makes a group durable: it appends, syncs and publishes the group, or rolls its
//! changes back.

use super::{Owner, SEAL_PAUSE};
use crate::{
    disk::DiskFile,
    format,
    journal::{Append, replay::seconds},
};
use std::mem;
use widgets_clock::Clock;
use widgets_registry::{Fault, Reason};

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Begins an empty group whose commit time is now.
    pub(super) fn begin_group(&mut self) {
        self.group.clear();
        let clock = u64::try_from(self.clock.unix_time().as_micros()).unwrap_or(u64::MAX);
        self.at = self.journal.time(clock);
    }

    /// Makes the changes durable, or rolls them back and returns the fault to answer with.
    pub(super) fn commit(&mut self) -> Option<Fault> {
        if self.group.entries() == 0 {
            return None;
        }
        let began = self.clock.now();
        let failure = match self.append() {
            Ok(()) => {
                self.undo.clear();
                self.committed();
                self.room.written();
                self.keys = 0;
                self.retries.settle(seconds(self.at));
                self.metrics.keys(&self.retries);
                self.is_sealed = false;
                self.seal_at = self.clock.now() + SEAL_PAUSE;
                let duration = self.clock.now().saturating_sub(began);
                let journal_bytes = self.checkpoints.journal_bytes();
                self.metrics
                    .commit(duration, self.state.counts(), journal_bytes);
                return None;
            }
            Err(failure) => failure,
        };
        if planted!(UndoIncomplete) {
            self.undo.remove(0);
        }
        // This comes first: the writers of records are told whether their fate is unknown.
        let fault = self.failed(failure);
        self.take_back();
        Some(fault)
    }

    /// Rolls back everything that was decided and is not durable.
    pub(super) fn take_back(&mut self) {
        while let Some(last) = self.undo.pop() {
            self.state.undo(last);
        }
        for _ in 0..mem::take(&mut self.keys) {
            self.retries.undo_insert();
        }
        self.take_back_records();
    }

    /// Appends and syncs the group, then publishes it.
    fn append(&mut self) -> Result<(), Append> {
        let entries = self.group.entries();
        if planted!(ToldBeforeSync) {
            let (segment, stamp) = self.journal.next_stamp(self.at);
            let payload = self.group.payload();
            self.log
                .publish(&segment, stamp, stamp.chain, entries, payload);
        }
        let appended = self.journal.append(&mut self.group, self.at)?;
        let payload = self.group.payload();
        let (segment, chain) = (&appended.segment, appended.next_chain);
        self.log
            .publish(segment, appended.stamp, chain, entries, payload);
        self.checkpoints.appended(appended.bytes);
        Ok(())
    }

    /// Returns the fault that a failed append means for its operations, and records what it means
    /// for later ones.
    pub(super) fn failed(&mut self, failure: Append) -> Fault {
        match failure {
            Append::NotWritten(error) => {
                tracing::error!(%error, "writing the journal failed: nothing was applied");
                let reason = Reason::new("writing the journal failed", error.to_string());
                self.room.not_written(reason.clone(), self.group.bytes());
                Fault::Unavailable { reason }
            }
            Append::FateUnknown(error) => {
                tracing::error!(%error, "syncing the journal failed: read-only until restart");
                let reason = Reason::new("syncing the journal failed", error.to_string());
                self.metrics.read_only();
                self.stopped = Some(Reason::new(
                    "syncing the journal failed, it is read-only until it is restarted",
                    error.to_string(),
                ));
                Fault::FateUnknown { reason }
            }
        }
    }

    /// Writes a seal, unless the journal already ends with one. A seal proves that everything
    /// before it was durable, so a start recognises damage there as damage and does not take it for
    /// a torn end.
    pub(crate) fn seal(&mut self) {
        if self.is_sealed || self.follows || self.stopped.is_some() {
            return;
        }
        // If it cannot be written, it is tried again after a pause, not at once and for ever.
        self.seal_at = self.clock.now() + SEAL_PAUSE;
        self.begin_group();
        self.group.seal();
        if self
            .journal
            .reserve(format::group_bytes(self.group.payload_bytes()))
            .is_err()
        {
            return;
        }
        match self.append() {
            Ok(()) => self.is_sealed = true,
            Err(failure) => {
                self.failed(failure);
            }
        }
    }
}
