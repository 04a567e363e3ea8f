//! The metrics of connections.

use super::heads::Unheld;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// Why a request is refused because of its head.
const LINES: &str = "lines";
const MALFORMED: &str = "malformed";
const ROOM: &str = "room";

/// The metrics of connections. Clones share the values.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: IntGauge,
    max: IntGauge,
    refused: IntCounter,
    cut: IntCounterVec,
    unread: IntGauge,
    heads_refused: IntCounterVec,
}

/// Why the service ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// `http.idle_timeout_ms`.
    Idle,
    /// `http.request_timeout_ms`, also if no request arrives in that time.
    Request,
    /// `http.unread_bytes_max` or `http.answer_timeout_ms`.
    Unread,
    /// The client's certificate is no longer accepted.
    Certificate,
    /// The connection was idle and its place was needed.
    Full,
}

impl Cut {
    const ALL: [Self; 5] = [
        Self::Idle,
        Self::Request,
        Self::Unread,
        Self::Certificate,
        Self::Full,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Request => "request",
            Self::Unread => "unread",
            Self::Certificate => "certificate",
            Self::Full => "full",
        }
    }
}

impl Default for ConnectionMetrics {
    fn default() -> Self {
        match Self::new() {
            Ok(metrics) => metrics,
            Err(error) => unreachable!("names and labels are constants: {error}"),
        }
    }
}

impl ConnectionMetrics {
    fn new() -> prometheus::Result<Self> {
        let cut = Opts::new(
            "widgets_connections_cut_total",
            "Connections that the service closed, by reason: idle, request (it took too \
             long to arrive), unread (answers were not read), certificate (it is no longer accepted), full (it was idle, and its place was needed).",
        );
        let cut = IntCounterVec::new(cut, &["reason"])?;
        for why in Cut::ALL {
            cut.with_label_values(&[why.as_str()]);
        }
        Ok(Self {
            open: IntGauge::new("widgets_connections", "Open connections.")?,
            max: IntGauge::new(
                "widgets_connections_max",
                "How many connections may be open: http.connections_max, or what the limit on open \
                 files allows.",
            )?,
            refused: IntCounter::new(
                "widgets_connections_refused_total",
                "Connections that were refused because widgets_connections_max were open, or \
                 http.connections_per_client_max of one client, and something was asked on each.",
            )?,
            cut,
            heads_refused: Self::heads_refused()?,
            unread: IntGauge::new(
                "widgets_unread_answer_bytes",
                "Bytes of answers that clients have not read yet.",
            )?,
        })
    }

    fn heads_refused() -> prometheus::Result<IntCounterVec> {
        let refused = Opts::new(
            "widgets_request_heads_refused_total",
            "Requests that were refused because of their heads, by reason: lines (431, a head has more than 100 or, \
             over HTTP/1.1, more than 16 KiB), malformed (400, over HTTP/1.1, a head is not valid HTTP), room \
             (WG503, http.heads_bytes_max).",
        );
        let refused = IntCounterVec::new(refused, &["reason"])?;
        for reason in [LINES, MALFORMED, ROOM] {
            refused.with_label_values(&[reason]);
        }
        Ok(refused)
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let collectors: [Box<dyn Collector>; 6] = [
            Box::new(self.open.clone()),
            Box::new(self.max.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.cut.clone()),
            Box::new(self.unread.clone()),
            Box::new(self.heads_refused.clone()),
        ];
        collectors
            .into_iter()
            .try_for_each(|each| registry.register(each))
    }

    pub(super) fn set_max(&self, connections_max: usize) {
        self.max
            .set(i64::try_from(connections_max).unwrap_or(i64::MAX));
    }

    /// Counts an open connection until the result is dropped.
    pub(super) fn opened(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn cut(&self, why: Cut) {
        self.cut.with_label_values(&[why.as_str()]).inc();
    }

    pub(super) fn head_refused(&self, why: Unheld) {
        let reason = match why {
            Unheld::Status(_) => LINES,
            Unheld::NoRoom(_) => ROOM,
        };
        self.heads_refused.with_label_values(&[reason]).inc();
    }

    /// Counts a request of HTTP/1.1 that hyper refused by itself, if that is how its connection
    /// ended.
    pub(super) fn ended(&self, error: &hyper::Error) {
        // The beginning of HTTP/2 gets no answer.
        if !error.is_parse() || error.is_parse_version_h2() {
            return;
        }
        let reason = if error.is_parse_too_large() {
            LINES
        } else {
            MALFORMED
        };
        self.heads_refused.with_label_values(&[reason]).inc();
    }

    pub(super) fn unread(&self, more: usize, less: usize) {
        let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.unread.add(signed(more) - signed(less));
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
