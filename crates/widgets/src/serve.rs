//! `widgets serve`: wires a store to the server and runs them until a signal.

use crate::{
    Outcome,
    config::{Configuration, Given, Http, LogFormat, StoreKind},
    descriptors, log,
    metrics::{Disk, Process},
    notify::Notifier,
    security::Security,
};
use prometheus::Registry;
use std::{
    error::Error,
    io::{self, ErrorKind, Write as _},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
};
use widgets_clock::SystemClock;
use widgets_engine::{Engine, OpenError, Settings};
use widgets_postgres::{Postgres, Target};
use widgets_registry::Store;
use widgets_server::{Api, ConnectionMetrics, Listener, RateLimit, TlsFiles};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    given: Given,
    /// Migrates the database of the PostgreSQL store first, as `widgets migrate` does.
    #[arg(long, env = "WIDGETS_MIGRATE", hide_env_values = true)]
    migrate: bool,
}

pub(crate) fn run(Arguments { given, migrate }: Arguments) -> Outcome {
    let configuration = given.resolve()?.configuration;
    configuration.check_public()?;
    let _log = log::start(&configuration.log);
    // It accepts connections and waits for signals. Requests are served on the workers' own runtimes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(serve(&configuration, migrate)) {
        Err(error) if configuration.log.format == LogFormat::Json => {
            // Whoever asked for JSON reads nothing else.
            tracing::error!("{error}");
            Ok(ExitCode::FAILURE)
        }
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

async fn serve(configuration: &Configuration, migrate: bool) -> Result<(), Box<dyn Error>> {
    let Configuration {
        http,
        store,
        engine,
        postgres,
        auth,
        log: _,
    } = configuration;
    let database_connections = match &store.url {
        StoreKind::Embedded => 0,
        StoreKind::Postgres(_) => postgres.connections + postgres.lookup_connections,
    };
    let mut http = http.clone();
    http.connections_max = descriptors::connections_max(
        http.connections_max,
        descriptors::raise(),
        http.limits().workers.get(),
        database_connections,
    )?;
    let http = &http;
    // Before anything is opened, so that a signal during recovery is not lost.
    let signals = Signals::new()?;
    let hang_up = signal(SignalKind::hangup())?;
    let mut security = Security::load(http, auth)?;
    let metrics = Registry::new();
    metrics.register(Box::new(Process::new()?))?;
    security.register_metrics(&metrics)?;
    let jwks = security.jwks.take();
    writeln!(io::stdout(), "widgets {}", env!("CARGO_PKG_VERSION"))?;
    if let Some(mut jwks) = jwks {
        let hang_up = signal(SignalKind::hangup())?;
        // Not in the background: who asks as soon as it listens shall not be told to wait.
        let succeeded = jwks.fetch().await;
        tokio::spawn(jwks.keep_fresh(succeeded, hang_up));
    }
    match &store.url {
        StoreKind::Embedded if migrate => {
            return Err("--migrate is for the PostgreSQL store: give its URL by --store".into());
        }
        StoreKind::Embedded => {
            let engine = open(&store.data_dir, &engine.settings())?;
            let (directory, recovered) = (store.data_dir.display(), engine.recovered());
            writeln!(
                io::stdout(),
                "{directory} has {} widgets and {} associations",
                recovered.widgets,
                recovered.associations
            )?;
            engine.register_metrics(&metrics)?;
            metrics.register(Box::new(Disk::new(&store.data_dir)?))?;
            let client = engine.client();
            let store = client.clone();
            let on_worker = move || client.on_current_runtime();
            answer(http, metrics, store, on_worker, security, hang_up, signals).await?;
            drop(engine);
        }
        StoreKind::Postgres(url) => {
            let target = Target::parse(url)?;
            let settings = postgres.settings();
            if migrate {
                crate::migrate::migrate(&target, settings.connect_timeout_ms).await?;
            }
            writeln!(io::stdout(), "keeps its widgets in {target}")?;
            let postgres = Postgres::open(target, settings)?;
            postgres.metrics().register(&metrics)?;
            let client = postgres.client();
            let store = client.clone();
            let on_worker = move || client.on_current_runtime();
            answer(http, metrics, store, on_worker, security, hang_up, signals).await?;
            drop(postgres);
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Serves the API over a store until a signal. `on_worker` is how a worker asks the store.
async fn answer<S: Store>(
    http: &Http,
    metrics: Registry,
    store: S,
    on_worker: impl Fn() -> S + Clone + Send + 'static,
    security: Security,
    hang_up: Signal,
    signals: Signals,
) -> Result<(), Box<dyn Error>> {
    let listener = listen(http.listen)?;
    let address = listener.local_addr()?;
    // For people and for scripts that let the system choose the port.
    let scheme = if security.tls.is_some() {
        "https"
    } else {
        "http"
    };
    writeln!(io::stdout(), "widgets listens on {scheme}://{address}")?;
    writeln!(
        io::stdout(),
        "open {scheme}://{address}/ for its API, press Ctrl-C to stop it"
    )?;
    let connection_metrics = ConnectionMetrics::default();
    connection_metrics.register(&metrics)?;
    let api = Api::new(store, http.settings(), metrics, SystemClock::new())?;
    let mut api = api.with_authentication(security.authentication.clone());
    if let Some(TlsFiles {
        clients: Some((_, wanted)),
        ..
    }) = http.tls_files()
    {
        api = api.with_client_certificates(wanted);
    }
    if let Some(settings) = http.rate_limit() {
        api = api.with_rate_limit(Arc::new(RateLimit::new(settings)));
    }
    let listener = match &security.tls {
        Some(tls) => Listener::tls(listener, tls.clone()),
        None => Listener::from(listener),
    };
    let listener = listener.with_metrics(connection_metrics);
    tokio::spawn(security.keep_fresh(hang_up));
    let worker = move || api.with_store(on_worker());
    let notifier = Notifier::from_environment();
    notifier.ready(address);
    let stop = async move {
        signals.stop().await;
        notifier.stopping();
    };
    widgets_server::serve(listener, &http.limits(), worker, stop).await?;
    Ok(())
}

/// Opens the embedded store, or says what its user can do.
fn open(directory: &Path, settings: &Settings) -> Result<Engine, String> {
    let directory_name = directory.display();
    Engine::open(directory, settings).map_err(|error| match error {
        OpenError::Locked => format!(
            "the data directory {directory_name} is in use by another process: stop that one, or give \
             another directory by --data-dir"
        ),
        OpenError::Damaged { .. } | OpenError::Missing { .. } => format!(
            "the data directory {directory_name} is damaged: {error}. Nothing was changed. Restore a \
             copy of the directory; starting without the damaged part would serve a state that never \
             was"
        ),
        OpenError::Io { ref source, .. } if source.kind() == ErrorKind::PermissionDenied => format!(
            "{error}: the data directory and its files must be readable and writable for the user \
             that runs this"
        ),
        error => error.to_string(),
    })
}

/// So many connections may wait to be accepted. Thousands may come at once, after a restart for
/// instance, and each that finds no place tries again only after a second. Linux allows no more than
/// `net.core.somaxconn`, by default as many.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart need not wait for what the last process left in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        let what = format!("cannot listen on {address}: {error}");
        match error.kind() {
            ErrorKind::AddrInUse => format!(
                "{what}: another program listens there. Stop it, or give another port by --listen, 0 \
                 for any"
            ),
            ErrorKind::AddrNotAvailable => format!("{what}: it is no address of this machine"),
            ErrorKind::PermissionDenied => {
                format!("{what}: ports below 1024 are for privileged users")
            }
            _ => what,
        }
    })
}

/// The two signals that ask the service to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Done at the first signal. The second ends the process there and then: what was answered is
    /// durable, and the journal is made for that.
    async fn stop(mut self) {
        self.next().await;
        tracing::info!("stopping: answering what was accepted, a second signal stops at once");
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("stopped at once: requests under way were not answered");
            std::process::exit(1);
        });
    }
}
