//! `widgets serve`: connects a store and the server, and runs them until a signal.

use crate::{
    Misuse, Outcome,
    config::{Configuration, Given, Http, LogFormat, StoreKind},
    descriptors, help,
    listen::Bound,
    log,
    metrics::{Disk, Process},
    notify::Notifier,
    replication::{self as standby, Replicated},
    security::Security,
    served::Served,
    signals::Signals,
    stores,
};
use prometheus::Registry;
use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};
use widgets_clock::SystemClock;
use widgets_engine::Engine;
use widgets_pacing::{Pacing, SystemMeter};
use widgets_postgres::Postgres;
use widgets_server::{Api, Backup, ConnectionMetrics, Listener, RateLimit, Replication, TlsFiles};

#[derive(clap::Args)]
#[command(after_help = help_sections())]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) given: Given,
    /// Migrate the database of the PostgreSQL store before starting, as `widgets migrate` does.
    #[arg(long, env = "WIDGETS_MIGRATE", hide_env_values = true)]
    migrate: bool,
}

/// Returns the end of the help.
fn help_sections() -> String {
    format!("For `--help SECTION`, {}.", help::sections())
}

pub(crate) fn run(Arguments { given, migrate }: Arguments) -> Outcome {
    let configuration = given.resolve()?.configuration;
    configuration.check_public().map_err(Misuse)?;
    let _log = log::start_service(&configuration.log)?;
    // This runtime accepts connections and waits for signals. Requests are served on the workers'
    // own runtimes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(&configuration, migrate));
    // Does not wait for a recovery that a signal has interrupted.
    runtime.shutdown_background();
    match outcome {
        Err(error) if configuration.log.format == LogFormat::Json => {
            // A program that reads JSON reads nothing else.
            tracing::error!("{error}");
            Ok(crate::failed(&*error))
        }
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

async fn serve(configuration: &Configuration, migrate: bool) -> Result<(), Box<dyn Error>> {
    // Before anything is opened, so that a signal during recovery is not lost.
    let mut signals = Signals::new()?;
    let hang_up = signal(SignalKind::hangup())?;
    let started = tokio::select! {
        // What was opened meanwhile is abandoned as in a crash, from which every start recovers.
        _ = signals.next() => None,
        started = start(configuration, migrate) => Some(started?),
    };
    let Some(Started {
        http,
        bound,
        metrics,
        security,
        pacing,
        store,
    }) = started
    else {
        tracing::info!("stopped during the start");
        return Ok(());
    };
    let api = http.settings(&configuration.changes, &configuration.log);
    let (served, copies) = match &store {
        Opened::Embedded {
            engine, replicated, ..
        } => {
            let clock = Arc::new(SystemClock::new());
            let copies = Copies {
                backup: Some(crate::archive::backups(engine, clock, pacing.clone())),
                replication: Some(Arc::new(replicated.clone())),
            };
            (Served::Embedded(engine.client()), copies)
        }
        Opened::Postgres(postgres) => (Served::Postgres(postgres.client()), Copies::default()),
    };
    let answered = answer(
        &http, api, bound, metrics, served, copies, security, pacing, hang_up, signals,
    )
    .await;
    // On another thread than the signals: a disk may hang here, and a second signal must still end
    // the process.
    tokio::task::spawn_blocking(move || store.close()).await?;
    answered?;
    tracing::info!("stopped");
    Ok(())
}

/// How long shutdown waits for the archive.
const ARCHIVE_STOP_MAX: Duration = Duration::from_secs(5);

/// Everything that serves, before anybody can connect.
struct Started {
    /// Adapted to what the process may have.
    http: Http,
    bound: Bound,
    metrics: Registry,
    security: Security,
    pacing: Arc<Pacing>,
    store: Opened,
}

enum Opened {
    Embedded {
        engine: Box<Engine>,
        archiver: Option<widgets_archive::Handle>,
        replicated: Replicated,
    },
    Postgres(Postgres),
}

impl Opened {
    /// Closes the store. May wait for its disk, and for the archive.
    fn close(self) {
        match self {
            Self::Embedded {
                engine,
                archiver,
                replicated,
            } => {
                replicated.stop();
                drop(engine);
                // Archive the last part of the journal as well, if the bucket works.
                if let Some(archiver) = archiver
                    && !archiver.stop(&SystemClock::new(), ARCHIVE_STOP_MAX)
                {
                    tracing::warn!(
                        "the end of the journal is not archived yet: the next start continues with it"
                    );
                }
            }
            Self::Postgres(postgres) => drop(postgres),
        }
    }
}

async fn start(configuration: &Configuration, migrate: bool) -> Result<Started, Box<dyn Error>> {
    let Configuration {
        http,
        store,
        changes,
        idempotency,
        postgres,
        auth,
        ..
    } = configuration;
    let database_connections = match &store.url {
        StoreKind::Embedded => 0,
        // Plus the two connections of the feed.
        StoreKind::Postgres(_) => {
            postgres.connections + postgres.lookup_connections + http.scans_max + 2
        }
    };
    let mut http = http.clone();
    http.connections_max = descriptors::connections_max(
        http.connections_max,
        descriptors::raise(),
        http.limits().workers.get(),
        database_connections,
    )?;
    let mut security = Security::load(&http, auth)?;
    // Before a store is opened or created, so that nothing has changed if the port is taken.
    let bound = Bound::new(http.listen)?;
    let metrics = Registry::new();
    metrics.register(Box::new(Process::new()?))?;
    log::register_metrics(&metrics)?;
    security.register_metrics(&metrics)?;
    let jwks = security.jwks.take();
    log::say(format_args!("widgets {}", env!("CARGO_PKG_VERSION")));
    if let Some(mut jwks) = jwks {
        let hang_up = signal(SignalKind::hangup())?;
        // Not in the background: a client that sends a request as soon as the service listens must
        // not be told to wait.
        let succeeded = jwks.fetch().await;
        tokio::spawn(jwks.keep_fresh(succeeded, hang_up));
    }
    let clock = Arc::new(SystemClock::new());
    let pacing = Pacing::new(store.pacing, clock, SystemMeter::default());
    metrics.register(Box::new(pacing.metric().clone()))?;
    let pacing = Arc::new(pacing);
    let store = match &store.url {
        StoreKind::Embedded if migrate => {
            let why = "--migrate is for the PostgreSQL store: give its URL with --store";
            return Err(Misuse(why.into()).into());
        }
        StoreKind::Embedded => {
            start_embedded(configuration, &http, pacing.clone(), &metrics).await?
        }
        StoreKind::Postgres(_) => {
            let target = store.reachable_database()?;
            let settings = postgres.settings(&http, changes, idempotency);
            if migrate {
                crate::migrate::migrate(&target, settings.connect_timeout_ms).await?;
            }
            log::say(format_args!("keeps its widgets in {target}"));
            let postgres = Postgres::open(target, settings)?;
            postgres.metrics().register(&metrics)?;
            Opened::Postgres(postgres)
        }
    };
    Ok(Started {
        http,
        bound,
        metrics,
        security,
        pacing,
        store,
    })
}

/// What gives others a copy of the whole store.
#[derive(Default)]
struct Copies {
    backup: Option<Arc<dyn Backup>>,
    replication: Option<Arc<dyn Replication>>,
}

/// Opens the embedded store, together with what copies it and the primary that it follows.
async fn start_embedded(
    configuration: &Configuration,
    http: &Http,
    pacing: Arc<Pacing>,
    metrics: &Registry,
) -> Result<Opened, Box<dyn Error>> {
    let Configuration {
        store,
        engine,
        changes,
        idempotency,
        archive,
        replication,
        ..
    } = configuration;
    let settings = engine.settings(http, changes, idempotency, archive, replication);
    let path = store.data_dir.clone();
    let no_store = store.no_store();
    // On another thread than the signals, because a recovery may take long.
    let primary = replication.primary();
    replication.check_files()?;
    let credentials = replication.credentials();
    let paced = pacing.clone();
    let opening = move || standby::open(&path, no_store, &settings, paced, primary, credentials);
    let standby::Begun {
        engine,
        opened,
        primary,
    } = tokio::task::spawn_blocking(opening).await??;
    let (directory, recovered) = (store.data_dir.display(), engine.recovered());
    if matches!(opened, standby::Opened::Made) {
        log::say(format_args!("{}", stores::new_store(&store.data_dir)));
    } else {
        log::say(format_args!(
            "{directory} has {} widgets and {} associations",
            recovered.widgets, recovered.associations
        ));
    }
    engine.register_metrics(metrics)?;
    metrics.register(Box::new(Disk::new(&store.data_dir)?))?;
    let clock = Arc::new(SystemClock::new());
    let archiver = crate::archive::start(archive, &engine, (clock, pacing), metrics)?;
    if let (Some(_), Some(url)) = (&archiver, &archive.url) {
        log::say(format_args!("archives to {url}"));
    }
    if let Some(primary) = &primary {
        log::say(format_args!("follows {}", primary.address));
    }
    let segment_bytes = configuration.engine.segment_bytes;
    let credentials = replication.credentials();
    let replicated = standby::start(&engine, primary, credentials, segment_bytes, metrics)?;
    Ok(Opened::Embedded {
        engine: Box::new(engine),
        archiver,
        replicated,
    })
}

/// Serves the API over a store until a signal.
#[expect(
    clippy::too_many_arguments,
    reason = "all that serves meets here, and nowhere else"
)]
async fn answer(
    http: &Http,
    settings: widgets_server::Settings,
    bound: Bound,
    metrics: Registry,
    store: Served,
    copies: Copies,
    security: Security,
    pacing: Arc<Pacing>,
    hang_up: Signal,
    signals: Signals,
) -> Result<(), Box<dyn Error>> {
    let listener = bound.listen()?;
    let address = listener.local_addr()?;
    // For people, and for scripts that let the system choose the port.
    let scheme = if security.tls.is_some() {
        "https"
    } else {
        "http"
    };
    log::say(format_args!("widgets listens on {scheme}://{address}"));
    log::say(format_args!(
        "open {scheme}://{address}/console/ to look into it; press Ctrl-C to stop it"
    ));
    let connection_metrics = ConnectionMetrics::default();
    connection_metrics.register(&metrics)?;
    let api = Api::new(store.clone(), settings, metrics, SystemClock::new())?;
    let api = api.with_authentication(security.authentication.clone());
    let api = api.with_trusted_proxies(http.trusted_proxies.0.clone());
    let mut api = api.with_browsers(security.browsers.clone());
    if let Some(TlsFiles {
        clients: Some((_, wanted)),
        ..
    }) = http.tls_files()
    {
        api = api.with_client_certificates(wanted);
    }
    if let Some(replication) = copies.replication {
        api = api.with_replication(replication);
    }
    if let Some(settings) = http.rate_limit() {
        api = api.with_rate_limit(Arc::new(RateLimit::new(settings)));
    }
    if let Some(backup) = copies.backup {
        api = api.with_backup(backup);
    }
    let listener = match &security.tls {
        Some(tls) => Listener::tls(listener, tls.clone()),
        None => Listener::from(listener),
    };
    let listener = listener
        .with_metrics(connection_metrics)
        .with_pacing(pacing);
    tokio::spawn(security.keep_fresh(hang_up));
    let worker = move || api.with_store(store.on_current_runtime());
    let notifier = Notifier::from_environment();
    notifier.ready(address);
    let stop = async move {
        signals.stop().await;
        notifier.stopping();
    };
    widgets_server::serve(listener, &http.limits(), worker, stop).await?;
    Ok(())
}
