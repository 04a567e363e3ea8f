//! The journal: groups of entries appended to segments, each group synced once.
//!
//! Owns the segment that is being written, and the sequence numbers. A segment is filled with zeros
//! and synced before its first use, so that a group's sync need not wait for the file system's own
//! journal: that costs about a third less than growing the file (`docs/decisions/0002`). The next
//! segment is prepared [in the background](prepare).
//!
//! A failed sync ends the journal: see [`Append::FateUnknown`].

pub(crate) mod prepare;
pub(crate) mod replay;

use crate::{
    disk::{Disk, DiskFile},
    files,
    format::{
        self, DATA_OFFSET, GROUP_SALT_BYTES, GroupDraft, GroupStamp, SEAL_GROUP_BYTES,
        SegmentHeader,
    },
    log::JournalEnd,
    throttle::PIECE_BYTES,
};
use prepare::NextSegment;
use std::{io, sync::Arc};

/// A source of random salts for segments.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// A segment that is durable, including its name, and can be appended to.
pub(crate) struct Segment<F> {
    pub(crate) header: SegmentHeader,
    pub(crate) file: F,
}

/// The end of the journal, where groups are appended.
pub(crate) struct Journal<F> {
    segment: Segment<F>,
    segment_bytes: u64,
    offset: u64,
    next_sequence: u64,
    /// The running hash over all groups.
    chain: u64,
    /// When the last group was committed. Never decreases.
    at: u64,
    /// Whether the journal ended with a seal when it was opened, or had no groups.
    is_sealed: bool,
    /// The position after the last group that is not a seal.
    before_seals: Position,
    next_segment: Arc<NextSegment<F>>,
}

/// A position in the journal, between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The identity of the store.
    pub(crate) store: u64,
    /// The segment that is being written.
    pub(crate) segment: u64,
    /// The sequence number of the next entry.
    pub(crate) next_sequence: u64,
    /// When the last group was committed, in microseconds since 1970.
    pub(crate) at: u64,
    /// The running hash over all groups.
    pub(crate) chain: u64,
}

/// A group that is durable.
pub(crate) struct Appended {
    pub(crate) segment: SegmentHeader,
    pub(crate) stamp: GroupStamp,
    /// The running hash over this group and all before it.
    pub(crate) next_chain: u64,
    /// The bytes that the group occupies in the segment.
    pub(crate) bytes: u64,
}

/// How an append failed.
#[derive(Debug)]
pub(crate) enum Append {
    /// No part of the group can ever be read: it is as if the append had not been tried.
    NotWritten(io::Error),
    /// The group may or may not be durable, and no later sync can tell. Never append again.
    FateUnknown(io::Error),
}

impl<F: DiskFile> Journal<F> {
    /// Continues the journal at `end`. The next segments come from `next_segment`.
    pub(crate) fn new(
        end: replay::End<F>,
        segment_bytes: u64,
        next_segment: Arc<NextSegment<F>>,
    ) -> Self {
        Self {
            segment: end.segment,
            segment_bytes,
            offset: end.offset,
            next_sequence: end.next_sequence,
            chain: end.chain,
            at: end.at,
            is_sealed: end.is_sealed,
            before_seals: end.before_seals,
            next_segment,
        }
    }

    /// Returns the current position.
    pub(crate) fn position(&self) -> Position {
        Position {
            store: self.segment.header.store,
            segment: self.segment.header.number,
            next_sequence: self.next_sequence,
            at: self.at,
            chain: self.chain,
        }
    }

    /// Returns the position before the seals that the journal ends with, if it ends with any. No
    /// state and no checkpoint depends on those seals, and they may be [removed](Self::cut_seals).
    pub(crate) fn before_seals(&self) -> Position {
        if self.before_seals.next_sequence == self.next_sequence {
            self.position()
        } else {
            self.before_seals
        }
    }

    /// Returns how many bytes of groups a whole segment has room for.
    pub(crate) fn segment_room(&self) -> u64 {
        self.segment_bytes - DATA_OFFSET
    }

    /// Reports whether the journal ended with a seal when it was opened, or had no groups.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Returns how many bytes of groups still fit into the segment that is being written.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn room(&self) -> u64 {
        self.segment_bytes - self.offset
    }

    /// Makes room for a group of `bytes`, in a new segment if this one is full. Waits for the new
    /// segment only while it is being prepared; if preparing it failed, returns the reason at once.
    /// Refuses a group that is longer than a whole segment.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), Arc<io::Error>> {
        if self.offset + bytes <= self.segment_bytes {
            return Ok(());
        }
        let room = self.segment_room();
        if bytes > room {
            let reason = format!("{bytes} bytes are more than a segment has room for, {room}");
            return Err(Arc::new(io::Error::other(reason)));
        }
        self.segment = self.next_segment.take()?;
        self.offset = DATA_OFFSET;
        Ok(())
    }

    /// Writes zeros of a group's size where the next group begins, which shows whether the disk
    /// accepts the group and leaves the journal unchanged. If the segment has less room than that,
    /// fills only the room; whether a new segment can be had is not tested.
    pub(crate) fn rehearse(&self, bytes: usize) -> io::Result<()> {
        let left = usize::try_from(self.segment_bytes - self.offset).unwrap_or(usize::MAX);
        let zeros = vec![0; bytes.min(left)];
        self.segment.file.write_all_at(&zeros, self.offset)
    }

    /// Returns the time of a group that is committed now: never before the last group's, whatever
    /// the clock says.
    pub(crate) fn time(&self, clock_microseconds: u64) -> u64 {
        if planted!(TimeGoesBack) {
            return clock_microseconds;
        }
        self.at.max(clock_microseconds)
    }

    /// Returns the segment and the stamp of the next group.
    pub(crate) fn next_stamp(&self, at: u64) -> (SegmentHeader, GroupStamp) {
        let stamp = GroupStamp {
            first_sequence: self.next_sequence,
            at,
            chain: self.chain,
        };
        (self.segment.header, stamp)
    }

    /// Appends and syncs one group, committed at this [time](Self::time).
    pub(crate) fn append(&mut self, group: &mut GroupDraft, at: u64) -> Result<Appended, Append> {
        let (_, stamp) = self.next_stamp(at);
        let Segment { header, file } = &self.segment;
        let entries = group.entries();
        let is_seal = format::is_seal(group.payload());
        let (bytes, chain) = group.seal_group(header.salt, stamp);
        if let Err(error) = file.write_all_at(bytes, self.offset) {
            // Some or all of the group may be written, but without its salt it is no group. Only
            // the salt is overwritten, because the file may have no room for more.
            let erased = file
                .write_all_at(&[0; GROUP_SALT_BYTES], self.offset)
                .and_then(|()| file.sync());
            return Err(match erased {
                Ok(()) => Append::NotWritten(error),
                Err(_) => Append::FateUnknown(error),
            });
        }
        file.sync().map_err(Append::FateUnknown)?;
        let written = bytes.len() as u64;
        self.offset += written;
        self.next_sequence += u64::from(entries);
        (self.chain, self.at) = (chain, at);
        if !is_seal {
            self.before_seals = self.position();
        }
        Ok(Appended {
            segment: *header,
            stamp,
            next_chain: chain,
            bytes: written,
        })
    }
}

impl<F: DiskFile> Journal<F> {
    /// Removes the seals after `before`, with which the journal ends, and returns how many bytes
    /// they occupied. Does nothing and returns `None` unless they are all in the segment that is
    /// being written.
    ///
    /// The last seal is removed first, durably, and then the one before it. So a crash leaves the
    /// first of them, and perhaps a part of one more, which is a torn end. If a removal fails, only
    /// a restart can find out how many are left.
    pub(crate) fn cut_seals(&mut self, before: JournalEnd) -> io::Result<Option<u64>> {
        let seals = self.next_sequence - before.next_sequence;
        let Some(bytes) = seals.checked_mul(SEAL_GROUP_BYTES) else {
            return Ok(None);
        };
        if bytes > self.offset - DATA_OFFSET {
            return Ok(None);
        }
        let Segment { file, .. } = &self.segment;
        let zeros = vec![0; usize::try_from(SEAL_GROUP_BYTES).unwrap_or_default()];
        for _ in 0..seals {
            self.offset -= SEAL_GROUP_BYTES;
            file.write_all_at(&zeros, self.offset)?;
            file.sync()?;
        }
        self.next_sequence = before.next_sequence;
        (self.chain, self.at) = (before.chain, before.at);
        Ok(Some(bytes))
    }
}

impl<F> Drop for Journal<F> {
    fn drop(&mut self) {
        self.next_segment.close();
    }
}

/// Creates a segment that is durable, including its name, and contains only zeros after the header.
/// `between_pieces` is called after each piece of zeros; it may wait, and an error from it ends the
/// creation.
pub(crate) fn create_segment<D: Disk>(
    disk: &D,
    header: SegmentHeader,
    bytes: u64,
    between_pieces: impl FnMut(&D::File) -> io::Result<()>,
) -> io::Result<Segment<D::File>> {
    let name = files::segment_name(header.number);
    let file = files::create_unfinished(disk, &name)?;
    fill(&file, header, bytes, between_pieces)
        .and_then(|()| files::finish(disk, &name))
        .inspect_err(|_| files::discard(disk, &name))?;
    Ok(Segment { header, file })
}

fn fill<F: DiskFile>(
    file: &F,
    header: SegmentHeader,
    bytes: u64,
    mut between_pieces: impl FnMut(&F) -> io::Result<()>,
) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(PIECE_BYTES);
        file.write_all_at(&zeros[..left.min(PIECE_BYTES)], offset)?;
        offset += left.min(PIECE_BYTES) as u64;
        between_pieces(file)?;
    }
    file.write_all_at(&header.encode(), 0)?;
    file.sync()
}
