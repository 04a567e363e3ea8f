//! `Read-After: POSITION`: a read is answered only once the store has everything up to that
//! position.
//!
//! A primary has every position that it ever returned, so it answers at once. A standby waits until
//! it has received that position, for as long as a list may take. So a client that sends the
//! `Position` of an earlier answer reads its own writes from any store.

use super::{Api, Wanted};
use crate::{
    error::{Error, Malformed},
    negotiation,
};
use hyper::{HeaderMap, header::HeaderName};
use widgets_registry::{FeedError, Position, Store};

const READ_AFTER: HeaderName = HeaderName::from_static("read-after");

impl<S: Store> Api<S> {
    /// Waits if the request asks for it and is of a kind that `Read-After` applies to.
    pub(super) async fn read_after(
        &self,
        wanted: &Wanted,
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        match wanted {
            Wanted::Widget(_) | Wanted::List(_) | Wanted::Neighbourhood(_) | Wanted::Changes(_) => {
            }
            Wanted::Answer(_)
            | Wanted::Operation(..)
            | Wanted::Replication(..)
            | Wanted::Backup => return Ok(()),
        }
        match position(headers)? {
            Some(position) => Box::pin(self.wait_until(position)).await,
            None => Ok(()),
        }
    }

    async fn wait_until(&self, position: Position) -> Result<(), Error> {
        let feed = self.feed.as_ref().ok_or(Error::NoChanges)?;
        let timeout = self.shared.settings.read_timeout;
        let mut stopping = self.shared.subscribers.stopping();
        let late = || Error::PositionAwaited {
            timeout,
            newest: feed.known_newest(),
        };
        tokio::select! {
            biased;
            reached = feed.reached(position) => reached.map_err(|error| match error {
                FeedError::Gone { .. } => Error::PositionUnknown(feed.known_newest()),
                error => error.into(),
            }),
            _ = stopping.wait_for(|&stopping| stopping) => Err(late()),
            () = self.shared.clock.timer(timeout) => Err(late()),
        }
    }
}

/// Returns the position that the request is to be answered after.
fn position(headers: &HeaderMap) -> Result<Option<Position>, Malformed> {
    let mut values = headers.get_all(READ_AFTER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = negotiation::text(value);
    let malformed = |must| Malformed::HeaderValue {
        name: "Read-After",
        value: text.clone(),
        must,
    };
    if values.next().is_some() {
        return Err(malformed("it is given more than once"));
    }
    let must = "it must be a position that the service gave out";
    text.parse().map(Some).map_err(|_| malformed(must))
}
