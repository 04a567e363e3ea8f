//! Sends operations repeatedly until their fate is known, and yet has them applied at most once.
//!
//! Each has an `Idempotency-Key`, by which the service recognises it: nothing is ever sent twice
//! without one.

use crate::{Client, Error, Operation};
use rustls::crypto::ring;
use std::{fmt::Write as _, thread, time::Duration};

/// The maximum length of a key that the service accepts.
const KEY_BYTES_MAX: usize = 255;

/// The first pause if the service names none; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest pause if the service names none.
const WAIT_MAX: Duration = Duration::from_secs(5);

impl Client {
    /// Sends an operation until its outcome is known, and has it applied at most once. `patience`
    /// limits the sum of the pauses between attempts; when it is exhausted, the outcome of the last
    /// attempt is returned.
    ///
    /// A refusal is an outcome: [`Error::Refused`]. [`Error::FateUnknown`] means that the operation
    /// may have been applied; [`Error::Unavailable`] and [`Error::Unreachable`] mean that it was
    /// not.
    pub fn safely(&self, operation: &Operation, patience: Duration) -> Result<(), Error> {
        self.safely_as(&key()?, operation, patience)
    }

    /// Like [`Self::safely`], with the caller's own key. The caller can therefore continue after
    /// its own restart: the same operation with the same key is applied once, for as long as the
    /// service keeps keys.
    pub fn safely_as(
        &self,
        key: &str,
        operation: &Operation,
        patience: Duration,
    ) -> Result<(), Error> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(plain) {
            return Err(Error::Settings(format!(
                "a key must be 1 to {KEY_BYTES_MAX} visible ASCII characters without quotes and \
                 backslashes, {key:?} was given"
            )));
        }
        let quoted = format!("\"{key}\"");
        let headers = [("Idempotency-Key", quoted.as_str())];
        let (mut left, mut wait_next) = (patience, WAIT_MIN);
        // Set once an attempt may have been applied. A later "not now", or a token that has expired
        // meanwhile, then says nothing about that attempt.
        let mut unknown: Option<String> = None;
        loop {
            let error = match self.send(operation, &headers) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let asked_for = match &error {
                Error::FateUnknown(why) => {
                    unknown = Some(why.clone());
                    None
                }
                Error::Unreachable { .. } => None,
                Error::Unavailable(refusal) => refusal.retry_after_seconds,
                // The first attempt is still in progress.
                Error::Refused(refusal) if refusal.code == "WG409" => refusal.retry_after_seconds,
                Error::Refused(refusal)
                    if unknown.is_some() && !refusal.decides_earlier_attempts() =>
                {
                    refusal.retry_after_seconds
                }
                _ => return Err(error),
            };
            let asked_for = asked_for.map(|seconds| Duration::from_secs(seconds.into()));
            let wait = asked_for.unwrap_or(wait_next);
            let Some(rest) = left.checked_sub(wait) else {
                return Err(unknown.map_or(error, Error::FateUnknown));
            };
            left = rest;
            wait_next = (wait_next * 2).min(WAIT_MAX);
            thread::sleep(wait);
        }
    }
}

/// Returns a random key that nobody has used before.
fn key() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| Error::Settings("the operating system gives no random bytes".into()))?;
    let mut key = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        _ = write!(key, "{byte:02x}");
    }
    Ok(key)
}
