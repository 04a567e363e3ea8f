//! Bytes on disk: the layouts of `docs/file-format.md`, encoded and decoded.
//!
//! Owns every magic number, header and record kind. Does no I/O: recovery and the writers bring the
//! bytes. All integers are little-endian.

mod change;
pub(crate) mod checkpoint;
mod segment;

pub(crate) use change::{CHANGE_BYTES_MAX, change_bytes_max, encode_change};
pub use change::{JournaledChange, JournaledPair};
pub(crate) use segment::{
    GROUP_ALIGNMENT, GROUP_CHANGES_MAX, GROUP_HEADER_BYTES, Group, SegmentHeader, group_bytes,
    group_bytes_claimed, read_group, seal_group,
};

/// The version of the layouts, in the header of every file.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What follows the header of a file begins here, past the page of the header.
pub(crate) const DATA_OFFSET: u64 = 4096;

/// Reads fields one after the other; `None` where the bytes end.
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
