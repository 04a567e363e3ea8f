//! The settings of the API.

use crate::answer_bytes_max;
use std::time::Duration;
use widgets_registry::{NAME_BYTES_MAX, SERIAL_NUMBER_BYTES_MAX};

/// The settings of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The maximum size of a request's body in bytes. Default 64 KiB, at least 8 KiB, at most 16
    /// MiB.
    pub body_bytes_max: usize,
    /// How long a request's body may take to arrive after its head. Default 15 seconds.
    pub request_timeout: Duration,
    /// How long a connection may be idle. Streams and waiting pages that have nothing to send make
    /// themselves heard before that. Default 75 seconds.
    pub idle_timeout: Duration,
    /// The maximum number of concurrent subscribers to the changes. Default 1,000.
    pub changes_subscribers_max: usize,
    /// The maximum number of bytes held for incomplete bodies, over all requests. Default 256 MiB.
    pub bodies_bytes_max: usize,
    /// The maximum number of rows in an answer. Default 1,000, at least 1, at most 10,000.
    pub rows_max: u32,
    /// The maximum size in bytes of an answer of many rows. Default 4 MiB: one connection's share
    /// of the bytes of unread answers, see [`answer_bytes_max`](crate::answer_bytes_max).
    pub answer_bytes_max: usize,
    /// The maximum number of answers of many rows that are made at a time: as many as the store
    /// works on for long, and some more for quick ones. Default 12, at least 1.
    pub making_max: usize,
    /// How long a list may take. Default 5 seconds.
    pub read_timeout: Duration,
    /// Whether each request is logged, with the target [`REQUESTS`](crate::REQUESTS). Default
    /// false.
    pub log_requests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 10,
            request_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            changes_subscribers_max: 1000,
            bodies_bytes_max: 256 << 20,
            rows_max: 1000,
            answer_bytes_max: answer_bytes_max(64 << 20),
            making_max: 12,
            read_timeout: Duration::from_secs(5),
            log_requests: false,
        }
    }
}

const BODY_BYTES_MAX_LEAST: usize = 8 << 10;
const BODY_BYTES_MAX_MOST: usize = 16 << 20;

/// With the longest names such an answer has 11 MB, and more if JSON escapes their characters.
const ROWS_MAX_MOST: usize = 10_000;

// JSON can take six bytes for one, as in "\u0041": every command within its limits must fit.
const _: () = assert!(6 * (SERIAL_NUMBER_BYTES_MAX + NAME_BYTES_MAX) + 128 <= BODY_BYTES_MAX_LEAST);

/// A setting outside its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {least} to {most}, {given} was given")]
pub struct SettingError {
    /// The setting.
    pub setting: &'static str,
    /// The smallest value allowed.
    pub least: usize,
    /// The largest value allowed.
    pub most: usize,
    /// The value given.
    pub given: usize,
}

impl Settings {
    /// Checks each setting against its limits.
    pub fn check(&self) -> Result<(), SettingError> {
        let check = |setting, least, most, given| {
            if (least..=most).contains(&given) {
                return Ok(());
            }
            Err(SettingError {
                setting,
                least,
                most,
                given,
            })
        };
        let (least, most) = (BODY_BYTES_MAX_LEAST, BODY_BYTES_MAX_MOST);
        check("body_bytes_max", least, most, self.body_bytes_max)?;
        check("rows_max", 1, ROWS_MAX_MOST, self.rows_max as usize)
    }
}
