//! `X-Request-Id`: identifies a request in the answer, in the log, and in the logs of proxies in
//! front of the service. Taken from the request if it has one, generated otherwise.

use crate::given::Given;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};
use widgets_registry::hex;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer one is not echoed, because an answer is kept in memory until it is read.
const BYTES_MAX: usize = 128;

/// A generated one has the digits of the process and of a number within it. The numbers last for
/// nine years at a million a second.
const PROCESS_DIGITS: usize = 8;
const NUMBER_DIGITS: usize = 12;

/// Generates ids for requests without one.
pub(crate) struct RequestIds {
    /// Differs from process to process.
    process: u32,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_le_bytes();
        Self {
            process: u32::from_le_bytes([a, b, c, d]),
            next: AtomicU64::new(1),
        }
    }
}

impl RequestIds {
    /// Returns the request's own id if it is visible ASCII and not too long, or else a new one.
    pub(crate) fn of(&self, given: Given, headers: &HeaderMap) -> HeaderValue {
        if !given.has(Given::REQUEST_ID) {
            return self.make();
        }
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(one), None) if is_valid(one.as_bytes()) => one.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; PROCESS_DIGITS + NUMBER_DIGITS];
        let (process, rest) = text.split_at_mut(PROCESS_DIGITS);
        process.copy_from_slice(&hex::<PROCESS_DIGITS>(self.process.into()));
        rest.copy_from_slice(&hex::<NUMBER_DIGITS>(number));
        match HeaderValue::from_bytes(&text) {
            Ok(value) => value,
            Err(error) => unreachable!("digits are a header's value: {error}"),
        }
    }
}

fn is_valid(id: &[u8]) -> bool {
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Returns the id as text for the log.
pub(crate) fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_request_id_is_kept_and_any_other_is_replaced() {
        let ids = RequestIds::default();
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
                headers.append(X_REQUEST_ID, value);
            }
            text(&ids.of(Given::of(&headers), &headers)).to_owned()
        };
        let longest = "x".repeat(BYTES_MAX);
        for id in ["1", "8e03978e-40d5/a+b=", "\"quoted\"", &longest] {
            assert_eq!(of(&[id]), id);
        }
        let too_long = "x".repeat(BYTES_MAX + 1);
        let mut made = Vec::new();
        for wrong in [&[][..], &[""], &["a b"], &["é"], &["a", "b"], &[&too_long]] {
            let id = of(wrong);
            assert_eq!(id.len(), 20, "{wrong:?}: {id}");
            made.push(id);
        }
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 6, "each id is different");
    }
}
