//! The keys of an identity provider (a JWKS, RFC 7517) from its URL. They are fetched before the
//! service listens, periodically, at a SIGHUP, and when a token names an unknown key.
//!
//! If fetching fails, the keys that were fetched last stay in use. A service without any keys
//! starts all the same, so that it does not depend on its provider to start. It is not ready,
//! answers tokens with 503, and keeps trying.

mod fetch;

use crate::config::{Auth, HttpUrl};
use fetch::Source;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use std::{sync::Arc, time::Duration};
use tokio::{signal::unix::Signal, time::Instant};
use widgets_clock::{Clock as _, SystemClock};
use widgets_server::{Authentication, KeyRequests, KeySet};

/// The pause after a failure, unless the next regular fetch is sooner.
const RETRY: Duration = Duration::from_secs(10);

/// The minimum time between two fetches because of unknown keys: anyone can make up a token that
/// names one.
const ASKED_INTERVAL: Duration = Duration::from_secs(10);

/// The keys, and the requests for newer ones.
pub(crate) struct Jwks {
    source: Source,
    refresh: Duration,
    authentication: Arc<Authentication>,
    requests: KeyRequests,
    metrics: Metrics,
    /// The text that was fetched last: fetching the same text again changes nothing.
    last: Option<String>,
    /// Why the last attempt failed, if it did.
    failure: Option<String>,
}

impl Jwks {
    /// Reads the trusted certificates. Fetches nothing yet.
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

    /// Returns the authentication that uses the keys.
    pub(crate) fn authentication(&self) -> Arc<Authentication> {
        self.authentication.clone()
    }

    /// Registers the metrics of fetching.
    pub(crate) fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }

    /// Fetches the keys and puts them to use. Returns whether that succeeded, and logs what
    /// changed.
    pub(crate) async fn fetch(&mut self) -> bool {
        let fetched = match self.source.fetch().await {
            Ok(text) if self.last.as_ref() == Some(&text) => Ok(None),
            Ok(text) => match KeySet::parse_public(&text) {
                Ok(keys) => Ok(Some((text, keys))),
                Err(error) => Err(format!("the answer is not a JWKS: {error}")),
            },
            Err(error) => Err(error),
        };
        self.metrics.count(fetched.is_ok());
        let url = self.source.url();
        let new = match fetched {
            Ok(new) => new,
            Err(error) => {
                // Log a failure once, not at each attempt.
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
            tracing::info!(%url, keys = usable, unusable, "new keys for tokens are in use");
            self.authentication.replace_keys(keys);
            self.last = Some(text);
        }
        true
    }

    /// Fetches the keys again and again. `succeeded` is the result of the first fetch.
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
            // This answers all requests that arrived meanwhile.
            self.requests.release();
        }
    }
}

/// The metrics of fetching.
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
