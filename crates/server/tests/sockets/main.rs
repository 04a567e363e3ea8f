//! Real sockets: limits, shutdown, TLS, and requests that no well-behaved client would send.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod connections;
mod heads;
mod hostile;
mod leftover;
mod refused;
mod tls;
mod unread;

use prometheus::Registry;
use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot};
use widgets_clock::SystemClock;
use widgets_registry::{
    Applied, Ask, Attempt, Fault, Lookup, Rejection, Store, Widget,
    query::{List, Neighbourhood, NeighbourhoodQuery, Page},
};
use widgets_server::{Api, Authentication, ConnectionMetrics, Limits, Listener, Settings, Tls};

/// Answers a command only when the test lets it.
#[derive(Clone)]
pub(crate) struct SlowStore {
    pub(crate) arrived: Arc<Semaphore>,
    pub(crate) released: Arc<Semaphore>,
}

impl SlowStore {
    pub(crate) fn new() -> Self {
        Self {
            arrived: Arc::new(Semaphore::new(0)),
            released: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits until a command has arrived.
    pub(crate) fn wait_for_one(&self) {
        while self.arrived.available_permits() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Ask<Attempt> for SlowStore {
    async fn ask(&self, _: Attempt) -> Result<Applied, Rejection> {
        self.arrived.add_permits(1);
        self.released
            .acquire()
            .await
            .expect("never closed")
            .forget();
        Ok(Applied::Now)
    }
}

impl Ask<Lookup> for SlowStore {
    async fn ask(&self, _: Lookup) -> Result<Option<Widget>, Fault> {
        Ok(None)
    }
}

impl Ask<List> for SlowStore {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        self.arrived.add_permits(1);
        let released = self.released.acquire().await;
        released.expect("never closed").forget();
        Ok(Page::empty(&list))
    }
}

impl Ask<NeighbourhoodQuery> for SlowStore {
    async fn ask(&self, _: NeighbourhoodQuery) -> Result<Option<Neighbourhood>, Fault> {
        Ok(None)
    }
}

impl Store for SlowStore {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Accepts every command at once, and counts them.
#[derive(Clone, Default)]
pub(crate) struct Counting(Arc<AtomicUsize>);

impl Counting {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Ask<Attempt> for Counting {
    async fn ask(&self, _: Attempt) -> Result<Applied, Rejection> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Applied::Now)
    }
}

impl Ask<Lookup> for Counting {
    async fn ask(&self, _: Lookup) -> Result<Option<Widget>, Fault> {
        Ok(None)
    }
}

impl Ask<List> for Counting {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        Ok(Page::empty(&list))
    }
}

impl Ask<NeighbourhoodQuery> for Counting {
    async fn ask(&self, _: NeighbourhoodQuery) -> Result<Option<Neighbourhood>, Fault> {
        Ok(None)
    }
}

impl Store for Counting {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A server on its own thread, until it is stopped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: ConnectionMetrics,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(store: impl Store, limits: Limits) -> Self {
        Self::start_with(store, limits, None, Authentication::off())
    }

    pub(crate) fn start_with(
        store: impl Store,
        limits: Limits,
        tls: Option<Arc<Tls>>,
        authentication: Authentication,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let metrics = ConnectionMetrics::default();
        let counted = metrics.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a free port");
                started
                    .send(listener.local_addr().expect("an address"))
                    .expect("the test waits");
                let api = Api::new(
                    store,
                    Settings::default(),
                    Registry::new(),
                    SystemClock::new(),
                );
                let api = api
                    .expect("an empty registry")
                    .with_authentication(Arc::new(authentication));
                let api = move || api.clone();
                let stopped = async {
                    stopped.await.expect("told to stop");
                };
                let listener = match tls {
                    Some(tls) => Listener::tls(listener, tls),
                    None => listener.into(),
                };
                let listener = listener.with_metrics(counted);
                widgets_server::serve(listener, &limits, api, stopped)
                    .await
                    .expect("served");
            });
        });
        Self {
            address: address.recv().expect("started"),
            metrics,
            stop,
            thread,
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_mins(1)))
            .expect("set");
        stream
    }

    /// Stops the server, and waits until it has ended.
    pub(crate) fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.thread.join().expect("stopped in order");
    }
}

pub(crate) const REMOVE: &str = "POST /rpc/remove_widget HTTP/1.1\r\nHost: test\r\n\
    Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"widget_sn\":\"E\"}";

/// Returns everything that arrives until the connection is closed.
pub(crate) fn answer(mut stream: impl std::io::Read) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("closed in order");
    answer
}
