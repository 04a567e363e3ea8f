//! Segments of the journal: their header, and the groups of changes in them.

use super::{FORMAT_VERSION, HeaderDefect, Reader, change::CHANGE_BYTES_MAX, check_header};

/// Groups begin at multiples of this.
pub(crate) const GROUP_ALIGNMENT: u64 = 8;

/// The header of a group of changes.
pub(crate) const GROUP_HEADER_BYTES: usize = 32;

/// A group has at most so many changes.
pub(crate) const GROUP_CHANGES_MAX: usize = 1 << 16;

/// No group is longer: what a reader takes on trust, before it has seen the checksum.
pub(crate) const GROUP_BYTES_MAX: u64 = group_bytes(GROUP_CHANGES_MAX * CHANGE_BYTES_MAX);

const SEGMENT_MAGIC: [u8; 8] = *b"WIDGSEGM";
const SEGMENT_HEADER_BYTES: usize = 32;

/// What a group with so many bytes of changes takes in a segment.
pub(crate) const fn group_bytes(payload_bytes: usize) -> u64 {
    ((GROUP_HEADER_BYTES + payload_bytes) as u64).next_multiple_of(GROUP_ALIGNMENT)
}

/// What identifies a segment of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Segments are numbered from 1, without gaps.
    pub(crate) number: u64,
    /// Random, and in front of every group of this segment: text that a client sent, or what an
    /// older file left behind, cannot be taken for a group.
    pub(crate) salt: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..28].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc32fast::hash(&out[..28]);
        out[28..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header; the error says what is wrong with it.
    pub(crate) fn decode(file: &[u8]) -> Result<Self, HeaderDefect> {
        let header = file
            .get(..SEGMENT_HEADER_BYTES)
            .ok_or(HeaderDefect::Damaged)?;
        check_header(header, SEGMENT_MAGIC)?;
        let mut reader = Reader::new(&header[12..]);
        match (reader.u64(), reader.u64()) {
            (Some(number), Some(salt)) => Ok(Self { number, salt }),
            _ => Err(HeaderDefect::Damaged),
        }
    }
}

/// The changes of one batch, made durable together.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// The sequence number of its first change.
    pub(crate) first_sequence: u64,
    /// How many changes.
    pub(crate) changes: u32,
    /// The changes, one after the other.
    pub(crate) payload: &'a [u8],
    /// How many bytes it takes in the segment, padding included.
    pub(crate) bytes: u64,
}

/// Completes a group in place: `group` is [`GROUP_HEADER_BYTES`] of room and then the changes.
/// Afterwards it is padded to [`GROUP_ALIGNMENT`] and ready to be written.
pub(crate) fn seal_group(group: &mut Vec<u8>, salt: u64, first_sequence: u64, changes: u32) {
    let Ok(payload_bytes) = u32::try_from(group.len() - GROUP_HEADER_BYTES) else {
        unreachable!("a group fits in a segment, which has less than 4 GiB")
    };
    group[..8].copy_from_slice(&salt.to_le_bytes());
    group[8..16].copy_from_slice(&first_sequence.to_le_bytes());
    group[16..20].copy_from_slice(&payload_bytes.to_le_bytes());
    group[20..24].copy_from_slice(&changes.to_le_bytes());
    group[24..28].fill(0);
    let checksum = group_checksum(&group[..28], &group[GROUP_HEADER_BYTES..]);
    group[28..32].copy_from_slice(&checksum.to_le_bytes());
    let alignment = usize::try_from(GROUP_ALIGNMENT).unwrap_or(1);
    group.resize(group.len().next_multiple_of(alignment), 0);
}

/// How many bytes the group takes whose header begins `bytes`, if its header and length are such as
/// this segment can have: so much must be read before its checksum can tell.
pub(crate) fn group_bytes_claimed(bytes: &[u8], salt: u64) -> Option<u64> {
    let mut reader = Reader::new(bytes.get(..GROUP_HEADER_BYTES)?);
    if reader.u64()? != salt {
        return None;
    }
    reader.take(8)?;
    let claimed = group_bytes(usize::try_from(reader.u32()?).ok()?);
    (claimed <= GROUP_BYTES_MAX).then_some(claimed)
}

/// The whole group at the start of `bytes`, if there is one of this segment.
pub(crate) fn read_group(bytes: &[u8], salt: u64) -> Option<Group<'_>> {
    let mut reader = Reader::new(bytes);
    let header = reader.take(GROUP_HEADER_BYTES)?;
    let mut fields = Reader::new(header);
    if fields.u64()? != salt {
        return None;
    }
    let first_sequence = fields.u64()?;
    let payload_bytes = fields.u32()?;
    let changes = fields.u32()?;
    let payload = reader.take(usize::try_from(payload_bytes).ok()?)?;
    let checksum = Reader::new(&header[28..]).u32()?;
    if group_checksum(&header[..28], payload) != checksum && !planted!(GroupUnchecked) {
        return None;
    }
    Some(Group {
        first_sequence,
        changes,
        payload,
        bytes: group_bytes(payload.len()),
    })
}

fn group_checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_back_and_any_flipped_bit_shows() {
        let mut group = vec![0; GROUP_HEADER_BYTES];
        group.extend_from_slice(b"payload");
        seal_group(&mut group, 77, 5, 1);
        assert_eq!(group.len(), 40);
        let read = read_group(&group, 77).expect("a whole group");
        assert_eq!((read.first_sequence, read.changes, read.bytes), (5, 1, 40));
        assert_eq!(read.payload, b"payload");
        assert!(read_group(&group, 78).is_none(), "another segment's group");
        for bit in 0..(GROUP_HEADER_BYTES + 7) * 8 {
            let mut damaged = group.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read_group(&damaged, 77).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_version_is_named() {
        let header = SegmentHeader { number: 3, salt: 9 };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderDefect::Damaged));
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderDefect::Version(2)));
    }
}
