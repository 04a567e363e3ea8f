//! How a session is set.

use crate::{client::TargetSettings, dataset::Dataset, error::Error, mix::Mix};
use std::time::Duration;

/// How a session is set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub target: TargetSettings,
    /// Threads.
    pub workers: usize,
    /// Connections of all workers together.
    pub connections: usize,
    /// Requests in flight on one connection: 1 over HTTP/1.1.
    pub streams: usize,
    /// What is asked for.
    pub mix: Mix,
    /// The share of requests that are made to be refused.
    pub conflicts: f64,
    /// A dataset that the server holds, and which part of how many of it this run may touch.
    pub dataset: Option<(Dataset, (u32, u32))>,
    /// The start of the serial numbers that the run makes.
    pub run: String,
    /// What the choices are made from.
    pub seed: u64,
    /// A request without an answer is given up after so long.
    pub timeout: Duration,
    /// So many widgets are remembered for the audit, sixteen bytes each.
    pub audit_widgets_max: u64,
    /// How long a stretch each point of the timeline covers.
    pub interval: Duration,
    /// Go on while the server cannot be reached.
    pub during_crash: bool,
    /// Send each operation with a key of its own, and again until its fate is known.
    pub idempotency_keys: bool,
    /// Follow the feed of changes, and hold it against what was answered.
    pub follow_changes: bool,
}

impl Settings {
    /// Requests that can be in flight together.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        self.connections * self.streams
    }

    /// Checks each setting and how they hang together.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |setting: &'static str, limit: String, given: String| {
            Err(Error::Setting {
                setting,
                limit,
                given,
            })
        };
        let within = |setting, value: usize, max: usize| {
            let wrong = !(1..=max).contains(&value);
            if wrong {
                refuse(setting, format!("1 to {max}"), value.to_string())
            } else {
                Ok(())
            }
        };
        within("connections", self.connections, 65_536)?;
        within("workers", self.workers, 256)?;
        within("streams", self.streams, 1024)?;
        if self.workers > self.connections {
            let limit = format!("at most the number of connections, {}", self.connections);
            return refuse("workers", limit, self.workers.to_string());
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
        if !(1..=64).contains(&self.run.len()) || !self.run.bytes().all(plain) {
            let limit = "1 to 64 ASCII letters, digits, dots or underscores".into();
            return refuse("run", limit, format!("{:?}", self.run));
        }
        if self.interval < Duration::from_millis(50) {
            return refuse(
                "interval",
                "at least 50ms".into(),
                format!("{:?}", self.interval),
            );
        }
        if self.timeout < Duration::from_millis(1) {
            return refuse(
                "timeout",
                "at least 1ms".into(),
                format!("{:?}", self.timeout),
            );
        }
        if let Some((_, (part, parts))) = self.dataset
            && part >= parts
        {
            let limit = "PART/PARTS with PART from 1 to PARTS".into();
            return refuse(
                "dataset-part",
                limit,
                format!("{}/{parts}", u64::from(part) + 1),
            );
        }
        Ok(())
    }
}
