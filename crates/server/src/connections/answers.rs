//! Answers that a client has not read yet: limited in bytes and in time.
//!
//! Over HTTP/2 the client decides how much of each answer is sent, and it can request thousands of
//! answers without reading them. So the bytes of answers count until they are sent, for each
//! connection and in total. One connection gets at most a sixteenth of what is free, so that
//! clients that let answers wait leave room for clients that read. A connection whose client lets
//! an answer wait for longer than `answer_timeout` is cut, whatever else the client sends.
//!
//! Over HTTP/1.1 there is one answer at a time. It is handed over in pieces, so that at most one
//! piece is copied ahead. An answer that is no longer than a piece is not counted.

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

/// How many bytes are handed over at once.
const PIECE_BYTES: usize = 16 << 10;

/// Approximately how many bytes a stream takes in addition to its answer.
pub(super) const STREAM_BYTES: usize = 4 << 10;

/// The fraction of the free bytes that one connection gets at most.
const SHARE: usize = 16;

/// Returns how long an unread answer can be if it is the only one and `unread_bytes_max` bytes may
/// be unread.
#[must_use]
pub const fn answer_bytes_max(unread_bytes_max: usize) -> usize {
    (unread_bytes_max / SHARE).saturating_sub(STREAM_BYTES)
}

/// Marks an answer whose body is shared by everyone and always in memory, so that it takes no
/// memory of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident;

/// The unread answers on all connections.
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

    /// Reports whether there is room for `more` bytes on a connection that already holds `held`
    /// bytes.
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

/// The unread answers on one connection.
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
    /// How many have begun to wait or have progressed since the last turn.
    young: usize,
    /// How many have waited since before that.
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

    /// Reports whether anything was asked on the connection yet.
    pub(super) fn was_asked(&self) -> bool {
        self.seat.was_asked()
    }

    /// Reports whether an answer without an end is under way, so that nothing else would notice
    /// that the client has hung up: over HTTP/1.1 nothing is read while an answer is under way.
    pub(super) fn streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }

    /// Counts an answer until it has been sent. If there is no room for it, `instead` makes an
    /// answer that names the limit; if there is no room for that either, the connection is cut.
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
        // An answer without a known length is counted piece by piece.
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

    /// Begins the next turn, once every `answer_timeout`. Reports whether an answer has waited for
    /// the whole last turn.
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

    /// Cuts the connection for this reason. It is counted once, however many answers have no room.
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

    /// Completes when the connection is to be cut.
    pub(super) async fn is_cut(&self) {
        self.seat.ends(&self.all.metrics).await;
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // No code that holds this lock can panic halfway through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that wait, until this is dropped.
struct Hold {
    answers: Arc<Answers>,
    bytes: usize,
    /// The turn in which a part of it was last sent.
    turn: Mutex<u64>,
}

impl Hold {
    /// Records that a part of it was sent.
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

/// Marks that an answer without a length is under way, until this is dropped. Over HTTP/1.1 there
/// is one answer at a time.
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

/// A piece whose bytes count until it has been sent.
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
    /// The part that was taken from `inner` and not handed over yet.
    rest: Bytes,
    hold: Option<Arc<Hold>>,
    /// Present over HTTP/2, where pieces wait after they were handed over.
    answers: Option<Arc<Answers>>,
    _stream: Option<Stream>,
    /// Keeps the connection from counting as idle until the answer was handed over.
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
        // The piece holds its bytes until it has been sent. The next one may be long in coming, and
        // until then nothing waits.
        if this.rest.is_empty() && this.inner.size_hint().exact().is_none() {
            this.hold = None;
        }
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
    async fn a_response_sent_in_pieces_is_complete() {
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
    async fn response_bytes_count_as_unread_until_they_are_sent() {
        let all = unread();
        let body = answers(&all).bound(answer(100), true, none).into_body();
        let sent = body.collect().await.expect("no error").to_bytes();
        drop(sent.slice(1..));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 100 + STREAM_BYTES);
        drop(sent);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_resident_response_body_does_not_count_as_unread() {
        let all = unread();
        let mut page = answer(ALL);
        page.extensions_mut().insert(Resident);
        let waiting = answers(&all).bound(page, true, none);
        assert_eq!(waiting.body().size_hint().exact(), Some(ALL as u64));
        assert_eq!(all.bytes.load(Ordering::Relaxed), STREAM_BYTES);
    }

    #[test]
    fn connections_with_unread_responses_leave_room_for_others() {
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
    fn a_cut_connection_is_counted_once_in_the_metric() {
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
    async fn a_stream_whose_pieces_have_been_sent_is_not_late_while_it_is_quiet() {
        let all = unread();
        let answers = answers(&all);
        let (pieces, body) = tokio::sync::mpsc::channel(1);
        let response = Response::new(crate::pieces::Pieces::new(body));
        let none = |_| unreachable!("there is room");
        let mut body = answers.bound(response, true, none).into_body();
        let bytes = PIECE_BYTES + 1;
        pieces.try_send(vec![b'x'; bytes].into()).expect("a place");
        let first = body.frame().await.expect("a piece").expect("no error");
        let second = body.frame().await.expect("a piece").expect("no error");
        drop(first);
        assert_eq!(all.bytes.load(Ordering::Relaxed), bytes, "one is not sent");
        drop(second);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
        assert!(!answers.turn());
        assert!(!answers.turn(), "nothing waits");
        // A piece that is not sent is late.
        pieces.try_send("x".into()).expect("a place");
        let unsent = body.frame().await;
        assert!(!answers.turn());
        assert!(answers.turn());
        drop(unsent);
    }

    #[tokio::test]
    async fn a_response_without_progress_for_a_whole_period_is_late() {
        let all = unread();
        let answers = answers(&all);
        let bounded = answers.bound(answer(3 * PIECE_BYTES), true, none);
        let mut body = bounded.into_body();
        assert!(!answers.turn());
        drop(body.frame().await);
        assert!(!answers.turn(), "it made progress");
        assert!(!answers.bound(answer(1), true, none).body().is_end_stream());
        assert!(answers.turn());
        drop(body);
        answers.turn();
        assert!(!answers.turn(), "no answer is waiting");
    }
}
