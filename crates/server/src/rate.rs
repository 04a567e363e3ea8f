//! How often one client may ask, as an option.
//!
//! A client is an address: of IPv6 the /64, since one machine may use all of it. Each has a bucket of
//! `burst` requests that fills up again at a steady rate: the generic cell rate algorithm (ITU-T
//! I.371), which needs one number a client, the time at which its bucket is full again.
//!
//! There is a fixed number of buckets, so a flood of addresses takes no memory. Clients whose addresses
//! fall together share a bucket; which ones do depends on a random key, so nobody can aim at another's.

use crate::error::Error;
use hyper::HeaderMap;
use ipnet::IpNet;
use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    num::NonZero,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How often one client may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitSettings {
    /// So many requests a second, on average.
    pub requests_per_second: NonZero<u32>,
    /// So many at once after a pause.
    pub burst_requests: NonZero<u32>,
    /// Proxies whose word is taken for whom they ask: the last address in `X-Forwarded-For` that is
    /// not one of them is the client.
    pub trusted_proxies: Vec<IpNet>,
}

/// 512 KiB of buckets.
const BUCKETS: usize = 1 << 16;

/// Counts every client's requests. Shared by all workers.
#[derive(Debug)]
pub struct RateLimit {
    settings: RateLimitSettings,
    /// Between two requests of a client that asks steadily.
    interval_nanoseconds: u64,
    /// How far a bucket's time may be ahead.
    tolerance_nanoseconds: u64,
    /// By the hash of an address, when the bucket is full again, in nanoseconds.
    buckets: Box<[AtomicU64]>,
    key: RandomState,
}

impl RateLimit {
    /// Every bucket is full at first.
    #[must_use]
    pub fn new(settings: RateLimitSettings) -> Self {
        let interval = 1_000_000_000 / u64::from(settings.requests_per_second.get());
        let burst = u64::from(settings.burst_requests.get());
        Self {
            interval_nanoseconds: interval,
            tolerance_nanoseconds: interval.saturating_mul(burst - 1),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            key: RandomState::new(),
            settings,
        }
    }

    /// Counts a request of this address, or of the one that a trusted proxy names.
    pub(crate) fn check(
        &self,
        address: IpAddr,
        headers: &HeaderMap,
        now: Duration,
    ) -> Result<(), Error> {
        let client = self.client(address, headers);
        self.take(client, now)
            .map_err(|wait| Error::TooManyRequests {
                requests_per_second: self.settings.requests_per_second.get(),
                // Whole seconds, at least one.
                retry_after_seconds: wait.as_secs() + 1,
            })
    }

    /// Takes a request out of a client's bucket, or says how long until there is one.
    fn take(&self, client: IpAddr, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let bucket = &self.buckets[self.bucket(client)];
        let full_again = |full: u64| {
            let full = full.max(now);
            let ahead = full - now;
            (ahead <= self.tolerance_nanoseconds).then(|| full + self.interval_nanoseconds)
        };
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, full_again);
        taken.map(drop).map_err(|full| {
            let wait = full
                .saturating_sub(now)
                .saturating_sub(self.tolerance_nanoseconds);
            Duration::from_nanos(wait)
        })
    }

    fn bucket(&self, client: IpAddr) -> usize {
        let hash = match client {
            IpAddr::V4(address) => self.key.hash_one(address),
            IpAddr::V6(address) => self.key.hash_one(&address.segments()[..4]),
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "fewer bits than either type has are kept"
        )]
        let bucket = hash as usize % BUCKETS;
        bucket
    }

    /// Whoever asks, behind as many trusted proxies as there are. What the first that is not trusted
    /// says about others is not believed.
    fn client(&self, address: IpAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |address: &IpAddr| {
            let proxies = &self.settings.trusted_proxies;
            proxies.iter().any(|network| network.contains(address))
        };
        let mut client = address;
        if !trusted(&client) {
            return client;
        }
        // Each proxy has added whom it was asked by: the last is the nearest.
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        for line in lines {
            for forwarded in line.as_bytes().rsplit(|&byte| byte == b',') {
                let text = std::str::from_utf8(forwarded.trim_ascii());
                let Some(next) = text.ok().and_then(|text| text.parse::<IpAddr>().ok()) else {
                    return client;
                };
                client = next.to_canonical();
                if !trusted(&client) {
                    return client;
                }
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests_per_second: u32, burst_requests: u32, proxies: &[&str]) -> RateLimit {
        let proxies = proxies.iter().map(|each| each.parse().expect("a network"));
        RateLimit::new(RateLimitSettings {
            requests_per_second: NonZero::new(requests_per_second).expect("not 0"),
            burst_requests: NonZero::new(burst_requests).expect("not 0"),
            trusted_proxies: proxies.collect(),
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limit = limit(10, 5, &[]);
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
    fn an_ipv6_client_has_one_bucket_for_its_whole_network() {
        let limit = limit(1, 1, &[]);
        let bucket = |text: &str| limit.bucket(ip(text));
        assert_eq!(bucket("2001:db8::1"), bucket("2001:db8::ffff:1"));
        let others = (0..64)
            .filter(|net| bucket(&format!("2001:db8:0:{net}::1")) == bucket("2001:db8:1::1"));
        assert!(others.count() < 8, "other networks are spread");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let limit = limit(1, 1, &["127.0.0.1/32", "10.0.0.0/8"]);
        let client = |address: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().expect("a value"));
            }
            limit.client(ip(address), &headers).to_string()
        };
        for (address, lines, expected) in [
            ("192.0.2.1", &["198.51.100.1"][..], "192.0.2.1"),
            ("127.0.0.1", &[][..], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // What the client itself wrote stands first.
            ("127.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1,10.1.2.3"], "198.51.100.1"),
            (
                "127.0.0.1",
                &["1.1.1.1", "198.51.100.1", "10.1.2.3"],
                "198.51.100.1",
            ),
            ("127.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["nonsense"], "127.0.0.1"),
            ("127.0.0.1", &["1.1.1.1, nonsense, 10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1", &[""], "127.0.0.1"),
        ] {
            assert_eq!(client(address, lines), expected, "{address} {lines:?}");
        }
    }
}
