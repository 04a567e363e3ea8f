//! One connection: what its client speaks, and its requests until it ends.

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
    Request, Response, Version,
    body::Incoming,
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

/// How the preface of HTTP/2 begins, and no request of HTTP/1.1 (RFC 9113, 3.4).
const HTTP2_FIRST: &[u8] = b"PRI";

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How long a client may take for the handshake of TLS, beside the deadlines of any connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to end in order, once its client's certificate is not accepted any more.
const CERTIFICATE_ENDS_MAX: Duration = Duration::from_secs(10);

/// What happens next on a connection.
enum Next<T> {
    /// It has ended.
    Ended(T),
    /// It is to end in order, for this reason if it is worth a count.
    EndsInOrder(Option<Cut>),
    /// It is to end now.
    Cut,
}

/// How connections are served.
pub(super) struct Builders {
    /// Where the client may speak HTTP/1.1 or HTTP/2. It reads the first bytes by themselves to find out,
    /// which leaves hyper with a buffer twice as large for the life of the connection, and going round
    /// in it, so that no request finds in the processor's caches what the last one used.
    pub(super) any: auto::Builder<TokioExecutor>,
    /// Where it can only be HTTP/1.1.
    pub(super) http1: auto::Builder<TokioExecutor>,
}

/// What a connection needs, beside its stream.
pub(super) struct Connection<S> {
    pub(super) api: Arc<Api<S>>,
    pub(super) builders: Arc<Builders>,
    pub(super) deadlines: Deadlines,
    /// Says when the connection is to end in order.
    pub(super) ending: watch::Receiver<()>,
    /// Whether the next answer is the last.
    pub(super) farewell: Arc<AtomicBool>,
    pub(super) pending: Pending,
    pub(super) bounds: Bounds,
    pub(super) place: Place,
}

impl<S: Store> Connection<S> {
    /// Whether it is one too many.
    pub(super) fn is_excess(&self) -> bool {
        self.place.excess.is_some()
    }

    /// Looks how the client begins, then serves it.
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
            // A shutdown is the same for all clients, those that have not begun included.
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

    /// Lets the client prove itself, then serves it. A shutdown does not wait for handshakes: nothing
    /// was asked yet.
    pub(super) async fn serve_tls(
        self,
        stream: TcpStream,
        tls: Arc<Tls>,
        address: IpAddr,
        mut stopping: watch::Receiver<()>,
    ) {
        let (stream, answers) = self.bounded(stream);
        // What is loaded anew after this is seen as a change.
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

    /// The stream with its deadlines, and what waits on it.
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
        let heads = Heads::new(Share::new(bounds.heads), bounds.metrics);
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
            // A length that is given as well does not hold, and hyper does not show it. Somebody on the
            // way may have gone by it: the connection must end (RFC 9112, 6.1), so that what stands
            // behind the body is not read as another's request.
            let last = request.headers().contains_key(header::TRANSFER_ENCODING);
            let last = last || excess.is_some();
            let (waiting, busy) = (pending.request(), seat.busy());
            let excess = excess
                .clone()
                .filter(|_| !Route::of(request.uri().path()).is_probe());
            if is_http2 {
                request.extensions_mut().insert(bodies.clone());
            }
            // The future stays small, for what it takes of the cache: see `respond_to`.
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
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    }
}

/// Done when a connection is to end in order; says why if that is worth a count. The receiver stays the
/// connection's: as long as there is one, a shutdown knows that it is open.
async fn told_to_end(ending: &mut watch::Receiver<()>, proof: Option<Proof>) -> Option<Cut> {
    let proof = async {
        match proof {
            // In a box: few connections have one, and all have the room for it.
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

/// The answer to a request that is not even looked at.
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
