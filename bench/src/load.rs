//! The client: one run of `widgets load`.

use crate::peer::{Peer, sibling};
use serde_json::Value;
use std::{
    error::Error,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// What to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// `add_widget` alone, none of them refused.
    Adds,
    /// All operations and lookups, some of them refused: the default mix of `widgets load`.
    Mix,
}

impl Workload {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Adds => "add_widget",
            Self::Mix => "mix",
        }
    }
}

/// How fast to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrivals {
    /// As soon as the last answer is there.
    Closed,
    /// So many requests a second, whatever the server does.
    Open(f64),
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) workload: Workload,
    pub(crate) arrivals: Arrivals,
    pub(crate) connections: u32,
    pub(crate) duration: Duration,
    /// The answers of a server that keeps nothing cannot be read back.
    pub(crate) audit: bool,
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p99_9_ms: f64,
    pub(crate) max_ms: f64,
}

impl Run {
    /// Runs it, and fails where an answer was wrong, lost or missing.
    pub(crate) fn on(&self, peer: &Peer, directory: &Path) -> Result<Figures, Box<dyn Error>> {
        let json = directory.join("load.json");
        let mut command = Command::new(sibling("widgets")?);
        command.args(["load", &peer.url, "--plain", "--warm-up", "1s", "--fail-if"]);
        command.args(["errors>0%", "--duration"]);
        command.arg(format!("{}ms", self.duration.as_millis()));
        command
            .arg("--connections")
            .arg(self.connections.to_string());
        command.arg("--json").arg(&json);
        if self.workload == Workload::Adds {
            command.args(["--mix", "add_widget=100", "--conflicts", "0%"]);
        }
        match self.arrivals {
            Arrivals::Closed => command.args(["--rate", "max"]),
            Arrivals::Open(rate) => command.arg("--rate").arg(format!("{rate:.0}")),
        };
        command.args(["--audit", if self.audit { "1000" } else { "none" }]);
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{command:?}: {}\n{text}\n{errors}", output.status).into());
        }
        let report: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
        let measured = report["stretches"]
            .as_array()
            .and_then(|stretches| stretches.last())
            .ok_or("a report without a measured stretch")?;
        let figure = |value: &Value| value.as_f64().ok_or("a report without its figures");
        let milliseconds = |name: &str| figure(&measured["latency"][name]).map(|us| us / 1000.0);
        Ok(Figures {
            requests_per_second: figure(&measured["requests_per_second"])?,
            p50_ms: milliseconds("p50_us")?,
            p99_ms: milliseconds("p99_us")?,
            p99_9_ms: milliseconds("p99_9_us")?,
            max_ms: milliseconds("max_us")?,
        })
    }
}
