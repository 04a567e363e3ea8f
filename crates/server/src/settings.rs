//! How the API is set.

use std::time::Duration;
use widgets_registry::{NAME_BYTES_MAX, SERIAL_NUMBER_BYTES_MAX};

/// How the API is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many bytes a request's body may have. Default 64 KiB, at least 8 KiB, at most 16 MiB.
    pub body_bytes_max: usize,
    /// How long a request's body may take to arrive after its head. Default 15 seconds.
    pub request_timeout: Duration,
    /// How many bytes of bodies that are not whole yet may be held, of all requests together. Default 256
    /// MiB.
    pub bodies_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 10,
            request_timeout: Duration::from_secs(15),
            bodies_bytes_max: 256 << 20,
        }
    }
}

const BODY_BYTES_MAX_LEAST: usize = 8 << 10;
const BODY_BYTES_MAX_MOST: usize = 16 << 20;

// JSON can take six bytes for one, as in "\u0041": every command within its limits must fit in.
const _: () = assert!(6 * (SERIAL_NUMBER_BYTES_MAX + NAME_BYTES_MAX) + 128 <= BODY_BYTES_MAX_LEAST);

/// A setting outside its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {least} to {most}, {given} was given")]
pub struct SettingError {
    /// The setting.
    pub setting: &'static str,
    /// The least value.
    pub least: usize,
    /// The greatest value.
    pub most: usize,
    /// The value given.
    pub given: usize,
}

impl Settings {
    /// Checks each setting.
    pub fn check(&self) -> Result<(), SettingError> {
        let (least, most) = (BODY_BYTES_MAX_LEAST, BODY_BYTES_MAX_MOST);
        if (least..=most).contains(&self.body_bytes_max) {
            return Ok(());
        }
        Err(SettingError {
            setting: "body_bytes_max",
            least,
            most,
            given: self.body_bytes_max,
        })
    }
}
