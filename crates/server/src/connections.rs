//! Connections: accepts them, bounds them, serves them, and lets them end in order.
//!
//! Every worker is a thread with a runtime of its own, and a connection stays with the worker that
//! it was given to. So a request meets no lock and no other thread before the store's queue, and
//! answers that a store hands over in bulk wake a worker once.

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
    /// How many connections may be open at once. For one more an idle one is closed; where there is none, it
    /// is answered 503 WG503 and closed.
    pub connections_max: usize,
    /// How many of them one client may have: an IPv4 address, or an IPv6 /64. Never more than three quarters
    /// of `connections_max`.
    pub connections_per_client_max: usize,
    /// Proxies, which may have as many as there are.
    pub trusted_proxies: Vec<IpNet>,
    /// A connection on which nothing moves for so long is closed, after at most twice as long.
    pub idle_timeout: Duration,
    /// From the first byte of a request to the first byte of its answer: a request that takes
    /// longer to arrive ends its connection, after at most twice as long. So does a client that asks nothing
    /// at first.
    pub request_timeout: Duration,
    /// A client that takes nothing of an answer for so long is cut off, after at most twice as long,
    /// whatever else it sends.
    pub answer_timeout: Duration,
    /// How many bytes of answers may wait until their clients read them, on all connections together.
    /// One connection gets a sixteenth of what is left at most.
    pub unread_bytes_max: usize,
    /// How many bytes the heads of requests may take that are not read to their end yet, on all connections
    /// together, beside a first one of ordinary length on each. One connection gets a sixteenth of what is left
    /// for those beside its first.
    pub heads_bytes_max: usize,
    /// How long a shutdown waits for answers that are under way.
    pub shutdown_timeout: Duration,
    /// How many threads serve connections. By default one less than there are cores, and at least
    /// one: the store and the kernel's share of networking need a core as well.
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

/// The head of a request may have so many bytes; more is answered 431. Over HTTP/2, and where not all of it has come,
/// hyper does it.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// A client of HTTP/2 may have so many requests under way on one connection.
const STREAMS_MAX: u32 = 64;

/// So much may come of one body, and of all on one connection, before it is read: what waits for something else, such
/// as keys, keeps it in memory.
const BODY_WINDOW_BYTES: u32 = 64 << 10;
const BODIES_WINDOW_BYTES: u32 = 256 << 10;

/// Over HTTP/2 so much of an answer is handed over ahead of what its client lets be sent.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// For so long a shutdown lets clients on open connections ask once more, and tells them by
/// `Connection: close` that it was the last time. A proxy's idle connections end that way without
/// a request lost.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often it looks whether they have all gone.
const FAREWELL_CHECK: Duration = Duration::from_millis(20);

/// How long to wait after the system could not give a further connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection in excess is served for so long.
const EXCESS_TIME_MAX: Duration = Duration::from_secs(2);

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Tls>>,
    metrics: ConnectionMetrics,
    pacing: Option<Arc<Pacing>>,
}

impl Listener {
    /// Connections over TLS. HTTP/2 or HTTP/1.1 is chosen by ALPN.
    #[must_use]
    pub fn tls(listener: TcpListener, tls: Arc<Tls>) -> Self {
        Self {
            tls: Some(tls),
            ..listener.into()
        }
    }

    /// The same, counted by these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: ConnectionMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// The same, whose workers rest as this says. Without it they never do.
    #[must_use]
    pub fn with_pacing(self, pacing: Arc<Pacing>) -> Self {
        let pacing = Some(pacing);
        Self { pacing, ..self }
    }
}

/// Connections in the clear.
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

/// What all connections may take together.
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

/// Serves connections from `listener` until `stop` is done, then closes the listener, lets every
/// request that has begun be answered, and returns.
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
            // A panic of a worker has been reported by its thread.
            drop(thread.join());
        }
    });
    join.await.map_err(io::Error::other)
}

/// Accepts for ever, and gives each worker its turn.
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
        // It leaves this runtime for the worker's.
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

/// The address as its owner would write it: a socket for both families shows IPv4 inside IPv6.
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
        // Bounded by the permits that travel with the connections.
        let (connections, accepted) = mpsc::unbounded_channel();
        let (limits, stopping) = (limits.clone(), stopping.subscribe());
        let thread = thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                runtime.block_on(async {
                    // Within the runtime, so that it can spawn there.
                    let api = api();
                    work(accepted, &limits, tls, api, bounds, pending, stopping).await;
                });
                // Tasks of the store end with the runtime, which is dropped here.
            })?;
        Ok(Self {
            connections,
            thread,
        })
    }
}

/// Serves a connection on this worker, for no longer than one that is too many may have.
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
    // Each request holds on to it. A count of its own keeps the workers out of each other's caches.
    let api = Arc::new(api);
    // Each connection has a receiver, which says how many there are.
    let (ending, _) = watch::channel(());
    let farewell = Arc::new(AtomicBool::new(false));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // One timer a connection, in `IdleStream`, does what hyper would start one a request for.
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        // What has begun is answered, also to a client that sends no more. Without it hyper asks the
        // socket for its end once more whenever an answer is not there at once: a system call a
        // request.
        .half_close(true)
        // Answers are short: copying one together costs less than `writev`, which looks at more of the
        // kernel's memory of a socket than `send` does.
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
            // What was accepted before the stop is served.
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
        // Answers are small and whole: waiting for more to send only delays them.
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
        // Each kind as a task of its own: one in which both fit would take as much memory as the larger.
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
    // They have no end of their own.
    api.end_streams();
    farewell.store(true, Ordering::Relaxed);
    let open = ending.receiver_count();
    let shutdown = async {
        // Closed at once, an idle connection may meet a request on its way, of which its client then
        // knows nothing. So clients that ask in this time are told to come to an end.
        let gone = async {
            while ending.receiver_count() > 0 {
                tokio::time::sleep(FAREWELL_CHECK).await;
            }
        };
        // Those that have not gone by then asked nothing.
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
            "connections were still open at shutdown_timeout: they are cut"
        );
    }
}
