//! Live metrics, pushed to VictoriaMetrics in the Prometheus text format.
//!
//! <https://docs.victoriametrics.com/#how-to-import-data-in-prometheus-exposition-format>

use crate::{
    client::{Channel, Protocol, Request, Target, TargetSettings, channels},
    clock::unix_time,
    error::Error,
    mix::Kind,
    session::Tick,
    shown,
    stats::{Outcome, Percentiles},
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

/// How long a push may take. After that its values are dropped, as they are if there is no server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pushes every interval's values.
pub(crate) struct Push {
    run: String,
    batches: mpsc::Sender<String>,
    task: JoinHandle<()>,
}

impl Push {
    /// Starts to push to the VictoriaMetrics at `url`, under the run's name. Also returns where to
    /// see the metrics.
    ///
    /// Sends a request first, because a wrong address should be known before the load and not after
    /// it.
    pub(crate) async fn start(url: &str, run: &str) -> Result<(Self, String), Error> {
        let target = Target::new(&TargetSettings {
            url: url.to_owned(),
            protocol: Protocol::Http1,
            token: None,
            ca: None,
            insecure: false,
        });
        let target = Rc::new(target.map_err(Error::Target)?);
        let has_vmui = has_vmui(&target).await.map_err(|cause| Error::Push {
            url: url.to_owned(),
            cause,
        })?;
        let base = url.trim_end_matches('/');
        let place = if has_vmui {
            vmui(base, run)
        } else {
            format!("{base}/api/v1/query?query=widgets_load_latency_seconds (it has no vmui)")
        };
        let (batches, receiver) = mpsc::channel(16);
        let push = Self {
            run: run.to_owned(),
            batches,
            task: spawn_local(send(target, receiver)),
        };
        Ok((push, place))
    }

    pub(super) fn tick(&mut self, tick: &Tick<'_>, phase: &str) {
        // If the receiver is too slow, values are dropped rather than waited for.
        drop(self.batches.try_send(text(&self.run, phase, tick)));
    }

    pub(super) async fn close(self) {
        drop(self.batches);
        // The pushed values are only for display: the report does not depend on them.
        let _ = timeout(PATIENCE, self.task).await;
    }
}

/// Reports whether the server has the page that shows metrics; Debian's package does not include
/// it.
async fn has_vmui(target: &Rc<Target>) -> Result<bool, String> {
    let Some(mut channel) = channels(target, 1).into_iter().next() else {
        return Ok(false);
    };
    let request = Request {
        path: "/vmui/".into(),
        ..Request::default()
    };
    channel.connect(PATIENCE).await?;
    let answer = channel.exchange(&request, PATIENCE).await;
    Ok(answer.map_err(|failure| failure.cause)?.status == 200)
}

/// Returns the URL at which a browser shows the pushed metrics of this run: two graphs of the last
/// half hour.
fn vmui(base: &str, run: &str) -> String {
    let mut link = format!("{base}/vmui/#/?");
    let queries = [
        "widgets_load_latency_seconds",
        "widgets_load_requests_per_second",
    ];
    for (number, query) in queries.iter().enumerate() {
        let _ = write!(
            link,
            "{}g{number}.expr={query}%7Brun%3D%22{run}%22%7D&g{number}.range_input=30m\
             &g{number}.relative_time=last_30_minutes",
            if number == 0 { "" } else { "&" }
        );
    }
    link
}

async fn send(target: Rc<Target>, mut batches: mpsc::Receiver<String>) {
    let Some(mut channel) = channels(&target, 1).into_iter().next() else {
        return;
    };
    let mut failed = false;
    while let Some(text) = batches.recv().await {
        let request = Request {
            path: "/api/v1/import/prometheus".into(),
            body: Some(text.into_bytes()),
            ..Request::default()
        };
        if let Err(cause) = push(&mut channel, &request).await
            && !failed
        {
            failed = true;
            let origin = target.origin();
            let _ = writeln!(
                io::stderr(),
                "pushing metrics to {origin} failed: {}",
                shown(&cause)
            );
        }
    }
}

async fn push(channel: &mut Channel, request: &Request) -> Result<(), String> {
    channel.connect(PATIENCE).await?;
    let answer = channel.exchange(request, PATIENCE).await;
    let answer = answer.map_err(|failure| failure.cause)?;
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let body = String::from_utf8_lossy(answer.body);
    Err(format!("status {}: {body}", answer.status))
}

/// Formats one interval's values. Counters count from the start of the stretch of load, which
/// `phase` identifies.
fn text(run: &str, phase: &str, tick: &Tick<'_>) -> String {
    let milliseconds = unix_time().as_millis();
    let phase: String = phase
        .chars()
        .filter(|c| !matches!(c, '"' | '\\' | '\n'))
        .collect();
    let labels = format!("run=\"{run}\",phase=\"{phase}\"");
    let mut text = String::new();
    let mut value = |name: &str, more: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "widgets_load_{name}{{{labels}{more}}} {value} {milliseconds}"
        );
    };
    value("requests_per_second", "", tick.point.requests_per_second);
    if let Some(offered) = tick.offered_per_second {
        value("offered_requests_per_second", "", offered);
    }
    value("connections", "", tick.lanes.0 as f64);
    value("wrong_answers_total", "", tick.total.wrong as f64);
    value("reconnects_total", "", tick.total.reconnects as f64);
    let mut quantiles = |name, times: Percentiles| {
        let columns = [
            ("0.5", times.p50_us),
            ("0.9", times.p90_us),
            ("0.99", times.p99_us),
            ("0.999", times.p99_9_us),
            ("1", times.max_us),
        ];
        for (quantile, microseconds) in columns {
            value(
                name,
                &format!(",quantile=\"{quantile}\""),
                microseconds / 1e6,
            );
        }
    };
    quantiles("latency_seconds", tick.point.latency);
    quantiles("service_seconds", Percentiles::from(&tick.measured.service));
    quantiles(
        "generator_lag_seconds",
        Percentiles::from(&tick.measured.lag),
    );
    for kind in Kind::ALL {
        for outcome in Outcome::all() {
            let count = tick.total.count_of(kind, outcome);
            if count > 0 {
                let more = format!(",operation=\"{kind}\",outcome=\"{}\"", outcome.as_str());
                value("requests_total", &more, count as f64);
            }
        }
    }
    text
}
