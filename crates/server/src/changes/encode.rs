//! Changes as bytes.

use super::asked::Format;
use crate::making::Pace;
use hyper::body::Bytes;
use std::io::Write as _;
use widgets_registry::{Event, Position};

/// Writes one array of as many events as fit, and returns how many. It always has at least one.
pub(super) async fn page(events: &[Event], mut pace: Pace) -> (Bytes, usize) {
    let (mut body, mut told) = (vec![b'['], 0);
    for event in events {
        let next = json(event);
        let with_it = body.len() + ",]".len() + next.len();
        if told > 0 && !pace.fits(with_it) {
            break;
        }
        if told > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&next);
        told += 1;
        pace.pause(body.len()).await;
    }
    body.push(b']');
    (body.into(), told)
}

/// Returns the beginning of a stream.
pub(super) fn beginning(format: Format) -> Bytes {
    match format {
        // The delay before a reconnection, in milliseconds.
        Format::Events => Bytes::from_static(b"retry: 1000\n\n"),
        Format::Page | Format::Lines => Bytes::new(),
    }
}

/// Writes events for a stream until `bytes` is reached, and returns how many.
pub(super) fn piece(format: Format, events: &[Event], bytes: usize) -> (Bytes, usize) {
    let (mut piece, mut told) = (Vec::new(), 0);
    for event in events {
        if piece.len() >= bytes {
            break;
        }
        told += 1;
        if format == Format::Events {
            let (position, operation) = (event.position, event.happened.operation());
            // Writing to memory does not fail.
            drop(write!(piece, "id: {position}\nevent: {operation}\ndata: "));
        }
        piece.extend_from_slice(&json(event));
        let end: &[u8] = if format == Format::Events {
            b"\n\n"
        } else {
            b"\n"
        };
        piece.extend_from_slice(end);
    }
    // The piece may wait for a long time.
    piece.shrink_to_fit();
    (piece.into(), told)
}

/// Returns a sign of life. A browser remembers the position and resumes there.
pub(super) fn heartbeat(format: Format, after: Position) -> Bytes {
    match format {
        Format::Events => format!(": \nid: {after}\n\n").into(),
        Format::Page | Format::Lines => Bytes::from_static(b"\n"),
    }
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(json) => json,
        Err(error) => unreachable!("texts and numbers are always JSON: {error}"),
    }
}
