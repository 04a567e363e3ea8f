//! The frames of a backup's stream. Each has a kind, a length, a checksum and the content.

use crate::{
    Error,
    manifest::{Hex64, Place, Secret},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use widgets_engine::{Epoch, StoreHeader};

/// The beginning of every stream. The version of the frames follows it. Persisted.
const BEGINNING: &str = "WIDGETS BACKUP";
const VERSION: u32 = 1;

const HEADER_BYTES: usize = 12;

/// The maximum length of a frame, so that a reader need not trust the length in it.
const CONTENT_BYTES_MAX: u32 = 512 << 20;

/// The kinds of frames. Persisted: never renumber.
const HEAD: u32 = 1;
const PART: u32 = 2;
const PIECE: u32 = 3;
const WAITING: u32 = 4;
const END: u32 = 5;
const FAILED: u32 = 6;

/// Which store it is, and what is known about the checkpoint that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) store: Hex64,
    pub(crate) secret: Secret,
    /// The store's epochs, each with its first sequence number.
    pub(crate) epochs: Vec<(u32, u64)>,
    /// Where the replay of the journal begins.
    pub(crate) begin: Place,
    /// The journal must reach this entry.
    pub(crate) next_sequence: u64,
    /// The length of the checkpoint's file in bytes.
    pub(crate) raw_bytes: u64,
}

impl Head {
    pub(crate) fn store(&self) -> StoreHeader {
        let epoch = |&(number, first_sequence): &(u32, u64)| Epoch {
            number,
            first_sequence,
        };
        StoreHeader {
            identity: self.store.0,
            secret: self.secret.0,
            epochs: self.epochs.iter().map(epoch).collect(),
            role: widgets_engine::Role::Primary,
            member: widgets_engine::NO_MEMBER,
        }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Comes once, before what it describes.
    Head(Head),
    /// The next part of the checkpoint, in the format of an archive.
    Part(Bytes),
    /// The next piece of the journal, in the format of an archive. The first piece follows the last
    /// part.
    Piece(Bytes),
    /// The checkpoint is still being written.
    Waiting,
    /// The stream is complete up to here.
    End(Place),
    /// The stream ends early, for this reason.
    Failed(String),
}

/// Returns the beginning of the stream.
pub(crate) fn beginning() -> Bytes {
    format!("{BEGINNING} {VERSION}\n").into()
}

/// Reads the beginning of the stream.
pub(crate) fn read_beginning(reader: &mut impl Read) -> Result<(), Error> {
    let mut found = [0; BEGINNING.len() + 16];
    let mut length = 0;
    // The line is short and is read byte by byte, so that nothing after it is consumed.
    while length < found.len() && !found[..length].ends_with(b"\n") {
        read_exactly(reader, &mut found[length..=length])?;
        length += 1;
    }
    let line = std::str::from_utf8(&found[..length]).unwrap_or_default();
    let version = line.strip_prefix(BEGINNING).map(str::trim);
    match version.and_then(|version| version.parse().ok()) {
        Some(VERSION) => Ok(()),
        Some(found) => Err(Error::Version {
            object: "the backup".into(),
            found,
            known: VERSION,
        }),
        None => Err(damaged("it does not begin as one does")),
    }
}

impl Frame {
    pub(crate) fn encode(&self) -> Bytes {
        let (kind, content) = match self {
            Self::Head(head) => (HEAD, json(head)),
            Self::Part(part) => (PART, part.clone()),
            Self::Piece(piece) => (PIECE, piece.clone()),
            Self::Waiting => (WAITING, Bytes::new()),
            Self::End(place) => (END, json(place)),
            Self::Failed(why) => (FAILED, why.clone().into()),
        };
        let Ok(length) = u32::try_from(content.len()) else {
            unreachable!("an object of an archive has less than 4 GiB")
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
        for field in [kind, length, crc32fast::hash(&content)] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&content);
        bytes.into()
    }

    pub(crate) fn read(reader: &mut impl Read) -> Result<Self, Error> {
        let mut fields = [0_u32; HEADER_BYTES / 4];
        for field in &mut fields {
            let mut bytes = [0; 4];
            read_exactly(reader, &mut bytes)?;
            *field = u32::from_le_bytes(bytes);
        }
        let [kind, length, checksum] = fields;
        if length > CONTENT_BYTES_MAX {
            return Err(damaged(&format!("it has a frame of {length} bytes")));
        }
        // Read as it arrives, so that a claimed length alone allocates no memory.
        let mut content = Vec::new();
        let read = reader.take(length.into()).read_to_end(&mut content);
        read.map_err(|error| cut(&error))?;
        if content.len() as u64 != u64::from(length) {
            return Err(cut(&io::ErrorKind::UnexpectedEof.into()));
        }
        if crc32fast::hash(&content) != checksum {
            return Err(damaged("the checksum of a frame is wrong"));
        }
        match kind {
            HEAD => parsed(&content).map(Self::Head),
            PART => Ok(Self::Part(content.into())),
            PIECE => Ok(Self::Piece(content.into())),
            WAITING => Ok(Self::Waiting),
            END => parsed(&content).map(Self::End),
            FAILED => Ok(Self::Failed(String::from_utf8_lossy(&content).into_owned())),
            kind => Err(damaged(&format!("it has a frame of the kind {kind}"))),
        }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(json) => json.into(),
        Err(error) => unreachable!("it has only texts and numbers: {error}"),
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(content: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(content).map_err(|error| damaged(&error.to_string()))
}

pub(crate) fn damaged(defect: &str) -> Error {
    Error::Damaged {
        object: "the backup".into(),
        defect: defect.into(),
    }
}

fn read_exactly(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), Error> {
    reader.read_exact(bytes).map_err(|error| cut(&error))
}

/// Returns the error for a stream that ended early or could not be read.
fn cut(error: &io::Error) -> Error {
    let why = if error.kind() == io::ErrorKind::UnexpectedEof {
        "the service ended its answer".to_owned()
    } else {
        error.to_string()
    };
    Error::Source(format!(
        "the backup was cut off: {why}. Nothing of it can be used; run the same command again to \
         start over"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let place = Place {
            next_sequence: 7,
            at: 8,
            chain: Hex64(u64::MAX),
        };
        let head = Head {
            store: Hex64(1),
            secret: Secret([3; 16]),
            epochs: vec![(1, 1), (70_000, 5)],
            begin: place,
            next_sequence: 9,
            raw_bytes: 10,
        };
        vec![
            Frame::Waiting,
            Frame::Head(head),
            Frame::Part(Bytes::from_static(b"part")),
            Frame::Piece(Bytes::from_static(b"piece")),
            Frame::End(place),
            Frame::Failed("the disk is full".into()),
        ]
    }

    #[test]
    fn encoded_frames_are_read_back_unchanged() {
        let mut bytes = beginning().to_vec();
        for frame in frames() {
            bytes.extend_from_slice(&frame.encode());
        }
        let mut reader = &bytes[..];
        read_beginning(&mut reader).expect("begins");
        for frame in frames() {
            assert_eq!(Frame::read(&mut reader).expect("read"), frame);
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn a_changed_byte_or_a_truncated_frame_is_detected() {
        for frame in frames() {
            let whole = frame.encode();
            for at in 0..whole.len() {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 0x10;
                let read = Frame::read(&mut &bytes[..]);
                assert_ne!(read.ok(), Some(frame.clone()), "byte {at}");
                let cut = Frame::read(&mut &whole[..at]);
                let told = cut.expect_err("it is cut").to_string();
                assert!(told.contains("cut off"), "{told}");
            }
        }
    }

    #[test]
    fn a_stream_that_is_not_a_backup_is_rejected_with_the_reason() {
        for (text, told) in [
            ("HTTP/1.1 200 OK\r\nserver: something", "does not begin"),
            ("WIDGETS BACKUP 2\n", "format version 2"),
            ("WIDGETS", "cut off"),
        ] {
            let error = read_beginning(&mut text.as_bytes()).expect_err(text);
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
