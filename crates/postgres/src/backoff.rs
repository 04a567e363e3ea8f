//! Pauses between attempts, and the randomness that they need.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// A source of random numbers. Jitter needs no better ones than [`system_random`] returns.
pub type Random = fn() -> u64;

/// Returns a number from a hasher that is keyed with the operating system's randomness, anew in
/// each call.
#[must_use]
pub fn system_random() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Returns the pause before the next attempt. It doubles from `least` to `most` with each attempt,
/// counted from 0. Then a random part of its upper half is subtracted, so that clients that failed
/// together do not all retry together.
pub(crate) fn backoff(least: Duration, most: Duration, attempt: u32, random: Random) -> Duration {
    let full = least.saturating_mul(1 << attempt.min(16)).min(most);
    let half = full / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(random() % nanos.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_a_limit_with_jitter_in_the_upper_half() {
        let (least, most) = (Duration::from_millis(10), Duration::from_millis(100));
        let pause = |attempt, random: Random| backoff(least, most, attempt, random);
        assert_eq!(pause(0, || 0), Duration::from_millis(5));
        assert_eq!(pause(1, || 0), Duration::from_millis(10));
        assert_eq!(pause(9, || 0), Duration::from_millis(50));
        assert_eq!(pause(u32::MAX, || 0), Duration::from_millis(50));
        assert!(pause(9, || u64::MAX) < most);
    }
}
