//! The frames that a primary sends to a standby. Each has a kind, a length and a body; all integers
//! are little-endian.
//!
//! A stream begins with the store's header. If a copy was requested and the store has a checkpoint,
//! the checkpoint follows in pieces. Then come groups as they are in the journal, each with the
//! running hash after it, and from time to time the end of the primary's journal.

use crate::MemberId;
use bytes::{Buf as _, BytesMut};
use widgets_engine::{JournalEnd, LoggedGroup, NO_MEMBER, StoreHeader};

/// The media type of a stream of this version.
pub const MEDIA_TYPE: &str = "application/vnd.widgets.replication-1";

// Kinds of frames. A reader refuses an unknown kind: if there were others, the media type would
// differ.
const STORE: u8 = 1;
const CHECKPOINT: u8 = 2;
const PIECE: u8 = 3;
const GROUP: u8 = 4;
const END: u8 = 5;

/// The bytes of a kind and a length.
const HEAD_BYTES: usize = 1 + 4;

/// The bytes of a group before its entries.
const GROUP_HEAD_BYTES: usize = 8 + 4 + 8 + 8 + 8;

/// The maximum length of frames other than groups.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Identifies the store, with its secret and its epochs.
    Store(Box<StoreHeader>),
    /// A checkpoint of this size follows. Copying the state began before the entry
    /// `first_sequence`.
    Checkpoint { first_sequence: u64, bytes: u64 },
    /// The next bytes of the checkpoint.
    Piece(Vec<u8>),
    /// The next group, and the running hash after it.
    Group { group: LoggedGroup, next_chain: u64 },
    /// Where the primary's journal ends, and approximately how many of its bytes are not sent yet.
    End { end: JournalEnd, behind: u64 },
}

impl Frame {
    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Store(store) => frame(out, STORE, &[&store.encode()]),
            Self::Checkpoint {
                first_sequence,
                bytes,
            } => {
                let fields = [first_sequence.to_le_bytes(), bytes.to_le_bytes()];
                frame(out, CHECKPOINT, &[fields.as_flattened()]);
            }
            Self::Piece(bytes) => frame(out, PIECE, &[bytes]),
            Self::Group { group, next_chain } => encode_group(out, group, *next_chain),
            Self::End { end, behind } => {
                let fields = [end.next_sequence, end.at, end.chain, *behind].map(u64::to_le_bytes);
                frame(out, END, &[fields.as_flattened()]);
            }
        }
    }
}

/// Appends the frame of a group.
pub(crate) fn encode_group(out: &mut Vec<u8>, group: &LoggedGroup, next_chain: u64) {
    let fields = [
        &group.first_sequence.to_le_bytes()[..],
        &group.entries.to_le_bytes(),
        &group.at.to_le_bytes(),
        &group.chain.to_le_bytes(),
        &next_chain.to_le_bytes(),
        &group.payload,
    ];
    frame(out, GROUP, &fields);
}

fn frame(out: &mut Vec<u8>, kind: u8, fields: &[&[u8]]) {
    let length: usize = fields.iter().map(|field| field.len()).sum();
    let Ok(length) = u32::try_from(length) else {
        unreachable!("a segment, and so a group, has less than 4 GiB")
    };
    out.push(kind);
    out.extend_from_slice(&length.to_le_bytes());
    for field in fields {
        out.extend_from_slice(field);
    }
}

/// Splits incoming bytes into frames.
pub(crate) struct Decoder {
    buffer: BytesMut,
    group_bytes_max: u64,
}

impl Decoder {
    /// Creates a decoder for a stream whose groups have at most this many bytes of entries.
    pub(crate) fn new(group_bytes_max: u64) -> Self {
        Self {
            buffer: BytesMut::new(),
            group_bytes_max,
        }
    }

    /// Adds the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next frame once it is complete. An error says what is wrong with the bytes.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some((&[kind, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let most = if kind == GROUP {
            usize::try_from(self.group_bytes_max).unwrap_or(usize::MAX)
        } else {
            FRAME_BYTES_MAX
        };
        // Refuse an excessive length before waiting for the body, so that memory is not filled with
        // what will be refused.
        if length > most {
            return Err(format!(
                "a frame of kind {kind} has {length} bytes, at most {most} are taken (engine.segment_bytes)"
            ));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let body = self.buffer.split_to(length);
        let frame = decode(kind, &body);
        frame.map(Some).ok_or_else(|| {
            format!("a frame of kind {kind} with {length} bytes is none of this version")
        })
    }
}

fn decode(kind: u8, body: &[u8]) -> Option<Frame> {
    let numbers = |count: usize| {
        let numbers: Vec<u64> = body
            .as_chunks()
            .0
            .iter()
            .copied()
            .map(u64::from_le_bytes)
            .collect();
        (numbers.len() == count && body.len() == 8 * count).then_some(numbers)
    };
    Some(match kind {
        STORE => Frame::Store(Box::new(StoreHeader::read(body)?)),
        CHECKPOINT => {
            let [first_sequence, bytes] = numbers(2)?[..] else {
                return None;
            };
            Frame::Checkpoint {
                first_sequence,
                bytes,
            }
        }
        PIECE => Frame::Piece(body.to_vec()),
        GROUP => {
            let (head, payload) = body.split_at_checked(GROUP_HEAD_BYTES)?;
            let (first_sequence, rest) = head.split_first_chunk()?;
            let (entries, rest) = rest.split_first_chunk()?;
            let [at, chain, next_chain] = rest.as_chunks().0 else {
                return None;
            };
            Frame::Group {
                group: LoggedGroup {
                    first_sequence: u64::from_le_bytes(*first_sequence),
                    entries: u32::from_le_bytes(*entries),
                    at: u64::from_le_bytes(*at),
                    chain: u64::from_le_bytes(*chain),
                    payload: payload.into(),
                },
                next_chain: u64::from_le_bytes(*next_chain),
            }
        }
        END => {
            let [next_sequence, at, chain, behind] = numbers(4)?[..] else {
                return None;
            };
            let end = JournalEnd {
                next_sequence,
                at,
                chain,
            };
            Frame::End { end, behind }
        }
        _ => return None,
    })
}

/// The end of a standby's history, from which it asks to continue. Only the two stores interpret
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) store: u64,
    pub(crate) epoch: u32,
    pub(crate) next_sequence: u64,
    pub(crate) chain: u64,
}

/// Returns the query that asks for a copy first, or for what follows `from`.
pub(crate) fn query(from: Option<From>, member: Option<MemberId>) -> String {
    let mut query = match from {
        None => "from=copy".into(),
        Some(From {
            store,
            epoch,
            next_sequence,
            chain,
        }) => format!("from={store:016x}-{epoch:08x}-{next_sequence:016x}-{chain:016x}"),
    };
    if let Some(member) = member {
        query.push_str(MEMBER);
        query.push_str(&member.to_string());
    }
    query
}

/// What precedes the member's number in a query.
const MEMBER: &str = "&member=";

/// The bytes of a report: the sequence number of the entry before which the standby has everything
/// durably.
pub(crate) const REPORT_BYTES: usize = 8;

/// Splits incoming bytes into reports.
#[derive(Default)]
pub(crate) struct Reports(Vec<u8>);

impl Reports {
    /// Adds the next bytes and returns the newest complete report, if there is one.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<u64> {
        self.0.extend_from_slice(bytes);
        let (whole, _) = self.0.as_chunks::<REPORT_BYTES>();
        let newest = whole.last().copied().map(u64::from_le_bytes);
        let whole = whole.len() * REPORT_BYTES;
        self.0.drain(..whole);
        newest
    }
}

/// Returns what a query asks for, and from which member it comes. An error says what the query must
/// be.
pub(crate) fn asked(query: &str) -> Result<(Option<From>, Option<MemberId>), String> {
    let wrong = || {
        "the query must be from=copy, or from= with store, epoch, next entry and running hash, and may have member=, \
         as a standby writes them"
            .to_owned()
    };
    let (from, member) = match query.split_once(MEMBER) {
        None => (query, None),
        Some((from, member)) => {
            let is_hex = member.len() == 16 && member.bytes().all(|byte| byte.is_ascii_hexdigit());
            let member = is_hex.then(|| u64::from_str_radix(member, 16).ok());
            let member = member.flatten().filter(|&member| member != NO_MEMBER);
            (from, Some(MemberId(member.ok_or_else(wrong)?)))
        }
    };
    let from = from.strip_prefix("from=").ok_or_else(wrong)?;
    if from == "copy" {
        return Ok((None, member));
    }
    let mut parts = from.split('-');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let is_hex = part.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(part, 16).ok())?
    };
    let mut from = || {
        Some(From {
            store: number(16)?,
            epoch: u32::try_from(number(8)?).ok()?,
            next_sequence: number(16)?,
            chain: number(16)?,
        })
    };
    let from = from().ok_or_else(wrong)?;
    if parts.next().is_some() {
        return Err(wrong());
    }
    Ok((Some(from), member))
}

#[cfg(test)]
mod tests {
    use super::*;
    use widgets_engine::{Epoch, Role};

    fn frames() -> Vec<Frame> {
        let store = StoreHeader {
            identity: 7,
            secret: [3; 16],
            epochs: vec![Epoch {
                number: 1,
                first_sequence: 1,
            }],
            role: Role::Primary,
            member: 5,
        };
        let group = LoggedGroup {
            first_sequence: 5,
            entries: 2,
            at: 1_000_000,
            chain: u64::MAX,
            payload: Box::new([1, 2, 3]),
        };
        let end = JournalEnd {
            next_sequence: 7,
            at: 9,
            chain: 4,
        };
        vec![
            Frame::Store(Box::new(store)),
            Frame::Checkpoint {
                first_sequence: 4,
                bytes: 3,
            },
            Frame::Piece(vec![9, 8, 7]),
            Frame::Group {
                group,
                next_chain: 12,
            },
            Frame::End { end, behind: 77 },
        ]
    }

    #[test]
    fn frames_are_decoded_however_their_bytes_are_split() {
        let mut bytes = Vec::new();
        for frame in frames() {
            frame.encode(&mut bytes);
        }
        for piece in [1, 3, 4096, bytes.len()] {
            let (mut decoder, mut read) = (Decoder::new(1 << 20), Vec::new());
            for part in bytes.chunks(piece) {
                decoder.push(part);
                while let Some(frame) = decoder.next().expect("right") {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames(), "in pieces of {piece}");
        }
    }

    #[test]
    fn invalid_and_oversized_frames_are_refused_without_waiting() {
        for (bytes, says) in [
            (&[9, 0, 0, 0, 0][..], "kind 9"),
            (&[END, 1, 0, 0, 0, 5], "kind 5 with 1 bytes"),
            (&[GROUP, 3, 0, 0, 0, 1, 2, 3], "kind 4 with 3 bytes"),
            (&[STORE, 1, 0, 0, 0, 0], "kind 1 with 1 bytes"),
            (&[PIECE, 0, 0, 0, 1], "16777216 bytes, at most 1048576"),
            (&[GROUP, 101, 0, 0, 0], "101 bytes, at most 100"),
        ] {
            let mut decoder = Decoder::new(100);
            decoder.push(bytes);
            let error = decoder.next().expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_newest_complete_report_counts_however_the_bytes_are_split() {
        let mut reports = Reports::default();
        let bytes = [7u64, 9, 12].map(u64::to_le_bytes).concat();
        assert_eq!(reports.push(&bytes[..20]), Some(9));
        assert_eq!(reports.push(&bytes[20..23]), None);
        assert_eq!(reports.push(&bytes[23..]), Some(12));
        assert_eq!(reports.push(&[]), None);
    }

    #[test]
    fn the_resume_query_of_a_standby_round_trips() {
        let from = From {
            store: 1,
            epoch: 65_540,
            next_sequence: 99,
            chain: u64::MAX,
        };
        let member = Some(MemberId(77));
        for (from, member) in [
            (Some(from), None),
            (None, None),
            (Some(from), member),
            (None, member),
        ] {
            assert_eq!(asked(&query(from, member)), Ok((from, member)));
        }
        for wrong in [
            "",
            "from=",
            "from=1-2-3-4",
            "from=copy&x",
            "from=copy&member=",
            "from=copy&member=0000000000000000",
            "from=copy&member=+000000000000001",
            &format!("{}-1", query(Some(from), None)),
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
