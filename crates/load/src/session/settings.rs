//! The settings of a session.

use crate::{client::TargetSettings, dataset::Dataset, error::Error, mix::Mix};
use std::time::Duration;

/// The settings of a session.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub target: TargetSettings,
    /// The number of threads.
    pub workers: usize,
    /// The number of connections of all workers together.
    pub connections: usize,
    /// Requests in flight on one connection: 1 over HTTP/1.1.
    pub streams: usize,
    /// The kinds of requests, and how often each is sent.
    pub mix: Mix,
    /// The share of requests that are deliberately refused.
    pub conflicts: f64,
    /// A dataset that the server holds, and which part of it, of how many, this run may use.
    pub dataset: Option<(Dataset, (u32, u32))>,
    /// The prefix of the serial numbers that the run makes.
    pub run: String,
    /// The seed of all random choices.
    pub seed: u64,
    /// The timeout of a request.
    pub timeout: Duration,
    /// The maximum number of widgets that are remembered for the audit, sixteen bytes each.
    pub audit_widgets_max: u64,
    /// The length of each interval of the timeline.
    pub interval: Duration,
    /// Whether to continue while the server cannot be reached.
    pub during_crash: bool,
    /// Whether to send each operation with its own idempotency key, and again until its fate is
    /// known.
    pub idempotency_keys: bool,
    /// Whether to follow the feed of changes and compare it with the answers.
    pub follow_changes: bool,
}

impl Settings {
    /// Returns how many requests can be in flight together.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        self.connections * self.streams
    }

    /// Checks each setting and their combinations.
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
