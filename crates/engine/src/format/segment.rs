//! Segments of the journal: their header, and the groups of entries in them.

use super::{
    FORMAT_VERSION, HEADER_BYTES, HeaderDefect, Reader, check_header, entry::ENTRY_BYTES_MAX,
};
use siphasher::sip::SipHasher24;

/// Groups begin at multiples of this.
pub(crate) const GROUP_ALIGNMENT: u64 = 8;

/// The size of a group's header.
pub(crate) const GROUP_HEADER_BYTES: usize = 48;

/// The size of the salt, with which a group's header begins.
pub(crate) const GROUP_SALT_BYTES: usize = 8;

/// The size of a group's header in version 1.
const GROUP_HEADER_BYTES_1: usize = 32;

/// The most entries that a group can have.
pub(crate) const GROUP_ENTRIES_MAX: usize = 1 << 16;

/// The longest group. A reader allocates up to this much before it has checked the checksum.
const GROUP_BYTES_MAX: u64 = group_bytes(GROUP_ENTRIES_MAX * ENTRY_BYTES_MAX);

const SEGMENT_MAGIC: [u8; 8] = *b"WIDGSEGM";

/// The size of a segment's header in version 1.
const HEADER_BYTES_1: usize = 32;

/// Returns how many bytes a group with `payload_bytes` of entries occupies in a segment.
pub(crate) const fn group_bytes(payload_bytes: usize) -> u64 {
    padded(GROUP_HEADER_BYTES + payload_bytes)
}

const fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(GROUP_ALIGNMENT)
}

/// What identifies a segment of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The version of its layout. New files have [`FORMAT_VERSION`].
    pub(crate) version: u32,
    /// Its number. Segments are numbered from 1, without gaps.
    pub(crate) number: u64,
    /// A random number at the start of every group in this segment, so that neither text from a
    /// client nor what an older file left behind can be taken for a group.
    pub(crate) salt: u64,
    /// The store that it belongs to; 0 in version 1.
    pub(crate) store: u64,
    /// If the journal begins anew in this segment, the sequence number of its first entry: older
    /// segments then do not contain the history before it. 0 if this segment continues the previous
    /// one.
    pub(crate) origin: u64,
}

impl SegmentHeader {
    /// Returns the header of a segment that continues the previous one.
    pub(crate) fn new(store: u64, number: u64, salt: u64) -> Self {
        Self {
            version: FORMAT_VERSION,
            number,
            salt,
            store,
            origin: 0,
        }
    }

    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let fields = [self.number, self.salt, self.store, self.origin];
        let fields = fields.map(u64::to_le_bytes);
        super::header(SEGMENT_MAGIC, &fields.each_ref().map(|field| &field[..]))
    }

    /// Reads a header. The error says what is wrong with it.
    pub(crate) fn decode(file: &[u8]) -> Result<Self, HeaderDefect> {
        let (version, mut reader) = check_header(file, SEGMENT_MAGIC, Some(HEADER_BYTES_1))?;
        let mut fields = || {
            let (number, salt) = (reader.u64()?, reader.u64()?);
            let (store, origin) = match version {
                1 => (0, 0),
                _ => (reader.u64()?, reader.u64()?),
            };
            Some(Self {
                version,
                number,
                salt,
                store,
                origin,
            })
        };
        fields().ok_or(HeaderDefect::Damaged(super::IMPOSSIBLE))
    }

    /// Returns the length of a group's header in this segment.
    pub(crate) fn group_header_bytes(&self) -> usize {
        match self.version {
            1 => GROUP_HEADER_BYTES_1,
            _ => GROUP_HEADER_BYTES,
        }
    }
}

/// The description of a group, beside its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupStamp {
    /// The sequence number of its first entry.
    pub(crate) first_sequence: u64,
    /// When it was committed, in microseconds since 1970; 0 in version 1.
    pub(crate) at: u64,
    /// The running hash over all groups before it; 0 in version 1.
    pub(crate) chain: u64,
}

/// The entries of one batch, made durable together.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) stamp: GroupStamp,
    /// The number of entries.
    pub(crate) entries: u32,
    /// The entries, one after the other.
    pub(crate) payload: &'a [u8],
    /// How many bytes it occupies in the segment, including padding.
    pub(crate) bytes: u64,
    /// The running hash over this group and all before it.
    pub(crate) next_chain: u64,
}

impl Group<'_> {
    /// Returns the sequence number of the first entry after the group.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.stamp.first_sequence + u64::from(self.entries)
    }
}

/// The fields of a group's header that depend on its payload.
#[derive(Clone, Copy)]
struct Sealed {
    payload_bytes: u32,
    entries: u32,
    payload_checksum: u32,
}

impl Sealed {
    fn next_chain(self, stamp: GroupStamp) -> u64 {
        let mut bytes = [0; 36];
        bytes[..8].copy_from_slice(&stamp.chain.to_le_bytes());
        bytes[8..16].copy_from_slice(&stamp.first_sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&stamp.at.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.entries.to_le_bytes());
        bytes[32..].copy_from_slice(&self.payload_checksum.to_le_bytes());
        SipHasher24::new().hash(&bytes)
    }
}

/// Completes a group in place: `group` has [`GROUP_HEADER_BYTES`] of room and then the entries.
/// Afterwards it is padded to [`GROUP_ALIGNMENT`] and ready to be written. Returns the running hash
/// over it and all before it.
pub(crate) fn seal_group(group: &mut Vec<u8>, salt: u64, stamp: GroupStamp, entries: u32) -> u64 {
    let Ok(payload_bytes) = u32::try_from(group.len() - GROUP_HEADER_BYTES) else {
        unreachable!("a group fits in a segment, which has less than 4 GiB")
    };
    let sealed = Sealed {
        payload_bytes,
        entries,
        payload_checksum: crc32fast::hash(&group[GROUP_HEADER_BYTES..]),
    };
    group[..8].copy_from_slice(&salt.to_le_bytes());
    group[8..16].copy_from_slice(&stamp.first_sequence.to_le_bytes());
    group[16..24].copy_from_slice(&stamp.at.to_le_bytes());
    group[24..32].copy_from_slice(&stamp.chain.to_le_bytes());
    group[32..36].copy_from_slice(&payload_bytes.to_le_bytes());
    group[36..40].copy_from_slice(&entries.to_le_bytes());
    group[40..44].copy_from_slice(&sealed.payload_checksum.to_le_bytes());
    let checksum = crc32fast::hash(&group[..44]);
    group[44..48].copy_from_slice(&checksum.to_le_bytes());
    let alignment = usize::try_from(GROUP_ALIGNMENT).unwrap_or(1);
    group.resize(group.len().next_multiple_of(alignment), 0);
    sealed.next_chain(stamp)
}

/// Returns the running hash over a group and all before it, computed from its contents.
pub(crate) fn chain_after(stamp: GroupStamp, entries: u32, payload: &[u8]) -> Option<u64> {
    let sealed = Sealed {
        payload_bytes: u32::try_from(payload.len()).ok()?,
        entries,
        payload_checksum: crc32fast::hash(payload),
    };
    Some(sealed.next_chain(stamp))
}

/// Returns the running hash after sequence numbers up to `next_sequence` were given to changes that
/// are in no group.
pub(crate) fn skipped_chain(chain: u64, next_sequence: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&chain.to_le_bytes());
    bytes[8..].copy_from_slice(&next_sequence.to_le_bytes());
    SipHasher24::new().hash(&bytes)
}

/// Returns how many bytes the group occupies whose header is at the start of `bytes`, if this
/// segment can have such a header and length. That many bytes must be read before the checksum can
/// be verified.
pub(crate) fn group_bytes_claimed(bytes: &[u8], segment: &SegmentHeader) -> Option<u64> {
    let payload_bytes = match segment.version {
        1 => header_1(bytes, segment.salt)?.2,
        _ => header_2(bytes, segment.salt)?.1.payload_bytes,
    };
    let payload_bytes = usize::try_from(payload_bytes).ok()?;
    let claimed = padded(segment.group_header_bytes() + payload_bytes);
    (claimed <= GROUP_BYTES_MAX).then_some(claimed)
}

/// A group as its header describes it.
pub(crate) struct Peeked {
    pub(crate) stamp: GroupStamp,
    pub(crate) entries: u32,
    /// How many bytes it occupies in the segment.
    pub(crate) bytes: u64,
}

impl Peeked {
    /// Returns the sequence number of the first entry after the group.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.stamp.first_sequence + u64::from(self.entries)
    }
}

/// Returns the group whose header is at the start of `bytes`, if it belongs to this segment, which
/// must have version 2.
pub(crate) fn peek_group(bytes: &[u8], segment: &SegmentHeader) -> Option<Peeked> {
    let (stamp, sealed) = header_2(bytes, segment.salt)?;
    let bytes = group_bytes_claimed(bytes, segment)?;
    Some(Peeked {
        stamp,
        entries: sealed.entries,
        bytes,
    })
}

/// Returns the whole group at the start of `bytes`, if it belongs to this segment.
pub(crate) fn read_group<'a>(bytes: &'a [u8], segment: &SegmentHeader) -> Option<Group<'a>> {
    let payload_of = |payload_bytes: u32| {
        let mut reader = Reader::new(bytes);
        reader.take(segment.group_header_bytes())?;
        reader.take(usize::try_from(payload_bytes).ok()?)
    };
    if segment.version == 1 {
        return read_group_1(bytes, segment.salt, payload_of);
    }
    let (stamp, sealed) = header_2(bytes, segment.salt)?;
    let payload = payload_of(sealed.payload_bytes)?;
    if crc32fast::hash(payload) != sealed.payload_checksum && !planted!(GroupUnchecked) {
        return None;
    }
    Some(Group {
        stamp,
        entries: sealed.entries,
        payload,
        bytes: group_bytes(payload.len()),
        next_chain: sealed.next_chain(stamp),
    })
}

fn header_2(bytes: &[u8], salt: u64) -> Option<(GroupStamp, Sealed)> {
    let header = bytes.get(..GROUP_HEADER_BYTES)?;
    let mut reader = Reader::new(header);
    if reader.u64()? != salt {
        return None;
    }
    let stamp = GroupStamp {
        first_sequence: reader.u64()?,
        at: reader.u64()?,
        chain: reader.u64()?,
    };
    let sealed = Sealed {
        payload_bytes: reader.u32()?,
        entries: reader.u32()?,
        payload_checksum: reader.u32()?,
    };
    let is_whole = crc32fast::hash(&header[..44]) == reader.u32()?;
    (is_whole || planted!(GroupUnchecked)).then_some((stamp, sealed))
}

/// Returns the first sequence number, entries, payload bytes and checksum of a group of version 1.
fn header_1(bytes: &[u8], salt: u64) -> Option<(u64, u32, u32, u32)> {
    let mut reader = Reader::new(bytes.get(..GROUP_HEADER_BYTES_1)?);
    if reader.u64()? != salt {
        return None;
    }
    let (first_sequence, payload_bytes, entries) = (reader.u64()?, reader.u32()?, reader.u32()?);
    reader.u32()?;
    Some((first_sequence, entries, payload_bytes, reader.u32()?))
}

fn read_group_1<'a>(
    bytes: &'a [u8],
    salt: u64,
    payload_of: impl Fn(u32) -> Option<&'a [u8]>,
) -> Option<Group<'a>> {
    let (first_sequence, entries, payload_bytes, checksum) = header_1(bytes, salt)?;
    let payload = payload_of(payload_bytes)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..28]);
    hasher.update(payload);
    (hasher.finalize() == checksum).then(|| Group {
        stamp: GroupStamp {
            first_sequence,
            at: 0,
            chain: 0,
        },
        entries,
        payload,
        bytes: padded(GROUP_HEADER_BYTES_1 + payload.len()),
        next_chain: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: GroupStamp = GroupStamp {
        first_sequence: 5,
        at: 6,
        chain: 7,
    };

    fn group(stamp: GroupStamp) -> (Vec<u8>, u64) {
        let mut group = vec![0; GROUP_HEADER_BYTES];
        group.extend_from_slice(b"payload");
        let chain = seal_group(&mut group, 77, stamp, 1);
        (group, chain)
    }

    #[test]
    fn a_group_round_trips_and_any_flipped_bit_is_detected() {
        let (group, chain) = group(STAMP);
        assert_eq!(group.len(), 56);
        let segment = SegmentHeader::new(1, 1, 77);
        let read = read_group(&group, &segment).expect("a whole group");
        assert_eq!((read.stamp, read.entries, read.bytes), (STAMP, 1, 56));
        assert_eq!((read.payload, read.next_chain), (&b"payload"[..], chain));
        assert_eq!(group_bytes_claimed(&group, &segment), Some(56));
        let another = SegmentHeader::new(1, 1, 78);
        assert!(read_group(&group, &another).is_none(), "another segment's");
        for bit in 0..(GROUP_HEADER_BYTES + 7) * 8 {
            let mut damaged = group.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read_group(&damaged, &segment).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn the_running_hash_covers_stamp_and_payload_but_not_the_salt() {
        let mut chains = vec![group(STAMP).1];
        for other in [
            GroupStamp {
                first_sequence: 6,
                ..STAMP
            },
            GroupStamp { at: 7, ..STAMP },
            GroupStamp { chain: 8, ..STAMP },
        ] {
            chains.push(group(other).1);
        }
        let mut payload = vec![0; GROUP_HEADER_BYTES];
        payload.extend_from_slice(b"Payload");
        chains.push(seal_group(&mut payload, 77, STAMP, 1));
        chains.sort_unstable();
        chains.dedup();
        assert_eq!(chains.len(), 5);
        // The segment's salt does not change it, because a copy of the journal has its own salts.
        let mut salted = vec![0; GROUP_HEADER_BYTES];
        salted.extend_from_slice(b"payload");
        assert_eq!(seal_group(&mut salted, 78, STAMP, 1), group(STAMP).1);
    }

    #[test]
    fn an_unknown_version_in_a_segment_header_is_reported() {
        let header = SegmentHeader::new(1, 3, 9);
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for unknown in [0, 3] {
            bytes[8] = unknown;
            let changed = SegmentHeader::decode(&bytes);
            assert!(matches!(changed, Err(HeaderDefect::Damaged(_))));
            let checksum = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
            bytes[HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
            let defect = HeaderDefect::Version(unknown.into());
            assert_eq!(SegmentHeader::decode(&bytes), Err(defect));
        }
    }
}
