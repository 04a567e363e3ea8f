//! The stores as whole sets of widgets: what `generate` and `import` fill and `export` reads.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::mpsc;
use widgets_engine::{Bulk, Settings};
use widgets_load::transfer::{Completed, FileSink, Moved, Progress, Sink, TransferError, export};
use widgets_postgres::{OpenError, Part, Rows, Target, fill, read_all};
use widgets_registry::{Command, Pair, Port, Ports, Refusal, Widget};

const BUFFER_BYTES: usize = 1 << 20;

/// A store by the flags that name one.
#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Store {
    /// The data directory of an embedded store that no service runs on.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A migrated PostgreSQL database, as in `postgres://owner@host/database`; the role must own the
    /// tables.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
}

impl Store {
    /// A way to fill it. It must be empty: what to do about widgets that are in both is not for a
    /// program to guess.
    pub(crate) fn sink(&self) -> Result<Box<dyn Sink>, TransferError> {
        if let Some(url) = &self.store {
            return Ok(Box::new(Database::open(url)?));
        }
        let path = self.data_dir.as_ref().ok_or_else(none)?;
        Ok(Box::new(Embedded::open(path)?))
    }

    /// Writes all its widgets to a sink.
    pub(crate) fn export(&self, sink: Box<dyn Sink>) -> Result<(Moved, Duration), TransferError> {
        if let Some(url) = &self.store {
            return export_database(url, sink);
        }
        let path = self.data_dir.as_ref().ok_or_else(none)?;
        let bulk = open(path)?;
        let mut progress = Progress::new(Some(bulk.counts().widgets));
        let moved = export(&mut bulk.widgets().map(Ok), sink, &mut progress)?;
        Ok((moved, progress.elapsed()))
    }
}

/// How a transfer ends.
pub(crate) type Done = Result<(), TransferError>;

/// Clap demands one.
fn none() -> TransferError {
    TransferError::Store("no store is named".into())
}

fn open(path: &Path) -> Result<Bulk, TransferError> {
    Bulk::open(path, &Settings::default()).map_err(|error| {
        TransferError::Store(format!("the data directory {}: {error}", path.display()))
    })
}

/// The embedded store, filled in memory and made durable by one checkpoint.
struct Embedded {
    path: PathBuf,
    bulk: Bulk,
}

impl Embedded {
    fn open(path: &Path) -> Result<Self, TransferError> {
        let bulk = open(path)?;
        let widgets = bulk.counts().widgets;
        if widgets > 0 {
            return Err(TransferError::Store(format!(
                "the data directory {} holds {widgets} widgets already: only an empty store is filled",
                path.display()
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            bulk,
        })
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
        let Self { path, bulk } = *self;
        bulk.commit().map_err(|error| {
            TransferError::Store(format!("the data directory {}: {error}", path.display()))
        })
    }
}

/// How long a connection to a database may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn database(error: &OpenError) -> TransferError {
    TransferError::Store(error.to_string())
}

fn thread_failed(cause: impl std::fmt::Display) -> TransferError {
    TransferError::Store(format!("starting a thread for the database: {cause}"))
}

/// Runs what talks to the database on a thread of its own: what is sent is made meanwhile.
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
    /// Taken by whoever asks it how it went.
    thread: Option<JoinHandle<Done>>,
}

impl Database {
    fn open(url: &str) -> Result<Self, TransferError> {
        let target = Target::parse(url).map_err(|error| database(&error))?;
        let (parts, receiver) = mpsc::channel(16);
        let thread = on_thread(async move || fill(&target, CONNECT_TIMEOUT, receiver).await)?;
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
        // The thread ended before its time, and knows why.
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
            // Why nobody receives any more is what the thread ends with.
            let _ = parts.blocking_send(part);
        }
        drop(parts);
        thread.map_or(Ok(()), join)
    }
}

fn export_database(url: &str, sink: Box<dyn Sink>) -> Result<(Moved, Duration), TransferError> {
    let target = Target::parse(url).map_err(|error| database(&error))?;
    let (sender, mut widgets) = mpsc::channel(1024);
    let thread = on_thread(async move || read_all(&target, CONNECT_TIMEOUT, sender).await)?;
    let mut progress = Progress::new(None);
    // The reader's failure comes last, in place of an end that would look like a good one.
    let mut thread = Some(thread);
    let mut widgets = std::iter::from_fn(|| match widgets.blocking_recv() {
        Some(widget) => Some(Ok(widget)),
        None => thread.take().and_then(|thread| join(thread).err()).map(Err),
    });
    let moved = export(&mut widgets, sink, &mut progress)?;
    Ok((moved, progress.elapsed()))
}

/// A file that has its name only once it is whole; `-` is the standard output.
pub(crate) fn file_sink(path: &Path) -> Result<Box<dyn Sink>, TransferError> {
    if path == Path::new("-") {
        let output = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
        let finish = |mut output: BufWriter<io::Stdout>| output.flush();
        return Ok(Box::new(FileSink::new(output, finish)));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let (partial, path) = (PathBuf::from(partial), path.to_owned());
    let file = File::create(&partial).map_err(|cause| TransferError::File {
        what: format!("writing {}", partial.display()),
        cause,
    })?;
    let output = BufWriter::with_capacity(BUFFER_BYTES, file);
    let finish = move |output: BufWriter<File>| {
        output
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&partial, &path)?;
        // The name is durable when its directory is.
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    Ok(Box::new(FileSink::new(output, finish)))
}
