//! Bytes on disk: the layouts of `docs/file-format.md`, encoded and decoded.
//!
//! Owns every magic number, header and record kind. Does no I/O: recovery and the writers pass the
//! bytes. All integers are little-endian.

mod change;
pub(crate) mod checkpoint;
mod entry;
mod segment;
mod store;

#[cfg(test)]
pub(crate) use change::encode_change;
pub use change::{JournaledChange, JournaledPair};
pub use entry::NO_MEMBER;
#[cfg(test)]
pub(crate) use entry::only_change;
pub(crate) use entry::{
    ENTRY_BYTES_MAX, Entries, EntryDefect, GroupDraft, HOLDER_BYTES_MAX, Happened, Keyed,
    SEAL_GROUP_BYTES, entry_bytes_max, is_seal,
};
pub(crate) use segment::{
    GROUP_ALIGNMENT, GROUP_ENTRIES_MAX, GROUP_HEADER_BYTES, GROUP_SALT_BYTES, Group, GroupStamp,
    SegmentHeader, chain_after, group_bytes, group_bytes_claimed, peek_group, read_group,
    seal_group, skipped_chain,
};
pub(crate) use store::EPOCHS_MAX;
pub use store::{ADDRESS_BYTES_MAX, Epoch, Role, StoreHeader};

/// The layout version that is written to the header of every file.
pub const FORMAT_VERSION: u32 = 2;

/// The oldest version that can be read. A start converts it to the newest.
pub(crate) const FORMAT_VERSION_OLDEST: u32 = 1;

/// The offset of a file's contents, after the page of its header.
pub(crate) const DATA_OFFSET: u64 = 4096;

/// Reads fields one after the other. Returns `None` at the end of the bytes.
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

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn text(&mut self, bytes: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(bytes)?).ok()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }
}

/// What can be wrong with the header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderDefect {
    /// It is not what was written; the text says what was found instead.
    Damaged(&'static str),
    /// It is intact, but has another format version.
    Version(u32),
}

const SHORT: &str = "it ends before its header does";
const ZEROS: &str = "it has zeros where its header was";
const FOREIGN: &str = "it does not begin like such a file: its header was overwritten, or it is \
another file under this name";
const CHANGED: &str = "its header is not as it was written: it has another checksum";
/// Used by the decoders of all kinds of headers.
pub(crate) const IMPOSSIBLE: &str = "its header has a valid checksum and impossible contents";

/// The size of the page at the beginning of every file since version 2: magic number, version, the
/// fields of the kind of file, zeros, and in the last four bytes a checksum of the rest.
pub(crate) const HEADER_BYTES: usize = 4096;
const _: () = assert!(HEADER_BYTES as u64 == DATA_OFFSET);

const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// Returns a header's page with these fields, one after the other.
fn header(magic: [u8; 8], fields: &[&[u8]]) -> [u8; HEADER_BYTES] {
    header_of(FORMAT_VERSION, magic, fields)
}

/// Returns a header's page of the given version.
fn header_of(version: u32, magic: [u8; 8], fields: &[&[u8]]) -> [u8; HEADER_BYTES] {
    let mut page = [0; HEADER_BYTES];
    let mut rest = &mut page[..CHECKSUM_AT];
    for field in [&magic[..], &version.to_le_bytes()]
        .into_iter()
        .chain(fields.iter().copied())
    {
        let (place, after) = rest.split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = after;
    }
    let checksum = crc32fast::hash(&page[..CHECKSUM_AT]);
    page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// Checks the magic number, the version and the checksum of the header that `file` begins with, and
/// returns the version and a reader of the fields. A header of version 1 has `bytes_1` bytes, the
/// last four of which are its checksum. A later version has a page, even one that this program does
/// not know.
fn check_header(
    file: &[u8],
    magic: [u8; 8],
    bytes_1: Option<usize>,
) -> Result<(u32, Reader<'_>), HeaderDefect> {
    check_header_up_to(FORMAT_VERSION, file, magic, bytes_1)
}

/// Checks a header likewise, for a kind of file whose newest version is `newest`.
fn check_header_up_to(
    newest: u32,
    file: &[u8],
    magic: [u8; 8],
    bytes_1: Option<usize>,
) -> Result<(u32, Reader<'_>), HeaderDefect> {
    let mut reader = Reader::new(file);
    let (Some(begins), Some(version)) = (reader.array(), reader.u32()) else {
        return Err(HeaderDefect::Damaged(SHORT));
    };
    if begins != magic {
        let zeros = file.iter().take(HEADER_BYTES).all(|&byte| byte == 0);
        let there = if zeros { ZEROS } else { FOREIGN };
        return Err(HeaderDefect::Damaged(there));
    }
    let bytes = match version {
        1 => bytes_1.unwrap_or(HEADER_BYTES),
        _ => HEADER_BYTES,
    };
    let header = file.get(..bytes).ok_or(HeaderDefect::Damaged(SHORT))?;
    let (body, checksum) = header.split_at(bytes - 4);
    if crc32fast::hash(body).to_le_bytes() != checksum {
        return Err(HeaderDefect::Damaged(CHANGED));
    }
    let is_known = (FORMAT_VERSION_OLDEST..=newest).contains(&version);
    let is_known = is_known && (version > 1 || bytes_1.is_some());
    if is_known {
        Ok((version, Reader::new(&body[12..])))
    } else {
        Err(HeaderDefect::Version(version))
    }
}
