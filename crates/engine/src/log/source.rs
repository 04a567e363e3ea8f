//! What copies of a running store are made from: its durable groups, and its newest checkpoint.
//!
//! Whoever copies says up to where it has come, and the journal from there on is held for it: within
//! [`held_bytes_max`](crate::Settings::held_bytes_max) for the one who archives, and for each other one within what
//! that one gives. A checkpoint is held while it is read.

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
    #[error("the journal has nothing before entry {oldest} any more")]
    Gone {
        /// The oldest entry that is kept.
        oldest: u64,
    },
    /// The disk failed.
    #[error("reading the journal: {0}")]
    Io(#[from] io::Error),
}

/// A running store, for who copies it. Clones are of the same one.
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

    /// Which store it is.
    #[must_use]
    pub fn store(&self) -> Arc<StoreHeader> {
        self.log.store()
    }

    /// Who is the holder, as the journal says.
    #[must_use]
    pub fn holding(&self) -> Holding {
        self.log.holding()
    }

    /// Where the journal ends: everything before it is durable.
    #[must_use]
    pub fn end(&self) -> JournalEnd {
        let inner = self.log.lock();
        JournalEnd {
            next_sequence: inner.next_sequence,
            at: inner.at,
            chain: inner.chain,
        }
    }

    /// The sequence number of the oldest entry that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.log.lock().oldest()
    }

    /// Groups from the one that has this entry on, of so many bytes or a little more; none where nothing is
    /// durable from there on. May wait for the disk.
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
                // It may have been let go meanwhile.
                let now = self.oldest();
                if first < now && oldest < now {
                    return Err(SourceError::Gone { oldest: now });
                }
                Err(error.into())
            }
        }
    }

    /// The same from memory alone, without waiting: `None` where that has not got them any more.
    #[must_use]
    pub fn recent(&self, first: u64, bytes_max: usize) -> Option<Vec<Arc<LoggedGroup>>> {
        let groups = self.log.lock().ring_from(first, bytes_max);
        groups.map(|groups| groups.list)
    }

    /// The running hash over everything before this entry, if a group begins with it or would. May wait for
    /// the disk.
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

    /// Where the journal would end without the seals at its end, if it ends with any. May wait for the disk.
    pub fn before_seals(&self) -> Result<Option<JournalEnd>, SourceError> {
        Ok(self.log.before_seals()?)
    }

    /// Waits until there is an entry after those before this one, and is told with the commit itself.
    pub async fn appended(&self, next_sequence: u64) {
        let mut appended = self.log.appended.subscribe();
        // What was published before that is seen by this look.
        if self.end().next_sequence > next_sequence {
            return;
        }
        // An error means that the store has gone: there is nothing to wait for.
        drop(appended.wait_for(|&now| now > next_sequence).await);
    }

    /// Waits until there is an entry after those before this one.
    pub async fn changed(&self, next_sequence: u64) {
        let mut told = self.log.told.subscribe();
        self.log.await_herald();
        // An error means that the store has gone: there is nothing to wait for.
        drop(told.wait_for(|&now| now > next_sequence).await);
    }

    /// Everything before this entry is archived; what comes from it on is held. `None`: nobody archives.
    pub fn hold(&self, next_sequence: Option<u64>) {
        self.log.lock().held = next_sequence;
    }

    /// Holds the journal for a copy beside the archive, all that there is at first. It stays until this is dropped,
    /// as long as the journal does not take more than so many bytes.
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

    /// About how many bytes the journal has from this entry on.
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
                // Groups of one segment are much alike.
                let share = u128::from(segment.bytes) * u128::from(wanted) / u128::from(entries);
                bytes += u64::try_from(share).unwrap_or(u64::MAX);
            }
            end = segment.first_sequence;
        }
        bytes
    }

    /// Has a checkpoint written beside the normal work and waits for it, which can take minutes.
    ///
    /// It covers everything that was answered before. An error means that it was not written, and
    /// nothing else.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        let (reply, outcome) = mpsc::channel();
        let closed = || CheckpointError::new("the store stopped");
        self.checkpoint_requests.send(reply).map_err(|_| closed())?;
        self.queue.wake();
        outcome.recv().map_err(|_| closed())?
    }

    /// The first sequence number of the newest checkpoint, if there is one.
    #[must_use]
    pub fn newest_checkpoint(&self) -> Option<u64> {
        let newest = self.log.lock().checkpoint;
        newest.map(|newest| newest.first_sequence)
    }

    /// The newest checkpoint, to be read. It stays until this is dropped.
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
    /// Everything that is kept, from the disk.
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

/// The journal is held for somebody who copies it.
pub struct JournalHold {
    log: Arc<Log>,
    number: u64,
}

impl JournalHold {
    /// Everything before this entry is copied.
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

/// A checkpoint that stays while it is copied.
pub struct HeldCheckpoint {
    /// Where the journal was when its copying began: what comes from there on is replayed over it.
    pub begin: JournalEnd,
    /// It is a state together with the journal up to here, or to any entry after that.
    pub next_sequence: u64,
    /// The length of its file.
    pub bytes: u64,
    file: Box<dyn DiskFile>,
    _hold: CheckpointHold,
}

impl HeldCheckpoint {
    /// Reads up to so many bytes of its file, fewer at its end.
    pub fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; bytes];
        let length = read_full_at(&*self.file, &mut piece, offset)?;
        piece.truncate(length);
        Ok(piece)
    }
}
