//! The keys of an identity provider (a JWKS, RFC 7517) by their URL: fetched before the service listens,
//! every now and then, at a hang-up, and when a token names a key that is not among them.
//!
//! Whatever goes wrong, the keys that were fetched last go on. A service that has none yet starts all
//! the same: it would be a pity if it were gone with its provider. It is not ready, answers tokens 503,
//! and goes on trying.

mod fetch;

use crate::config::{Auth, HttpUrl};
use fetch::Source;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use std::{sync::Arc, time::Duration};
use tokio::{signal::unix::Signal, time::Instant};
use widgets_clock::{Clock as _, SystemClock};
use widgets_server::{Authentication, KeyRequests, KeySet};

/// After a failure, as long as that is sooner than the next time.
const RETRY: Duration = Duration::from_secs(10);

/// Tokens that name unknown keys make the service fetch so often at most: anyone can make one up.
const ASKED_INTERVAL: Duration = Duration::from_secs(10);

/// The keys, and those who ask for newer ones.
pub(crate) struct Jwks {
    source: Source,
    refresh: Duration,
    authentication: Arc<Authentication>,
    requests: KeyRequests,
    metrics: Metrics,
    /// What was fetched last: the same text again changes nothing.
    last: Option<String>,
    /// Why the last attempt failed, if it did.
    failure: Option<String>,
}

impl Jwks {
    /// Reads the certificates that are trusted, and fetches nothing yet.
    pub(crate) fn new(url: HttpUrl, auth: &Auth) -> Result<Self, String> {
        let timeout = Duration::from_millis(auth.jwks_timeout_ms);
        let source = Source::new(url, auth.jwks_ca.as_deref(), timeout)?;
        let (authentication, requests) = Authentication::with_fetched_keys(auth.settings());
        Ok(Self {
            source,
            refresh: Duration::from_millis(auth.jwks_refresh_ms),
            authentication: Arc::new(authentication),
            requests,
            metrics: Metrics::new().map_err(|error| error.to_string())?,
            last: None,
            failure: None,
        })
    }

    /// What the keys are for.
    pub(crate) fn authentication(&self) -> Arc<Authentication> {
        self.authentication.clone()
    }

    /// Shows how the fetching goes.
    pub(crate) fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }

    /// Fetches the keys and uses them. Says whether that went well, and logs what changed.
    pub(crate) async fn fetch(&mut self) -> bool {
        let fetched = match self.source.fetch().await {
            Ok(text) if self.last.as_ref() == Some(&text) => Ok(None),
            Ok(text) => match KeySet::parse_public(&text) {
                Ok(keys) => Ok(Some((text, keys))),
                Err(error) => Err(format!("the answer is no set of keys: {error}")),
            },
            Err(error) => Err(error),
        };
        self.metrics.count(fetched.is_ok());
        let url = self.source.url();
        let new = match fetched {
            Ok(new) => new,
            Err(error) => {
                // Once, not at each attempt.
                if self.failure.as_ref() != Some(&error) {
                    let kept = self.last.is_some();
                    tracing::error!(%url, error, kept, "fetching the keys for tokens failed");
                }
                self.failure = Some(error);
                return false;
            }
        };
        if self.failure.take().is_some() {
            tracing::info!(%url, "fetching the keys for tokens works again");
        }
        if let Some((text, keys)) = new {
            let (usable, unusable) = (keys.len(), keys.unusable());
            tracing::info!(%url, keys = usable, unusable, "took new keys for tokens");
            self.authentication.replace_keys(keys);
            self.last = Some(text);
        }
        true
    }

    /// Fetches the keys for ever. `succeeded` says how the first time went.
    pub(crate) async fn keep_fresh(mut self, mut succeeded: bool, mut hang_up: Signal) {
        let mut asked: Option<Instant> = None;
        let mut attempt = Instant::now();
        loop {
            let pause = if succeeded {
                self.refresh
            } else {
                self.refresh.min(RETRY)
            };
            let request = tokio::select! {
                () = tokio::time::sleep_until(attempt + pause) => None,
                _ = hang_up.recv() => None,
                request = self.requests.next() => Some(request),
            };
            if request.is_some() {
                if asked.is_some_and(|asked| asked.elapsed() < ASKED_INTERVAL) {
                    continue;
                }
                asked = Some(Instant::now());
            }
            attempt = Instant::now();
            succeeded = self.fetch().await;
            // All those who came meanwhile have their answer with it.
            self.requests.release();
        }
    }
}

/// How the fetching goes.
struct Metrics {
    fetches: IntCounterVec,
    succeeded: IntCounter,
    failed: IntCounter,
    last_success: IntGauge,
    clock: SystemClock,
}

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let fetches = Opts::new(
            "widgets_jwks_fetches_total",
            "How often the keys of auth.jwks_url were fetched, by outcome (ok or failed).",
        );
        let fetches = IntCounterVec::new(fetches, &["outcome"])?;
        let last_success = IntGauge::new(
            "widgets_jwks_last_success_timestamp_seconds",
            "When the keys of auth.jwks_url were last fetched, in seconds since 1970 began; 0 if never.",
        )?;
        Ok(Self {
            succeeded: fetches.with_label_values(&["ok"]),
            failed: fetches.with_label_values(&["failed"]),
            fetches,
            last_success,
            clock: SystemClock::new(),
        })
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.fetches.clone()))?;
        registry.register(Box::new(self.last_success.clone()))
    }

    fn count(&self, success: bool) {
        if success {
            self.succeeded.inc();
            self.last_success.set(self.clock.unix_seconds());
        } else {
            self.failed.inc();
        }
    }
}
