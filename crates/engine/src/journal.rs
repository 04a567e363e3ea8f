//! The journal: groups of changes appended to segments, each group synced once.
//!
//! Owns the segment that is written to, and the sequence numbers. A segment is filled with zeros and
//! synced before its first use, so that a group's sync need not wait for the file system's own
//! journal: that costs about a third less than growing the file (`docs/decisions/0002`).
//!
//! A failed sync ends it: see [`Append::FateUnknown`].

use crate::{
    disk::{Disk, DiskFile, read_full_at},
    error::OpenError,
    format::{
        self, GROUP_ALIGNMENT, GROUP_HEADER_BYTES, Group, HeaderDefect, SEGMENT_DATA_OFFSET,
        SegmentHeader,
    },
    state::State,
};
use std::io;

/// Randomness for the salts of segments.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// What the name of a segment ends with until it is ready.
const UNFINISHED: &str = "_unfinished";

/// Zeros are written in pieces of so many bytes.
const ZERO_BYTES: usize = 1 << 20;

/// The end of the journal, where groups are appended.
pub(crate) struct Journal<D: Disk> {
    disk: D,
    random: Random,
    segment_bytes: u64,
    file: D::File,
    header: SegmentHeader,
    offset: u64,
    next_sequence: u64,
}

/// How an append failed.
#[derive(Debug)]
pub(crate) enum Append {
    /// Nothing of the group can ever be read: it is as if it had not been tried.
    NotWritten(io::Error),
    /// The group may or may not be durable, and no later sync can tell. Never append again.
    FateUnknown(io::Error),
}

fn segment_name(number: u64) -> String {
    format!("journal-{number:016x}")
}

impl<D: Disk> Journal<D> {
    /// Replays every segment into `state` and stands at the end of the last one.
    pub(crate) fn open(
        disk: D,
        mut random: Random,
        segment_bytes: u64,
        state: &mut State,
    ) -> Result<Self, OpenError> {
        let mut names = disk
            .list()
            .map_err(OpenError::io("listing the data directory"))?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            // A segment that was not finished, so nothing was ever written to it.
            disk.remove(name)
                .map_err(OpenError::io(format!("removing {name}")))?;
        }
        names.retain(|name| name.starts_with("journal-") && !name.ends_with(UNFINISHED));
        names.sort();
        for (number, name) in (1..).zip(&names) {
            if *name != segment_name(number) {
                let defect = format!(
                    "it should be {}: a segment is missing",
                    segment_name(number)
                );
                return Err(OpenError::Damaged {
                    file: name.clone(),
                    offset: 0,
                    defect,
                });
            }
        }
        if names.is_empty() {
            let header = SegmentHeader {
                number: 1,
                salt: random(),
            };
            let file = create_segment(&disk, header, segment_bytes)
                .map_err(OpenError::io("creating the first segment of the journal"))?;
            let offset = SEGMENT_DATA_OFFSET;
            return Ok(Self {
                disk,
                random,
                segment_bytes,
                file,
                header,
                offset,
                next_sequence: 1,
            });
        }
        let mut next_sequence = 1;
        let mut end = None;
        for name in &names {
            let segment = Segment::read(&disk, name)?;
            let before = next_sequence;
            let offset = segment.replay(state, &mut next_sequence)?;
            // The journal ended in an earlier segment: this one may only be empty or go on there.
            let goes_on = end.is_none() || next_sequence > before;
            segment.refuse_groups_after(offset)?;
            if goes_on {
                end = Some((segment, offset));
            }
        }
        let Some((segment, offset)) = end else {
            unreachable!("there is at least one segment")
        };
        segment.cut(offset)?;
        let Segment {
            file, header, name, ..
        } = segment;
        if let Some(empty) = names.last().filter(|last| **last != name) {
            // Made ready before the crash and never used: a new one is made when it is needed.
            disk.remove(empty)
                .map_err(OpenError::io(format!("removing {empty}")))?;
            disk.sync_directory()
                .map_err(OpenError::io("syncing the data directory"))?;
        }
        Ok(Self {
            disk,
            random,
            segment_bytes,
            file,
            header,
            offset,
            next_sequence,
        })
    }

    /// The sequence number of the next change.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Makes room for a group of so many bytes, in a new segment where this one is full.
    pub(crate) fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        if self.offset + bytes <= self.segment_bytes {
            return Ok(());
        }
        let header = SegmentHeader {
            number: self.header.number + 1,
            salt: (self.random)(),
        };
        self.file = create_segment(&self.disk, header, self.segment_bytes)?;
        self.header = header;
        self.offset = SEGMENT_DATA_OFFSET;
        Ok(())
    }

    /// Appends and syncs one group: [`GROUP_HEADER_BYTES`] of room, then `changes` changes.
    pub(crate) fn append(&mut self, group: &mut Vec<u8>, changes: u32) -> Result<(), Append> {
        format::seal_group(group, self.header.salt, self.next_sequence, changes);
        if let Err(error) = self.file.write_all_at(group, self.offset) {
            // Part of it may be written, even all of it: without a header it is nothing.
            let erased = self
                .file
                .write_all_at(&[0; GROUP_HEADER_BYTES], self.offset)
                .and_then(|()| self.file.sync());
            return Err(match erased {
                Ok(()) => Append::NotWritten(error),
                Err(_) => Append::FateUnknown(error),
            });
        }
        self.file.sync().map_err(Append::FateUnknown)?;
        self.offset += group.len() as u64;
        self.next_sequence += u64::from(changes);
        Ok(())
    }
}

/// A new segment, durable with its name, all zeros after the header.
fn create_segment<D: Disk>(disk: &D, header: SegmentHeader, bytes: u64) -> io::Result<D::File> {
    let name = segment_name(header.number);
    let unfinished = format!("{name}{UNFINISHED}");
    if disk.list()?.contains(&unfinished) {
        disk.remove(&unfinished)?;
    }
    let file = disk.create(&unfinished)?;
    let filled = fill(&file, header, bytes);
    if let Err(error) = filled {
        // Gives the space back; it is tried again when the next batch comes.
        disk.remove(&unfinished)?;
        return Err(error);
    }
    disk.rename(&unfinished, &name)?;
    disk.sync_directory()?;
    Ok(file)
}

fn fill(file: &impl DiskFile, header: SegmentHeader, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let piece = usize::try_from(bytes - offset).map_or(ZERO_BYTES, |left| left.min(ZERO_BYTES));
        file.write_all_at(&zeros[..piece], offset)?;
        offset += piece as u64;
    }
    file.write_all_at(&header.encode(), 0)?;
    file.sync()
}

/// A segment as recovery reads it.
struct Segment<F> {
    name: String,
    file: F,
    header: SegmentHeader,
    bytes: Vec<u8>,
}

impl<F: DiskFile> Segment<F> {
    fn read<D: Disk<File = F>>(disk: &D, name: &str) -> Result<Self, OpenError> {
        let file = disk
            .open(name)
            .map_err(OpenError::io(format!("opening {name}")))?;
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            bytes.resize(start + ZERO_BYTES, 0);
            let read = read_full_at(&file, &mut bytes[start..], start as u64)
                .map_err(OpenError::io(format!("reading {name}")))?;
            bytes.truncate(start + read);
            if read < ZERO_BYTES {
                break;
            }
        }
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) if segment_name(header.number) == name => header,
            Err(HeaderDefect::Version(found)) => {
                let supported = format::FORMAT_VERSION;
                return Err(OpenError::Version {
                    file: name.into(),
                    found,
                    supported,
                });
            }
            Ok(_) | Err(HeaderDefect::Damaged) => {
                let defect = "its header is not that of this segment".into();
                return Err(OpenError::Damaged {
                    file: name.into(),
                    offset: 0,
                    defect,
                });
            }
        };
        Ok(Self {
            name: name.into(),
            file,
            header,
            bytes,
        })
    }

    fn group_at(&self, offset: u64) -> Option<Group<'_>> {
        let bytes = self.bytes.get(usize::try_from(offset).ok()?..)?;
        format::read_group(bytes, self.header.salt)
    }

    /// Replays groups as long as they follow one another; says where they end.
    fn replay(&self, state: &mut State, next_sequence: &mut u64) -> Result<u64, OpenError> {
        let mut offset = SEGMENT_DATA_OFFSET;
        while let Some(group) = self.group_at(offset) {
            if group.first_sequence != *next_sequence {
                let defect = format!(
                    "change {next_sequence} is missing, {} follows",
                    group.first_sequence
                );
                return Err(self.damaged(offset, defect));
            }
            let mut reader = format::Reader::new(group.payload);
            for _ in 0..group.changes {
                let Some(change) = reader.change() else {
                    let defect = "its checksum is right, but it holds no valid change".into();
                    return Err(self.damaged(offset, defect));
                };
                state.replay(&change);
            }
            if !reader.is_empty() {
                let defect = format!("more than its {} changes follow", group.changes);
                return Err(self.damaged(offset, defect));
            }
            *next_sequence += u64::from(group.changes);
            offset += group.bytes;
        }
        Ok(offset)
    }

    /// A group is written only after the one before it was durable. So where one follows `offset`,
    /// what is at `offset` is no torn tail: it was answered, and is damaged now.
    fn refuse_groups_after(&self, offset: u64) -> Result<(), OpenError> {
        let mut later = offset + GROUP_ALIGNMENT;
        while later < self.bytes.len() as u64 {
            if self.group_at(later).is_some() {
                let defect = format!("a group of changes is not readable, one at {later} is");
                return Err(self.damaged(offset, defect));
            }
            later += GROUP_ALIGNMENT;
        }
        Ok(())
    }

    /// Zeroes what a crash left behind of a group that was never answered.
    fn cut(&self, offset: u64) -> Result<(), OpenError> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let Some(last) = self.bytes[start..].iter().rposition(|&byte| byte != 0) else {
            return Ok(());
        };
        tracing::warn!(
            file = self.name,
            offset,
            bytes = last + 1,
            "cut off an unfinished group"
        );
        self.file
            .write_all_at(&vec![0; last + 1], offset)
            .and_then(|()| self.file.sync())
            .map_err(OpenError::io(format!("cutting {} at {offset}", self.name)))
    }

    fn damaged(&self, offset: u64, defect: String) -> OpenError {
        OpenError::Damaged {
            file: self.name.clone(),
            offset,
            defect,
        }
    }
}
