//! Optional rate limits for each client.
//!
//! A client is an address. For IPv6 it is the /64, because one machine may use all of it. A /48 is
//! limited as well, to [`NETWORK_FACTOR`] times as much: one customer may be given a whole /48,
//! which has 65,536 /64s. Each client has a bucket of `burst` requests that refills at a steady
//! rate. The algorithm is the generic cell rate algorithm (ITU-T I.371), which needs one number for
//! each client: the time at which its bucket is full again.
//!
//! The number of buckets is fixed, so a flood of addresses takes no memory. Each bucket belongs to
//! one client. If none is free, a client takes over the bucket that is full again soonest. So a
//! flood of addresses may erase some of what other clients have used, but never counts against
//! them.

use crate::error::Error;
use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    num::NonZero,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How often one client may send requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitSettings {
    /// Requests per second, on average.
    pub requests_per_second: NonZero<u32>,
    /// Requests at once after a pause.
    pub burst_requests: NonZero<u32>,
}

/// Each client may have its bucket in one group only, and finds it there by looking at all of them.
const GROUPS: usize = 1 << 13;
const GROUP_BUCKETS: usize = 8;

/// How many times as often as one of its /64s a /48 may ask.
pub(crate) const NETWORK_FACTOR: u64 = 16;

/// Counts every client's requests. Shared by all workers.
#[derive(Debug)]
pub struct RateLimit {
    settings: RateLimitSettings,
    of_clients: Pace,
    of_networks: Pace,
    groups: Box<[Mutex<[Bucket; GROUP_BUCKETS]>]>,
    key: RandomState,
}

/// The rate that a client or a network may keep up.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// The time between two requests of a client that asks steadily.
    interval_nanoseconds: u64,
    /// How far ahead of now the time at which a bucket is full may be.
    tolerance_nanoseconds: u64,
}

/// The requests of one client.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The hash of the client: long enough that no two of the clients that fit in share one.
    client: u64,
    /// The time at which the bucket is full again, in nanoseconds.
    full: u64,
}

impl Pace {
    fn new(per_second: u64, burst: u64) -> Self {
        let interval_nanoseconds = 1_000_000_000 / per_second;
        Self {
            interval_nanoseconds,
            tolerance_nanoseconds: interval_nanoseconds.saturating_mul(burst - 1),
        }
    }
}

impl RateLimit {
    /// Makes a limit whose buckets are all full.
    #[must_use]
    pub fn new(settings: RateLimitSettings) -> Self {
        let per_second = u64::from(settings.requests_per_second.get());
        let burst = u64::from(settings.burst_requests.get());
        Self {
            of_clients: Pace::new(per_second, burst),
            of_networks: Pace::new(per_second * NETWORK_FACTOR, burst * NETWORK_FACTOR),
            groups: (0..GROUPS).map(|_| Mutex::default()).collect(),
            key: RandomState::new(),
            settings,
        }
    }

    /// Counts a request of this client.
    pub(crate) fn check(&self, client: IpAddr, now: Duration) -> Result<(), Error> {
        self.take(client, now)
            .map_err(|wait| Error::TooManyRequests {
                requests_per_second: self.settings.requests_per_second.get(),
                // Whole seconds, at least one.
                retry_after_seconds: wait.as_secs() + 1,
            })
    }

    /// Takes a request out of a client's bucket. The error is the time until there is one.
    fn take(&self, client: IpAddr, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        match client {
            IpAddr::V4(address) => self.take_of(self.key.hash_one(address), self.of_clients, now),
            IpAddr::V6(address) => {
                let segments = address.segments();
                // A request that the /64 may not send does not count against its neighbours.
                self.take_of(self.key.hash_one(&segments[..4]), self.of_clients, now)?;
                self.take_of(self.key.hash_one(&segments[..3]), self.of_networks, now)
            }
        }
    }

    fn take_of(&self, client: u64, pace: Pace, now: u64) -> Result<(), Duration> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "fewer bits than either type has are kept"
        )]
        let group = &self.groups[client as usize % GROUPS];
        let mut group = group.lock().unwrap_or_else(PoisonError::into_inner);
        // The client's own bucket, or else the one that is full again soonest.
        let wanted = |bucket: &&mut Bucket| (bucket.client != client, bucket.full);
        let Some(bucket) = group.iter_mut().min_by_key(wanted) else {
            unreachable!("a group has buckets")
        };
        if bucket.client != client {
            *bucket = Bucket { client, full: now };
        }
        let full = bucket.full.max(now);
        let ahead = full - now;
        if ahead > pace.tolerance_nanoseconds {
            return Err(Duration::from_nanos(ahead - pace.tolerance_nanoseconds));
        }
        bucket.full = full.saturating_add(pace.interval_nanoseconds);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn limit(requests_per_second: u32, burst_requests: u32) -> RateLimit {
        RateLimit::new(RateLimitSettings {
            requests_per_second: NonZero::new(requests_per_second).expect("not 0"),
            burst_requests: NonZero::new(burst_requests).expect("not 0"),
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_rate_limit_bucket_empties_and_refills() {
        let limit = limit(10, 5);
        let client = ip("192.0.2.1");
        let taken = |from: u64| {
            let now = Duration::from_millis(from);
            (0..100)
                .take_while(|_| limit.take(client, now).is_ok())
                .count()
        };
        assert_eq!(taken(1_000), 5, "the burst");
        assert_eq!(taken(1_099), 0);
        let wait = limit.take(client, Duration::from_millis(1_040));
        assert_eq!(wait, Err(Duration::from_millis(60)));
        assert_eq!(taken(1_100), 1);
        assert_eq!(taken(1_350), 2);
        assert_eq!(taken(100_000), 5, "no more than the burst");
        assert!(
            limit
                .take(ip("192.0.2.2"), Duration::from_secs(100))
                .is_ok(),
            "others are not affected"
        );
    }

    #[test]
    fn an_ipv6_client_is_limited_per_64_and_per_48_network() {
        let limit = limit(1, 1);
        let take = |text: &str| limit.take(ip(text), Duration::from_secs(1)).is_ok();
        assert!(take("2001:db8::1"));
        assert!(!take("2001:db8::ffff:1"), "the same /64");
        let others = (1..NETWORK_FACTOR).filter(|net| take(&format!("2001:db8:0:{net}::1")));
        assert_eq!(others.count() as u64, NETWORK_FACTOR - 1);
        assert!(
            !take("2001:db8:0:ffff::1"),
            "the bucket of the /48 is empty"
        );
        assert!(take("2001:db8:1::1"), "others are not affected");
    }

    /// Any number of addresses never counts against another address.
    #[test]
    fn requests_from_many_addresses_do_not_limit_other_addresses() {
        let limit = limit(1, 1);
        let now = Duration::from_secs(1);
        let flood = |from: u32, to: u32| {
            for each in from..to {
                // Each address is in a /48 of its own.
                let address = Ipv6Addr::from_bits((0x2001_u128 << 112) | u128::from(each) << 80);
                // The first request of each is allowed.
                assert_eq!(limit.take(IpAddr::V6(address), now), Ok(()));
            }
        };
        flood(0, 300_000);
        for each in 0..=255 {
            let fresh = IpAddr::V4(Ipv4Addr::new(192, 0, 2, each));
            assert_eq!(limit.take(fresh, now), Ok(()), "{fresh}");
            assert!(
                limit.take(fresh, now).is_err(),
                "{fresh} has its own bucket"
            );
        }
    }
}
