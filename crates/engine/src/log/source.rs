//! What copies of a running store are made from: its durable groups, and its newest checkpoint.
//!
//! A copy reports how far it has come, and the journal from there on is held for it: for the
//! archive within [`held_bytes_max`](crate::Settings::held_bytes_max), and for each other copy
//! within the limit that it gives. A checkpoint is held while it is read.

use super::{Held, Log, LoggedGroup};
use crate::{
    CheckpointError, DiskFile, StoreHeader,
    checkpoint::Reply,
    disk::read_full_at,
    files::checkpoint_name,
    format::{HEADER_BYTES, checkpoint::CheckpointHeader},
    queue::Queue,
    state::Holding,
};
use std::{
    io,
    sync::{Arc, mpsc},
};

/// Where a journal ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalEnd {
    /// The sequence number of the next entry.
    pub next_sequence: u64,
    /// When the last group was committed, in microseconds since 1970.
    pub at: u64,
    /// The running hash over all groups.
    pub chain: u64,
}

/// Why groups cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// They are not kept any more, or were never in a group.
    #[error("the journal no longer has entries before {oldest}")]
    Gone {
        /// The oldest entry that is kept.
        oldest: u64,
    },
    /// The disk failed.
    #[error("reading the journal: {0}")]
    Io(#[from] io::Error),
}

/// A running store as a copy reads it. Clones share the store.
#[derive(Clone)]
pub struct Source {
    log: Arc<Log>,
    checkpoint_requests: mpsc::Sender<Reply>,
    queue: Arc<Queue>,
}

impl Source {
    pub(crate) fn new(
        log: Arc<Log>,
        checkpoint_requests: mpsc::Sender<Reply>,
        queue: Arc<Queue>,
    ) -> Self {
        Self {
            log,
            checkpoint_requests,
            queue,
        }
    }

    /// Returns which store this is.
    #[must_use]
    pub fn store(&self) -> Arc<StoreHeader> {
        self.log.store()
    }

    /// Returns the holder, as the journal says.
    #[must_use]
    pub fn holding(&self) -> Holding {
        self.log.holding()
    }

    /// Returns where the journal ends. Everything before is durable.
    #[must_use]
    pub fn end(&self) -> JournalEnd {
        let inner = self.log.lock();
        JournalEnd {
            next_sequence: inner.next_sequence,
            at: inner.at,
            chain: inner.chain,
        }
    }

    /// Returns the sequence number of the oldest entry that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.log.lock().oldest()
    }

    /// Returns groups from the one with this entry on, of `bytes_max` bytes or slightly more; none
    /// if nothing is durable from there on. May wait for the disk.
    pub fn read(&self, first: u64, bytes_max: usize) -> Result<Vec<Arc<LoggedGroup>>, SourceError> {
        let oldest = {
            let inner = self.log.lock();
            let oldest = inner.oldest();
            if first < oldest {
                return Err(SourceError::Gone { oldest });
            }
            if let Some(groups) = inner.ring_from(first, bytes_max) {
                return Ok(groups.list);
            }
            oldest
        };
        match self.log.segments_from(first, bytes_max) {
            Ok(groups) => Ok(groups.list),
            Err(error) => {
                // The segment may have been dropped meanwhile.
                let now = self.oldest();
                if first < now && oldest < now {
                    return Err(SourceError::Gone { oldest: now });
                }
                Err(error.into())
            }
        }
    }

    /// Returns the same groups from memory, without waiting, or `None` if memory no longer has
    /// them.
    #[must_use]
    pub fn recent(&self, first: u64, bytes_max: usize) -> Option<Vec<Arc<LoggedGroup>>> {
        let groups = self.log.lock().ring_from(first, bytes_max);
        groups.map(|groups| groups.list)
    }

    /// Returns the running hash over everything before this entry, if a group begins with it or
    /// would. May wait for the disk.
    pub fn chain_before(&self, next_sequence: u64) -> Result<Option<u64>, SourceError> {
        let end = self.end();
        if end.next_sequence == next_sequence {
            return Ok(Some(end.chain));
        }
        let groups = self.read(next_sequence, 1)?;
        let group = groups.first();
        Ok(group
            .filter(|group| group.first_sequence == next_sequence)
            .map(|group| group.chain))
    }

    /// Returns where the journal would end without its trailing seals, if it has any. May wait for
    /// the disk.
    pub fn before_seals(&self) -> Result<Option<JournalEnd>, SourceError> {
        Ok(self.log.before_seals()?)
    }

    /// Waits until this entry is durable. Is notified with each commit.
    pub async fn appended(&self, next_sequence: u64) {
        let mut appended = self.log.appended.subscribe();
        // This check sees everything that was published before the subscription.
        if self.end().next_sequence > next_sequence {
            return;
        }
        // An error means that the store is gone: there is nothing to wait for.
        drop(appended.wait_for(|&now| now > next_sequence).await);
    }

    /// Waits until this entry is durable and may be shown. Is notified at intervals.
    pub async fn changed(&self, next_sequence: u64) {
        let mut told = self.log.told.subscribe();
        self.log.await_herald();
        // An error means that the store is gone: there is nothing to wait for.
        drop(told.wait_for(|&now| now > next_sequence).await);
    }

    /// Records that everything before this entry is archived. What follows is held. `None` means
    /// that there is no archive.
    pub fn hold(&self, next_sequence: Option<u64>) {
        self.log.lock().held = next_sequence;
    }

    /// Holds the journal for a copy beside the archive, at first all that is kept. The hold ends
    /// when it is dropped, or when the journal takes more than `bytes_max`.
    #[must_use]
    pub fn hold_journal(&self, bytes_max: u64) -> JournalHold {
        let mut inner = self.log.lock();
        let number = inner.next_hold;
        inner.next_hold += 1;
        let held = Held { from: 0, bytes_max };
        inner.holds.push((number, held));
        JournalHold {
            log: self.log.clone(),
            number,
        }
    }

    /// Returns about how many bytes the journal has from this entry on.
    #[must_use]
    pub fn bytes_from(&self, first: u64) -> u64 {
        let inner = self.log.lock();
        let (mut bytes, mut end) = (0, inner.next_sequence);
        for segment in inner.segments.iter().rev() {
            if end <= first {
                break;
            }
            let entries = end - segment.first_sequence;
            let wanted = end - first.max(segment.first_sequence);
            if entries > 0 {
                // The groups of a segment are assumed to be alike.
                let share = u128::from(segment.bytes) * u128::from(wanted) / u128::from(entries);
                bytes += u64::try_from(share).unwrap_or(u64::MAX);
            }
            end = segment.first_sequence;
        }
        bytes
    }

    /// Requests a checkpoint, which is written beside the normal work, and waits for it. That can
    /// take minutes.
    ///
    /// The checkpoint covers everything that was acknowledged before. An error means only that it
    /// was not written.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        let (reply, outcome) = mpsc::channel();
        let closed = || CheckpointError::new("the store stopped");
        self.checkpoint_requests.send(reply).map_err(|_| closed())?;
        self.queue.wake();
        outcome.recv().map_err(|_| closed())?
    }

    /// Returns the first sequence number of the newest checkpoint, if there is one.
    #[must_use]
    pub fn newest_checkpoint(&self) -> Option<u64> {
        let newest = self.log.lock().checkpoint;
        newest.map(|newest| newest.first_sequence)
    }

    /// Returns the newest checkpoint for reading. It is kept until the returned value is dropped.
    pub fn hold_checkpoint(&self) -> io::Result<Option<HeldCheckpoint>> {
        let Some(newest) = ({
            let mut inner = self.log.lock();
            let newest = inner.checkpoint;
            let held = newest.map(|newest| newest.first_sequence);
            inner.held_checkpoints.extend(held);
            newest
        }) else {
            return Ok(None);
        };
        let hold = CheckpointHold {
            log: self.log.clone(),
            first_sequence: newest.first_sequence,
        };
        let name = checkpoint_name(newest.first_sequence);
        let file = self.log.files.open(&name)?;
        let mut bytes = vec![0; HEADER_BYTES];
        let length = read_full_at(&*file, &mut bytes, 0)?;
        let header = CheckpointHeader::decode(&bytes[..length])
            .map_err(|_| io::Error::other(format!("the header of {name} is damaged")))?;
        Ok(Some(HeldCheckpoint {
            begin: JournalEnd {
                next_sequence: header.first_sequence,
                at: header.at,
                chain: header.chain,
            },
            next_sequence: header.next_sequence,
            bytes: newest.bytes,
            file,
            _hold: hold,
        }))
    }
}

#[cfg(test)]
impl Log {
    /// Returns every group that is kept, from the disk.
    pub(crate) fn all_groups(&self) -> io::Result<Vec<Arc<LoggedGroup>>> {
        let (mut next, end) = {
            let inner = self.lock();
            (inner.oldest(), inner.next_sequence)
        };
        let mut groups = Vec::new();
        while next < end {
            let read = self.segments_from(next, 1 << 10)?;
            groups.extend(read.list);
            next = groups.last().map_or(end, |last| last.next_sequence());
        }
        Ok(groups)
    }

    pub(crate) fn store_header(&self) -> Arc<StoreHeader> {
        self.store()
    }
}

/// A hold on the journal for a copy.
pub struct JournalHold {
    log: Arc<Log>,
    number: u64,
}

impl JournalHold {
    /// Records that everything before this entry is copied.
    pub fn advance(&self, next_sequence: u64) {
        let mut inner = self.log.lock();
        let own = inner.holds.iter_mut().find(|(it, _)| *it == self.number);
        if let Some((_, held)) = own {
            held.from = held.from.max(next_sequence);
        }
    }
}

impl Drop for JournalHold {
    fn drop(&mut self) {
        self.log.lock().holds.retain(|(it, _)| *it != self.number);
    }
}

struct CheckpointHold {
    log: Arc<Log>,
    first_sequence: u64,
}

impl Drop for CheckpointHold {
    fn drop(&mut self) {
        let mut inner = self.log.lock();
        let held = &mut inner.held_checkpoints;
        if let Some(own) = held.iter().position(|it| *it == self.first_sequence) {
            held.swap_remove(own);
        }
    }
}

/// A checkpoint that is kept while it is copied.
pub struct HeldCheckpoint {
    /// The end of the journal when its copying began. The journal from there on is replayed over
    /// it.
    pub begin: JournalEnd,
    /// The journal must be replayed at least up to this entry for the checkpoint to become a state.
    pub next_sequence: u64,
    /// The length of its file in bytes.
    pub bytes: u64,
    file: Box<dyn DiskFile>,
    _hold: CheckpointHold,
}

impl HeldCheckpoint {
    /// Reads up to `bytes` of its file, or fewer at the end.
    pub fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; bytes];
        let length = read_full_at(&*self.file, &mut piece, offset)?;
        piece.truncate(length);
        Ok(piece)
    }
}
