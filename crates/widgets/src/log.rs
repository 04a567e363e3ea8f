//! What the program tells of itself, on its standard error.

use crate::config::{Log, LogFormat};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Writes log lines from now on. Later calls change nothing.
pub(crate) fn start(log: &Log) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber =
        tracing_subscriber::registry().with(lines.with_filter(log.filter.targets.clone()));
    drop(subscriber.try_init());
}
