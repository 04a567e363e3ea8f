//! Answers that a client has not read yet: bounded in bytes and in time.
//!
//! Over HTTP/2 a client decides how much of each answer may be sent, and can ask for thousands that it lets
//! wait. So their bytes are counted until they are on their way, for each connection and for all
//! together. A connection gets a sixteenth of what is left at most: those that let answers wait leave
//! room for those that read. Whoever lets one wait for longer than `answer_timeout` is cut off, whatever
//! else it sends.
//!
//! Over HTTP/1.1 there is one answer at a time. It is handed over in pieces, so that no more than one is
//! copied ahead; one that is no longer than a piece is not counted.

use super::{
    metrics::{ConnectionMetrics, Cut},
    places::{Busy, Seat},
};
use hyper::{
    Response,
    body::{Body, Bytes, Frame, SizeHint},
};
use std::{
    fmt::Display,
    io, mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

/// How much is handed over at once.
const PIECE_BYTES: usize = 16 << 10;

/// What a stream takes beside its answer, about.
pub(super) const STREAM_BYTES: usize = 4 << 10;

/// One connection gets this part of what is left, at most.
const SHARE: usize = 16;

/// How long an answer can be that may wait, where so many bytes may and nothing else does.
#[must_use]
pub const fn answer_bytes_max(unread_bytes_max: usize) -> usize {
    (unread_bytes_max / SHARE).saturating_sub(STREAM_BYTES)
}

/// Marks an answer whose body is there in any case, shared by everyone: it takes no memory of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident;

/// What waits on all connections.
pub(super) struct Unread {
    bytes: AtomicUsize,
    bytes_max: usize,
    metrics: ConnectionMetrics,
}

impl Unread {
    pub(super) fn new(bytes_max: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            metrics,
        })
    }

    /// Room for a connection on which `held` bytes wait already.
    fn allows(&self, held: usize, more: usize) -> bool {
        let free = self
            .bytes_max
            .saturating_sub(self.bytes.load(Ordering::Relaxed));
        held.saturating_add(more) <= free / SHARE
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.unread(bytes, 0);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.unread(0, bytes);
    }
}

/// What waits on one connection.
pub(super) struct Answers {
    all: Arc<Unread>,
    seat: Arc<Seat>,
    held: Mutex<Held>,
    /// An answer without a length is under way over HTTP/1.1, such as a stream of changes.
    streams: AtomicBool,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    /// How many have begun to wait, or have moved, since the last turn.
    young: usize,
    /// How many have waited since before.
    old: usize,
    turn: u64,
}

impl Answers {
    pub(super) fn new(all: Arc<Unread>, seat: Arc<Seat>) -> Arc<Self> {
        Arc::new(Self {
            all,
            seat,
            held: Mutex::default(),
            streams: AtomicBool::new(false),
        })
    }

    /// Whether anything was asked on the connection yet.
    pub(super) fn was_asked(&self) -> bool {
        self.seat.was_asked()
    }

    /// Whether an answer goes on until its client hangs up, and nothing else would tell that it has: over HTTP/1.1
    /// nothing is read while an answer is under way.
    pub(super) fn streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }

    /// Bounds an answer. Where there is no room for it, `instead` makes one that says so by the limit;
    /// where there is none for that either, the connection is cut.
    pub(super) fn bound<B>(
        self: &Arc<Self>,
        response: Response<B>,
        is_http2: bool,
        instead: impl FnOnce(String) -> Response<B>,
    ) -> Response<AnswerBody<B>>
    where
        B: Body,
    {
        let (response, hold) = if let Ok(hold) = self.room(&response, is_http2) {
            (response, hold)
        } else {
            let limit = format!("http.unread_bytes_max = {}", self.all.bytes_max);
            let response = instead(limit);
            let hold = self.room(&response, is_http2).unwrap_or_else(|()| {
                self.cut(Cut::Unread);
                None
            });
            (response, hold)
        };
        let answers = is_http2.then(|| self.clone());
        let has_end = is_http2 || response.body().size_hint().exact().is_some();
        let stream = (!has_end).then(|| Stream::begin(self.clone()));
        response.map(|inner| AnswerBody {
            inner,
            rest: Bytes::new(),
            hold,
            answers,
            _stream: stream,
            _busy: self.seat.busy(),
        })
    }

    fn room<B: Body>(
        self: &Arc<Self>,
        response: &Response<B>,
        is_http2: bool,
    ) -> Result<Option<Arc<Hold>>, ()> {
        // What comes bit by bit is counted as it comes.
        let bytes = response.body().size_hint().exact().unwrap_or_default();
        let bytes = usize::try_from(bytes).map_err(drop)?;
        if bytes == 0 || !is_http2 && bytes <= PIECE_BYTES {
            return Ok(None);
        }
        let is_resident = response.extensions().get::<Resident>().is_some();
        let bytes = if is_resident { 0 } else { bytes };
        let beside = if is_http2 { STREAM_BYTES } else { 0 };
        self.hold(bytes.saturating_add(beside)).map(Some).ok_or(())
    }

    fn hold(self: &Arc<Self>, bytes: usize) -> Option<Arc<Hold>> {
        let mut held = self.lock();
        if !self.all.allows(held.bytes, bytes) {
            return None;
        }
        self.all.add(bytes);
        held.bytes += bytes;
        held.young += 1;
        let turn = Mutex::new(held.turn);
        let answers = self.clone();
        Some(Arc::new(Hold {
            answers,
            bytes,
            turn,
        }))
    }

    /// For every `answer_timeout`: whether an answer has waited for the whole of it.
    pub(super) fn turn(&self) -> bool {
        let mut held = self.lock();
        let late = held.old > 0;
        held.old = mem::take(&mut held.young);
        held.turn += 1;
        if late {
            self.count(Cut::Unread);
        }
        late
    }

    /// Ends the connection, for this reason: it counts once, however many answers have no room.
    pub(super) fn cut(&self, why: Cut) {
        if self.seat.cut() {
            self.count(why);
        }
    }

    pub(super) fn end(&self) {
        self.seat.cut();
    }

    pub(super) fn count(&self, why: Cut) {
        self.all.metrics.cut(why);
    }

    /// Done when the connection is to end at once.
    pub(super) async fn is_cut(&self) {
        self.seat.ends(&self.all.metrics).await;
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing in here can panic halfway through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that wait, until it is dropped.
struct Hold {
    answers: Arc<Answers>,
    bytes: usize,
    /// In which turn something of it moved last.
    turn: Mutex<u64>,
}

impl Hold {
    /// Something of it moves.
    fn renew(&self) {
        let mut held = self.answers.lock();
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if *turn != held.turn {
            held.old = held.old.saturating_sub(1);
            held.young += 1;
            *turn = held.turn;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.answers.lock();
        held.bytes -= self.bytes;
        let turn = self.turn.get_mut().unwrap_or_else(PoisonError::into_inner);
        let of_its_age = if *turn == held.turn {
            &mut held.young
        } else {
            &mut held.old
        };
        *of_its_age = of_its_age.saturating_sub(1);
        drop(held);
        self.answers.all.remove(self.bytes);
    }
}

/// An answer without a length is under way, until this is dropped. Over HTTP/1.1 there is one at a time.
struct Stream(Arc<Answers>);

impl Stream {
    fn begin(answers: Arc<Answers>) -> Self {
        answers.streams.store(true, Ordering::Relaxed);
        Self(answers)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.store(false, Ordering::Relaxed);
    }
}

/// A piece that holds its place until it has been sent.
struct Piece {
    bytes: Bytes,
    _hold: Arc<Hold>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of an answer, in pieces.
pub(super) struct AnswerBody<B> {
    inner: B,
    /// What was taken of it and not handed over yet.
    rest: Bytes,
    hold: Option<Arc<Hold>>,
    /// Over HTTP/2, where pieces wait after they were handed over.
    answers: Option<Arc<Answers>>,
    _stream: Option<Stream>,
    /// Until it was handed over, its connection is not idle.
    _busy: Busy,
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(io::Error::other(error.to_string()))));
                }
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                Ok(data) => this.rest = data,
            }
            if let Some(answers) = &this.answers
                && this.inner.size_hint().exact().is_none()
                && !this.rest.is_empty()
            {
                this.hold = answers.hold(this.rest.len());
                if this.hold.is_none() {
                    answers.cut(Cut::Unread);
                    let error = io::Error::other("http.unread_bytes_max");
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        if let Some(hold) = &this.hold {
            hold.renew();
        }
        let piece = match (&this.hold, &this.answers) {
            (Some(hold), Some(_)) => Bytes::from_owner(Piece {
                bytes: piece,
                _hold: hold.clone(),
            }),
            _ => piece,
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, inner) = (self.rest.len() as u64, self.inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Full};

    const ALL: usize = 16 << 20;

    fn answers(all: &Arc<Unread>) -> Arc<Answers> {
        Answers::new(all.clone(), Seat::new(Arc::default()))
    }

    fn unread() -> Arc<Unread> {
        Unread::new(ALL, ConnectionMetrics::default())
    }

    fn answer(bytes: usize) -> Response<Full<Bytes>> {
        Response::new(Full::new(vec![b'x'; bytes].into()))
    }

    fn none(_: String) -> Response<Full<Bytes>> {
        answer(0)
    }

    #[tokio::test]
    async fn pieces_of_an_answer_are_all_of_it() {
        let (all, bytes) = (unread(), 3 * PIECE_BYTES + 1);
        for is_http2 in [false, true] {
            let bounded = answers(&all).bound(answer(bytes), is_http2, none);
            let mut body = bounded.into_body();
            assert_eq!(body.size_hint().exact(), Some(bytes as u64));
            let first = body.frame().await.expect("a piece").expect("no error");
            let first = first.into_data().expect("data");
            assert_eq!(first.len(), PIECE_BYTES);
            assert_eq!(body.size_hint().exact(), Some((bytes - PIECE_BYTES) as u64));
            assert!(!body.is_end_stream());
            let rest = body.collect().await.expect("no error").to_bytes();
            assert_eq!(rest.len(), bytes - PIECE_BYTES);
        }
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0, "all were read");
    }

    #[tokio::test]
    async fn what_was_handed_over_counts_until_it_was_sent() {
        let all = unread();
        let body = answers(&all).bound(answer(100), true, none).into_body();
        let sent = body.collect().await.expect("no error").to_bytes();
        drop(sent.slice(1..));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 100 + STREAM_BYTES);
        drop(sent);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_there_in_any_case_takes_no_room() {
        let all = unread();
        let mut page = answer(ALL);
        page.extensions_mut().insert(Resident);
        let waiting = answers(&all).bound(page, true, none);
        assert_eq!(waiting.body().size_hint().exact(), Some(ALL as u64));
        assert_eq!(all.bytes.load(Ordering::Relaxed), STREAM_BYTES);
    }

    #[test]
    fn one_connection_leaves_room_for_others() {
        let all = unread();
        let greedy: Vec<_> = (0..1000).map(|_| answers(&all)).collect();
        let mut waiting = Vec::new();
        for connection in &greedy {
            loop {
                let mut cut = false;
                let instead = |limit: String| {
                    assert_eq!(limit, format!("http.unread_bytes_max = {ALL}"));
                    cut = true;
                    answer(0)
                };
                waiting.push(connection.bound(answer(4096), true, instead));
                if cut {
                    break;
                }
            }
        }
        let held = all.bytes.load(Ordering::Relaxed);
        assert!(held < ALL, "{held}");
        assert!(held > ALL / 2, "{held}");
        let mut refused = false;
        let good = answers(&all).bound(answer(200), true, |_| {
            refused = true;
            answer(0)
        });
        assert!(!refused);
        drop((good, waiting));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_connection_that_is_cut_counts_once() {
        let metrics = ConnectionMetrics::default();
        let registry = prometheus::Registry::new();
        metrics.register(&registry).expect("an empty registry");
        let answers = answers(&Unread::new(0, metrics));
        for _ in 0..9 {
            drop(answers.bound(answer(100), true, |_| answer(10)));
        }
        let families = registry.gather();
        let cut = families
            .iter()
            .filter(|family| family.name() == "widgets_connections_cut_total")
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .map(|metric| metric.get_counter().get_value());
        assert!((cut.sum::<f64>() - 1.0).abs() < f64::EPSILON);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_move_for_a_whole_turn_is_late() {
        let all = unread();
        let answers = answers(&all);
        let bounded = answers.bound(answer(3 * PIECE_BYTES), true, none);
        let mut body = bounded.into_body();
        assert!(!answers.turn());
        drop(body.frame().await);
        assert!(!answers.turn(), "it moved");
        assert!(!answers.bound(answer(1), true, none).body().is_end_stream());
        assert!(answers.turn());
        drop(body);
        answers.turn();
        assert!(!answers.turn(), "nothing waits");
    }
}
