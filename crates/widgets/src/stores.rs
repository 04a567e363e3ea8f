//! The stores as whole sets of widgets: what `generate` and `import` fill and `export` reads.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use widgets_engine::{Bulk, Settings};
use widgets_load::transfer::{Completed, FileSink, Moved, Progress, Sink, TransferError, export};
use widgets_registry::{Command, Pair, Port, Ports, Refusal, Widget};

const BUFFER_BYTES: usize = 1 << 20;

/// A store by the flags that name one.
#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Store {
    /// The data directory of an embedded store that no service runs on.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Store {
    /// A way to fill it. It must be empty: what to do about widgets that are in both is not for a
    /// program to guess.
    pub(crate) fn sink(&self) -> Result<Box<dyn Sink>, TransferError> {
        let path = self.data_dir.as_ref().ok_or_else(none)?;
        Ok(Box::new(Embedded::open(path)?))
    }

    /// Writes all its widgets to a sink.
    pub(crate) fn export(&self, sink: Box<dyn Sink>) -> Result<(Moved, Duration), TransferError> {
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
