//! The owner of a standby: it takes its primary's groups, one at a time.
//!
//! Reading a group takes the place of deciding it. From there on, the group is treated like a
//! batch: applied to the state, appended with the same stamp, synced once, and published. If it
//! cannot be written, it is rolled back.

use super::Owner;
use crate::{
    FollowError, JournalEnd, LoggedGroup,
    disk::DiskFile,
    format::{self, Entries, EntryDefect, Happened},
    journal::{Append, replay::seconds},
    retries::{Kept, Outcome},
};
use widgets_clock::Clock;
use widgets_registry::Fault;

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Applies the primary's next group and makes it durable.
    pub(super) fn follow(&mut self, group: &LoggedGroup) -> Result<(), FollowError> {
        if !self.follows {
            return Err(FollowError::NotStandby);
        }
        if let Some(reason) = &self.stopped {
            return Err(FollowError::FateUnknown(reason.to_string()));
        }
        let own = self.journal.position();
        let follows = group.first_sequence == own.next_sequence
            && group.chain == own.chain
            && group.at >= own.at;
        if !follows {
            return Err(FollowError::DoesNotFollow {
                offered: group.first_sequence,
                own: own.next_sequence,
            });
        }
        let (bytes, room) = (
            format::group_bytes(group.payload.len()),
            self.journal.segment_room(),
        );
        if bytes > room {
            return Err(FollowError::TooLong { bytes, room });
        }
        if let Err(reason) = self.room.reserve(&mut self.journal, bytes) {
            return Err(FollowError::NotNow(reason.to_string()));
        }
        self.at = group.at;
        if let Err(defect) = self.apply(group) {
            self.take_back();
            return Err(FollowError::Unreadable {
                first_sequence: group.first_sequence,
                defect,
            });
        }
        self.group.load(&group.payload, group.entries);
        let failure = self.commit();
        self.group.clear();
        match failure {
            None => Ok(()),
            Some(Fault::FateUnknown { reason }) => {
                Err(FollowError::FateUnknown(reason.to_string()))
            }
            Some(fault) => Err(FollowError::NotNow(fault.to_string())),
        }
    }

    /// Removes the seals after `before`, with which the journal ends. Nothing in memory depends on
    /// them.
    pub(super) fn cut_seals(&mut self, before: JournalEnd) -> Result<(), FollowError> {
        if !self.follows {
            return Err(FollowError::NotStandby);
        }
        if let Some(reason) = &self.stopped {
            return Err(FollowError::FateUnknown(reason.to_string()));
        }
        let found = self.log.before_seals();
        let found = found.map_err(|error| FollowError::NotNow(error.to_string()))?;
        if found != Some(before) {
            return Err(FollowError::DoesNotFollow {
                offered: before.next_sequence,
                own: self.journal.position().next_sequence,
            });
        }
        if self.checkpoints.needs_after(before.next_sequence) {
            return Err(FollowError::SealsNeeded);
        }
        match self.journal.cut_seals(before) {
            Ok(Some(bytes)) => {
                self.at = before.at;
                self.log.cut(before, bytes);
                Ok(())
            }
            Ok(None) => Err(FollowError::SealsNeeded),
            Err(error) => {
                let fault = self.failed(Append::FateUnknown(error));
                Err(FollowError::FateUnknown(fault.to_string()))
            }
        }
    }

    /// Applies a group's entries to the state, which contains everything before the group.
    fn apply(&mut self, group: &LoggedGroup) -> Result<(), String> {
        let mut entries = Entries::new(&group.payload);
        for sequence in group.first_sequence..group.next_sequence() {
            let entry = entries.read().map_err(|defect| match defect {
                EntryDefect::Invalid => format!("entry {sequence} is not a valid change"),
                EntryDefect::UnknownKind(kind) => {
                    format!("entry {sequence} is of kind {kind}, which this program does not know")
                }
            })?;
            let outcome = match entry.happened {
                Happened::Change(change) => {
                    let (command, change) = self.state.followed(&change).ok_or_else(|| {
                        format!("entry {sequence} does not fit the state: {change:?}")
                    })?;
                    self.reads.before_change(&self.state, &command, change);
                    self.undo.push(self.state.apply(&command, change));
                    Outcome::Accepted
                }
                Happened::Refusal(outcome) => outcome,
                Happened::Seal => continue,
                Happened::Holder(member) => {
                    self.record(member, sequence + 1);
                    continue;
                }
            };
            if let Some(keyed) = entry.keyed {
                self.retries.insert(Kept {
                    keyed,
                    at_seconds: seconds(group.at),
                    outcome,
                });
                self.keys += 1;
            }
        }
        if entries.is_empty() {
            Ok(())
        } else {
            Err(format!("more than {} entries follow", group.entries))
        }
    }
}
