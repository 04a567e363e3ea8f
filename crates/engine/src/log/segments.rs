//! The segments that are kept, and reading groups from them.

use super::{FilesToRead, JournalEnd, LoggedGroup};
use crate::{
    Disk, OpenError, Settings,
    disk::{DiskFile, read_full_at},
    files::segment_name,
    format::{self, DATA_OFFSET, HEADER_BYTES, SegmentHeader},
};
use std::{collections::VecDeque, io, sync::Arc};

/// How many bytes of a segment are read at a time. If a group is longer, it is read whole.
const PIECE_BYTES: usize = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// A segment that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptSegment {
    pub(crate) header: SegmentHeader,
    /// The sequence number of its first entry, which may not have been written yet.
    pub(crate) first_sequence: u64,
    /// When its first group was committed, in microseconds since 1970; 0 if it has none.
    pub(crate) first_at: u64,
    /// About how many bytes of groups it has. A segment that existed at the start is assumed to be
    /// full.
    pub(crate) bytes: u64,
}

/// Where a group begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    number: u64,
    offset: u64,
}

/// Consecutive groups.
#[derive(Default)]
pub(crate) struct Groups {
    pub(crate) list: Vec<Arc<LoggedGroup>>,
    /// The bytes of their entries.
    pub(crate) bytes: usize,
    /// Whether they were read from the disk.
    pub(crate) are_old: bool,
    /// Where each group begins, if they were read from the disk.
    places: Vec<Place>,
}

impl Groups {
    pub(crate) fn push(&mut self, group: Arc<LoggedGroup>) {
        self.bytes += group.payload.len();
        self.list.push(group);
    }

    /// Returns where the group with this entry begins, if it was read from the disk.
    pub(crate) fn place_of(&self, sequence: u64) -> Option<Place> {
        let index = (self.list).partition_point(|group| group.next_sequence() <= sequence);
        self.places.get(index).copied()
    }
}

/// What is held for a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// The first entry that is not copied.
    pub(crate) from: u64,
    /// The hold ends when the journal takes more than this many bytes.
    pub(crate) bytes_max: u64,
}

/// How much is kept for readers of changes and for the archive.
pub(crate) struct Retention {
    segment_bytes: u64,
    bytes: u64,
    microseconds: u64,
    held_bytes: u64,
}

/// Returns what is held until the archiver has reported its position: everything, if there is an
/// archive.
pub(crate) fn held_at_first(settings: &Settings) -> Option<u64> {
    (settings.held_bytes_max > 0).then_some(0)
}

impl Retention {
    pub(crate) fn new(settings: &Settings) -> Self {
        let hours = u64::from(settings.changes_retention_hours);
        Self {
            segment_bytes: settings.segment_bytes,
            bytes: settings.changes_retention_bytes,
            microseconds: hours.saturating_mul(3_600_000_000),
            held_bytes: settings.held_bytes_max,
        }
    }

    /// Returns the hold of an archive that has everything before this entry.
    pub(crate) const fn archived(&self, from: u64) -> Held {
        Held {
            from,
            bytes_max: self.held_bytes,
        }
    }

    /// Drops the oldest segments: those that a restart, which begins in segment `needed`, does not
    /// need, and that are too old or exceed the size limit. A segment that is `held` is kept until
    /// the journal exceeds the hold's own limit. Returns the number of the first segment that is
    /// kept.
    pub(crate) fn release(
        &self,
        segments: &mut VecDeque<KeptSegment>,
        needed: u64,
        now: u64,
        held: &[Held],
    ) -> u64 {
        while let (Some(first), Some(second)) = (segments.front(), segments.get(1)) {
            let bytes = self.segment_bytes.saturating_mul(segments.len() as u64);
            // All of the first segment was committed before the second one began.
            let age = now.saturating_sub(second.first_at);
            let is_old = second.first_at > 0 && age >= self.microseconds;
            let is_held = held
                .iter()
                .any(|held| held.from < second.first_sequence && bytes <= held.bytes_max);
            if first.header.number >= needed || is_held || !(is_old || bytes > self.bytes) {
                break;
            }
            segments.pop_front();
        }
        let first = segments.front().map(|first| first.header.number);
        first.map_or(needed, |first| first.min(needed))
    }
}

/// Drops the oldest segments in the same way before there is a log.
pub(crate) fn release(
    segments: &mut VecDeque<KeptSegment>,
    needed: u64,
    now: u64,
    settings: &Settings,
) {
    let retention = Retention::new(settings);
    let held = held_at_first(settings).map(|from| retention.archived(from));
    retention.release(segments, needed, now, held.as_slice());
}

/// Returns the segments that can be read, without gaps, up to the last one, `last`, whose next
/// entry is `next_sequence`. They do not reach back beyond a segment with which the journal begins
/// anew, nor to one that cannot be read, because a restart needs none of those.
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
                tracing::warn!(%error, file, "older changes cannot be read and are dropped");
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
        bytes: 0,
    }))
}

/// Reads groups from the one with the entry `first` on, until they have `bytes_max` bytes or the
/// entry `end` comes, which is not durable. `place` is where the first group begins, if that is
/// known. Returns also the place after the last group.
pub(crate) fn read_groups(
    files: &dyn FilesToRead,
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
        let (offset, piece_bytes) = match start {
            Some(place) if place.number > number => continue,
            Some(place) => {
                start = None;
                // No other groups have to be skipped before it.
                (place.offset, bytes_max.min(PIECE_BYTES))
            }
            None => (DATA_OFFSET, PIECE_BYTES),
        };
        let file = files.open(&segment_name(number))?;
        let mut reader = Pieces::new(&*file, segment.header, offset, piece_bytes);
        while wanted < end && groups.bytes < bytes_max {
            let Some((group, bytes)) = reader.next(wanted)? else {
                break;
            };
            let next = group.next_sequence();
            // What comes after `end` may not be durable.
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
            let offset = reader.offset;
            reader.offset += bytes;
            if next > wanted {
                wanted = next;
                groups.push(Arc::new(group));
                groups.places.push(Place { number, offset });
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

/// Reads every group that is kept, up to the end of the journal. Each must follow from the one
/// before it, and `is_readable` must accept its entries.
pub(crate) fn check_kept(
    files: &dyn FilesToRead,
    segments: &[KeptSegment],
    end: JournalEnd,
    is_readable: impl Fn(&LoggedGroup) -> bool,
) -> Result<(), OpenError> {
    let Some(oldest) = segments.first() else {
        return Ok(());
    };
    let (mut next, mut place, mut chain) = (oldest.first_sequence, None, None);
    let damaged = |place: Option<Place>, defect: String| {
        let place = place.map_or((oldest.header.number, DATA_OFFSET), |it| {
            (it.number, it.offset)
        });
        OpenError::Damaged {
            file: segment_name(place.0),
            offset: place.1,
            defect,
        }
    };
    while next < end.next_sequence {
        let read = read_groups(files, segments, place, next, end.next_sequence, PIECE_BYTES);
        let (groups, after) = read.map_err(|error| damaged(place, error.to_string()))?;
        for group in &groups.list {
            let first = group.first_sequence;
            if chain.is_some_and(|chain| chain != group.chain) {
                let defect =
                    format!("the group of entry {first} does not follow from what is before it");
                return Err(damaged(place, defect));
            }
            if !is_readable(group) {
                return Err(damaged(
                    place,
                    format!("the group of entry {first} has no valid entries"),
                ));
            }
            chain = Some(group.next_chain());
            next = group.next_sequence();
        }
        place = after;
    }
    if chain.is_some_and(|chain| chain != end.chain) {
        return Err(damaged(
            place,
            "its last group is not the one that a start reads".into(),
        ));
    }
    Ok(())
}

/// A segment that is read in pieces.
struct Pieces<'a> {
    file: &'a dyn DiskFile,
    header: SegmentHeader,
    /// The offset of the next group.
    offset: u64,
    piece: Vec<u8>,
    piece_bytes: usize,
    /// The offset of the piece.
    piece_at: u64,
}

impl<'a> Pieces<'a> {
    fn new(file: &'a dyn DiskFile, header: SegmentHeader, offset: u64, piece_bytes: usize) -> Self {
        Self {
            file,
            header,
            offset,
            piece: Vec::new(),
            piece_bytes,
            piece_at: offset,
        }
    }

    /// Returns the next group with this entry or a later one, and how many bytes it occupies. Skips
    /// the groups before it. Returns `None` if there is no readable one.
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
                    chain: group.stamp.chain,
                    payload: group.payload.into(),
                };
                (logged, group.bytes)
            }));
        }
    }

    /// Returns `length` bytes at the offset, or fewer at the end of the file.
    fn bytes(&mut self, length: usize) -> io::Result<&[u8]> {
        let end = self.piece_at + self.piece.len() as u64;
        if self.offset < self.piece_at || self.offset + length as u64 > end {
            self.piece.resize(length.max(self.piece_bytes), 0);
            let read = read_full_at(self.file, &mut self.piece, self.offset)?;
            self.piece.truncate(read);
            self.piece_at = self.offset;
        }
        let start = usize::try_from(self.offset - self.piece_at).unwrap_or(usize::MAX);
        let rest = self.piece.get(start..).unwrap_or_default();
        Ok(&rest[..length.min(rest.len())])
    }
}
