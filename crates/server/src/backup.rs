//! `GET /backup`: the whole store as one stream, for administrators.
//!
//! This crate does not know the contents of the stream; it hands pieces over as the client reads
//! them. The stream ends early if the client hangs up or the service shuts down. A stream that was
//! cut off can be recognised by its missing end.

use crate::{error::Error, pieces::Pieces};
use hyper::{HeaderMap, body::Bytes, header, header::HeaderValue};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use widgets_registry::Fault;

const STREAM_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// After how many seconds a client may retry if another backup is in progress.
const RETRY_AFTER_SECONDS: u32 = 10;

/// Makes backups of a running store.
pub trait Backup: Send + Sync + 'static {
    /// Begins a backup. Each piece is made when the previous one was taken; dropping the receiver
    /// cancels it. `None` if another backup is in progress.
    fn give(&self) -> std::io::Result<Option<mpsc::Receiver<Bytes>>>;
}

/// Begins a backup, which ends early if the service stops.
pub(crate) fn give(
    backup: Option<&Arc<dyn Backup>>,
    mut stopping: watch::Receiver<bool>,
) -> Result<Pieces, Error> {
    let backup = backup.ok_or(Error::NoBackup)?;
    let busy = |limit: String| Fault::Busy {
        limit,
        retry_after_seconds: RETRY_AFTER_SECONDS,
    };
    let given = backup.give();
    let given =
        given.map_err(|error| busy(format!("a thread for a backup cannot be started: {error}")))?;
    let another = "another backup is in progress, and only one is possible at a time";
    let mut given = given.ok_or_else(|| busy(another.into()))?;
    let (pieces, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let hand_over = async {
            while let Some(piece) = given.recv().await {
                if pieces.send(piece).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|&stopping| stopping) => {}
            // Also while waiting for the next piece.
            () = pieces.closed() => {}
            () = hand_over => {}
        }
    });
    Ok(Pieces::new(body))
}

/// Sets the headers of the answer.
pub(crate) fn headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, STREAM_TYPE);
}
