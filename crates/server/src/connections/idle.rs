//! A stream that times out when its peer leaves it hanging, and that closes gracefully.
//!
//! A connection has one timer for its whole life, which is checked only when there is nothing else
//! to do. One or two timers for each request would be costly at tens of thousands of requests a
//! second. The price is accuracy: a limit takes effect after between one and two times its length.
//!
//! A peer may still be sending when its connection ends: a body that is not wanted, or whatever
//! follows a malformed head. If the socket were closed at once, the system would answer that data
//! with a reset, which discards an answer that the peer has not read yet, and which a proxy counts
//! as a failure of the service. So the stream shuts down its sending side first, and then reads on
//! for a while.
//!
//! Over HTTP/1.1 nothing is read while an answer is under way: a request that has begun is answered
//! even if the peer has shut down its sending side. During an answer without an end, nobody would
//! then notice that the peer has hung up. So the stream itself looks for that, and keeps any data
//! that arrives instead for the next reader.

use super::{answers::Answers, metrics::Cut};
use std::{
    io, mem,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
    time::{Instant, Sleep},
};

/// How long, and how many bytes, a stream reads on after its end.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(5);
pub(super) const LINGER_BYTES_MAX: usize = 4 << 20;

/// How many of those bytes are read at once.
const LINGER_PIECE_BYTES: usize = 16 << 10;

/// How many bytes are kept of what a peer sends while it receives an answer without an end. With
/// TLS, hanging up is announced by some 30 bytes. If a peer has sent more, its hanging up is
/// noticed when something is sent to it.
const AHEAD_BYTES_MAX: usize = 256;

/// For this many bytes a connection uses up one of the 128 units of its task's turn (tokio calls
/// them its budget). So after some kilobytes the worker's other tasks run, even if more data has
/// arrived.
const UNIT_BYTES: usize = 64;

/// The time limits for a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// How long nothing may move in either direction, once a request has been made.
    pub(super) idle: Duration,
    /// The time from the first byte of a request to the first byte of an answer.
    pub(super) request: Duration,
    /// The time between two pieces of an answer that the peer takes.
    pub(super) answer: Duration,
}

/// Fails with [`io::ErrorKind::TimedOut`] when a deadline passes.
pub(super) struct IdleStream<S> {
    stream: S,
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
    /// Something has moved since the timer was last set.
    moved: bool,
    /// How long nothing had moved when the timer last fired.
    still: Duration,
    /// Bytes have arrived, and none have been sent since.
    reading: bool,
    /// `reading` has been true for the whole time since the timer was last set.
    reading_for_long: bool,
    sending: Sending,
    answers: Arc<Answers>,
    /// The time since the answers were last checked, as of the last time the timer fired.
    since_answers: Duration,
    /// The service is stopping, so no stream reads on after its end.
    stopping: Arc<AtomicBool>,
    ending: Ending,
    /// Bytes that arrived while the stream looked whether the peer has hung up, and that are still
    /// unread.
    ahead: Vec<u8>,
}

/// Whether the peer takes what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Flows,
    Blocked,
    /// And a read was attempted meanwhile.
    BlockedBeforeReading,
}

/// How far the closing of a stream has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Not,
    /// The peer has shut down its sending side.
    PeerEnded,
    /// This side has shut down its sending side, and has read this many bytes since.
    Lingers(usize),
}

impl<S> IdleStream<S> {
    pub(super) fn new(
        stream: S,
        deadlines: Deadlines,
        answers: Arc<Answers>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self {
            stream,
            deadlines,
            timer: Box::pin(tokio::time::sleep(period(deadlines))),
            moved: false,
            still: Duration::ZERO,
            reading: false,
            reading_for_long: false,
            sending: Sending::Flows,
            answers,
            since_answers: Duration::ZERO,
            stopping,
            ending: Ending::Not,
            ahead: Vec::new(),
        }
    }

    fn timed_out(&self, why: Cut, reason: &'static str) -> io::Error {
        self.answers.count(why);
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }

    /// Is pending until a deadline has passed. Must be polled when the stream has nothing to do.
    fn poll_deadlines(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let period = period(self.deadlines);
            if self.reading_for_long {
                let reason = "a request took longer to arrive than request_timeout";
                return Poll::Ready(self.timed_out(Cut::Request, reason));
            }
            self.reading_for_long = self.reading;
            self.still = if mem::take(&mut self.moved) {
                Duration::ZERO
            } else {
                self.still + period
            };
            if self.still >= self.deadlines.idle {
                let reason = "nothing moved on the connection for idle_timeout";
                return Poll::Ready(self.timed_out(Cut::Idle, reason));
            }
            // A peer that connects is expected to send a request.
            if self.still >= self.deadlines.request && !self.answers.was_asked() {
                let reason = "nothing was asked on the connection for request_timeout";
                return Poll::Ready(self.timed_out(Cut::Request, reason));
            }
            self.since_answers += period;
            if self.since_answers >= self.deadlines.answer {
                self.since_answers = Duration::ZERO;
                if self.answers.turn() {
                    let reason = "an answer was not read for answer_timeout";
                    return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, reason));
                }
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
        // A peer that takes no answers may send no more requests, because each takes memory until
        // it is answered.
        if self.sending != Sending::Flows {
            self.sending = Sending::BlockedBeforeReading;
            return self.poll_deadlines(context).map(Err);
        }
        if !self.ahead.is_empty() {
            let bytes = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..bytes]);
            self.ahead.drain(..bytes);
            self.moved = true;
            self.reading = true;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.poll_deadlines(context).map(Err),
            Poll::Ready(result) => {
                self.moved = true;
                let bytes = buffer.filled().len() - before;
                use_up(bytes / UNIT_BYTES, context);
                let read = bytes > 0;
                self.reading |= read;
                if !read && self.ending == Ending::Not {
                    self.ending = Ending::PeerEnded;
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<S: AsyncRead + Unpin> IdleStream<S> {
    /// Looks whether the peer has hung up, which is an error because it wants nothing more.
    /// Arriving data wakes the task from now on.
    fn look_ahead(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut piece = [MaybeUninit::uninit(); AHEAD_BYTES_MAX];
        while self.ahead.len() < AHEAD_BYTES_MAX {
            let mut buffer = ReadBuf::uninit(&mut piece[self.ahead.len()..]);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(read) => read?,
            }
            if buffer.filled().is_empty() {
                self.ending = Ending::PeerEnded;
                let reason = "the client of a stream hung up";
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason));
            }
            self.ahead.extend_from_slice(buffer.filled());
            // Somebody may be waiting for it: a standby sends reports while it receives.
            context.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Reads on after the end, until the peer ends as well or a limit is reached.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut piece = [MaybeUninit::uninit(); LINGER_PIECE_BYTES];
        while let Ending::Lingers(read) = self.ending
            && read < LINGER_BYTES_MAX
        {
            let mut buffer = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.ending = Ending::Lingers(read + buffer.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending if self.stopping.load(Ordering::Relaxed) => break,
                Poll::Pending => return self.timer.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncWrite + Unpin> IdleStream<S> {
    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            if self.sending == Sending::Flows {
                self.sending = Sending::Blocked;
            }
            return self.poll_deadlines(context).map(Err);
        }
        if self.sending == Sending::BlockedBeforeReading {
            context.waker().wake_by_ref();
        }
        self.sending = Sending::Flows;
        self.moved = true;
        self.reading = false;
        self.reading_for_long = false;
        written
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for IdleStream<S> {
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
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.answers.streams() {
            self.look_ahead(context)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.ending, Ending::Lingers(_)) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if self.ending == Ending::PeerEnded {
                return Poll::Ready(Ok(()));
            }
            self.ending = Ending::Lingers(0);
            self.timer.as_mut().reset(Instant::now() + LINGER_MAX);
        }
        self.poll_linger(context).map(Ok)
    }
}

/// Uses up this many units of the task's turn, or as many as it has.
fn use_up(units: usize, context: &mut Context<'_>) {
    for _ in 0..units {
        match coop::poll_proceed(context) {
            Poll::Ready(unit) => unit.made_progress(),
            // This has woken the task for its next turn.
            Poll::Pending => break,
        }
    }
}

/// Returns the interval at which the deadlines are checked.
fn period(deadlines: Deadlines) -> Duration {
    deadlines.request.min(deadlines.idle).min(deadlines.answer)
}

#[cfg(test)]
mod tests;
