//! One stretch of load: its figures, plots and tables.

use super::{
    super::{
        Percentiles, Report, StretchReport, count_text,
        plot::{Axes, Series},
        rate_text, time_text, time_tick_text,
    },
    page::{Page, tile},
};

/// Appends the figures that are seen at a glance.
pub(super) fn tiles(page: &mut Page, report: &Report, stretch: &StretchReport) {
    page.raw("<div class=\"tiles\">");
    let offered = match stretch.arrivals.offered_per_second {
        Some(rate) => format!("requests/s of {} due", rate_text(rate)),
        None => "requests/s in closed loop".into(),
    };
    tile(page, &rate_text(stretch.requests_per_second), &offered);
    tile(page, &time_text(stretch.latency.p50_us), "latency p50");
    tile(page, &time_text(stretch.latency.p99_us), "latency p99");
    tile(page, &time_text(stretch.latency.p99_9_us), "latency p99.9");
    tile(
        page,
        &count_text(stretch.errors + stretch.unsent),
        "failed or not sent",
    );
    tile(page, &count_text(stretch.wrong), "wrong answers");
    if let Some(audit) = &report.audit {
        tile(page, &count_text(audit.faults()), "faults in the audit");
    }
    if let Some(changes) = &report.changes {
        tile(page, &count_text(changes.faults()), "faults in the changes");
    }
    page.raw("</div>\n");
}

fn seconds(value: f64) -> String {
    format!("{value:.0}")
}

/// Appends requests per second over time.
pub(super) fn rate_plot(page: &mut Page, stretch: &StretchReport) -> Result<(), String> {
    let mut series = vec![Series::line(
        "answered",
        stretch
            .points
            .iter()
            .map(|point| (point.at_seconds, point.requests_per_second)),
    )];
    if let Some(rate) = stretch.arrivals.offered_per_second {
        let ends = [
            0.0,
            stretch.points.last().map_or(0.0, |point| point.at_seconds),
        ];
        series.push(Series::line("due", ends.into_iter().map(|at| (at, rate))).reference());
    }
    let axes = Axes {
        x: "time in s",
        y: "requests/s",
        x_labels: 10,
        x_text: seconds,
        y_text: rate_text,
        log: false,
    };
    page.plot("Rate over time", &axes, &series)
}

/// Appends failed requests over time, if there were any.
pub(super) fn errors_plot(page: &mut Page, stretch: &StretchReport) -> Result<(), String> {
    if stretch.errors == 0 {
        page.element("h2", "", "Errors over time");
        page.element("p", "quiet", "No request failed.");
        return Ok(());
    }
    let errors = stretch.points.iter().map(|point| {
        let failed = point.errors as f64 / point.seconds.max(1e-9);
        (point.at_seconds, failed)
    });
    let axes = Axes {
        x: "time in s",
        y: "failed requests/s",
        x_labels: 10,
        x_text: seconds,
        y_text: rate_text,
        log: false,
    };
    page.plot(
        "Errors over time",
        &axes,
        &[Series::line("503, no answer or no connection", errors)],
    )
}

/// Appends latency over time.
pub(super) fn latency_plot(page: &mut Page, stretch: &StretchReport) -> Result<(), String> {
    let of = |label, figure: fn(&Percentiles) -> f64| {
        let points = stretch
            .points
            .iter()
            .filter(|point| point.latency.count > 0);
        Series::line(
            label,
            points.map(|point| (point.at_seconds, figure(&point.latency).max(1.0))),
        )
    };
    let series = [
        of("p50", |latency| latency.p50_us),
        of("p99", |latency| latency.p99_us),
        of("p99.9", |latency| latency.p99_9_us),
        of("longest", |latency| latency.max_us),
    ];
    let axes = Axes {
        x: "time in s",
        y: "latency",
        x_labels: 10,
        x_text: seconds,
        y_text: time_tick_text,
        log: true,
    };
    page.plot("Latency over time", &axes, &series)
}

/// Formats a number of nines: 0 is 0 %, 1 is 90 %, 2 is 99 %.
fn percent(nines: f64) -> String {
    let digits = (nines.round() as i32 - 2).clamp(0, 9) as usize;
    format!("{:.digits$} %", 100.0 - 100.0 * 10f64.powf(-nines))
}

/// Appends the distribution of times, in equal steps towards 100 %.
pub(super) fn distribution_plot(page: &mut Page, stretch: &StretchReport) -> Result<(), String> {
    // The longest time is drawn at the share of one request among all.
    let last = (stretch.latency.count.max(1) as f64).log10();
    let nines = |quantile: f64| (-(1.0 - quantile).log10()).min(last).max(0.0);
    let points = stretch.distribution.iter();
    let series = [
        Series::line(
            "latency, from when a request was due",
            points
                .clone()
                .map(|point| (nines(point.quantile), point.latency_us.max(1.0))),
        ),
        Series::line(
            "service time, from when it was sent",
            points.map(|point| (nines(point.quantile), point.service_us.max(1.0))),
        ),
    ];
    let axes = Axes {
        x: "share of requests that took no longer",
        y: "time",
        // One label for each power of ten.
        x_labels: last.ceil() as usize + 1,
        x_text: percent,
        y_text: time_tick_text,
        log: true,
    };
    page.plot("Distribution", &axes, &series)
}

/// Appends a table of times.
pub(super) fn kinds(page: &mut Page, stretch: &StretchReport) {
    page.element("h2", "", "Times");
    page.table(
        "",
        &[
            "", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "longest",
        ],
    );
    let row = |page: &mut Page, class: &str, name: &str, times: &Percentiles| {
        let count = count_text(times.count);
        let columns = [
            times.mean_us,
            times.p50_us,
            times.p90_us,
            times.p99_us,
            times.p99_9_us,
            times.p99_99_us,
            times.max_us,
        ];
        let columns = columns.map(time_text);
        let mut cells = vec![name, count.as_str()];
        cells.extend(columns.iter().map(String::as_str));
        page.row(class, &cells);
    };
    for (name, kind) in &stretch.kinds {
        row(page, "", name, &kind.latency);
    }
    row(page, "rule", "all: latency", &stretch.latency);
    row(page, "", "service time", &stretch.service);
    if stretch.turned_away.count > 0 {
        row(page, "", "turned away", &stretch.turned_away);
    }
    row(page, "", "wait for a free lane", &stretch.wait);
    row(page, "", "lag of the generator", &stretch.lag);
    page.end_table();
}

/// Appends a table of outcomes, and the first wrong answers.
pub(super) fn outcomes(page: &mut Page, stretch: &StretchReport) {
    page.element("h2", "", "Outcomes");
    page.element(
        "p",
        "quiet",
        "ok: accepted. The others are refusals by their code, each predicted, and failures.",
    );
    let mut names: Vec<&str> = stretch
        .kinds
        .values()
        .flat_map(|kind| kind.outcomes.keys())
        .map(String::as_str)
        .collect();
    // Acceptance first, then the codes.
    names.sort_unstable_by_key(|name| (*name != "ok", *name));
    names.dedup();
    let heads: Vec<&str> = std::iter::once("").chain(names.iter().copied()).collect();
    page.table("", &heads);
    for (name, kind) in &stretch.kinds {
        let counts: Vec<String> = names
            .iter()
            .map(|&outcome| {
                kind.outcomes
                    .get(outcome)
                    .map_or(String::new(), |&count| count_text(count))
            })
            .collect();
        let cells: Vec<&str> = std::iter::once(name.as_str())
            .chain(counts.iter().map(String::as_str))
            .collect();
        page.row("", &cells);
    }
    page.end_table();
    if !stretch.wrong_examples.is_empty() {
        page.element("h2", "bad", "Wrong answers");
        for text in stretch.wrong_examples.iter().take(20) {
            page.element("p", "", text);
        }
    }
}
