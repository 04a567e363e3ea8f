//! The rest of an HTTP/2 body after its request was answered.
//!
//! A stream whose body is not read to the end is reset after the answer. That is allowed (RFC 9113,
//! 8.1), but clients such as curl 7.88 treat it as an error and do not show the answer. So the rest
//! is read and discarded, within limits, while the answer is being sent. The stream still counts as
//! one of the connection's streams, and holds the room that its head took.

use super::{
    idle::{LINGER_BYTES_MAX, LINGER_MAX},
    places::{Awaited, Seat},
};
use crate::budget::Taken;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::runtime::Handle;

/// The body of a request.
pub(super) struct Leftover {
    /// Present until it is dropped.
    body: Option<Incoming>,
    /// Whether it has its own stream.
    is_http2: bool,
    /// The room that its head takes.
    head: Option<Taken>,
    /// The seat of its connection.
    seat: Arc<Seat>,
    /// Present while more of the body is to come.
    awaited: Option<Awaited>,
}

impl Leftover {
    pub(super) fn new(
        body: Incoming,
        is_http2: bool,
        head: Option<Taken>,
        seat: Arc<Seat>,
    ) -> Self {
        Self {
            body: Some(body),
            is_http2,
            head,
            seat,
            awaited: None,
        }
    }
}

impl Body for Leftover {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if frame.is_ready() {
            self.awaited = None;
        } else if self.awaited.is_none() {
            self.awaited = Some(self.seat.awaited());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(none, Incoming::size_hint)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if !self.is_http2 || body.is_end_stream() {
            return;
        }
        let head = self.head.take();
        // Skipped if the worker itself is shutting down.
        if let Ok(worker) = Handle::try_current() {
            worker.spawn(async move {
                forget(body).await;
                drop(head);
            });
        }
    }
}

/// Reads a body to its end, unless that takes too much data or time.
async fn forget(mut body: Incoming) {
    let whole = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    // The stream ends here in any case.
    drop(tokio::time::timeout(LINGER_MAX, whole).await);
}
