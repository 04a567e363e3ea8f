//! The program's log on standard error, and a service's messages on standard output.
//!
//! Clients cause many of the lines and could fill a disk with them. So each place in the program
//! writes a few lines in ten seconds, and then the number of lines that it left out. Lines of the
//! levels `debug` and `trace` were asked for, and are all written.
//!
//! A service never waits for the reader of its output: `lines.rs` writes for it. When it ends it
//! waits for a moment, so that its last lines arrive if somebody reads them.

mod lines;

use crate::config::{Configuration, Log, LogFilter, LogFormat};
use lines::Lines;
use prometheus::{IntCounter, Registry};
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::HashMap,
    fmt, io,
    panic::PanicHookInfo,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    Layer as _,
    filter::{FilterExt as _, filter_fn},
    layer::{Context, Filter, SubscriberExt as _},
    util::SubscriberInitExt as _,
};
use widgets_load::shown;
use widgets_server::REQUESTS;

/// How many lines one place may write in a period.
const LINES_MAX: u64 = 10;

/// The length of a period.
const PERIOD: Duration = Duration::from_secs(10);

/// The target of the lines that report left-out lines.
const TARGET: &str = "widgets::log";

/// How long a message on standard output waits for readers, so that it appears in order among the
/// lines of the log. After one wait without a reader, no message waits.
const SAID_WAIT_MAX: Duration = Duration::from_secs(1);

/// How long the last lines wait.
const LAST_WAIT_MAX: Duration = Duration::from_secs(2);

/// The two streams of a service, once it has begun.
static STREAMS: OnceLock<Streams> = OnceLock::new();

struct Streams {
    output: Lines,
    error: Lines,
    left_out: IntCounter,
    is_read: AtomicBool,
}

/// Starts the log of a command, which waits for the reader of its standard error. Further calls
/// change nothing. Dropping the returned value reports the last lines that were left out.
pub(crate) fn start(log: &Log) -> impl Drop + use<> {
    start_to(log, io::stderr)
}

/// Writes the warnings of the archive from now on: for commands that have no configuration. What is
/// returned reports the last left-out lines when it is dropped.
pub(crate) fn start_for_archive() -> impl Drop {
    start(&Log {
        filter: LogFilter::of_archive(),
        ..Configuration::default().log
    })
}

/// Starts the log and the messages of a service, which waits for no reader. Dropping the returned
/// value waits a moment for the last lines.
pub(crate) fn start_service(log: &Log) -> Result<impl Drop, Box<dyn std::error::Error>> {
    let left_out = IntCounter::new(
        "widgets_log_lines_unwritten_total",
        "Lines of the standard output and error that were not written because nobody read them or \
         there was no room.",
    )?;
    let tell = |left_out| {
        tracing::warn!(
            target: TARGET,
            left_out,
            "lines were left out: nobody read them, or there was no room for them"
        );
    };
    let error = Lines::start("log", io::stderr(), left_out.clone(), tell)?;
    let output = Lines::start("output", io::stdout(), left_out.clone(), tell)?;
    let streams = STREAMS.get_or_init(|| Streams {
        output,
        error,
        left_out,
        is_read: AtomicBool::new(true),
    });
    std::panic::set_hook(Box::new(tell_of_panic));
    Ok(Service(Some(start_to(log, || streams.error.clone()))))
}

/// Registers the metric of how many lines of a service were left out.
pub(crate) fn register_metrics(metrics: &Registry) -> prometheus::Result<()> {
    let streams = STREAMS.get();
    streams.map_or(Ok(()), |streams| {
        metrics.register(Box::new(streams.left_out.clone()))
    })
}

/// Writes a line to the standard output of a service.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let Some(streams) = STREAMS.get() else {
        return;
    };
    let wait_for = |stream: &Lines| {
        if streams.is_read.load(Ordering::Relaxed) && !stream.wait(SAID_WAIT_MAX) {
            streams.is_read.store(false, Ordering::Relaxed);
        }
    };
    wait_for(&streams.error);
    streams.output.push(format!("{line}\n").as_bytes());
    wait_for(&streams.output);
}

/// Writes to standard error why the program ends.
pub(crate) fn say_last(line: fmt::Arguments<'_>) {
    match STREAMS.get() {
        Some(Streams { error, .. }) => {
            error.take_last();
            error.push(format!("{line}\n").as_bytes());
            error.wait(LAST_WAIT_MAX);
        }
        // If even that cannot be written, there is nobody to report to.
        None => drop(io::Write::write_fmt(
            &mut io::stderr(),
            format_args!("{line}\n"),
        )),
    }
}

/// Waits a moment until readers have the last lines of a service that is about to end.
pub(crate) fn wait_for_readers() {
    if let Some(Streams { output, error, .. }) = STREAMS.get() {
        // Once is enough where nobody reads.
        if error.wait(LAST_WAIT_MAX) {
            output.wait(LAST_WAIT_MAX);
        }
    }
}

/// Reports a panic as the standard library does, which would wait for the reader.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        say_last(format_args!("thread '{name}' {panic}\n{backtrace}"));
    } else {
        say_last(format_args!("thread '{name}' {panic}"));
    }
}

/// On drop, reports the lines that were left out, and then waits for the last lines.
struct Service<L>(Option<L>);

impl<L> Drop for Service<L> {
    fn drop(&mut self) {
        drop(self.0.take());
        wait_for_readers();
    }
}

fn start_to<W>(log: &Log, stream: impl Fn() -> W + Clone + Send + Sync + 'static) -> LastPeriod
where
    W: io::Write + 'static,
{
    let places = Places::default();
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    let shown = stream.clone();
    let lines = match log.format {
        LogFormat::Text => lines.with_writer(move || Shown(shown())).boxed(),
        // JSON has its own escapes.
        LogFormat::Json => lines
            .with_writer(stream.clone())
            .json()
            .flatten_event(true)
            .boxed(),
    };
    let told = filter_fn(|metadata| metadata.target() != REQUESTS);
    let filter = log.filter.targets.clone().and(places.clone()).and(told);
    // Lines about requests are always JSON, because programs read them, and are never left out,
    // because they were asked for.
    let requests = tracing_subscriber::fmt::layer()
        .with_writer(stream)
        .json()
        .flatten_event(true)
        .with_filter(filter_fn(|metadata| metadata.target() == REQUESTS));
    let subscriber = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(requests);
    if subscriber.try_init().is_ok() {
        let places = places.clone();
        let periods = thread::Builder::new()
            .name("periods".into())
            .spawn(move || {
                loop {
                    thread::sleep(PERIOD);
                    places.end_period();
                }
            });
        if let Err(error) = periods {
            tracing::error!(%error, "each place in the program writes {LINES_MAX} lines, and no more");
        }
    }
    LastPeriod(places)
}

/// Escapes lines so that each stays one line and controls no terminal: some contain text from
/// databases and other servers.
struct Shown<W>(W);

impl<W: io::Write> io::Write for Shown<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (told, end) = match text.strip_suffix('\n') {
            Some(told) => (told, "\n"),
            None => (&*text, ""),
        };
        self.0
            .write_all(format!("{}{end}", shown(told)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reports the lines that were left out in the last period when it is dropped.
struct LastPeriod(Places);

impl Drop for LastPeriod {
    fn drop(&mut self) {
        self.0.end_period();
    }
}

/// How many lines each place in the program has written in this period.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<Identifier, Written>>>);

struct Written {
    lines: u64,
    by: &'static Metadata<'static>,
}

impl Places {
    /// Returns whether a place may write one more line.
    fn takes(&self, by: &'static Metadata<'static>) -> bool {
        // There is at most one line about left-out lines per place.
        if *by.level() > Level::INFO || by.target() == TARGET {
            return true;
        }
        let mut places = self.lock();
        let written = places.entry(by.callsite());
        let written = written.or_insert(Written { lines: 0, by });
        written.lines += 1;
        written.lines <= LINES_MAX
    }

    /// Reports how many lines each place has left out, and lets all of them write again.
    fn end_period(&self) {
        let places: Vec<Written> = self.lock().drain().map(|(_, written)| written).collect();
        for Written { lines, by } in places {
            if let Some(left_out @ 1..) = lines.checked_sub(LINES_MAX) {
                tracing::warn!(
                    target: TARGET,
                    left_out,
                    level = %by.level(),
                    of = by.target(),
                    line = by.line(),
                    "lines were left out: one place in the program writes {LINES_MAX} in {} s",
                    PERIOD.as_secs(),
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Written>> {
        // No code under this lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Filter<S> for Places {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.takes(event.metadata())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::subscriber::with_default;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Text {
        /// Returns the lines since the last call.
        fn lines(&self) -> Vec<String> {
            let text = std::mem::take(&mut *self.0.lock().expect("no panic"));
            let text = String::from_utf8(text).expect("text");
            text.lines().map(str::to_owned).collect()
        }
    }

    /// Returns what is written with this filter while `tell` runs. `tell` is passed the places.
    fn written(targets: &str, tell: impl FnOnce(&Places, &Text)) {
        let (text, places) = (Text::default(), Places::default());
        let writer = text.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || Shown(writer.clone()));
        let targets: tracing_subscriber::filter::Targets = targets.parse().expect("targets");
        let filter = targets.and(places.clone());
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
        with_default(subscriber, || tell(&places, &text));
    }

    #[test]
    fn log_lines_are_limited_per_call_site_and_omitted_ones_counted() {
        written("info", |places, text| {
            let tell = || {
                for number in 0..1000 {
                    tracing::warn!(number, "a stranger was here");
                }
            };
            tell();
            tracing::warn!("somebody else");
            assert_eq!(text.lines().len(), 11);
            places.end_period();
            let left_out = text.lines();
            assert_eq!(left_out.len(), 1);
            assert!(left_out[0].contains("left_out=990"), "{left_out:?}");
            assert!(left_out[0].contains("widgets::log::tests"), "{left_out:?}");
            tell();
            assert_eq!(text.lines().len(), 10, "a new period");
            places.end_period();
            places.end_period();
            assert_eq!(text.lines().len(), 1, "told once");
        });
    }

    #[test]
    fn line_breaks_and_control_characters_in_the_log_are_escaped() {
        written("info", |_, text| {
            let reason = "no such role\nERROR forged\u{1b}[2J\u{202e}";
            tracing::warn!(%reason, "no connection");
            let lines = text.lines();
            assert_eq!(lines.len(), 1, "{lines:?}");
            let told = r"no such role\nERROR forged\u{1b}[2J\u{202e}";
            assert!(lines[0].contains(told), "{lines:?}");
        });
    }

    #[test]
    fn debug_lines_are_exempt_from_the_limit() {
        written("debug", |_, text| {
            for number in 0..1000 {
                tracing::debug!(number, "of interest");
            }
            assert_eq!(text.lines().len(), 1000);
        });
    }

    #[test]
    fn libraries_log_only_errors_by_default() {
        let targets = Configuration::default().log.filter.targets;
        for (target, level, told) in [
            ("widgets_server::connections", Level::INFO, true),
            ("widgets", Level::INFO, true),
            ("widgets", Level::DEBUG, false),
            ("h2::proto::streams::streams", Level::ERROR, true),
            ("h2::proto::streams::streams", Level::WARN, false),
        ] {
            let tells = targets.would_enable(target, &level);
            assert_eq!(tells, told, "{target} {level}");
        }
    }
}
