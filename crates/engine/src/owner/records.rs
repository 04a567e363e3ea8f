//! The records that name the holder, as the owner writes and reads them.

use super::Owner;
use crate::{FollowError, JournalEnd, disk::DiskFile, format, queue::Naming};
use tokio::sync::oneshot;
use widgets_clock::Clock;

/// A record in the group, and the caller that waits for it.
pub(super) struct Recorded {
    sequence: u64,
    reply: Option<oneshot::Sender<Result<JournalEnd, FollowError>>>,
}

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Adds a record to the group that names this member, or nobody, as the holder.
    pub(super) fn write_record(
        &mut self,
        naming: Naming,
        reply: oneshot::Sender<Result<JournalEnd, FollowError>>,
    ) {
        let member = naming.member;
        if let Err(error) = self.may_record(naming) {
            // The caller may be gone.
            return drop(reply.send(Err(error)));
        }
        let sequence = self.journal.position().next_sequence + u64::from(self.group.entries());
        self.group.holder(member);
        self.record(member, sequence + 1);
        self.records.push(Recorded {
            sequence,
            reply: Some(reply),
        });
    }

    fn may_record(&mut self, naming: Naming) -> Result<(), FollowError> {
        if let Some(reason) = &self.stopped {
            return Err(FollowError::FateUnknown(reason.to_string()));
        }
        if self.log.store().is_standby() {
            return Err(FollowError::NotNow("it follows another store".into()));
        }
        // During a handover the journal must not grow: the member that takes over already has all
        // of it. A promoted store takes no operations yet either, but its first record is needed.
        if self.follows && !naming.is_first {
            let why = "it takes no operations at the moment";
            return Err(FollowError::NotNow(why.into()));
        }
        let bytes = self.group.payload_bytes() + format::HOLDER_BYTES_MAX;
        let room = self.journal.reserve(format::group_bytes(bytes));
        room.map_err(|error| FollowError::NotNow(error.to_string()))
    }

    /// Applies a record of the group to the state. It is rolled back with the group.
    pub(super) fn record(&mut self, member: Option<u64>, next_sequence: u64) {
        self.state.replay_record(member, next_sequence);
        if self.follows && self.log.store().is_standby() {
            let sequence = next_sequence - 1;
            self.records.push(Recorded {
                sequence,
                reply: None,
            });
        }
    }

    /// Publishes the group's records, which are durable now, and answers their writers.
    pub(super) fn settle_records(&mut self) {
        let Some(last) = self.records.last() else {
            return;
        };
        let (holding, sequence) = (self.state.holding(), last.sequence);
        self.holding_before = holding;
        self.log.set_holding(holding);
        if let Some(gate) = self.replies.gate() {
            gate.named(holding, self.member, sequence);
        }
        let end = self.journal.position();
        for record in self.records.drain(..) {
            let end = JournalEnd {
                next_sequence: end.next_sequence,
                at: end.at,
                chain: end.chain,
            };
            if let Some(reply) = record.reply {
                drop(reply.send(Ok(end)));
            }
        }
    }

    /// Undoes the group's records and answers their writers, because the group could not be
    /// written, or may not have been.
    pub(super) fn take_back_records(&mut self) {
        if self.records.is_empty() {
            return;
        }
        self.state.set_holding(self.holding_before);
        let error = match &self.stopped {
            Some(reason) => FollowError::FateUnknown(reason.to_string()),
            None => FollowError::NotNow("the journal could not be written".into()),
        };
        for record in self.records.drain(..) {
            if let Some(reply) = record.reply {
                drop(reply.send(Err(error.clone())));
            }
        }
    }
}
