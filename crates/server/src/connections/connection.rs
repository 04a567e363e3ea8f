//! One connection: what its client speaks, and its requests until it ends.

use super::{
    idle::{Deadlines, IdleStream},
    rest::Pending,
};
use crate::{Api, Caller};
use hyper::{
    Request, Version,
    body::Incoming,
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::Watcher},
};
use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
};
use widgets_registry::Store;

/// How the preface of HTTP/2 begins, and no request of HTTP/1.1 (RFC 9113, 3.4).
const HTTP2_FIRST: &[u8] = b"PRI";

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How long a client may take for the handshake of TLS, beside the deadlines of any connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
    pub(super) watcher: Watcher,
    /// Whether the next answer is the last.
    pub(super) farewell: Arc<AtomicBool>,
    pub(super) pending: Pending,
    pub(super) permit: OwnedSemaphorePermit,
}

impl<S: Store> Connection<S> {
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
            peeked = tokio::time::timeout(self.deadlines.idle, stream.peek(&mut first)) => peeked,
            // A shutdown is the same for all clients, those that have not begun included.
            _ = stopping.changed() => Ok(Ok(0)),
        };
        let is_http1 = match peeked {
            Ok(Ok(count)) => !HTTP2_FIRST.starts_with(&first[..count]),
            Ok(Err(error)) => return tracing::debug!(%error, %address, "a connection ended early"),
            Err(_) => return tracing::debug!(%address, "a client asked nothing for idle_timeout"),
        };
        let stream = IdleStream::new(stream, self.deadlines);
        let certified = false;
        self.serve(stream, is_http1, Caller { address, certified })
            .await;
    }

    /// Lets the client prove itself, then serves it. A shutdown does not wait for handshakes: nothing
    /// was asked yet.
    pub(super) async fn serve_tls(
        self,
        handshake: tokio_rustls::Accept<IdleStream<TcpStream>>,
        address: IpAddr,
        mut stopping: watch::Receiver<()>,
    ) {
        let handshake = tokio::select! {
            biased;
            handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => handshake,
            _ = stopping.changed() => return,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let (_, session) = stream.get_ref();
                let certified = session.peer_certificates().is_some();
                let is_http1 = session.alpn_protocol() == Some(b"http/1.1");
                self.serve(stream, is_http1, Caller { address, certified })
                    .await;
            }
            Ok(Err(error)) => tracing::debug!(%error, %address, "a handshake failed"),
            Err(_) => tracing::debug!(%address, "a handshake took too long"),
        }
    }

    /// Answers requests until the connection ends.
    async fn serve<I>(self, stream: I, is_http1: bool, caller: Caller)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            api,
            builders,
            deadlines: _,
            watcher,
            farewell,
            pending,
            permit,
        } = self;
        let builder = if is_http1 {
            &builders.http1
        } else {
            &builders.any
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, farewell) = (api.clone(), farewell.clone());
            // HTTP/2 says it by GOAWAY.
            let has_header = request.version() < Version::HTTP_2;
            // A length that is given as well does not hold, and hyper does not show it. Somebody on the
            // way may have gone by it: the connection must end (RFC 9112, 6.1), so that what stands
            // behind the body is not read as another's request.
            let last = request.headers().contains_key(header::TRANSFER_ENCODING);
            let waiting = pending.request();
            // The future stays small, for what it takes of the cache: see `respond_to`.
            let request = Box::new(request);
            async move {
                let mut response = api.respond_to(caller, request).await;
                drop(waiting);
                if last || has_header && farewell.load(Ordering::Relaxed) {
                    response.headers_mut().insert(header::CONNECTION, CLOSE);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(permit);
    }
}
