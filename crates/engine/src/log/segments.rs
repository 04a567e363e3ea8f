//! Segments that are kept, and reading groups out of them.

use super::{LoggedGroup, SegmentFiles};
use crate::{
    Disk, Settings,
    disk::{DiskFile, read_full_at},
    files::segment_name,
    format::{self, DATA_OFFSET, HEADER_BYTES, SegmentHeader},
};
use std::{collections::VecDeque, io, sync::Arc};

/// Segments are read in pieces of so many bytes, or of one group where that is longer.
const PIECE_BYTES: usize = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// A segment that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptSegment {
    pub(crate) header: SegmentHeader,
    /// The sequence number of its first entry, there or to come.
    pub(crate) first_sequence: u64,
    /// When its first group was committed; 0 while it has none.
    pub(crate) first_at: u64,
}

/// Where a group begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    number: u64,
    offset: u64,
}

/// Some groups, one after the other.
#[derive(Default)]
pub(crate) struct Groups {
    pub(crate) list: Vec<Arc<LoggedGroup>>,
    /// What their entries take.
    pub(crate) bytes: usize,
    /// They were read from the disk.
    pub(crate) are_old: bool,
}

impl Groups {
    pub(crate) fn push(&mut self, group: Arc<LoggedGroup>) {
        self.bytes += group.payload.len();
        self.list.push(group);
    }
}

/// What is kept for those who ask for changes.
pub(crate) struct Retention {
    segment_bytes: u64,
    bytes: u64,
    microseconds: u64,
}

impl Retention {
    pub(crate) fn new(settings: &Settings) -> Self {
        let hours = u64::from(settings.changes_retention_hours);
        Self {
            segment_bytes: settings.segment_bytes,
            bytes: settings.changes_retention_bytes,
            microseconds: hours.saturating_mul(3_600_000_000),
        }
    }

    /// Lets go of the oldest segments: those that a restart does not need, which begins in segment
    /// `needed`, and that are too old or too much. The number of the first that stays.
    pub(crate) fn release(
        &self,
        segments: &mut VecDeque<KeptSegment>,
        needed: u64,
        now: u64,
    ) -> u64 {
        while let (Some(first), Some(second)) = (segments.front(), segments.get(1)) {
            let bytes = self.segment_bytes.saturating_mul(segments.len() as u64);
            // All of the first was committed before the second began.
            let age = now.saturating_sub(second.first_at);
            let is_old = second.first_at > 0 && age >= self.microseconds;
            if first.header.number >= needed || !(is_old || bytes > self.bytes) {
                break;
            }
            segments.pop_front();
        }
        let first = segments.front().map(|first| first.header.number);
        first.map_or(needed, |first| first.min(needed))
    }
}

/// The same before there is a log.
pub(crate) fn release(
    segments: &mut VecDeque<KeptSegment>,
    needed: u64,
    now: u64,
    settings: &Settings,
) {
    Retention::new(settings).release(segments, needed, now);
}

/// The segments that can be read up to the last one, `last`, whose next entry is `next_sequence`: without
/// gaps, and not beyond one that the journal begins anew with. Those that cannot be read end it: a restart does
/// not need them.
pub(crate) fn retained<D: Disk>(
    disk: &D,
    numbers: &[u64],
    last: SegmentHeader,
    next_sequence: u64,
) -> VecDeque<KeptSegment> {
    let mut segments = VecDeque::new();
    let mut following = next_sequence;
    for number in (1..=last.number).rev() {
        if number < last.number && !numbers.contains(&number) {
            break;
        }
        let segment = match kept_segment(disk, number, last.store, following) {
            Ok(Some(segment)) => segment,
            Ok(None) => break,
            Err(error) => {
                let file = segment_name(number);
                tracing::warn!(%error, file, "older changes cannot be read and are let go");
                break;
            }
        };
        following = segment.first_sequence;
        segments.push_front(segment);
        if segment.header.origin != 0 {
            break;
        }
    }
    segments
}

fn kept_segment<D: Disk>(
    disk: &D,
    number: u64,
    store: u64,
    following: u64,
) -> io::Result<Option<KeptSegment>> {
    let file = disk.open_to_read(&segment_name(number))?;
    let mut bytes = vec![0; HEADER_BYTES + format::GROUP_HEADER_BYTES];
    let length = read_full_at(&file, &mut bytes, 0)?;
    let Ok(header) = SegmentHeader::decode(&bytes[..length]) else {
        return Err(io::Error::other("its header is damaged"));
    };
    if header.version == 1 || header.number != number || header.store != store {
        return Ok(None);
    }
    let group = bytes.get(HEADER_BYTES..length).unwrap_or_default();
    let stamp = format::peek_group(group, &header).map(|peeked| peeked.stamp);
    Ok(Some(KeptSegment {
        header,
        first_sequence: stamp.map_or(following, |stamp| stamp.first_sequence),
        first_at: stamp.map_or(0, |stamp| stamp.at),
    }))
}

/// Reads groups from the one that has the entry `first` on, until there are so many bytes or the entry
/// `end` comes, which is not durable. `place` is where that group begins, if somebody knows. Gives the
/// place after the last one.
pub(crate) fn read_groups(
    files: &dyn SegmentFiles,
    segments: &[KeptSegment],
    place: Option<Place>,
    first: u64,
    end: u64,
    bytes_max: usize,
) -> io::Result<(Groups, Option<Place>)> {
    let mut groups = Groups {
        are_old: true,
        ..Groups::default()
    };
    let mut wanted = first;
    let mut start = place.filter(|place| {
        let segment = segments.iter().find(|it| it.header.number == place.number);
        segment.is_some_and(|segment| segment.first_sequence <= first)
    });
    for segment in segments {
        let number = segment.header.number;
        let offset = match start {
            Some(place) if place.number > number => continue,
            Some(place) => {
                start = None;
                place.offset
            }
            None => DATA_OFFSET,
        };
        let file = files.open(number)?;
        let mut reader = Pieces::new(&*file, segment.header, offset);
        while wanted < end && groups.bytes < bytes_max {
            let Some((group, bytes)) = reader.next(wanted)? else {
                break;
            };
            let next = group.first_sequence + u64::from(group.entries);
            // What comes after the watermark may not be durable.
            if next > end {
                break;
            }
            if group.first_sequence > wanted {
                return Err(io::Error::other(format!(
                    "change {wanted} is missing, {} follows in {}",
                    group.first_sequence,
                    segment_name(number)
                )));
            }
            reader.offset += bytes;
            if next > wanted {
                wanted = next;
                groups.push(Arc::new(group));
            }
        }
        if wanted >= end || groups.bytes >= bytes_max {
            let offset = reader.offset;
            return Ok((groups, Some(Place { number, offset })));
        }
    }
    Err(io::Error::other(format!(
        "change {wanted} cannot be read, the journal has those before {end}"
    )))
}

/// A segment that is read piece by piece.
struct Pieces<'a> {
    file: &'a dyn DiskFile,
    header: SegmentHeader,
    /// Where the next group begins.
    offset: u64,
    piece: Vec<u8>,
    /// Where the piece begins.
    piece_at: u64,
}

impl<'a> Pieces<'a> {
    fn new(file: &'a dyn DiskFile, header: SegmentHeader, offset: u64) -> Self {
        Self {
            file,
            header,
            offset,
            piece: Vec::new(),
            piece_at: offset,
        }
    }

    /// The next group that has this entry or a later one, and how many bytes it takes; `None` where no
    /// readable one is. Steps over those before it.
    fn next(&mut self, wanted: u64) -> io::Result<Option<(LoggedGroup, u64)>> {
        let segment = self.header;
        loop {
            let header = self.bytes(format::GROUP_HEADER_BYTES)?;
            let Some(peeked) = format::peek_group(header, &segment) else {
                return Ok(None);
            };
            if peeked.next_sequence() <= wanted {
                self.offset += peeked.bytes;
                continue;
            }
            let Ok(length) = usize::try_from(peeked.bytes) else {
                return Ok(None);
            };
            let group = format::read_group(self.bytes(length)?, &segment);
            return Ok(group.map(|group| {
                let logged = LoggedGroup {
                    first_sequence: group.stamp.first_sequence,
                    entries: group.entries,
                    at: group.stamp.at,
                    payload: group.payload.into(),
                };
                (logged, group.bytes)
            }));
        }
    }

    /// So many bytes at the offset, fewer at the end of the file.
    fn bytes(&mut self, length: usize) -> io::Result<&[u8]> {
        let end = self.piece_at + self.piece.len() as u64;
        if self.offset < self.piece_at || self.offset + length as u64 > end {
            self.piece.resize(length.max(PIECE_BYTES), 0);
            let read = read_full_at(self.file, &mut self.piece, self.offset)?;
            self.piece.truncate(read);
            self.piece_at = self.offset;
        }
        let start = usize::try_from(self.offset - self.piece_at).unwrap_or(usize::MAX);
        let rest = self.piece.get(start..).unwrap_or_default();
        Ok(&rest[..length.min(rest.len())])
    }
}
