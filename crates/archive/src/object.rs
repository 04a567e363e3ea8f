//! The objects that are written once: pieces of the journal, and parts of checkpoints. Each is a
//! header with a checksum, followed by a zstd frame. `docs/archive-format.md` describes them.

mod writing;

pub(crate) use writing::{GrowingPart, GrowingPiece, Packer, STRETCH_BYTES};

use crate::Error;
use widgets_engine::{FORMAT_VERSION, JournalEnd, LoggedGroup};

/// The version of these layouts. Persisted.
pub(crate) const VERSION: u32 = 1;

const JOURNAL_MAGIC: [u8; 8] = *b"WIDGARCJ";
const PART_MAGIC: [u8; 8] = *b"WIDGARCP";

/// The size of the header of both kinds of objects; unused bytes are zero.
const HEADER_BYTES: usize = 128;

/// The maximum unpacked size of an object, so that a reader need not trust the size in the header.
const RAW_BYTES_MAX: u64 = 512 << 20;

/// The maximum size of an object that is read: incompressible data grows by less than the
/// difference, including the header.
pub(crate) const BYTES_MAX: u64 = RAW_BYTES_MAX + (4 << 20);

/// The name of the manifest, below the archive's prefix as all names are.
pub(crate) const MANIFEST: &str = "manifest";

/// Returns the prefix of this writer's pieces of the journal.
pub(crate) fn journal_prefix(writer: u32) -> String {
    format!("journal/{writer:08x}")
}

/// Returns the name of a piece of the journal, from its writer and its first sequence number.
pub(crate) fn journal_name(writer: u32, first_sequence: u64) -> String {
    format!("{}/{first_sequence:016x}", journal_prefix(writer))
}

/// Returns the prefix of a checkpoint's parts.
pub(crate) fn checkpoint_prefix(writer: u32, first_sequence: u64) -> String {
    format!("checkpoint/{writer:08x}/{first_sequence:016x}")
}

/// Returns the name of a part of a checkpoint.
pub(crate) fn part_name(writer: u32, first_sequence: u64, part: u32) -> String {
    format!("{}/{part:08x}", checkpoint_prefix(writer, first_sequence))
}

/// A piece of the journal.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) writer: u32,
    pub(crate) begin: JournalEnd,
    pub(crate) end: JournalEnd,
    pub(crate) groups: Vec<LoggedGroup>,
}

/// Reads fields one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

fn damaged(object: &str, defect: &str) -> Error {
    Error::Damaged {
        object: object.into(),
        defect: defect.into(),
    }
}

/// Checks the header of an object, and returns the writer, the remaining fields and the packed
/// payload.
fn open<'a>(
    name: &str,
    bytes: &'a [u8],
    magic: [u8; 8],
    store: u64,
) -> Result<(u32, Reader<'a>, &'a [u8]), Error> {
    let (header, packed) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(|| damaged(name, "it is too short"))?;
    let (fields, checksum) = header.split_at(HEADER_BYTES - 4);
    if fields[..8] != magic || crc32fast::hash(fields).to_le_bytes() != checksum {
        return Err(damaged(
            name,
            "it does not begin with the header of such an object",
        ));
    }
    let mut reader = Reader(&fields[8..]);
    let mut read = || Some((reader.u32()?, reader.u32()?, reader.u64()?, reader.u32()?));
    let Some((version, format, found, writer)) = read() else {
        return Err(damaged(name, "its header is too short"));
    };
    for (found, known) in [(version, VERSION), (format, FORMAT_VERSION)] {
        if found != known {
            return Err(Error::Version {
                object: name.into(),
                found,
                known,
            });
        }
    }
    if found != store {
        let defect = format!("it is of the store {found:016x}");
        return Err(damaged(name, &defect));
    }
    Ok((writer, reader, packed))
}

fn unpack(name: &str, packed: &[u8], checksum: Option<u32>, raw: u64) -> Result<Vec<u8>, Error> {
    if checksum != Some(crc32fast::hash(packed)) {
        return Err(damaged(name, "its checksum is wrong"));
    }
    let room = usize::try_from(raw).ok().filter(|_| raw <= RAW_BYTES_MAX);
    let room = room.ok_or_else(|| damaged(name, "its length is impossible"))?;
    let bytes = zstd::bulk::decompress(packed, room)
        .map_err(|error| damaged(name, &format!("it cannot be unpacked: {error}")))?;
    if bytes.len() != room {
        return Err(damaged(name, "it has another length than it says"));
    }
    Ok(bytes)
}

/// Decodes a piece of the journal, and checks that its groups lead from its beginning to its end.
pub(crate) fn decode_piece(name: &str, bytes: &[u8], store: u64) -> Result<Piece, Error> {
    let (writer, mut fields, packed) = open(name, bytes, JOURNAL_MAGIC, store)?;
    let mut read = || {
        let count = fields.u32()?;
        let (first, next, chain, next_chain) =
            (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
        let (first_at, at, raw) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let begin = JournalEnd {
            next_sequence: first,
            at: first_at,
            chain,
        };
        let end = JournalEnd {
            next_sequence: next,
            at,
            chain: next_chain,
        };
        Some((count, begin, end, raw, fields.u32()))
    };
    let Some((count, begin, end, raw, checksum)) = read() else {
        return Err(damaged(name, "its header is too short"));
    };
    let raw = unpack(name, packed, checksum, raw)?;
    let (mut reader, mut place, mut groups) = (Reader(&raw), begin, Vec::new());
    for _ in 0..count {
        let mut group = || {
            let (at, entries) = (reader.u64()?, reader.u32()?);
            let payload_bytes = usize::try_from(reader.u32()?).ok()?;
            let payload = reader.take(payload_bytes)?.into();
            Some(LoggedGroup {
                first_sequence: place.next_sequence,
                entries,
                at,
                chain: place.chain,
                payload,
            })
        };
        let group = group().ok_or_else(|| damaged(name, "a group in it ends too early"))?;
        place = end_of(&group);
        groups.push(group);
    }
    if !reader.0.is_empty() || place != end {
        return Err(damaged(
            name,
            "its groups do not lead to where it says that it ends",
        ));
    }
    Ok(Piece {
        writer,
        begin,
        end,
        groups,
    })
}

/// Returns the end of the journal after a group.
pub(crate) fn end_of(group: &LoggedGroup) -> JournalEnd {
    JournalEnd {
        next_sequence: group.next_sequence(),
        at: group.at,
        chain: group.next_chain(),
    }
}

/// Returns the bytes of a part of a checkpoint.
pub(crate) fn decode_part(
    name: &str,
    bytes: &[u8],
    store: u64,
    writer: u32,
    first_sequence: u64,
    part: u32,
) -> Result<Vec<u8>, Error> {
    let (found_writer, mut fields, packed) = open(name, bytes, PART_MAGIC, store)?;
    let found = (fields.u32(), fields.u64());
    if (found_writer, found) != (writer, (Some(part), Some(first_sequence))) {
        return Err(damaged(name, "it is another part than its name says"));
    }
    let Some(raw) = fields.u64() else {
        return Err(damaged(name, "its header is too short"));
    };
    unpack(name, packed, fields.u32(), raw)
}
