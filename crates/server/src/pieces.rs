//! A body that arrives in pieces and has no length.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{sync::mpsc, time::Sleep};
use widgets_clock::Clock;

/// A body that continues as long as pieces come. They are taken as the client reads.
#[derive(Debug)]
pub struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    /// The time at which it ends in any case, if there is one.
    end: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    pub(crate) const fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { pieces, end: None }
    }

    /// Returns a body that ends after this time at the latest.
    pub(crate) fn until(pieces: mpsc::Receiver<Bytes>, left: Option<Duration>) -> Self {
        let end = left.map(|left| Box::pin(tokio::time::sleep(left)));
        Self { pieces, end }
    }
}

/// Returns the time until this second, counted from 1970, begins.
pub(crate) fn time_left(second: i64, clock: &dyn Clock) -> Duration {
    let seconds = second.saturating_sub(clock.unix_seconds());
    Duration::from_secs(seconds.try_into().unwrap_or_default())
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(context));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
