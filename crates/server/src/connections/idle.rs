//! A stream that ends when its peer leaves it hanging.
//!
//! One timer for the whole life of a connection, looked at only when there is nothing else to do,
//! instead of one or two for each request: at tens of thousands of requests a second that matters.
//! The price is accuracy: a limit takes effect between one and two times its length.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// With nothing moving in either direction.
    pub(super) idle: Duration,
    /// From the first byte of a request to the first byte of an answer.
    pub(super) request: Duration,
}

/// Ends with [`io::ErrorKind::TimedOut`] when a deadline passes.
pub(super) struct IdleStream<S> {
    stream: S,
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
    /// Something moved since the timer was last set.
    moved: bool,
    /// How long nothing has moved, as of the last time that the timer went off.
    still: Duration,
    /// Bytes came in, and none went out since.
    reading: bool,
    /// That is so for the whole time since the timer was last set.
    reading_for_long: bool,
}

impl<S> IdleStream<S> {
    pub(super) fn new(stream: S, deadlines: Deadlines) -> Self {
        Self {
            stream,
            deadlines,
            timer: Box::pin(tokio::time::sleep(period(deadlines))),
            moved: false,
            still: Duration::ZERO,
            reading: false,
            reading_for_long: false,
        }
    }

    /// For when the stream has nothing to do: pending until a deadline has passed.
    fn poll_deadlines(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let period = period(self.deadlines);
            if self.reading_for_long {
                let reason = "a request took longer to arrive than request_timeout";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            self.reading_for_long = self.reading;
            self.still = if std::mem::take(&mut self.moved) {
                Duration::ZERO
            } else {
                self.still + period
            };
            if self.still >= self.deadlines.idle {
                let reason = "nothing moved on the connection for idle_timeout";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            let next = self.timer.deadline() + period;
            self.timer.as_mut().reset(next);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.poll_deadlines(context).map(Err),
            Poll::Ready(result) => {
                self.moved = true;
                self.reading |= buffer.filled().len() > before;
                Poll::Ready(result)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> IdleStream<S> {
    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            return self.poll_deadlines(context).map(Err);
        }
        self.moved = true;
        self.reading = false;
        self.reading_for_long = false;
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How often to look.
fn period(deadlines: Deadlines) -> Duration {
    deadlines.request.min(deadlines.idle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    const DEADLINES: Deadlines = Deadlines {
        idle: Duration::from_mins(1),
        request: Duration::from_secs(10),
    };

    /// Sends a byte every `pause`; says how many seconds the other side bears it, and why no longer.
    async fn trickle(pause: Duration, answer: bool) -> (u64, String) {
        let (mut peer, stream) = duplex(16);
        let mut stream = IdleStream::new(stream, DEADLINES);
        let start = Instant::now();
        tokio::spawn(async move {
            while peer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        });
        for _ in 0..1000 {
            if let Err(error) = stream.read_exact(&mut [0]).await {
                return (start.elapsed().as_secs(), error.to_string());
            }
            if answer {
                stream.write_all(b"y").await.expect("the peer has room");
            }
        }
        (start.elapsed().as_secs(), "nothing".into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_trickles_in_is_cut() {
        let (seconds, error) = trickle(Duration::from_secs(1), false).await;
        assert!((10..=20).contains(&seconds), "{seconds}");
        assert!(error.contains("request_timeout"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_cut() {
        let (_peer, stream) = duplex(16);
        let mut stream = IdleStream::new(stream, DEADLINES);
        let start = Instant::now();
        let error = stream.read_exact(&mut [0]).await.expect_err("cut");
        assert!(error.to_string().contains("idle_timeout"), "{error}");
        let seconds = start.elapsed().as_secs();
        assert!((60..=120).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_cut() {
        let (_peer, stream) = duplex(16);
        let mut stream = IdleStream::new(stream, DEADLINES);
        let error = stream.write_all(&[0; 17]).await.expect_err("cut");
        assert!(error.to_string().contains("idle_timeout"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_but_steady_conversation_goes_on() {
        let (peer, mut stream) = duplex(16);
        let mut peer = peer;
        tokio::spawn(async move {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                peer.write_all(b"x").await.expect("not cut");
                peer.read_exact(&mut [0]).await.expect("answered");
            }
        });
        let mut stream = IdleStream::new(&mut stream, DEADLINES);
        for _ in 0..20 {
            stream.read_exact(&mut [0]).await.expect("not cut");
            stream.write_all(b"y").await.expect("not cut");
        }
    }
}
