//! The journal: groups of entries appended to segments, each group synced once.
//!
//! Owns the segment that is written to, and the sequence numbers. A segment is filled with zeros and
//! synced before its first use, so that a group's sync need not wait for the file system's own
//! journal: that costs about a third less than growing the file (`docs/decisions/0002`). The next
//! segment is made [in the background](prepare).
//!
//! A failed sync ends it: see [`Append::FateUnknown`].

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

/// Randomness for the salts of segments.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// A segment that is durable with its name and can be appended to.
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
    /// When the last group was committed: time never goes back.
    at: u64,
    /// It ended with a seal when it was opened, or had no groups.
    is_sealed: bool,
    /// After the last group that is no seal.
    before_seals: Position,
    next_segment: Arc<NextSegment<F>>,
}

/// Where the journal is: between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The store.
    pub(crate) store: u64,
    /// The segment that is written to.
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
    /// The running hash over it and all before it.
    pub(crate) next_chain: u64,
    /// What it takes in the segment.
    pub(crate) bytes: u64,
}

/// How an append failed.
#[derive(Debug)]
pub(crate) enum Append {
    /// Nothing of the group can ever be read: it is as if it had not been tried.
    NotWritten(io::Error),
    /// The group may or may not be durable, and no later sync can tell. Never append again.
    FateUnknown(io::Error),
}

impl<F: DiskFile> Journal<F> {
    /// Goes on where `end` says. The next segments come from `next_segment`.
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

    /// Where it is.
    pub(crate) fn position(&self) -> Position {
        Position {
            store: self.segment.header.store,
            segment: self.segment.header.number,
            next_sequence: self.next_sequence,
            at: self.at,
            chain: self.chain,
        }
    }

    /// Where it is, but for the seals that it ends with: no state and no checkpoint rests on those, and they may be
    /// [taken back](Self::cut_seals).
    pub(crate) fn before_seals(&self) -> Position {
        if self.before_seals.next_sequence == self.next_sequence {
            self.position()
        } else {
            self.before_seals
        }
    }

    /// How many bytes of groups a segment has room for.
    pub(crate) fn segment_room(&self) -> u64 {
        self.segment_bytes - DATA_OFFSET
    }

    /// Whether it ended with a seal when it was opened, or had no groups.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// How many bytes of groups fit into the segment that is written to.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn room(&self) -> u64 {
        self.segment_bytes - self.offset
    }

    /// Makes room for a group of so many bytes, in a new segment where this one is full. Waits for
    /// that only if it is being made; if it could not be, says why at once.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), Arc<io::Error>> {
        if self.offset + bytes <= self.segment_bytes {
            return Ok(());
        }
        self.segment = self.next_segment.take()?;
        self.offset = DATA_OFFSET;
        Ok(())
    }

    /// Writes as many zeros as a group may have where the next one begins, which leaves the journal as it
    /// is: so a disk shows whether it takes one. Where the group would not fit any more, that is
    /// seen when it comes.
    pub(crate) fn rehearse(&self, bytes: usize) -> io::Result<()> {
        let left = usize::try_from(self.segment_bytes - self.offset).unwrap_or(usize::MAX);
        let zeros = vec![0; bytes.min(left)];
        self.segment.file.write_all_at(&zeros, self.offset)
    }

    /// The time of a group that is committed now: never before the last one's, whatever the clock
    /// says.
    pub(crate) fn time(&self, clock_microseconds: u64) -> u64 {
        if planted!(TimeGoesBack) {
            return clock_microseconds;
        }
        self.at.max(clock_microseconds)
    }

    /// What the next group has.
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
            // Part of it may be written, even all of it: without its salt it is nothing. No more is
            // asked for, as the file may have no room for more.
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
    /// Takes back the seals after `before`, with which it ends: how many bytes they took. `None`, and nothing is done,
    /// where they are not all in the segment that is written to.
    ///
    /// The last one goes first, durably, and then the one before it: so a crash leaves some of them, and perhaps one
    /// of which a part is gone, which is a torn end. Where it fails, how many are there is not known before a restart.
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

/// A new segment, durable with its name, all zeros after the header. `between_pieces` is asked after
/// each piece of zeros whether to go on, and can wait.
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
