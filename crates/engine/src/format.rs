//! Bytes on disk: the layout of `docs/file-format.md`, encoded and decoded.
//!
//! Owns every magic number, header and record kind. Does no I/O: recovery and the writers bring the
//! bytes. All integers are little-endian.

use crate::state::{Handle, Peers, State};
use widgets_registry::{Change, Command, NAME_BYTES_MAX, Ordinal, Port, Ports, SLOTS_MAX};

/// The version of the layout, in the header of every file.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Groups begin at multiples of this.
pub(crate) const GROUP_ALIGNMENT: u64 = 8;

/// The header of a group of changes.
pub(crate) const GROUP_HEADER_BYTES: usize = 32;

/// The first group of a segment begins here, past a page that is never written again.
pub(crate) const SEGMENT_DATA_OFFSET: u64 = 4096;

const SEGMENT_MAGIC: [u8; 8] = *b"WIDGSEGM";
const SEGMENT_HEADER_BYTES: usize = 32;

// Kinds of change. Persisted: never renumber.
const KIND_ADD_WIDGET: u8 = 1;
const KIND_REMOVE_WIDGET: u8 = 2;
const KIND_ASSOCIATE_WIDGETS: u8 = 3;
const KIND_REMOVE_ASSOCIATION: u8 = 4;

/// A removal is the longest: a serial number, and three peers with a slot each.
const CHANGE_BYTES_MAX: usize = {
    let text = 256;
    let removal = 1 + text + 1 + SLOTS_MAX * (1 + text);
    let addition = 1 + 1 + 2 + 1 + text + NAME_BYTES_MAX;
    if removal > addition {
        removal
    } else {
        addition
    }
};

/// What a batch of so many changes with so much text of its own can take in the journal, at most.
pub(crate) fn group_bytes_max(changes: usize) -> u64 {
    (GROUP_HEADER_BYTES + changes * CHANGE_BYTES_MAX) as u64 + GROUP_ALIGNMENT
}

/// One change as the journal has it: everything by serial number, every slot by its ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournaledChange<'a> {
    /// A widget was added; its slots are free.
    AddWidget {
        /// Its serial number.
        serial_number: &'a str,
        /// Its name.
        name: &'a str,
        /// Its slots.
        ports: Ports,
    },
    /// A widget was removed, and with it the association of each of these slots.
    RemoveWidget {
        /// Its serial number.
        serial_number: &'a str,
        /// The slots of its peers that became free.
        freed: Vec<(&'a str, Ordinal)>,
    },
    /// Two slots became each other's peers.
    AssociateWidgets(JournaledPair<'a>),
    /// Two slots that were each other's peers became free.
    RemoveAssociation(JournaledPair<'a>),
}

/// Two slots of the same port type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournaledPair<'a> {
    /// The widget that the command named first, and its slot.
    pub one: (&'a str, Ordinal),
    /// The widget that the command named second, and its slot.
    pub other: (&'a str, Ordinal),
    /// The port type of both slots.
    pub port: Port,
}

/// Appends the change that `command` makes to `state`, which has not got it yet.
pub(crate) fn encode_change(
    out: &mut Vec<u8>,
    state: &State,
    command: &Command,
    change: Change<Handle>,
) {
    match command {
        Command::AddWidget {
            serial_number,
            name,
            ports,
        } => {
            out.push(KIND_ADD_WIDGET);
            out.push(ports.to_byte());
            put_short(out, serial_number);
            let Ok(name_bytes) = u16::try_from(name.len()) else {
                unreachable!("a name has at most 1,024 bytes")
            };
            out.extend_from_slice(&name_bytes.to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        Command::RemoveWidget { serial_number } => {
            let Change::RemoveWidget(handle) = change else {
                unreachable!("remove_widget removes a widget")
            };
            out.push(KIND_REMOVE_WIDGET);
            put_short(out, serial_number);
            put_freed(out, state, &state.peers(handle));
        }
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
            let (kind, one, other) = match change {
                Change::AssociateWidgets(one, other) => (KIND_ASSOCIATE_WIDGETS, one, other),
                Change::RemoveAssociation(one, other) => (KIND_REMOVE_ASSOCIATION, one, other),
                Change::AddWidget | Change::RemoveWidget(_) => {
                    unreachable!("an operation on a pair changes a pair")
                }
            };
            out.push(kind);
            out.push(one.ordinal.get() | other.ordinal.get() << 2 | (pair.port() as u8) << 4);
            put_short(out, pair.widget1());
            put_short(out, pair.widget2());
        }
    }
}

fn put_freed(out: &mut Vec<u8>, state: &State, peers: &Peers) {
    let count_at = out.len();
    out.push(0);
    for peer in peers.iter().flatten() {
        out[count_at] += 1;
        out.push(peer.ordinal.get());
        put_short(out, state.record(peer.widget).serial_number());
    }
}

fn put_short(out: &mut Vec<u8>, serial_number: &str) {
    let Ok(bytes) = u8::try_from(serial_number.len()) else {
        unreachable!("a serial number has at most 255 bytes")
    };
    out.push(bytes);
    out.extend_from_slice(serial_number.as_bytes());
}

/// Reads changes one after the other.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next change, or `None` where the bytes are none that [`encode_change`] wrote.
    pub(crate) fn change(&mut self) -> Option<JournaledChange<'a>> {
        match self.byte()? {
            KIND_ADD_WIDGET => {
                let ports = Ports::from_byte(self.byte()?)?;
                let serial_number = self.serial_number()?;
                let name_bytes = usize::from(self.u16()?);
                let name = (name_bytes <= NAME_BYTES_MAX).then(|| self.text(name_bytes))??;
                Some(JournaledChange::AddWidget {
                    serial_number,
                    name,
                    ports,
                })
            }
            KIND_REMOVE_WIDGET => {
                let serial_number = self.serial_number()?;
                let count = usize::from(self.byte()?);
                let freed = (count <= SLOTS_MAX).then(|| (0..count).map(|_| self.place()))?;
                let freed = freed.collect::<Option<Vec<_>>>()?;
                Some(JournaledChange::RemoveWidget {
                    serial_number,
                    freed,
                })
            }
            KIND_ASSOCIATE_WIDGETS => self.pair().map(JournaledChange::AssociateWidgets),
            KIND_REMOVE_ASSOCIATION => self.pair().map(JournaledChange::RemoveAssociation),
            _ => None,
        }
    }

    fn pair(&mut self) -> Option<JournaledPair<'a>> {
        let slots = self.byte()?;
        let ordinal1 = Ordinal::new(slots & 0b11)?;
        let ordinal2 = Ordinal::new(slots >> 2 & 0b11)?;
        let port = Port::ALL
            .into_iter()
            .find(|&port| port as u8 == slots >> 4)?;
        let one = (self.serial_number()?, ordinal1);
        let other = (self.serial_number()?, ordinal2);
        Some(JournaledPair { one, other, port })
    }

    fn place(&mut self) -> Option<(&'a str, Ordinal)> {
        let ordinal = Ordinal::new(self.byte()?)?;
        Some((self.serial_number()?, ordinal))
    }

    fn serial_number(&mut self) -> Option<&'a str> {
        let bytes = usize::from(self.byte()?);
        self.text(bytes).filter(|text| !text.is_empty())
    }

    pub(crate) fn text(&mut self, bytes: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(bytes)?).ok()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }
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

/// What can be wrong with the header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderDefect {
    /// Its checksum or its magic number is wrong.
    Damaged,
    /// It is in order, but of another format version.
    Version(u32),
}

/// Checks magic number, version and the checksum in the last four bytes.
pub(crate) fn check_header(header: &[u8], magic: [u8; 8]) -> Result<(), HeaderDefect> {
    let (body, checksum) = header.split_at(header.len() - 4);
    if body[..8] != magic || crc32fast::hash(body).to_le_bytes() != checksum {
        return Err(HeaderDefect::Damaged);
    }
    match Reader::new(&body[8..]).u32() {
        Some(FORMAT_VERSION) => Ok(()),
        Some(version) => Err(HeaderDefect::Version(version)),
        None => Err(HeaderDefect::Damaged),
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
    if group_checksum(&header[..28], payload) != checksum {
        return None;
    }
    let bytes = (GROUP_HEADER_BYTES + payload.len()) as u64;
    Some(Group {
        first_sequence,
        changes,
        payload,
        bytes: bytes.next_multiple_of(GROUP_ALIGNMENT),
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

    #[test]
    fn no_bytes_make_the_reader_of_changes_panic() {
        // Every prefix and every single-byte change of valid records.
        let mut record = vec![KIND_REMOVE_WIDGET, 1, b'a', 2, 0, 1, b'b', 2, 1, b'c'];
        record.extend([KIND_ADD_WIDGET, 1, 1, b'd', 2, 0, b'n', b'm']);
        record.extend([KIND_ASSOCIATE_WIDGETS, 1 << 4, 1, b'd', 1, b'b']);
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let mut count = 0;
            while reader.change().is_some() {
                count += 1;
            }
            count
        };
        assert_eq!(read(&record), 3);
        for end in 0..record.len() {
            assert!(read(&record[..end]) < 3);
        }
        for at in 0..record.len() {
            for byte in 0..=u8::MAX {
                let mut changed = record.clone();
                changed[at] = byte;
                read(&changed);
            }
        }
    }
}
