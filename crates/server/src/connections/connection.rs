//! One connection: which protocol its client speaks, and its requests until it ends.

use super::{
    Bounds, Place,
    answers::Answers,
    heads::{Heads, Unheld},
    idle::{Deadlines, IdleStream},
    leftover::Leftover,
    metrics::Cut,
    rest::Pending,
    stream::Stream,
    woken::Woken,
};
use crate::{
    AnswerBody, Api, Caller, Tls,
    budget::{NoRoom, Share},
    routes::Route,
    tls::Proof,
};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    future::{self, poll_fn},
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch};
use widgets_registry::Store;

/// How the preface of HTTP/2 begins. No request of HTTP/1.1 begins like that (RFC 9113, 3.4).
const HTTP2_FIRST: &[u8] = b"PRI";

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How long a client may take for the TLS handshake, in addition to the deadlines of every
/// connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to end gracefully after its client's certificate is no longer
/// accepted.
const CERTIFICATE_ENDS_MAX: Duration = Duration::from_secs(10);

/// The next event on a connection.
enum Next<T> {
    /// It has ended.
    Ended(T),
    /// It must end gracefully, for this reason if that is to be counted.
    EndsInOrder(Option<Cut>),
    /// It must end now.
    Cut,
}

/// The HTTP implementations that serve connections.
pub(super) struct Builders {
    /// For clients that may speak HTTP/1.1 or HTTP/2. To find out, it reads the first bytes
    /// separately. That leaves hyper with a buffer of twice the size for the life of the
    /// connection, which it uses in rotation, so that every request misses the CPU caches.
    pub(super) any: auto::Builder<TokioExecutor>,
    /// For clients that can speak only HTTP/1.1.
    pub(super) http1: auto::Builder<TokioExecutor>,
}

/// What a connection needs besides its stream.
pub(super) struct Connection<S> {
    pub(super) api: Arc<Api<S>>,
    pub(super) builders: Arc<Builders>,
    pub(super) deadlines: Deadlines,
    /// Signals that the connection must end gracefully.
    pub(super) ending: watch::Receiver<()>,
    /// Whether the next answer is the last one.
    pub(super) farewell: Arc<AtomicBool>,
    pub(super) pending: Pending,
    pub(super) bounds: Bounds,
    pub(super) place: Place,
}

impl<S: Store> Connection<S> {
    /// Reports whether the connection exceeds the limit.
    pub(super) fn is_excess(&self) -> bool {
        self.place.excess.is_some()
    }

    /// Detects the client's protocol by its first bytes, then serves it.
    pub(super) async fn serve_plain(
        self,
        stream: TcpStream,
        address: IpAddr,
        mut stopping: watch::Receiver<()>,
    ) {
        let mut first = [0; HTTP2_FIRST.len()];
        let peeked = tokio::select! {
            biased;
            peeked = tokio::time::timeout(self.deadlines.request, stream.peek(&mut first)) => peeked,
            () = self.place.seat.ends(&self.bounds.metrics) => {
                return tracing::debug!(%address, "a client that asked nothing made room");
            }
            // A shutdown treats all clients the same, including those that have not sent anything.
            _ = stopping.changed() => Ok(Ok(0)),
        };
        let is_http1 = match peeked {
            Ok(Ok(count)) => !HTTP2_FIRST.starts_with(&first[..count]),
            Ok(Err(error)) => return tracing::debug!(%error, %address, "a connection ended early"),
            Err(_) => {
                self.bounds.metrics.cut(Cut::Request);
                return tracing::debug!(%address, "a client asked nothing for request_timeout");
            }
        };
        let (stream, answers) = self.bounded(stream);
        let caller = Caller::without_certificate(address);
        let stream = Stream::Plain(stream);
        self.serve(stream, answers, is_http1, caller, None).await;
    }

    /// Performs the TLS handshake, then serves the client. A shutdown does not wait for handshakes,
    /// because nothing was asked yet.
    pub(super) async fn serve_tls(
        self,
        stream: TcpStream,
        tls: Arc<Tls>,
        address: IpAddr,
        mut stopping: watch::Receiver<()>,
    ) {
        let (stream, answers) = self.bounded(stream);
        // Subscribed before the handshake, so that a reload during it is noticed.
        let reloads = tls.reloads();
        let handshake = tls.acceptor().accept(stream);
        let handshake = tokio::select! {
            biased;
            handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => handshake,
            () = answers.is_cut() => return,
            _ = stopping.changed() => return,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let (_, session) = stream.get_ref();
                let proof = session.peer_certificates().map(|chain| Proof {
                    chain: chain.iter().map(|each| each.clone().into_owned()).collect(),
                    tls,
                    reloads,
                });
                let is_http1 = session.alpn_protocol() == Some(b"http/1.1");
                let certificate = proof.as_ref().and_then(|proof| proof.chain.first());
                let caller = match certificate {
                    Some(certificate) => Caller::with_certificate(address, certificate),
                    None => Caller::without_certificate(address),
                };
                let stream = Stream::Tls(Box::new(stream));
                self.serve(stream, answers, is_http1, caller, proof).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, %address, "a handshake failed"),
            Err(_) => tracing::debug!(%address, "a handshake took too long"),
        }
    }

    /// Returns the stream with its deadlines, and the connection's unread answers.
    fn bounded(&self, stream: TcpStream) -> (IdleStream<TcpStream>, Arc<Answers>) {
        let answers = Answers::new(self.bounds.unread.clone(), self.place.seat.clone());
        let stopping = self.farewell.clone();
        let stream = IdleStream::new(stream, self.deadlines, answers.clone(), stopping);
        (stream, answers)
    }

    /// Answers requests until the connection ends.
    async fn serve(
        self,
        stream: Stream,
        answers: Arc<Answers>,
        is_http1: bool,
        caller: Caller,
        proof: Option<Proof>,
    ) {
        let Self {
            api,
            builders,
            deadlines: _,
            mut ending,
            farewell,
            pending,
            bounds,
            place,
        } = self;
        let waiting_answers = answers.clone();
        let heads = Heads::new(Share::new(bounds.heads), bounds.metrics.clone());
        let bodies = api.connection_bodies();
        let (seat, excess) = (place.seat.clone(), place.excess.clone());
        let builder = if is_http1 {
            &builders.http1
        } else {
            &builders.any
        };
        let address = caller.address;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (api, farewell) = (api.clone(), farewell.clone());
            let answers = waiting_answers.clone();
            let caller = caller.clone();
            let is_http2 = request.version() >= Version::HTTP_2;
            let wants_no_content = is_http2 && request.method() == Method::HEAD;
            // If the request also has a `Content-Length`, it is ignored, and hyper does not show
            // it. An intermediary may have relied on it. So the connection must end (RFC 9112,
            // 6.1), or the bytes after the body could be read as another client's request.
            let last = request.headers().contains_key(header::TRANSFER_ENCODING);
            let last = last || excess.is_some();
            let (waiting, busy) = (pending.request(), seat.busy());
            let excess = excess
                .clone()
                .filter(|_| !Route::of(request.uri().path()).is_probe());
            if is_http2 {
                request.extensions_mut().insert(bodies.clone());
            }
            // Boxed to keep the future small, so that it takes little of the cache: see
            // `respond_to`.
            let request = heads.hold(&mut request).map(|held| {
                let (head, body) = request.into_parts();
                Box::new((head, Leftover::new(body, is_http2, held, seat.clone())))
            });
            async move {
                let mut response = match (request, excess) {
                    (Ok(request), None) => api.respond_to(caller, request).await,
                    (_, Some(limit)) => Api::<S>::too_busy(limit),
                    (Err(unheld), None) => answer_unheld::<S>(unheld),
                };
                drop(waiting);
                // HTTP/2 says it by GOAWAY.
                if last || !is_http2 && farewell.load(Ordering::Relaxed) {
                    response.headers_mut().insert(header::CONNECTION, CLOSE);
                }
                if wants_no_content {
                    response = without_content(response);
                }
                let bounded = answers.bound(response, is_http2, Api::<S>::too_busy);
                drop(busy);
                Ok::<_, Infallible>(bounded)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut connection = Woken::new(connection.as_mut());
        let mut cut = pin!(answers.is_cut());
        let mut cut = Woken::new(cut.as_mut());
        let mut last_request = pin!(told_to_end(&mut ending, proof));
        let mut last_request = Woken::new(last_request.as_mut());
        let mut is_ending = false;
        let ended = loop {
            let next = poll_fn(|context| {
                if let Poll::Ready(ended) = connection.poll(context) {
                    return Poll::Ready(Next::Ended(ended));
                }
                if !is_ending && let Poll::Ready(why) = last_request.poll(context) {
                    return Poll::Ready(Next::EndsInOrder(why));
                }
                cut.poll(context).map(|()| Next::Cut)
            });
            match next.await {
                Next::Ended(ended) => break ended,
                Next::Cut => return tracing::debug!(%address, "a connection was cut"),
                Next::EndsInOrder(why) => {
                    if let Some(why) = why {
                        answers.count(why);
                        let answers = answers.clone();
                        // Ends with the runtime at the latest.
                        tokio::spawn(async move {
                            tokio::time::sleep(CERTIFICATE_ENDS_MAX).await;
                            answers.end();
                        });
                    }
                    is_ending = true;
                    connection.tell(auto::Connection::graceful_shutdown);
                }
            }
        };
        if let Err(error) = ended {
            if let Some(error) = error.downcast_ref() {
                bounds.metrics.ended(error);
            }
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    }
}

/// Completes when a connection must end gracefully, with the reason if that is to be counted. The
/// receiver stays the connection's: while it exists, a shutdown knows that the connection is open.
async fn told_to_end(ending: &mut watch::Receiver<()>, proof: Option<Proof>) -> Option<Cut> {
    let proof = async {
        match proof {
            // Boxed, because few connections have a certificate but all would have room for it.
            Some(proof) => Box::pin(proof.until_refused()).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = ending.changed() => None,
        () = proof => Some(Cut::Certificate),
    }
}

/// Returns the answer to `HEAD` over HTTP/2: the length of the content, but not the content. Over
/// HTTP/1.1 hyper leaves it out.
fn without_content(response: Response<AnswerBody>) -> Response<AnswerBody> {
    let (mut head, body) = response.into_parts();
    if let Some(bytes @ 1..) = body.size_hint().exact() {
        let length = head.headers.entry(header::CONTENT_LENGTH);
        length.or_insert_with(|| bytes.into());
    }
    Response::from_parts(head, AnswerBody::Left(Full::default()))
}

/// Returns the answer to a request that is not examined at all.
fn answer_unheld<S: Store>(unheld: Unheld) -> Response<AnswerBody> {
    match unheld {
        Unheld::NoRoom(NoRoom(bytes_max)) => {
            Api::<S>::too_busy(format!("http.heads_bytes_max = {bytes_max}"))
        }
        Unheld::Status(status) => {
            let mut response = Response::new(AnswerBody::Left(Full::default()));
            *response.status_mut() = status;
            response
        }
    }
}
