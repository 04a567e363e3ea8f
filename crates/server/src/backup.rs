//! `GET /backup`: the whole store as one stream, for those who administer the service.
//!
//! What the stream says is nothing to this crate: it hands pieces over as the client reads them. A client that
//! hangs up ends it, and so does a shutdown: what was cut off says so by its missing end.

use crate::{error::Error, pieces::Pieces};
use hyper::{HeaderMap, body::Bytes, header, header::HeaderValue};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use widgets_registry::Fault;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const STREAM_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// One who asks while another one is given a backup may try again after so many seconds.
const RETRY_AFTER_SECONDS: u32 = 10;

/// Gives backups of a store that runs.
pub trait Backup: Send + Sync + 'static {
    /// Begins one: its bytes, a piece each time the one before is taken. Dropping the receiver gives it up.
    /// `None`: another one is being given.
    fn give(&self) -> std::io::Result<Option<mpsc::Receiver<Bytes>>>;
}

/// Begins one, which ends early where the service stops.
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
    let another = "another backup is being given, and there is one at a time";
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
            // Also while the next piece is waited for.
            () = pieces.closed() => {}
            () = hand_over => {}
        }
    });
    Ok(Pieces::new(body))
}

/// The headers of its answer.
pub(crate) fn headers(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::CONTENT_TYPE, STREAM_TYPE);
}
