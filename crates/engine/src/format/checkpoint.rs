//! Checkpoints: their header, and the records of all widgets in blocks.
//!
//! A block has the records of one chunk of memory, so that a restart makes each chunk from its
//! block alone, on any thread. Peers are stored as record numbers, which are valid only within the
//! checkpoint.

use super::{HEADER_BYTES, HeaderDefect, Keyed, Reader, check_header, entry::NO_MEMBER};
use crate::{
    retries::{Kept, Outcome},
    state::{CHUNK_RECORDS, Handle, Holding, Named, Record},
};
use widgets_registry::{NAME_BYTES_MAX, Ports, SERIAL_NUMBER_BYTES_MAX, SLOTS_MAX};

/// How many record numbers each block but the last has. Persisted: a file that is written with
/// another number has another format.
pub(crate) const BLOCK_RECORDS: u32 = CHUNK_RECORDS;

/// The header of a block: payload bytes, records, checksum.
pub(crate) const BLOCK_HEADER_BYTES: usize = 12;

/// Two lengths, the ports, the peers and the text.
const RECORD_BYTES_MAX: usize =
    1 + 1 + 2 + 4 * SLOTS_MAX + SERIAL_NUMBER_BYTES_MAX + NAME_BYTES_MAX;

/// The longest payload of a block. A reader allocates up to this much before it has checked the
/// checksum.
const BLOCK_PAYLOAD_BYTES_MAX: usize = BLOCK_RECORDS as usize * RECORD_BYTES_MAX;

/// The peer of a free slot.
const NO_PEER: u32 = u32::MAX;

const MAGIC: [u8; 8] = *b"WIDGCHKP";

/// The header of a checkpoint of version 1.
const HEADER_BYTES_1: usize = 44;

/// The description of a checkpoint in its header. It is written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    /// The version of its layout. New files have [`FORMAT_VERSION`].
    pub(crate) version: u32,
    /// The store that it belongs to; 0 in version 1.
    pub(crate) store: u64,
    /// The first entry that must be replayed. Entries from here on may be in it in part, but never
    /// as a whole.
    pub(crate) first_sequence: u64,
    /// The first entry of which no part is in it. The journal must reach at least to here.
    pub(crate) next_sequence: u64,
    /// The segment of the journal that has `first_sequence`, or will have it.
    pub(crate) segment: u64,
    /// When the last group before `first_sequence` was committed; 0 in version 1.
    pub(crate) at: u64,
    /// The running hash over all groups before `first_sequence`; 0 in version 1.
    pub(crate) chain: u64,
    /// The number of records, including vacant ones.
    pub(crate) records: u32,
    /// The number of blocks of keys after the records; 0 in version 1.
    pub(crate) key_blocks: u32,
    /// The holder at the time when its copying began. Files from before there were holders have
    /// zeros, which name nobody.
    pub(crate) holding: Holding,
}

impl CheckpointHeader {
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let fields = [
            self.store,
            self.first_sequence,
            self.next_sequence,
            self.segment,
            self.at,
            self.chain,
        ];
        let fields = fields.map(u64::to_le_bytes);
        let counts = [self.records, self.key_blocks].map(u32::to_le_bytes);
        let Holding { holder, leaving } = self.holding;
        let named = [holder, leaving].map(encode_named);
        let fields: Vec<&[u8]> = fields
            .iter()
            .map(|field| &field[..])
            .chain(counts.iter().map(|field| &field[..]))
            .chain(named.iter().map(|field| &field[..]))
            .collect();
        super::header(MAGIC, &fields)
    }

    /// Reads a header. The error says what is wrong with it.
    pub(crate) fn decode(file: &[u8]) -> Result<Self, HeaderDefect> {
        let (version, mut reader) = check_header(file, MAGIC, Some(HEADER_BYTES_1))?;
        let mut fields = || {
            let store = if version == 1 { 0 } else { reader.u64()? };
            let (first_sequence, next_sequence) = (reader.u64()?, reader.u64()?);
            let segment = reader.u64()?;
            let (at, chain) = match version {
                1 => (0, 0),
                _ => (reader.u64()?, reader.u64()?),
            };
            let records = reader.u32()?;
            let key_blocks = if version == 1 { 0 } else { reader.u32()? };
            let holding = match version {
                1 => Holding::default(),
                _ => Holding {
                    holder: named(reader.u64()?, reader.u64()?),
                    leaving: named(reader.u64()?, reader.u64()?),
                },
            };
            Some(Self {
                version,
                store,
                first_sequence,
                next_sequence,
                segment,
                at,
                chain,
                records,
                key_blocks,
                holding,
            })
        };
        fields().ok_or(HeaderDefect::Damaged(super::IMPOSSIBLE))
    }

    /// Returns how many blocks have records.
    pub(crate) fn blocks(&self) -> u32 {
        self.records.div_ceil(BLOCK_RECORDS)
    }

    /// Returns how many records block `number` has.
    pub(crate) fn records_of_block(&self, number: u32) -> u32 {
        (self.records - number * BLOCK_RECORDS).min(BLOCK_RECORDS)
    }
}

fn encode_named(named: Option<Named>) -> [u8; 16] {
    let (member, from) = named.map_or((NO_MEMBER, 0), |it| (it.member, it.from));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&member.to_le_bytes());
    bytes[8..].copy_from_slice(&from.to_le_bytes());
    bytes
}

fn named(member: u64, from: u64) -> Option<Named> {
    (member != NO_MEMBER).then_some(Named { member, from })
}

/// Begins a block with room for its header.
pub(crate) fn begin_block(block: &mut Vec<u8>) {
    block.clear();
    block.resize(BLOCK_HEADER_BYTES, 0);
}

/// Completes block `number` in place: [`BLOCK_HEADER_BYTES`] of room, then `records` records or
/// keys.
pub(crate) fn seal_block(block: &mut [u8], first_sequence: u64, number: u32, records: u32) {
    let (header, payload) = block.split_at_mut(BLOCK_HEADER_BYTES);
    let Ok(payload_bytes) = u32::try_from(payload.len()) else {
        unreachable!("a block is a few megabytes")
    };
    header[..4].copy_from_slice(&payload_bytes.to_le_bytes());
    header[4..8].copy_from_slice(&records.to_le_bytes());
    let checksum = block_checksum(first_sequence, number, &header[..8], payload);
    header[8..].copy_from_slice(&checksum.to_le_bytes());
}

/// Returns the payload bytes of the block with this header, if it can be a block of `records`
/// records.
pub(crate) fn block_payload_bytes(header: [u8; BLOCK_HEADER_BYTES], records: u32) -> Option<usize> {
    let mut reader = Reader::new(&header);
    let payload_bytes = usize::try_from(reader.u32()?).ok()?;
    (reader.u32()? == records && payload_bytes <= BLOCK_PAYLOAD_BYTES_MAX).then_some(payload_bytes)
}

/// Reports whether the payload is the one with which block `number` of this checkpoint was sealed.
pub(crate) fn is_block_whole(
    header: [u8; BLOCK_HEADER_BYTES],
    first_sequence: u64,
    number: u32,
    payload: &[u8],
) -> bool {
    let checksum = block_checksum(first_sequence, number, &header[..8], payload);
    header[8..] == checksum.to_le_bytes() || planted!(BlockUnchecked)
}

/// Includes the checkpoint and the number of the block, so that a block of an older file that a
/// disk returned in its place does not pass.
fn block_checksum(first_sequence: u64, number: u32, header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&first_sequence.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// Appends a record. A vacant one is a single zero byte.
pub(crate) fn encode_record(out: &mut Vec<u8>, record: &Record) {
    if record.is_vacant() {
        return out.push(0);
    }
    let (serial_number, name) = (record.serial_number(), record.name());
    let (Ok(serial_number_bytes), Ok(name_bytes)) =
        (u8::try_from(serial_number.len()), u16::try_from(name.len()))
    else {
        unreachable!("stored text is within its limits")
    };
    out.push(serial_number_bytes);
    out.push(record.ports().to_byte());
    out.extend_from_slice(&name_bytes.to_le_bytes());
    for (ordinal, _) in record.ports().iter() {
        let peer = record.peer(ordinal).map_or(NO_PEER, Handle::number);
        out.extend_from_slice(&peer.to_le_bytes());
    }
    out.extend_from_slice(serial_number.as_bytes());
    out.extend_from_slice(name.as_bytes());
}

/// Reads the next record of a checkpoint with `records` records. Returns `None` if the bytes are
/// not what [`encode_record`] writes.
///
/// A peer past the end was added while the checkpoint was being written, so the journal names it.
pub(crate) fn decode_record(reader: &mut Reader<'_>, records: u32) -> Option<Record> {
    let serial_number_bytes = usize::from(reader.byte()?);
    if serial_number_bytes == 0 {
        return Some(Record::vacant());
    }
    let ports = Ports::from_byte(reader.byte()?)?;
    let name_bytes = usize::from(reader.u16()?);
    let mut peers = [None; SLOTS_MAX];
    for ((ordinal, _), peer) in ports.iter().zip(&mut peers) {
        let number = reader.u32()?;
        *peer = (number < records).then_some((ordinal, Handle::new(number)));
    }
    let text = reader.text(serial_number_bytes + name_bytes)?;
    if name_bytes > NAME_BYTES_MAX || !text.is_char_boundary(serial_number_bytes) {
        return None;
    }
    let mut record = Record::with_text(text.into(), serial_number_bytes, ports);
    for (ordinal, peer) in peers.into_iter().flatten() {
        record.set_peer(ordinal, Some(peer));
    }
    Some(record)
}

/// How many keys each block of keys but the last has.
pub(crate) const BLOCK_KEYS: u32 = BLOCK_RECORDS;

/// The size of a key: two digests, seconds, outcome.
const KEY_BYTES: usize = 16 + 16 + 4 + 1;
const _: () = assert!(BLOCK_KEYS as usize * KEY_BYTES <= BLOCK_PAYLOAD_BYTES_MAX);

/// Appends a key with its outcome.
pub(crate) fn encode_key(out: &mut Vec<u8>, kept: &Kept) {
    out.extend_from_slice(&kept.keyed.key);
    out.extend_from_slice(&kept.keyed.request);
    out.extend_from_slice(&kept.at_seconds.to_le_bytes());
    out.push(kept.outcome.to_byte());
}

/// Reads the next key. Returns `None` if the bytes are not what [`encode_key`] writes.
pub(crate) fn decode_key(reader: &mut Reader<'_>) -> Option<Kept> {
    Some(Kept {
        keyed: Keyed {
            key: reader.array()?,
            request: reader.array()?,
        },
        at_seconds: reader.u32()?,
        outcome: Outcome::from_byte(reader.byte()?)?,
    })
}

/// Reads the header of the block of keys that begins with these bytes. Returns how many keys the
/// block has, and how many bytes they take.
pub(crate) fn key_block_claimed(header: [u8; BLOCK_HEADER_BYTES]) -> Option<(u32, usize)> {
    let keys = Reader::new(&header[4..])
        .u32()
        .filter(|&keys| keys <= BLOCK_KEYS)?;
    let bytes = block_payload_bytes(header, keys)?;
    (bytes == keys as usize * KEY_BYTES).then_some((keys, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use widgets_registry::{Ordinal, Port};

    fn record() -> Record {
        let ports = Ports::new(&[Port::R, Port::P]).expect("two slots");
        let mut record = Record::new("sérial", "näme", ports);
        record.set_peer(Ordinal::new(1).expect("a slot"), Some(Handle::new(7)));
        record
    }

    #[test]
    fn records_round_trip_and_out_of_range_peers_are_read_as_none() {
        let mut bytes = Vec::new();
        for record in [record(), Record::vacant(), record()] {
            encode_record(&mut bytes, &record);
        }
        for (records, peer) in [(8, Some(Handle::new(7))), (7, None)] {
            let mut reader = Reader::new(&bytes);
            let mut next = || decode_record(&mut reader, records);
            let read = next().expect("a record");
            assert_eq!((read.serial_number(), read.name()), ("sérial", "näme"));
            assert_eq!(read.ports(), record().ports());
            let peers = read.ports().iter().map(|(ordinal, _)| read.peer(ordinal));
            assert_eq!(peers.collect::<Vec<_>>(), [None, peer]);
            assert!(next().expect("a vacant record").is_vacant());
            assert_eq!(next().expect("a record").serial_number(), "sérial");
            assert!(next().is_none());
        }
    }

    #[test]
    fn reading_damaged_records_never_panics() {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, &record());
        for end in 0..bytes.len() {
            assert!(decode_record(&mut Reader::new(&bytes[..end]), 8).is_none());
        }
        for at in 0..bytes.len() {
            for byte in 0..=u8::MAX {
                let mut changed = bytes.clone();
                changed[at] = byte;
                if let Some(read) = decode_record(&mut Reader::new(&changed), 8) {
                    assert_eq!(read.is_vacant(), read.serial_number().is_empty());
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_or_a_misplaced_block_is_detected() {
        let mut block = Vec::new();
        begin_block(&mut block);
        encode_record(&mut block, &record());
        seal_block(&mut block, 5, 3, 1);
        let is_whole = |block: &[u8], first_sequence, number| {
            let header = block[..BLOCK_HEADER_BYTES].try_into().expect("a header");
            let payload = &block[BLOCK_HEADER_BYTES..];
            block_payload_bytes(header, 1) == Some(payload.len())
                && is_block_whole(header, first_sequence, number, payload)
        };
        assert!(is_whole(&block, 5, 3));
        assert!(!is_whole(&block, 6, 3), "a block of another checkpoint");
        assert!(!is_whole(&block, 5, 2), "another block of this one");
        for bit in 0..block.len() * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(&damaged, 5, 3), "bit {bit}");
        }
    }
}
