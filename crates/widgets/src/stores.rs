//! The stores as whole sets of widgets: `generate` and `import` fill them, and `export` reads them.

use crate::{
    Misuse,
    config::{self, Configuration, Opening, StoreKind},
};
use std::{
    error::Error,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::mpsc;
use widgets_engine::{Bulk, DataDirectory, Engine, NoStore, Settings};
use widgets_load::{
    os_error::explain,
    output::{Existing, Output},
    transfer::{Completed, FileSink, Moved, Progress, Sink, TransferError, export},
};
use widgets_pacing::Pacing;
use widgets_postgres::{OpenError, Part, Rows, Target, fill, read_all};
use widgets_registry::{Command, Pair, Port, Ports, Refusal, Widget};

/// The store that a command uses exclusively, named by flags, variables or a configuration file as
/// for `serve`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Flags, variables (WIDGETS_STORE, WIDGETS_DATA_DIR) or the file of --config name the \
    store, as for `serve`. `--help --all` shows more flags."
)]
pub(crate) struct Given {
    #[command(flatten)]
    given: config::Given<Opening>,
}

/// A store on which no service runs.
pub(crate) enum Store {
    Embedded {
        directory: PathBuf,
        settings: Settings,
        no_store: NoStore,
    },
    Postgres {
        target: Box<Target>,
        connect_timeout: Duration,
    },
}

impl Given {
    /// Returns whether a flag names the store.
    pub(crate) fn is_flag(&self) -> bool {
        let Self { given } = self;
        given.is_flag("store.url") || given.is_flag("store.data_dir")
    }

    /// Returns the store that is meant. Starts the log.
    pub(crate) fn resolve(self) -> Result<Store, Box<dyn Error>> {
        let resolved = self.given.resolve()?;
        let Configuration {
            http,
            store,
            engine,
            changes,
            idempotency,
            archive,
            postgres,
            log,
            ..
        } = &resolved.configuration;
        crate::log::start(log);
        match &store.url {
            StoreKind::Postgres(_) if resolved.is_flag("store.data_dir") => Err(Misuse(
                "--data-dir is for the embedded store, and store.url names a PostgreSQL database: \
                 leave --data-dir out, or give --store embedded"
                    .into(),
            )
            .into()),
            StoreKind::Postgres(_) => Ok(Store::Postgres {
                target: Box::new(store.reachable_database()?),
                connect_timeout: Duration::from_millis(postgres.connect_timeout_ms),
            }),
            // A default would be a guess about which store to fill or read.
            StoreKind::Embedded
                if resolved.is_default("store.url") && resolved.is_default("store.data_dir") =>
            {
                Err(Misuse(
                    "no store is named: give --data-dir DIRECTORY or --store postgres://…, the \
                     variable WIDGETS_DATA_DIR or WIDGETS_STORE, or a configuration file with --config"
                        .into(),
                )
                .into())
            }
            StoreKind::Embedded => Ok(Store::Embedded {
                directory: store.data_dir.clone(),
                // No service runs on the store, so there is nobody to leave CPU time to.
                settings: engine.settings(
                    http,
                    changes,
                    idempotency,
                    archive,
                    &config::Replication::default(),
                ),
                no_store: store.no_store(),
            }),
        }
    }
}

impl Store {
    /// Opens the store to fill it. It must be empty: a program cannot decide what to do about
    /// widgets that exist in both.
    pub(crate) fn sink(self) -> Result<Box<dyn Sink>, TransferError> {
        match self {
            Self::Embedded {
                directory,
                settings,
                no_store,
            } => Ok(Box::new(Embedded::open(directory, no_store, &settings)?)),
            Self::Postgres {
                target,
                connect_timeout,
            } => Ok(Box::new(Database::open(*target, connect_timeout)?)),
        }
    }

    /// Writes all widgets of the store to a sink. Does not create a store.
    pub(crate) fn export(self, sink: Box<dyn Sink>) -> Result<(Moved, Duration), TransferError> {
        match self {
            Self::Embedded {
                directory,
                settings,
                ..
            } => {
                let (bulk, _) = open_bulk(&directory, NoStore::Refuse, &settings)?;
                let mut progress = Progress::new(Some(bulk.counts().widgets));
                let moved = export(&mut bulk.widgets().map(Ok), sink, &mut progress)?;
                Ok((moved, progress.elapsed()))
            }
            Self::Postgres {
                target,
                connect_timeout,
            } => export_database(*target, connect_timeout, sink),
        }
    }
}

/// Returns the message for a new store, in which people see that they mistyped a path.
pub(crate) fn new_store(directory: &Path) -> String {
    let absolute = std::path::absolute(directory);
    let directory = absolute.as_deref().unwrap_or(directory);
    format!("new store in {}", directory.display())
}

/// Opens the embedded store for a service, and returns whether it is new.
pub(crate) fn open_engine(
    path: &Path,
    no_store: NoStore,
    settings: &Settings,
    pacing: Arc<Pacing>,
) -> Result<(Engine, bool), String> {
    let (directory, is_new) = open_directory(path, no_store)?;
    let engine = Engine::open_in(directory, settings, pacing);
    Ok((engine.map_err(|error| explained(path, &error))?, is_new))
}

fn open_bulk(
    path: &Path,
    no_store: NoStore,
    settings: &Settings,
) -> Result<(Bulk, bool), TransferError> {
    let open = || {
        let (directory, is_new) = open_directory(path, no_store)?;
        let bulk = Bulk::open(directory, settings);
        Ok((bulk.map_err(|error| explained(path, &error))?, is_new))
    };
    open().map_err(TransferError::Store)
}

/// Opens the directory, and warns if others have access to it.
fn open_directory(path: &Path, no_store: NoStore) -> Result<(DataDirectory, bool), String> {
    let directory = DataDirectory::open(path, no_store);
    let directory = directory.map_err(|error| explained(path, &error))?;
    match directory.exposure() {
        Ok(None) => {}
        Ok(Some(exposure)) => tracing::warn!(
            "{exposure}; `chmod -R go= {}` keeps them out",
            path.display()
        ),
        Err(error) => tracing::warn!(%error, "the mode of the data directory could not be read"),
    }
    let is_new = directory.is_new();
    Ok((directory, is_new))
}

/// Describes why the embedded store cannot be opened, and what to do about it.
pub(crate) fn explained(path: &Path, error: &widgets_engine::OpenError) -> String {
    use widgets_engine::OpenError;
    let directory = path.display();
    match error {
        OpenError::Locked => format!(
            "the data directory {directory} is in use by another process: stop that one, or give \
             another directory with --data-dir"
        ),
        OpenError::Foreign { .. } => format!(
            "{error}. Give the directory of a store, or an empty or new one, with --data-dir; \
             files of a store are named store, journal-… and checkpoint-…"
        ),
        OpenError::NoStore { .. } => format!(
            "{error}. Correct --data-dir, or mount the volume that has the store; `widgets serve`, \
             `generate` and `import` make a new one if store.must_exist is false"
        ),
        OpenError::Restoring { .. } => format!("{error} (`widgets restore`)"),
        OpenError::NotEmpty { .. } => format!("{error}. Give another directory with --data-dir"),
        OpenError::Damaged { .. } | OpenError::Missing { .. } | OpenError::NoBeginning { .. } => {
            format!(
                "the data directory {directory} is damaged: {error}. Nothing was changed. Restore it from \
             its archive (`widgets restore`) or another copy: skipping the damaged part would serve wrong data"
            )
        }
        OpenError::Io { what, source } => {
            let text = directory.to_string();
            if what.contains(&text) {
                explain(what, source)
            } else {
                explain(&format!("the data directory {text}: {what}"), source)
            }
        }
        OpenError::Version { .. } | OpenError::UnknownKind { .. } | OpenError::Setting { .. } => {
            format!("the data directory {directory}: {error}")
        }
    }
}

/// The result of a transfer.
pub(crate) type Done = Result<(), TransferError>;

/// The embedded store, which is filled in memory and made durable by one checkpoint.
struct Embedded {
    path: PathBuf,
    is_new: bool,
    bulk: Bulk,
}

impl Embedded {
    fn open(path: PathBuf, no_store: NoStore, settings: &Settings) -> Result<Self, TransferError> {
        let (bulk, is_new) = open_bulk(&path, no_store, settings)?;
        let widgets = bulk.counts().widgets;
        if widgets > 0 {
            return Err(TransferError::Store(format!(
                "the data directory {} already holds {widgets} widgets: only an empty store can be \
                 filled",
                path.display()
            )));
        }
        if bulk.is_standby() {
            return Err(TransferError::Store(format!(
                "the data directory {} belongs to a standby, which accepts only what its primary \
                 sends",
                path.display()
            )));
        }
        Ok(Self { path, is_new, bulk })
    }
}

fn refused(refusal: &Refusal) -> TransferError {
    TransferError::Store(format!("the store refuses a widget: {refusal}"))
}

impl Sink for Embedded {
    fn put(&mut self, widget: Widget, completed: &[Completed]) -> Done {
        let ports: Vec<Port> = widget.slots.iter().map(|slot| slot.port).collect();
        let serial_number = widget.serial_number.clone();
        let command = Command::AddWidget {
            serial_number: widget.serial_number,
            name: widget.name,
            ports: Ports::new(&ports).map_err(|refusal| refused(&refusal))?,
        };
        self.bulk
            .apply(&command)
            .map_err(|refusal| refused(&refusal))?;
        for end in completed {
            let pair = Pair::new(serial_number.clone(), end.peer.clone(), end.port);
            let ordinals = [end.ordinal, end.peer_ordinal];
            let associated = pair.and_then(|pair| self.bulk.associate_slots(&pair, ordinals));
            associated.map_err(|refusal| refused(&refusal))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Done {
        let Self { path, is_new, bulk } = *self;
        bulk.commit()
            .map_err(|error| TransferError::Store(explained(&path, &error)))?;
        if is_new {
            // Standard error may be closed.
            drop(writeln!(io::stderr(), "{}", new_store(&path)));
        }
        Ok(())
    }
}

fn database(error: &OpenError) -> TransferError {
    TransferError::Store(error.to_string())
}

fn thread_failed(cause: impl std::fmt::Display) -> TransferError {
    TransferError::Store(format!("starting a thread for the database: {cause}"))
}

/// Runs the work with the database on another thread, so that the data to send is prepared
/// meanwhile.
fn on_thread<F>(work: F) -> Result<JoinHandle<Done>, TransferError>
where
    F: AsyncFnOnce() -> Result<(), OpenError> + Send + 'static,
{
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(thread_failed)?;
        runtime.block_on(work()).map_err(|error| database(&error))
    };
    thread::Builder::new()
        .name("database".into())
        .spawn(work)
        .map_err(thread_failed)
}

fn join(thread: JoinHandle<Done>) -> Done {
    let panicked = || TransferError::Store("the thread for the database panicked".into());
    thread.join().unwrap_or_else(|_| Err(panicked()))
}

/// A PostgreSQL database, filled by COPY in one transaction.
struct Database {
    rows: Rows,
    parts: mpsc::Sender<Part>,
    /// `None` once the outcome has been taken.
    thread: Option<JoinHandle<Done>>,
}

impl Database {
    fn open(target: Target, connect_timeout: Duration) -> Result<Self, TransferError> {
        let (parts, receiver) = mpsc::channel(16);
        let thread = on_thread(async move || fill(&target, connect_timeout, receiver).await)?;
        Ok(Self {
            rows: Rows::default(),
            parts,
            thread: Some(thread),
        })
    }
}

impl Sink for Database {
    fn put(&mut self, widget: Widget, _: &[Completed]) -> Done {
        self.rows.push(&widget);
        if !self.rows.is_full() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        if self.parts.blocking_send(Part::Rows(rows)).is_ok() {
            return Ok(());
        }
        // The thread ended early, and its outcome says why.
        let ended = || TransferError::Store("the database took no more rows".into());
        self.thread.take().map_or(Ok(()), join).and(Err(ended()))
    }

    fn finish(self: Box<Self>) -> Done {
        let Self {
            rows,
            parts,
            thread,
        } = *self;
        for part in [Part::Rows(rows), Part::End] {
            // If nobody receives any more, the thread's outcome says why.
            let _ = parts.blocking_send(part);
        }
        drop(parts);
        thread.map_or(Ok(()), join)
    }
}

fn export_database(
    target: Target,
    connect_timeout: Duration,
    sink: Box<dyn Sink>,
) -> Result<(Moved, Duration), TransferError> {
    let (sender, mut widgets) = mpsc::channel(1024);
    let thread = on_thread(async move || read_all(&target, connect_timeout, sender).await)?;
    let mut progress = Progress::new(None);
    // The reader's failure comes last, in place of an end that would look like success.
    let mut thread = Some(thread);
    let mut widgets = std::iter::from_fn(|| match widgets.blocking_recv() {
        Some(widget) => Some(Ok(widget)),
        None => thread.take().and_then(|thread| join(thread).err()).map(Err),
    });
    let moved = export(&mut widgets, sink, &mut progress)?;
    Ok((moved, progress.elapsed()))
}

/// Opens a file that gets its name only once it is complete; `-` is standard output.
pub(crate) fn file_sink(path: &Path, force: bool) -> Result<Box<dyn Sink>, TransferError> {
    let existing = if force {
        Existing::Replace
    } else {
        Existing::Refuse
    };
    let output = Output::create(path, existing).map_err(TransferError::File)?;
    Ok(Box::new(FileSink::new(output, Output::finish)))
}
