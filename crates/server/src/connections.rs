//! Connections: accepts, limits and serves them, and shuts them down gracefully.
//!
//! Each worker is a thread with its own runtime, and a connection stays with the worker that it was
//! assigned to. So a request meets no lock and no other thread before the store's queue, and a
//! worker is woken once for all the answers that a store hands over together.

mod answers;
mod connection;
mod heads;
mod idle;
mod leftover;
mod metrics;
mod places;
mod rest;
mod stream;
mod woken;

use crate::{Api, Tls, budget::Budget};
pub(crate) use answers::Resident;
use answers::Unread;
pub use answers::answer_bytes_max;
use connection::{Builders, Connection};
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use idle::Deadlines;
use ipnet::IpNet;
pub use metrics::ConnectionMetrics;
pub use places::EXCESS_MAX;
use places::{Place, Places};
use rest::Pending;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use widgets_pacing::Pacing;
use widgets_registry::Store;

/// What one client, or all of them together, may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of open connections. For a further one an idle one is closed; if none is
    /// idle, the new one is answered 503 WG503 and closed.
    pub connections_max: usize,
    /// The maximum number of connections of one client: an IPv4 address, or an IPv6 /64. Never more
    /// than three quarters of `connections_max`.
    pub connections_per_client_max: usize,
    /// Proxies, which are limited only by `connections_max`.
    pub trusted_proxies: Vec<IpNet>,
    /// A connection on which nothing moves for this long is closed, after at most twice as long.
    pub idle_timeout: Duration,
    /// The time from the first byte of a request to the first byte of its answer. If a request
    /// takes longer to arrive, its connection is closed, after at most twice as long. So is one on
    /// which the client sends no first request.
    pub request_timeout: Duration,
    /// A client that takes nothing of an answer for this long is cut off, after at most twice as
    /// long, whatever else it sends.
    pub answer_timeout: Duration,
    /// The maximum number of bytes of unread answers on all connections together. One connection
    /// gets at most a sixteenth of what is free.
    pub unread_bytes_max: usize,
    /// The maximum number of bytes that the heads of unfinished requests may take on all
    /// connections together, in addition to one head of ordinary length on each. One connection
    /// gets at most a sixteenth of what is free for the heads after its first.
    pub heads_bytes_max: usize,
    /// How long a shutdown waits for answers that are under way.
    pub shutdown_timeout: Duration,
    /// The number of threads that serve connections. By default one less than there are cores, but
    /// at least one: the store and the kernel's networking need a core as well.
    pub workers: NonZero<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            connections_per_client_max: 4096,
            trusted_proxies: Vec::new(),
            idle_timeout: Duration::from_secs(75),
            request_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(30),
            unread_bytes_max: 64 << 20,
            heads_bytes_max: 32 << 20,
            shutdown_timeout: Duration::from_secs(25),
            workers: thread::available_parallelism()
                .ok()
                .and_then(|cores| NonZero::new(cores.get() - 1))
                .unwrap_or(NonZero::<usize>::MIN),
        }
    }
}

/// The maximum size of a request's head in bytes; a larger one is answered 431. Over HTTP/2, and
/// while a head is incomplete, hyper enforces it.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// The maximum number of requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;

/// How many bytes of one body, and of all bodies on one connection, may arrive before they are
/// read. They stay in memory while the request waits for something else, such as keys.
const BODY_WINDOW_BYTES: u32 = 64 << 10;
const BODIES_WINDOW_BYTES: u32 = 256 << 10;

/// How many bytes of an answer over HTTP/2 are handed over beyond what its client allows to be
/// sent.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// How long a shutdown lets clients on open connections send one more request, whose answer tells
/// them by `Connection: close` that it was the last one. A proxy's idle connections end that way
/// without losing a request.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often the shutdown checks whether all connections have ended.
const FAREWELL_CHECK: Duration = Duration::from_millis(20);

/// The pause after the system failed to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection in excess is served.
const EXCESS_TIME_MAX: Duration = Duration::from_secs(2);

/// Accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Tls>>,
    metrics: ConnectionMetrics,
    pacing: Option<Arc<Pacing>>,
}

impl Listener {
    /// Returns a listener for connections over TLS. ALPN selects HTTP/2 or HTTP/1.1.
    #[must_use]
    pub fn tls(listener: TcpListener, tls: Arc<Tls>) -> Self {
        Self {
            tls: Some(tls),
            ..listener.into()
        }
    }

    /// Returns the same with these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: ConnectionMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Returns the same with workers that rest according to this pacing. Without it they never
    /// rest.
    #[must_use]
    pub fn with_pacing(self, pacing: Arc<Pacing>) -> Self {
        let pacing = Some(pacing);
        Self { pacing, ..self }
    }
}

/// Connections without TLS.
impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self {
            socket: listener,
            tls: None,
            metrics: ConnectionMetrics::default(),
            pacing: None,
        }
    }
}

/// What all connections together may take.
#[derive(Clone)]
struct Bounds {
    unread: Arc<Unread>,
    heads: Arc<Budget>,
    metrics: ConnectionMetrics,
}

/// An accepted connection.
struct Accepted {
    stream: std::net::TcpStream,
    address: IpAddr,
    place: Place,
}

/// Serves connections from `listener` until `stop` completes, then closes the listener, finishes
/// every request that has begun, and returns.
///
/// `api` is called once on each worker's own runtime, where it may spawn tasks.
pub async fn serve<S, A>(
    listener: impl Into<Listener>,
    limits: &Limits,
    api: A,
    stop: impl Future<Output = ()>,
) -> io::Result<()>
where
    S: Store,
    A: Fn() -> Api<S> + Clone + Send + 'static,
{
    let Listener {
        socket: listener,
        tls,
        metrics,
        pacing,
    } = listener.into();
    let places = Places::new(
        limits.connections_max,
        limits.connections_per_client_max,
        limits.trusted_proxies.clone(),
        metrics.clone(),
    );
    let bounds = Bounds {
        unread: Unread::new(limits.unread_bytes_max, metrics.clone()),
        heads: Budget::new(limits.heads_bytes_max),
        metrics,
    };
    let (stopping, _) = watch::channel(());
    let mut workers = Vec::with_capacity(limits.workers.get());
    for number in 0..limits.workers.get() {
        workers.push(Worker::start(
            number,
            limits,
            tls.clone(),
            api.clone(),
            bounds.clone(),
            pacing.clone(),
            &stopping,
        )?);
    }
    tokio::select! {
        () = accept(&listener, &places, &workers) => {}
        () = stop => {}
    }
    drop(listener);
    stopping.send_replace(());
    let join = tokio::task::spawn_blocking(move || {
        for Worker {
            connections,
            thread,
        } in workers
        {
            drop(connections);
            // The thread itself has reported a worker's panic.
            drop(thread.join());
        }
    });
    join.await.map_err(io::Error::other)
}

/// Accepts connections forever, and assigns them to the workers in turn.
async fn accept(listener: &TcpListener, places: &Arc<Places>, workers: &[Worker]) {
    let mut turns = workers.iter().cycle();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The client gave up before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!(%error, "no further connection can be accepted now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let address = plain(address);
        let Some(place) = places.take(address).await else {
            continue;
        };
        // The stream moves from this runtime to the worker's.
        let handed = stream.into_std().map(|stream| {
            let accepted = Accepted {
                stream,
                address,
                place,
            };
            turns.next().map(|worker| worker.connections.send(accepted))
        });
        if let Err(error) = handed {
            tracing::warn!(%error, "a connection could not be handed to its worker");
        }
    }
}

/// Returns the address as its owner would write it: a dual-stack socket shows IPv4 inside IPv6.
fn plain(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// A thread that serves its share of the connections.
struct Worker {
    connections: mpsc::UnboundedSender<Accepted>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start<S, A>(
        number: usize,
        limits: &Limits,
        tls: Option<Arc<Tls>>,
        api: A,
        bounds: Bounds,
        pacing: Option<Arc<Pacing>>,
        stopping: &watch::Sender<()>,
    ) -> io::Result<Self>
    where
        S: Store,
        A: Fn() -> Api<S> + Send + 'static,
    {
        let pending = Pending::default();
        let resting = pending.clone();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if let Some(pacing) = pacing {
            runtime.on_thread_park(move || resting.rest(&pacing));
        }
        let runtime = runtime.enable_all().build()?;
        // Bounded by the permits that the connections hold.
        let (connections, accepted) = mpsc::unbounded_channel();
        let (limits, stopping) = (limits.clone(), stopping.subscribe());
        let thread = thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                runtime.block_on(async {
                    // Called inside the runtime, so that it can spawn tasks there.
                    let api = api();
                    work(accepted, &limits, tls, api, bounds, pending, stopping).await;
                });
                // The store's tasks end with the runtime, which is dropped here.
            })?;
        Ok(Self {
            connections,
            thread,
        })
    }
}

/// Serves a connection on this worker; one in excess only for a limited time.
fn spawn(is_excess: bool, served: impl Future<Output = ()> + Send + 'static) {
    if is_excess {
        tokio::spawn(tokio::time::timeout(EXCESS_TIME_MAX, served));
    } else {
        tokio::spawn(served);
    }
}

async fn work<S: Store>(
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    limits: &Limits,
    tls: Option<Arc<Tls>>,
    api: Api<S>,
    bounds: Bounds,
    pending: Pending,
    mut stopping: watch::Receiver<()>,
) {
    // Each request holds a reference. Separate counters keep the workers out of each other's
    // caches.
    let api = Arc::new(api);
    // Each connection has a receiver, so the number of receivers is the number of connections.
    let (ending, _) = watch::channel(());
    let farewell = Arc::new(AtomicBool::new(false));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The one timer of each connection, in `IdleStream`, replaces one that hyper would start
        // for each request.
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        // A request that has begun is answered even if the client has shut down its sending side.
        // Otherwise hyper reads the socket's end again whenever an answer is not ready immediately,
        // which costs a system call per request.
        .half_close(true)
        // Answers are short: copying one into a single buffer costs less than `writev`, which
        // touches more of the kernel's data of a socket than `send` does.
        .writev(false);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(BODY_WINDOW_BYTES)
        .initial_connection_window_size(BODIES_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX);
    let builders = Arc::new(Builders {
        http1: builder.clone().http1_only(),
        any: builder,
    });
    let deadlines = Deadlines {
        idle: limits.idle_timeout,
        request: limits.request_timeout,
        answer: limits.answer_timeout,
    };
    loop {
        let next = tokio::select! {
            // Connections that were accepted before the stop are served.
            biased;
            next = accepted.recv() => next,
            _ = stopping.changed() => None,
        };
        let Some(accepted) = next else { break };
        let Accepted {
            stream,
            address,
            place,
        } = accepted;
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be served");
                continue;
            }
        };
        // Answers are small and complete, so waiting for more data only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection keeps Nagle's algorithm");
        }
        let connection = Connection {
            api: api.clone(),
            builders: builders.clone(),
            deadlines,
            ending: ending.subscribe(),
            farewell: farewell.clone(),
            pending: pending.clone(),
            bounds: bounds.clone(),
            place,
        };
        let stopping = stopping.clone();
        // A separate task for each kind: a task for both would always take the memory of the
        // larger.
        match &tls {
            None => spawn(
                connection.is_excess(),
                connection.serve_plain(stream, address, stopping),
            ),
            Some(tls) => spawn(
                connection.is_excess(),
                connection.serve_tls(stream, tls.clone(), address, stopping),
            ),
        }
    }
    // Streams have no end of their own.
    api.end_streams();
    farewell.store(true, Ordering::Relaxed);
    let open = ending.receiver_count();
    let shutdown = async {
        // If an idle connection were closed immediately, it might cross a request, whose client
        // would then not know what became of it. So clients that send a request in this time are
        // told that it was the last one.
        let gone = async {
            while ending.receiver_count() > 0 {
                tokio::time::sleep(FAREWELL_CHECK).await;
            }
        };
        // Clients that have not gone by then sent nothing.
        drop(tokio::time::timeout(FAREWELL, gone).await);
        ending.send_replace(());
        ending.closed().await;
    };
    if tokio::time::timeout(limits.shutdown_timeout, shutdown)
        .await
        .is_err()
    {
        tracing::warn!(
            open,
            "connections were still open at shutdown_timeout: they are closed"
        );
    }
}
