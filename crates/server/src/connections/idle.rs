//! A stream that ends when its peer leaves it hanging, and that ends in order.
//!
//! One timer for the whole life of a connection, looked at only when there is nothing else to do,
//! instead of one or two for each request: at tens of thousands of requests a second that matters.
//! The price is accuracy: a limit takes effect between one and two times its length.
//!
//! A peer may still be sending when its connection ends: a body that is not wanted, or what stands
//! behind a broken head. Closed at once, the system would answer that with a reset, which takes the answer
//! away from a peer that has not read it yet, and which a proxy counts as a failure of the service. So
//! the stream says that nothing more will come, and reads on for a while.

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

/// After its end a stream reads on for so long, and so much, at most.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(5);
pub(super) const LINGER_BYTES_MAX: usize = 4 << 20;

/// How much of that is read at once.
const LINGER_PIECE_BYTES: usize = 16 << 10;

/// For so many bytes a connection uses up one of the 128 units of its task's turn (tokio calls them its budget): after
/// some kilobytes others of its worker have theirs, whatever more has come.
const UNIT_BYTES: usize = 64;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// With nothing moving in either direction, once something was asked.
    pub(super) idle: Duration,
    /// From the first byte of a request to the first byte of an answer.
    pub(super) request: Duration,
    /// From one piece of an answer that the peer takes to the next.
    pub(super) answer: Duration,
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
    sending: Sending,
    answers: Arc<Answers>,
    /// How long ago the answers were looked at, as of the last time that the timer went off.
    since_answers: Duration,
    /// The service is stopping: nothing is read on for.
    stopping: Arc<AtomicBool>,
    ending: Ending,
}

/// Whether the peer takes what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Flows,
    Blocked,
    /// And somebody has wanted to read meanwhile.
    BlockedBeforeReading,
}

/// How far the end of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Not,
    /// The peer has said that nothing more will come.
    PeerEnded,
    /// The peer was told that nothing more will come, and so much was read since.
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
        }
    }

    fn timed_out(&self, why: Cut, reason: &'static str) -> io::Error {
        self.answers.count(why);
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }

    /// For when the stream has nothing to do: pending until a deadline has passed.
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
            // Whoever connects wants to ask something.
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
        // Who takes no answers may ask no more: what is asked takes memory until it is answered.
        if self.sending != Sending::Flows {
            self.sending = Sending::BlockedBeforeReading;
            return self.poll_deadlines(context).map(Err);
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
    /// Reads on after the end, until the peer ends as well or it was enough.
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
        Pin::new(&mut self.stream).poll_flush(context)
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

/// Uses up so many units of the task's turn, if it has as many.
fn use_up(units: usize, context: &mut Context<'_>) {
    for _ in 0..units {
        match coop::poll_proceed(context) {
            Poll::Ready(unit) => unit.made_progress(),
            // It has woken the task for its next turn.
            Poll::Pending => break,
        }
    }
}

/// How often to look.
fn period(deadlines: Deadlines) -> Duration {
    deadlines.request.min(deadlines.idle).min(deadlines.answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{answers::Unread, metrics::ConnectionMetrics, places::Seat};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    const DEADLINES: Deadlines = Deadlines {
        idle: Duration::from_mins(1),
        request: Duration::from_secs(10),
        answer: Duration::from_secs(30),
    };

    fn idle_stream<S>(stream: S) -> IdleStream<S> {
        let seat = Seat::new(Arc::default());
        drop(seat.busy());
        with_seat(stream, seat)
    }

    fn with_seat<S>(stream: S, seat: Arc<Seat>) -> IdleStream<S> {
        let answers = Answers::new(Unread::new(1 << 20, ConnectionMetrics::default()), seat);
        IdleStream::new(stream, DEADLINES, answers, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_nothing_is_cut_earlier() {
        let (_peer, stream) = duplex(16);
        let mut stream = with_seat(stream, Seat::new(Arc::default()));
        let start = Instant::now();
        let error = stream.read_exact(&mut [0]).await.expect_err("cut");
        assert!(error.to_string().contains("request_timeout"), "{error}");
        let seconds = start.elapsed().as_secs();
        assert!((10..=20).contains(&seconds), "{seconds}");
    }

    /// Sends a byte every `pause`; says how many seconds the other side bears it, and why no longer.
    async fn trickle(pause: Duration, answer: bool) -> (u64, String) {
        let (mut peer, stream) = duplex(16);
        let mut stream = idle_stream(stream);
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
        let mut stream = idle_stream(stream);
        let start = Instant::now();
        let error = stream.read_exact(&mut [0]).await.expect_err("cut");
        assert!(error.to_string().contains("idle_timeout"), "{error}");
        let seconds = start.elapsed().as_secs();
        assert!((60..=120).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_cut() {
        let (_peer, stream) = duplex(16);
        let mut stream = idle_stream(stream);
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
        let mut stream = idle_stream(&mut stream);
        for _ in 0..20 {
            stream.read_exact(&mut [0]).await.expect("not cut");
            stream.write_all(b"y").await.expect("not cut");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_peer_goes_on_to_send_does_not_take_its_answer_away() {
        let (mut peer, stream) = duplex(16);
        let mut stream = idle_stream(stream);
        let client = tokio::spawn(async move {
            // It sends all of its request before it looks for an answer.
            peer.write_all(&[b'x'; 1000]).await.expect("it is read");
            let mut answer = String::new();
            peer.read_to_string(&mut answer).await.expect("whole");
            answer
        });
        stream.read_exact(&mut [0]).await.expect("the first byte");
        stream.write_all(b"no").await.expect("there is room");
        stream.shutdown().await.expect("in order");
        assert_eq!(client.await.expect("no panic"), "no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_is_not_read_for_ever() {
        let (mut peer, stream) = duplex(16);
        let mut stream = idle_stream(stream);
        let start = Instant::now();
        let trickling = tokio::spawn(async move {
            while peer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        stream.shutdown().await.expect("in order");
        assert_eq!(start.elapsed(), LINGER_MAX);
        drop(stream);
        trickling.await.expect("it has ended");

        let (mut peer, stream) = duplex(LINGER_PIECE_BYTES);
        let mut stream = idle_stream(stream);
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while peer.write_all(&[b'x'; 1 << 10]).await.is_ok() {
                sent += 1 << 10;
            }
            sent
        });
        stream.shutdown().await.expect("in order");
        drop(stream);
        let sent = flood.await.expect("no panic");
        assert!(sent < 2 * LINGER_BYTES_MAX, "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_where_the_peer_has_ended_or_the_service_stops() {
        let (peer, stream) = duplex(16);
        let mut stream = idle_stream(stream);
        drop(peer);
        assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
        let (_peer, stopped) = duplex(16);
        let mut stopped = idle_stream(stopped);
        stopped.stopping.store(true, Ordering::Relaxed);
        let start = Instant::now();
        stream.shutdown().await.expect("in order");
        stopped.shutdown().await.expect("in order");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    /// Who asks for much at once does not keep others waiting until all of it is read.
    #[tokio::test]
    async fn others_have_their_turn_beside_a_flood() {
        let (mut peer, stream) = duplex(1 << 20);
        peer.write_all(&vec![b'x'; 1 << 20]).await.expect("room");
        let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = read.clone();
        let flood = tokio::spawn(async move {
            let (mut stream, mut piece) = (idle_stream(stream), [0; 4096]);
            while counted.load(Ordering::Relaxed) < 1 << 20 {
                let bytes = stream.read(&mut piece).await.expect("there is more");
                counted.fetch_add(bytes, Ordering::Relaxed);
            }
        });
        let seen = tokio::spawn(async move { read.load(Ordering::Relaxed) });
        let seen = seen.await.expect("no panic");
        assert!((1..=16 << 10).contains(&seen), "{seen}");
        flood.await.expect("no panic");
    }

    /// It would have them all in memory.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_asked_nothing_more() {
        let (mut peer, stream) = duplex(16);
        let (mut reader, mut writer) = tokio::io::split(idle_stream(stream));
        let writing = tokio::spawn(async move {
            writer.write_all(&[b'y'; 100]).await.expect("in the end");
            writer
        });
        peer.write_all(b"x").await.expect("there is room");
        // What was spawned begins.
        tokio::task::yield_now().await;
        let early = tokio::time::timeout(Duration::from_secs(5), reader.read(&mut [0])).await;
        early.expect_err("its answers come first");
        peer.read_exact(&mut [0; 100]).await.expect("the answers");
        assert_eq!(reader.read(&mut [0]).await.expect("now"), 1);
        drop(writing.await.expect("no panic"));
    }
}
