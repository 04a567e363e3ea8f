//! The HDR log: the latency histogram of every interval and kind, in the format that the
//! `HdrHistogram` tools read (its `HistogramLogProcessor`, the plotter on hdrhistogram.github.io).

use crate::{
    clock::unix_time,
    error::Error,
    mix::Kind,
    os_error::explain,
    output::{Existing, Output},
    session::Tick,
};
use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
    },
};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

struct Entry {
    kind: Kind,
    start: Duration,
    length: Duration,
    histogram: Histogram<u64>,
}

/// A log that a thread writes, because the load should not wait for the compression.
pub(super) struct HdrLog {
    path: PathBuf,
    entries: mpsc::SyncSender<Entry>,
    writer: JoinHandle<io::Result<Output>>,
    /// When the current stretch starts: stretches follow each other in the log.
    offset: Duration,
    last: Duration,
}

impl HdrLog {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let failed = |cause: String| Error::File(format!("the HDR log: {cause}"));
        let file = Output::create(path, Existing::Replace).map_err(failed)?;
        let (entries, receiver) = mpsc::sync_channel(64);
        let writer = thread::Builder::new()
            .name("hdr-log".into())
            .spawn(move || write(file, &receiver))
            .map_err(Error::Thread)?;
        Ok(Self {
            path: path.to_owned(),
            entries,
            writer,
            offset: Duration::ZERO,
            last: Duration::ZERO,
        })
    }

    pub(super) fn tick(&mut self, tick: &Tick<'_>) {
        let at = Duration::from_secs_f64(tick.point.at_seconds);
        if at < self.last {
            self.offset += self.last;
        }
        self.last = at;
        let length = Duration::from_secs_f64(tick.point.seconds);
        for kind in Kind::ALL {
            let histogram = &tick.measured.latency[kind.index()];
            if histogram.is_empty() {
                continue;
            }
            // If the writer has failed, closing the log reports it.
            drop(self.entries.send(Entry {
                kind,
                start: (self.offset + at).saturating_sub(length),
                length,
                histogram: histogram.clone(),
            }));
        }
    }

    /// Gives the log its name.
    pub(super) fn close(self) -> Result<(), Error> {
        drop(self.entries);
        let outcome = self.writer.join();
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        let what = format!("writing {}", self.path.display());
        let written = outcome.map_err(|error| explain(&what, &error));
        let named = written.and_then(Output::finish);
        named.map_err(|cause| Error::File(format!("the HDR log: {cause}")))
    }
}

fn write(mut file: Output, entries: &mpsc::Receiver<Entry>) -> io::Result<Output> {
    let mut serializer = V2DeflateSerializer::new();
    let start = SystemTime::UNIX_EPOCH + unix_time();
    {
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("latency from the moment at which each request was due, in nanoseconds")
            .with_start_time(start)
            .with_base_time(start)
            // Interval_Max is shown in milliseconds.
            .with_max_value_divisor(1e6)
            .begin_log_with(&mut file, &mut serializer)?;
        for entry in entries {
            let Entry {
                kind,
                start,
                length,
                histogram,
            } = entry;
            let tag = Tag::new(kind.as_str());
            log.write_histogram(&histogram, start, length, tag)
                .map_err(|error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    other @ IntervalLogWriterError::SerializeError(_) => {
                        io::Error::other(format!("{other:?}"))
                    }
                })?;
        }
    }
    file.flush()?;
    Ok(file)
}
