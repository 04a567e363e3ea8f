//! Reads bodies of bounded length in bounded time, and all of them together in bounded memory.

use crate::{
    Settings,
    budget::{Budget, NoRoom, Share},
    error::{Error, Malformed},
};
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap,
    body::{Body, Bytes, Frame},
    header,
    http::request::Parts,
};
use std::{
    fmt::Display,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use widgets_registry::Fault;

/// The bytes of all bodies that are still incomplete. Over HTTP/2 one connection can have dozens of
/// them.
#[derive(Clone, Debug)]
pub(crate) struct Bodies(Arc<Budget>);

impl Bodies {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self(Budget::new(settings.bodies_bytes_max))
    }

    /// Returns the share of a connection that can have more than one body at a time.
    pub(crate) fn connection(&self) -> ConnectionBodies {
        ConnectionBodies(Share::new(self.0.clone()))
    }
}

/// The bodies of one connection. Over HTTP/2, requests carry this among their extensions.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionBodies(Arc<Share>);

/// Returns the whole body. It is an error if the body is longer than the settings allow, reported
/// at once if its length was announced and otherwise when the limit is exceeded, or if it does not
/// arrive in time. A body that arrives in one piece is not copied, and does not count among the
/// incomplete `bodies`.
///
/// The connection has a deadline as well, but every answer on it extends that deadline. Over HTTP/2
/// other streams are answered all the time, so each body needs its own.
pub(crate) async fn read<B>(
    mut body: Pin<&mut B>,
    head: &Parts,
    settings: &Settings,
    bodies: &Bodies,
) -> Result<Bytes, Error>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let bytes_max = settings.body_bytes_max;
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        let announced = Some(announced);
        return Err(Malformed::BodyTooLarge {
            bytes_max,
            announced,
        }
        .into());
    }
    // Most bodies arrive with their head, and need neither a timer nor the memory of the rest of
    // this function.
    let at_once = poll_fn(|context| Poll::Ready(body.as_mut().poll_frame(context)));
    let first = match at_once.await {
        Poll::Ready(None) => return Ok(Bytes::new()),
        Poll::Ready(Some(frame)) => Some(data(frame)?.unwrap_or_default()),
        Poll::Pending => None,
    };
    if let Some(first) = &first
        && body.is_end_stream()
    {
        return fits(first.clone(), bytes_max);
    }
    let share = match head.extensions.get::<ConnectionBodies>() {
        Some(ConnectionBodies(share)) => share.clone(),
        None => bodies.connection().0,
    };
    let whole = whole(body, first, bytes_max, share);
    let timeout = settings.request_timeout;
    Box::pin(tokio::time::timeout(timeout, whole))
        .await
        .unwrap_or(Err(Malformed::BodyTimeout { timeout }.into()))
}

/// How long an unwanted body may take to arrive before its connection ends.
const UNWANTED_MAX: Duration = Duration::from_secs(1);

/// Reads the rest of an unwanted body, so that its connection can be reused. Returns false if that
/// is impossible: the rest is too long or takes too long, its end is not announced, or its sender
/// waits for permission to send it.
pub(crate) async fn drain<B>(
    mut body: Pin<&mut B>,
    headers: &HeaderMap,
    settings: &Settings,
) -> bool
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    if body.is_end_stream() {
        return true;
    }
    let announced = body.size_hint().exact().map(usize::try_from);
    let fits = matches!(announced, Some(Ok(bytes)) if bytes <= settings.body_bytes_max);
    if !fits || headers.contains_key(header::EXPECT) {
        return false;
    }
    let rest = async {
        loop {
            match next(&mut body).await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    };
    let mut rest = pin!(rest);
    // Most bodies arrive with their head, and need no timer.
    let at_once = poll_fn(|context| Poll::Ready(rest.as_mut().poll(context)));
    if let Poll::Ready(drained) = at_once.await {
        return drained;
    }
    let drained = tokio::time::timeout(UNWANTED_MAX, rest).await;
    drained.unwrap_or(false)
}

/// Returns the whole body that begins with `first`, if it has all arrived.
async fn whole<B>(
    mut body: Pin<&mut B>,
    first: Option<Bytes>,
    bytes_max: usize,
    share: Arc<Share>,
) -> Result<Bytes, Error>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let first = match first {
        Some(first) => first,
        None => next(&mut body).await?.unwrap_or_default(),
    };
    let first = fits(first, bytes_max)?;
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut taken = share.begin();
    taken.add(first.len()).map_err(busy)?;
    // Grows with what arrives: a length that is only announced takes no memory.
    let mut whole = first.to_vec();
    while let Some(piece) = next(&mut body).await? {
        if piece.len() > bytes_max - whole.len() {
            return Err(too_large(bytes_max));
        }
        taken.add(piece.len()).map_err(busy)?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// Returns the error for a body that exceeds the limit although it announced no such length. How
/// much more would have come is unknown.
fn too_large(bytes_max: usize) -> Error {
    let announced = None;
    Malformed::BodyTooLarge {
        bytes_max,
        announced,
    }
    .into()
}

fn busy(NoRoom(bytes_max): NoRoom) -> Error {
    Error::from(Fault::Busy {
        limit: format!("http.bodies_bytes_max = {bytes_max}"),
        retry_after_seconds: 1,
    })
}

/// Returns the next piece of data. Trailers are ignored.
async fn next<B>(body: &mut Pin<&mut B>) -> Result<Option<Bytes>, Malformed>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    while let Some(frame) = body.frame().await {
        let data = data(frame)?;
        if data.is_some() {
            return Ok(data);
        }
    }
    Ok(None)
}

/// Returns the data of a frame, if it has any.
fn data<E: Display>(frame: Result<Frame<Bytes>, E>) -> Result<Option<Bytes>, Malformed> {
    match frame {
        Ok(frame) => Ok(frame.into_data().ok()),
        Err(error) => {
            let text = format!("the body could not be read: {error}");
            Err(Malformed::Body(text.into()))
        }
    }
}

/// Returns the bytes if they do not exceed the limit.
fn fits(bytes: Bytes, bytes_max: usize) -> Result<Bytes, Error> {
    if bytes.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::body::{Frame, SizeHint};
    use std::{collections::VecDeque, convert::Infallible, task::Context};
    use tokio::time::Instant;

    /// A body in pieces.
    struct Pieces {
        rest: VecDeque<&'static [u8]>,
        /// Its length as its sender announces it, if it does.
        announced: Option<u64>,
    }

    impl Pieces {
        fn of(pieces: &[&'static [u8]]) -> Self {
            Self {
                rest: pieces.iter().copied().collect(),
                announced: None,
            }
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = self.rest.pop_front().map(Bytes::from_static);
            Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
        }

        fn size_hint(&self) -> SizeHint {
            self.announced.map(SizeHint::with_exact).unwrap_or_default()
        }
    }

    async fn pieces(pieces: &[&'static [u8]], bytes_max: usize) -> Result<Bytes, Error> {
        read(
            pin!(Pieces::of(pieces)),
            &head(),
            &settings(bytes_max),
            &bodies(),
        )
        .await
    }

    fn settings(body_bytes_max: usize) -> Settings {
        Settings {
            body_bytes_max,
            request_timeout: Duration::from_secs(15),
            bodies_bytes_max: 10,
            ..Settings::default()
        }
    }

    fn head() -> Parts {
        hyper::Request::new(()).into_parts().0
    }

    fn bodies() -> Bodies {
        Bodies::new(&settings(0))
    }

    #[tokio::test]
    async fn incomplete_bodies_are_limited_in_total_and_per_connection() {
        let (settings, bodies) = (settings(99), bodies());
        let read = |pieces: &[&'static [u8]]| {
            let pieces = Pieces {
                rest: pieces.iter().copied().collect(),
                announced: None,
            };
            let (settings, bodies) = (&settings, &bodies);
            async move { read(pin!(pieces), &head(), settings, bodies).await }
        };
        assert_eq!(read(&[b"12345", b"67890"]).await, Ok("1234567890".into()));
        let busy = Error::from(Fault::Busy {
            limit: "http.bodies_bytes_max = 10".into(),
            retry_after_seconds: 1,
        });
        assert_eq!(read(&[b"12345", b"678901"]).await, Err(busy.clone()));
        let mut others = bodies.connection().0.begin();
        others.add(8).expect("there is room");
        assert_eq!(read(&[b"12", b"3"]).await, Err(busy.clone()));
        drop(others);
        assert_eq!(read(&[b"12", b"3"]).await, Ok("123".into()));
        assert_eq!(bodies.0.taken(), 0);

        // One connection cannot use all the room for concurrent bodies.
        let connection = bodies.connection();
        let mut first = connection.0.begin();
        first.add(4).expect("there is room");
        let mut head = head();
        head.extensions.insert(connection);
        let pieces = Pieces::of(&[b"1", b"2"]);
        let refused = super::read(pin!(pieces), &head, &settings, &bodies).await;
        assert_eq!(refused, Err(busy));
        assert_eq!(
            read(&[b"12", b"3"]).await,
            Ok("123".into()),
            "a body of another connection"
        );
    }

    #[tokio::test]
    async fn body_pieces_are_joined_up_to_the_size_limit() {
        assert_eq!(pieces(&[], 4).await, Ok(Bytes::new()));
        assert_eq!(pieces(&[b"ab", b"", b"cd"], 4).await, Ok("abcd".into()));
        let too_large = Err(too_large(4));
        assert_eq!(pieces(&[b"abcde"], 4).await, too_large);
        assert_eq!(pieces(&[b"abcd", b"e"], 4).await, too_large);
    }

    #[tokio::test]
    async fn a_length_that_is_only_announced_takes_no_memory() {
        let body = Pieces {
            announced: Some(1 << 20),
            ..Pieces::of(&[b"ab", b"cd"])
        };
        let whole = read(pin!(body), &head(), &settings(1 << 20), &bodies()).await;
        let whole = Vec::from(whole.expect("a body"));
        assert_eq!(whole, b"abcd");
        assert!(whole.capacity() < 1 << 10, "{}", whole.capacity());
    }

    /// A body that was announced and never arrives.
    struct Never;

    impl Body for Never {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(8)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unwanted_body_is_drained_within_size_and_time_limits() {
        let settings = settings(8);
        let none = HeaderMap::new();
        let expects =
            HeaderMap::from_iter([(header::EXPECT, "100-continue".parse().expect("text"))]);
        let full = |text: &'static str| http_body_util::Full::new(Bytes::from(text));
        assert!(drain(pin!(full("")), &expects, &settings).await);
        assert!(drain(pin!(full("12345678")), &none, &settings).await);
        assert!(!drain(pin!(full("123456789")), &none, &settings).await);
        assert!(!drain(pin!(full("12345678")), &expects, &settings).await);
        let unannounced = Pieces::of(&[b"x"]);
        assert!(!drain(pin!(unannounced), &none, &settings).await);

        let start = Instant::now();
        assert!(!drain(pin!(Never), &none, &settings).await);
        assert_eq!(start.elapsed(), UNWANTED_MAX);
    }

    #[tokio::test]
    async fn a_body_announced_as_too_long_is_refused_unread() {
        struct Announced;

        impl Body for Announced {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                panic!("the body must not be read")
            }

            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(5)
            }
        }

        let too_large = Err(Malformed::BodyTooLarge {
            bytes_max: 4,
            announced: Some(5),
        }
        .into());
        assert_eq!(
            read(pin!(Announced), &head(), &settings(4), &bodies()).await,
            too_large
        );
    }

    /// A piece of the body arrives every ten seconds, but never its end.
    #[tokio::test(start_paused = true)]
    async fn a_slowly_arriving_body_is_refused_at_its_deadline() {
        struct Trickling(tokio::time::Interval);

        impl Body for Trickling {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                let tick = self.0.poll_tick(context);
                tick.map(|_| Some(Ok(Frame::data(Bytes::from_static(b"x")))))
            }
        }

        let start = Instant::now();
        let body = Trickling(tokio::time::interval(Duration::from_secs(10)));
        let timeout = Duration::from_secs(15);
        let late = Err(Malformed::BodyTimeout { timeout }.into());
        assert_eq!(
            read(pin!(body), &head(), &settings(99), &bodies()).await,
            late
        );
        assert_eq!(start.elapsed(), timeout);
    }
}
