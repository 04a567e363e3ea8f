//! Writes objects, packing the content piece by piece as it arrives.
//!
//! If a second of operations, or a part of a checkpoint, were packed in one go, that would occupy a
//! core for as long as answers may take, and the archiver shares its cores with the threads that
//! answer. So every function here packs only a little, and its caller rests between two calls.

use super::{FORMAT_VERSION, HEADER_BYTES, JOURNAL_MAGIC, PART_MAGIC, VERSION, end_of};
use crate::Error;
use bytes::Bytes;
use std::io;
use widgets_engine::{JournalEnd, LoggedGroup};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation as _, OutBuffer};

/// How many bytes are packed at a time, approximately: that takes some tenths of a millisecond.
pub(crate) const STRETCH_BYTES: usize = if cfg!(test) { 1 << 10 } else { 128 << 10 };

/// A higher level takes a fifth more CPU time and saves a twentieth of the bytes
/// (docs/performance.md).
const LEVEL: i32 = 1;

/// The logarithm of the window within which zstd looks for matches. This size stays in the cache of
/// one core, and a larger one makes no object smaller.
const WINDOW_LOG: u32 = 17;

/// How much room is reserved for output at a time.
const ROOM: usize = 64 << 10;

/// Writes the fields of a header one after the other.
struct Fields([u8; HEADER_BYTES], usize);

impl Fields {
    fn new(magic: [u8; 8], store: u64, writer: u32) -> Self {
        let mut fields = Self([0; HEADER_BYTES], 0);
        fields.put(&magic);
        fields.put(&VERSION.to_le_bytes());
        fields.put(&FORMAT_VERSION.to_le_bytes());
        fields.put(&store.to_le_bytes());
        fields.put(&writer.to_le_bytes());
        fields
    }

    fn put(&mut self, field: &[u8]) {
        self.0[self.1..self.1 + field.len()].copy_from_slice(field);
        self.1 += field.len();
    }
}

/// Packs one object after the other, reusing the encoder's memory.
pub(crate) struct Packer {
    encoder: Encoder<'static>,
    /// Room for the header, and what is packed so far.
    object: Vec<u8>,
    checksum: crc32fast::Hasher,
    raw_bytes: u64,
}

impl Packer {
    pub(crate) fn new() -> Result<Self, Error> {
        let encoder = || -> io::Result<_> {
            let mut encoder = Encoder::new(LEVEL)?;
            encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
            Ok(encoder)
        };
        Ok(Self {
            encoder: encoder().map_err(|error| failed(&error))?,
            object: vec![0; HEADER_BYTES],
            checksum: crc32fast::Hasher::new(),
            raw_bytes: 0,
        })
    }

    /// Packs the next bytes of the object.
    fn add(&mut self, raw: &[u8]) -> Result<(), Error> {
        #[cfg(test)]
        crate::planted::pack().map_err(|error| failed(&error))?;
        let mut input = InBuffer::around(raw);
        while input.pos() < raw.len() {
            let packed = self.run(|encoder, output| encoder.run(&mut input, output));
            packed.map_err(|error| failed(&error))?;
        }
        self.raw_bytes += raw.len() as u64;
        Ok(())
    }

    /// Returns the object, and resets the packer for the next one.
    fn finish(&mut self, mut header: Fields) -> Result<Bytes, Error> {
        self.end().map_err(|error| failed(&error))?;
        let checksum = std::mem::take(&mut self.checksum).finalize();
        header.put(&checksum.to_le_bytes());
        let checksum = crc32fast::hash(&header.0[..HEADER_BYTES - 4]);
        header.0[HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        let mut object = std::mem::replace(&mut self.object, vec![0; HEADER_BYTES]);
        object[..HEADER_BYTES].copy_from_slice(&header.0);
        self.raw_bytes = 0;
        Ok(object.into())
    }

    fn end(&mut self) -> io::Result<()> {
        if planted!(EndOfObjectForgotten) {
            return self.encoder.reinit();
        }
        while self.run(|encoder, output| encoder.finish(output, true))? > 0 {}
        self.encoder.reinit()
    }

    /// Runs the encoder, which appends its output to the object.
    fn run(
        &mut self,
        work: impl FnOnce(&mut Encoder<'static>, &mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let start = self.object.len();
        self.object.reserve(ROOM);
        let mut output = OutBuffer::around_pos(&mut self.object, start);
        let left = work(&mut self.encoder, &mut output)?;
        self.checksum.update(&self.object[start..]);
        Ok(left)
    }
}

fn failed(error: &io::Error) -> Error {
    Error::Source(format!("packing: {error}"))
}

/// A piece of the journal that grows group by group.
pub(crate) struct GrowingPiece {
    packer: Packer,
    store: u64,
    writer: u32,
    begin: JournalEnd,
    end: JournalEnd,
    groups: u32,
    /// The size of the groups' payloads, without what is written before each.
    payload_bytes: u64,
}

impl GrowingPiece {
    /// Creates a piece without groups. The packer must hold nothing of another object.
    pub(crate) fn new(packer: Packer, store: u64, writer: u32, begin: JournalEnd) -> Self {
        Self {
            packer,
            store,
            writer,
            begin,
            end: begin,
            groups: 0,
            payload_bytes: 0,
        }
    }

    /// Returns where the piece begins.
    pub(crate) fn begin(&self) -> JournalEnd {
        self.begin
    }

    /// Returns where the last group ends.
    pub(crate) fn end(&self) -> JournalEnd {
        self.end
    }

    /// Returns the size of the groups' payloads in bytes.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Packs the next group. After an error, the piece is unusable.
    pub(crate) fn add(&mut self, group: &LoggedGroup) -> Result<(), Error> {
        let follows =
            (group.first_sequence, group.chain) == (self.end.next_sequence, self.end.chain);
        if !follows && !planted!(ChainUnchecked) {
            return Err(Error::Source(format!(
                "the group of entry {} does not follow from what is before it",
                group.first_sequence
            )));
        }
        let Ok(payload_bytes) = u32::try_from(group.payload.len()) else {
            unreachable!("a group has less than 4 GiB")
        };
        let mut head = [0; 16];
        head[..8].copy_from_slice(&group.at.to_le_bytes());
        head[8..12].copy_from_slice(&group.entries.to_le_bytes());
        head[12..].copy_from_slice(&payload_bytes.to_le_bytes());
        self.packer.add(&head)?;
        self.packer.add(&group.payload)?;
        self.groups += 1;
        self.payload_bytes += u64::from(payload_bytes);
        self.end = end_of(group);
        Ok(())
    }

    /// Returns the piece as an object, and the packer for the next one.
    pub(crate) fn finish(mut self) -> Result<(Bytes, Packer), Error> {
        let mut header = Fields::new(JOURNAL_MAGIC, self.store, self.writer);
        header.put(&self.groups.to_le_bytes());
        for field in [
            self.begin.next_sequence,
            self.end.next_sequence,
            self.begin.chain,
            self.end.chain,
            self.begin.at,
            self.end.at,
            self.packer.raw_bytes,
        ] {
            header.put(&field.to_le_bytes());
        }
        let object = self.packer.finish(header)?;
        Ok((object, self.packer))
    }
}

/// The parts of a checkpoint, one after the other.
pub(crate) struct GrowingPart {
    packer: Packer,
    store: u64,
    writer: u32,
    first_sequence: u64,
    part: u32,
}

impl GrowingPart {
    /// Creates the first part, which is empty.
    pub(crate) fn new(store: u64, writer: u32, first_sequence: u64) -> Result<Self, Error> {
        Ok(Self {
            packer: Packer::new()?,
            store,
            writer,
            first_sequence,
            part: 0,
        })
    }

    /// Returns how many bytes of the checkpoint's file are in the part.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.packer.raw_bytes
    }

    /// Returns how many parts came before.
    pub(crate) fn number(&self) -> u32 {
        self.part
    }

    /// Packs the next bytes. After an error, no further part is usable.
    pub(crate) fn add(&mut self, raw: &[u8]) -> Result<(), Error> {
        self.packer.add(raw)
    }

    /// Returns the part as an object, and begins the next one.
    pub(crate) fn finish(&mut self) -> Result<Bytes, Error> {
        let mut header = Fields::new(PART_MAGIC, self.store, self.writer);
        header.put(&self.part.to_le_bytes());
        header.put(&self.first_sequence.to_le_bytes());
        header.put(&self.packer.raw_bytes.to_le_bytes());
        self.part += 1;
        self.packer.finish(header)
    }
}
