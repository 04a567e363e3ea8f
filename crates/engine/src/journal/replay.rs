//! Reading the journal at a start: every group from the checkpoint on, and where the journal ends.
//!
//! A thread reads and checks bounded pieces; the caller's thread applies what it gets from it.
//!
//! A group is written only after the previous group is durable. So only the last group can be torn,
//! and only the last readable one may not be durable yet: after a crash of the process or a failed
//! sync, it may exist only in the operating system's memory. It is written again and synced before
//! anything depends on it.

use super::{Position, Segment};
use crate::{
    disk::{Disk, DiskFile, read_full_at},
    error::OpenError,
    files::segment_name,
    format::{
        self, DATA_OFFSET, Entries, EntryDefect, GROUP_ALIGNMENT, GROUP_HEADER_BYTES, Group,
        HEADER_BYTES, Happened, SegmentHeader,
    },
    retries::{Kept, Outcome, Retries},
    state::State,
};
use std::{ops::Range, panic, sync::mpsc, thread};

/// How many bytes of the journal are read at a time. If a group is longer, it is read whole.
const READ_BYTES: usize = 4 << 20;
const _: () = assert!((READ_BYTES as u64).is_multiple_of(GROUP_ALIGNMENT));

/// Zeros, with which a block is compared at a time.
const ZEROS: [u8; 4096] = [0; 4096];

/// A torn group is overwritten with zeros in pieces of this many bytes.
const ZERO_BYTES: usize = 4096;

/// How many pieces may wait to be applied.
const PIECES_AHEAD: usize = 4;

/// The end of the journal, where it continues.
pub(crate) struct End<F> {
    /// The segment that is written next.
    pub(crate) segment: Segment<F>,
    /// The offset of the next group in the segment.
    pub(crate) offset: u64,
    /// The sequence number of the next entry.
    pub(crate) next_sequence: u64,
    /// When the last group was committed, in microseconds since 1970.
    pub(crate) at: u64,
    /// The running hash over all groups.
    pub(crate) chain: u64,
    /// Whether the journal ends with a seal, or has no groups.
    pub(crate) is_sealed: bool,
    /// The position before the seals that the journal ends with.
    pub(crate) before_seals: Position,
    /// The bytes of the groups that were replayed.
    pub(crate) replayed_bytes: u64,
}

impl<F> End<F> {
    /// Continues with this sequence number, after changes that are in no group. The chain changes,
    /// so that a journal with these changes is never taken for one without them.
    pub(crate) fn skip_to(&mut self, next_sequence: u64) {
        self.chain = format::skipped_chain(self.chain, next_sequence);
        self.next_sequence = next_sequence;
    }
}

/// Where the replay begins: at the beginning of the newest checkpoint, or of the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The store that the segments must belong to; `None` if there are none of version 2 yet.
    pub(crate) store: Option<u64>,
    /// The first entry that must be replayed.
    pub(crate) first_sequence: u64,
    /// When the last group before it was committed, in microseconds since 1970.
    pub(crate) at: u64,
    /// The running hash over all groups before it.
    pub(crate) chain: u64,
}

/// What is restored from a checkpoint and the journal.
pub(crate) struct Replayed<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) retries: &'a mut Retries,
}

/// Replays the entries from `start` on. `segments` are the numbers of all segments from the one
/// that contains `start`. With one thread, the caller's thread does everything.
pub(crate) fn replay<D: Disk>(
    disk: &D,
    segments: Range<u64>,
    start: Start,
    mut replayed: Replayed<'_>,
    threads: usize,
) -> Result<End<D::File>, OpenError> {
    let mut reached = Reached::new(segments.start, start);
    let (applied, read) = if threads == 1 {
        let mut applied = Ok(());
        let read = read(disk, segments.clone(), &mut reached, |piece| {
            applied = piece.apply(&mut replayed);
            applied.is_ok()
        });
        (applied, read)
    } else {
        let (pieces, to_apply) = mpsc::sync_channel(PIECES_AHEAD);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                // Drops the sender when the reader ends, which ends the applying.
                let pieces = pieces;
                let hand_over = |piece| pieces.send(piece).is_ok();
                read(disk, segments.clone(), &mut reached, hand_over)
            });
            let applied = to_apply
                .iter()
                .try_for_each(|piece: Piece| piece.apply(&mut replayed));
            // If applying failed, the reader must not wait for room in the channel.
            drop(to_apply);
            let read = reader
                .join()
                .unwrap_or_else(|cause| panic::resume_unwind(cause));
            (applied, read)
        })
    };
    applied.and(read)?;
    let segment = SegmentReader::open(disk, reached.segment, start.store)?;
    segment.settle(&reached)?;
    let sync_directory = || {
        let synced = disk.sync_directory();
        synced.map_err(OpenError::io("syncing the data directory"))
    };
    // These segments were prepared before the crash and never used; a new one is prepared when it
    // is needed. The last one is removed first, durably, so that a failure in between leaves no
    // gap, which would be damage.
    for unused in (reached.segment + 1..segments.end).rev() {
        let name = segment_name(unused);
        disk.remove(&name)
            .map_err(OpenError::io(format!("removing {name}")))?;
        sync_directory()?;
    }
    // Also makes a rename durable that happened immediately before the crash.
    sync_directory()?;
    Ok(End {
        segment: Segment {
            header: segment.header,
            file: segment.file,
        },
        offset: reached.offset,
        next_sequence: reached.next_sequence.unwrap_or(start.first_sequence)
            - u64::from(planted!(SequenceReused)),
        at: reached.at,
        chain: reached.chain.unwrap_or(start.chain),
        is_sealed: reached.is_sealed,
        before_seals: reached.before_seals,
        replayed_bytes: reached.replayed_bytes,
    })
}

/// Returns the header of this segment if nothing was ever written after it. If something was
/// written that is no group, the segment is damaged.
pub(crate) fn unused<D: Disk>(disk: &D, number: u64) -> Result<Option<SegmentHeader>, OpenError> {
    let segment = SegmentReader::open_any(disk, number)?;
    for offset in (DATA_OFFSET..).step_by(READ_BYTES) {
        let bytes = segment.read(offset, READ_BYTES)?;
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            if segment.header.version == 1 || segment.is_group_at(DATA_OFFSET)? {
                return Ok(None);
            }
            let defect = "there is no group of changes, and something else is".into();
            return Err(segment.damaged(offset + at as u64, defect));
        }
        if bytes.len() < READ_BYTES {
            break;
        }
    }
    Ok(Some(segment.header))
}

/// How far the reader has come.
struct Reached {
    start: Start,
    /// None before the first group.
    next_sequence: Option<u64>,
    /// The running hash over all groups so far. None before the first group, because the segment in
    /// which a checkpoint began has groups from before the checkpoint.
    chain: Option<u64>,
    /// When the last group was committed; before the first group, when the one before it was.
    at: u64,
    /// The segment of the last group, or the first segment.
    segment: u64,
    /// The end of the last group in it.
    offset: u64,
    /// Whether the last group is a seal, or there is none.
    is_sealed: bool,
    /// The position after the last replayed group that is not a seal, or where the replay begins.
    before_seals: Position,
    /// The bytes of the last group.
    last_group_bytes: u64,
    /// There are only zeros from this offset on. What is before it, from `offset` on, was left by a
    /// torn group.
    rest_end: u64,
    replayed_bytes: u64,
}

impl Reached {
    fn new(segment: u64, start: Start) -> Self {
        Self {
            start,
            next_sequence: None,
            chain: None,
            at: start.at,
            segment,
            offset: DATA_OFFSET,
            is_sealed: true,
            before_seals: Position {
                store: start.store.unwrap_or_default(),
                segment,
                next_sequence: start.first_sequence,
                at: start.at,
                chain: start.chain,
            },
            last_group_bytes: 0,
            rest_end: DATA_OFFSET,
            replayed_bytes: 0,
        }
    }

    /// Accepts the next group. Returns whether it must be replayed, or what is wrong with it.
    fn accept(&mut self, group: &Group<'_>, segment: &SegmentHeader) -> Result<bool, String> {
        let first = self.start.first_sequence;
        let stamp = group.stamp;
        let follows = match self.next_sequence {
            Some(next) => stamp.first_sequence == next,
            // The segment in which a checkpoint began has groups from before the checkpoint.
            None => stamp.first_sequence <= first,
        };
        if !follows {
            let missing = self.next_sequence.unwrap_or(first);
            return Err(format!(
                "change {missing} is missing, {} follows",
                stamp.first_sequence
            ));
        }
        if segment.version > 1 {
            let begins = (stamp.first_sequence == first).then_some(self.start.chain);
            let expected = [self.chain, begins];
            if expected.iter().flatten().any(|&chain| chain != stamp.chain) {
                return Err(format!(
                    "the group of change {} does not follow from what is before it",
                    stamp.first_sequence
                ));
            }
            self.chain = Some(group.next_chain);
        }
        let next = group.next_sequence();
        self.next_sequence = Some(next);
        self.last_group_bytes = group.bytes;
        self.is_sealed = format::is_seal(group.payload);
        self.at = self.at.max(stamp.at);
        let replayed = next > first;
        if replayed {
            self.replayed_bytes += group.bytes;
        }
        if replayed && !self.is_sealed {
            self.before_seals = Position {
                segment: segment.number,
                next_sequence: next,
                at: self.at,
                chain: group.next_chain,
                ..self.before_seals
            };
        }
        Ok(replayed)
    }
}

/// Reads all segments and hands over their groups until `hand_over` returns false.
fn read<D: Disk>(
    disk: &D,
    segments: Range<u64>,
    reached: &mut Reached,
    mut hand_over: impl FnMut(Piece) -> bool,
) -> Result<(), OpenError> {
    for number in segments {
        let segment = SegmentReader::open(disk, number, reached.start.store)?;
        let before = reached.next_sequence;
        let mut offset = DATA_OFFSET;
        while let Some((piece, end)) = segment.piece(offset, reached)? {
            offset = end;
            if !hand_over(piece) {
                return Ok(());
            }
        }
        let rest_end = segment.check_rest(offset)?;
        // A segment without groups was prepared and not used; the journal ended before it.
        if reached.segment == number || reached.next_sequence > before {
            reached.segment = number;
            reached.offset = offset;
            reached.rest_end = rest_end;
        }
    }
    Ok(())
}

/// Some groups of a segment, checked.
struct Piece {
    segment: String,
    /// The piece's offset in the segment.
    offset: u64,
    bytes: Vec<u8>,
    /// The groups that must be replayed.
    groups: Vec<PlacedGroup>,
}

/// A group in a piece.
struct PlacedGroup {
    /// The range of its entries in the piece.
    payload: Range<usize>,
    first_sequence: u64,
    entries: u32,
    at: u64,
}

impl Piece {
    fn apply(self, replayed: &mut Replayed<'_>) -> Result<(), OpenError> {
        for group in self.groups {
            let at_seconds = seconds(group.at);
            let offset = self.offset + group.payload.start as u64;
            let damaged = |defect: String| OpenError::Damaged {
                file: self.segment.clone(),
                offset,
                defect,
            };
            let mut entries = Entries::new(&self.bytes[group.payload]);
            let sequences = group.first_sequence..group.first_sequence + u64::from(group.entries);
            for sequence in sequences {
                let entry = entries.read().map_err(|defect| match defect {
                    EntryDefect::Invalid => damaged(
                        "a checksum is right, but what it covers is not a valid change".into(),
                    ),
                    EntryDefect::UnknownKind(kind) => OpenError::UnknownKind {
                        file: self.segment.clone(),
                        offset,
                        kind,
                    },
                })?;
                let outcome = match entry.happened {
                    Happened::Change(change) => {
                        replayed.state.replay(&change);
                        Outcome::Accepted
                    }
                    Happened::Refusal(outcome) => outcome,
                    Happened::Seal => continue,
                    Happened::Holder(member) => {
                        if !planted!(HolderForgotten) {
                            replayed.state.replay_record(member, sequence + 1);
                        }
                        continue;
                    }
                };
                if let Some(keyed) = entry.keyed {
                    replayed.retries.insert(Kept {
                        keyed,
                        at_seconds,
                        outcome,
                    });
                }
            }
            if !entries.is_empty() {
                return Err(damaged(format!(
                    "more than {} changes follow",
                    group.entries
                )));
            }
            replayed.retries.settle(at_seconds);
        }
        Ok(())
    }
}

/// Converts a time in microseconds to whole seconds.
pub(crate) fn seconds(microseconds: u64) -> u32 {
    u32::try_from(microseconds / 1_000_000).unwrap_or(u32::MAX)
}

/// A segment as recovery reads it.
struct SegmentReader<F> {
    name: String,
    file: F,
    header: SegmentHeader,
}

impl<F: DiskFile> SegmentReader<F> {
    /// Opens a segment, which must belong to this store.
    fn open<D: Disk<File = F>>(
        disk: &D,
        number: u64,
        store: Option<u64>,
    ) -> Result<Self, OpenError> {
        let segment = Self::open_any(disk, number)?;
        if segment.header.version > 1 {
            OpenError::check_store(&segment.name, segment.header.store, store)?;
        }
        Ok(segment)
    }

    /// Opens a segment of any store.
    fn open_any<D: Disk<File = F>>(disk: &D, number: u64) -> Result<Self, OpenError> {
        let name = segment_name(number);
        let file = disk
            .open(&name)
            .map_err(OpenError::io(format!("opening {name}")))?;
        let mut bytes = vec![0; HEADER_BYTES];
        let length =
            read_full_at(&file, &mut bytes, 0).map_err(OpenError::io(format!("reading {name}")))?;
        let header = SegmentHeader::decode(&bytes[..length])
            .map_err(|defect| OpenError::header(&name, defect))?;
        if header.number != number {
            return Err(OpenError::Damaged {
                file: name,
                offset: 0,
                defect: format!("its header is that of {}", segment_name(header.number)),
            });
        }
        Ok(Self { name, file, header })
    }

    /// Reads consecutive groups from `offset`, as many as fit into a piece. Returns them and where
    /// they end.
    fn piece(&self, offset: u64, reached: &mut Reached) -> Result<Option<(Piece, u64)>, OpenError> {
        let mut bytes = self.read(offset, READ_BYTES)?;
        if bytes.len() == READ_BYTES
            && let Some(claimed) = format::group_bytes_claimed(&bytes, &self.header)
            && let Ok(claimed) = usize::try_from(claimed)
            && claimed > READ_BYTES
        {
            bytes = self.read(offset, claimed)?;
        }
        let (mut end, mut groups) = (0, Vec::new());
        while let Some(group) = bytes
            .get(end..)
            .and_then(|rest| format::read_group(rest, &self.header))
        {
            let replayed = reached.accept(&group, &self.header).map_err(|defect| {
                // If a group is missing before a segment's first group, it was in the previous
                // segment: at its end or, if that one seems to have no groups, from its beginning
                // on.
                if offset + end as u64 == DATA_OFFSET && self.header.number != reached.segment {
                    let before = self.header.number - 1;
                    let ended_there = before == reached.segment;
                    OpenError::Damaged {
                        file: segment_name(before),
                        offset: if ended_there {
                            reached.offset
                        } else {
                            DATA_OFFSET
                        },
                        defect: format!("{defect} in {}", self.name),
                    }
                } else {
                    self.damaged(offset + end as u64, defect)
                }
            })?;
            if replayed {
                let start = end + self.header.group_header_bytes();
                groups.push(PlacedGroup {
                    payload: start..start + group.payload.len(),
                    first_sequence: group.stamp.first_sequence,
                    entries: group.entries,
                    at: group.stamp.at,
                });
            }
            end += usize::try_from(group.bytes).unwrap_or(usize::MAX);
        }
        let piece = Piece {
            segment: self.name.clone(),
            offset,
            bytes,
            groups,
        };
        Ok((end > 0).then_some((piece, offset + end as u64)))
    }

    /// Checks that no readable group follows `offset`, where the last one ended. If one does, what
    /// is between them was acknowledged and is damaged; if none does, the rest is a torn tail.
    /// Returns where the zeros begin.
    fn check_rest(&self, offset: u64) -> Result<u64, OpenError> {
        let salt = self.header.salt.to_le_bytes();
        let (mut start, mut rest_end) = (offset, offset);
        loop {
            let bytes = self.read(start, READ_BYTES)?;
            // Mostly everything is zero, and comparing word by word would take many times as long.
            let is_empty = |piece: &[u8]| *piece == ZEROS[..piece.len()];
            let words = if bytes.chunks(ZEROS.len()).all(is_empty) {
                &[][..]
            } else {
                &bytes[..]
            };
            for (word, at) in words.chunks(salt.len()).zip((start..).step_by(salt.len())) {
                if word.iter().all(|&byte| byte == 0) {
                    continue;
                }
                rest_end = at + word.len() as u64;
                let follows = word == salt && at > offset && !planted!(DamageTakenForTornTail);
                if follows && self.is_group_at(at)? {
                    let defect = format!("a group of changes is not readable, but one at {at} is");
                    return Err(self.damaged(offset, defect));
                }
            }
            if bytes.len() < READ_BYTES {
                return Ok(rest_end);
            }
            start += READ_BYTES as u64;
        }
    }

    fn is_group_at(&self, offset: u64) -> Result<bool, OpenError> {
        let header = self.read(offset, GROUP_HEADER_BYTES)?;
        let Some(claimed) = format::group_bytes_claimed(&header, &self.header) else {
            return Ok(false);
        };
        let bytes = self.read(offset, usize::try_from(claimed).unwrap_or(usize::MAX))?;
        Ok(format::read_group(&bytes, &self.header).is_some())
    }

    /// Makes the last replayed group durable, and overwrites with zeros what a torn group left.
    fn settle(&self, reached: &Reached) -> Result<(), OpenError> {
        let settling = |what| OpenError::io(format!("{what} {} at {}", self.name, reached.offset));
        let last = reached.offset - reached.last_group_bytes;
        let last_group = self.read(
            last,
            usize::try_from(reached.last_group_bytes).unwrap_or(usize::MAX),
        )?;
        self.file
            .write_all_at(&last_group, last)
            .map_err(settling("writing"))?;
        let torn = reached.offset..reached.rest_end;
        if !torn.is_empty() {
            tracing::warn!(
                file = self.name,
                offset = torn.start,
                bytes = torn.end - torn.start,
                "cut off an unfinished group"
            );
        }
        let zeros = [0; ZERO_BYTES];
        for at in torn.clone().step_by(ZERO_BYTES) {
            let length = usize::try_from(torn.end - at).unwrap_or(usize::MAX);
            self.file
                .write_all_at(&zeros[..length.min(ZERO_BYTES)], at)
                .map_err(settling("cutting"))?;
        }
        self.file.sync().map_err(settling("syncing"))
    }

    /// Reads `length` bytes at `offset`, or fewer at the end of the file.
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; length];
        let length = read_full_at(&self.file, &mut bytes, offset)
            .map_err(OpenError::io(format!("reading {}", self.name)))?;
        bytes.truncate(length);
        Ok(bytes)
    }

    fn damaged(&self, offset: u64, defect: String) -> OpenError {
        OpenError::Damaged {
            file: self.name.clone(),
            offset,
            defect,
        }
    }
}
