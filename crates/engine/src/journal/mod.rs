//! The journal: groups of changes appended to segments, each group synced once.
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
    format::{self, DATA_OFFSET, GROUP_HEADER_BYTES, SegmentHeader},
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
    next_segment: Arc<NextSegment<F>>,
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
            next_segment,
        }
    }

    /// The sequence number of the next change.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The number of the segment that is written to.
    pub(crate) fn segment_number(&self) -> u64 {
        self.segment.header.number
    }

    /// How many bytes of groups fit into the segment that is written to.
    #[cfg(test)]
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

    /// Appends and syncs one group: [`GROUP_HEADER_BYTES`] of room, then `changes` changes.
    pub(crate) fn append(&mut self, group: &mut Vec<u8>, changes: u32) -> Result<(), Append> {
        let Segment { header, file } = &self.segment;
        format::seal_group(group, header.salt, self.next_sequence, changes);
        if let Err(error) = file.write_all_at(group, self.offset) {
            // Part of it may be written, even all of it: without a header it is nothing.
            let erased = file
                .write_all_at(&[0; GROUP_HEADER_BYTES], self.offset)
                .and_then(|()| file.sync());
            return Err(match erased {
                Ok(()) => Append::NotWritten(error),
                Err(_) => Append::FateUnknown(error),
            });
        }
        file.sync().map_err(Append::FateUnknown)?;
        self.offset += group.len() as u64;
        self.next_sequence += u64::from(changes);
        Ok(())
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
