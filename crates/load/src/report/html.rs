//! The report as one HTML file: no script, no font, no picture from elsewhere.

use super::{
    Percentiles, Report, Search, StretchReport, count_text,
    plot::{Axes, Series, lines},
    rate_text, time_text,
};
use crate::{audit::Findings, objective::Objective};
use std::fmt::Write as _;

const CSS: &str = include_str!("page.css");

/// The whole page. Fails only where a plot cannot be drawn.
pub(super) fn page(report: &Report) -> Result<String, String> {
    let mut page = Page::default();
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw("<title>widgets load</title><style>");
    page.raw(CSS);
    page.raw("</style></head><body>");
    head(&mut page, report);
    if let Some(search) = &report.search {
        curve(&mut page, report, search)?;
    } else if let Some(stretch) = report.stretches.first() {
        tiles(&mut page, report, stretch);
        rate_plot(&mut page, stretch)?;
        latency_plot(&mut page, stretch)?;
        distribution_plot(&mut page, stretch)?;
        kinds(&mut page, stretch);
        outcomes(&mut page, stretch);
    }
    if let Some(audit) = &report.audit {
        findings(&mut page, audit);
    }
    conditions(&mut page, report);
    page.raw("</body></html>\n");
    Ok(page.html)
}

#[derive(Default)]
struct Page {
    html: String,
}

impl Page {
    fn raw(&mut self, html: &str) {
        self.html.push_str(html);
    }

    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.raw("&amp;"),
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '"' => self.raw("&quot;"),
                _ => self.html.push(character),
            }
        }
    }

    fn element(&mut self, tag: &str, class: &str, text: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.html, "<{tag} class=\"{class}\">");
        self.text(text);
        let _ = write!(self.html, "</{tag}>");
    }

    fn row(&mut self, class: &str, cells: &[&str]) {
        let _ = write!(self.html, "<tr class=\"{class}\">");
        for cell in cells {
            self.element("td", "", cell);
        }
        self.raw("</tr>");
    }

    fn table(&mut self, class: &str, heads: &[&str]) {
        let _ = write!(
            self.html,
            "<div class=\"scroll\"><table class=\"{class}\"><tr>"
        );
        for head in heads {
            self.element("th", "", head);
        }
        self.raw("</tr>");
    }

    fn end_table(&mut self) {
        self.raw("</table></div>\n");
    }

    fn plot(&mut self, title: &str, axes: &Axes, series: &[Series]) -> Result<(), String> {
        let svg = lines(axes, series)?;
        if svg.is_empty() {
            return Ok(());
        }
        self.element("h2", "", title);
        self.raw("<figure><div class=\"legend\">");
        for (number, each) in series.iter().enumerate() {
            let _ = write!(self.html, "<span style=\"--c: var(--s{})\">", number + 1);
            self.text(each.label);
            self.raw("</span>");
        }
        self.raw("</div>");
        self.raw(&svg);
        self.raw("</figure>\n");
        Ok(())
    }
}

fn setting<'a>(report: &'a Report, name: &str) -> &'a str {
    let found = report.settings.iter().find(|(each, _)| each == name);
    found.map_or("", |(_, value)| value)
}

fn head(page: &mut Page, report: &Report) {
    let title = match report.search {
        Some(_) => "widgets load: the highest rate",
        None => "widgets load",
    };
    page.element("h1", "", title);
    let line = format!(
        "{} · run {} · {}",
        setting(report, "url"),
        setting(report, "run"),
        report.ended_at()
    );
    page.element("p", "quiet", &line);
    let (class, verdict) = match (report.failures.is_empty(), &report.audit) {
        (false, _) => ("bad", "Failed"),
        (true, Some(_)) => (
            "good",
            "Passed: every answer was right, and the audit found what was acknowledged",
        ),
        (true, None) => (
            "good",
            "Passed: every answer was right (there was no audit)",
        ),
    };
    let _ = write!(page.html, "<div class=\"verdict {class}\">");
    page.raw(&format!("<strong class=\"{class}\">{verdict}.</strong>"));
    for text in report.failures.iter().chain(&report.remarks) {
        page.element("p", "", text);
    }
    page.raw("</div>\n");
}

fn tile(page: &mut Page, figure: &str, name: &str) {
    page.raw("<div class=\"tile\">");
    page.element("b", "", figure);
    page.element("span", "", name);
    page.raw("</div>");
}

fn tiles(page: &mut Page, report: &Report, stretch: &StretchReport) {
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
    page.raw("</div>\n");
}

fn seconds(value: f64) -> String {
    format!("{value:.0}")
}

fn rate_plot(page: &mut Page, stretch: &StretchReport) -> Result<(), String> {
    let mut series = vec![Series::line(
        "answered",
        stretch
            .points
            .iter()
            .map(|point| (point.at_seconds, point.requests_per_second)),
    )];
    if let Some(rate) = stretch.arrivals.offered_per_second {
        series.push(Series::line(
            "due",
            stretch.points.iter().map(|point| (point.at_seconds, rate)),
        ));
    }
    if stretch.errors > 0 {
        let errors = stretch.points.iter().map(|point| {
            (
                point.at_seconds,
                point.errors as f64 / point.seconds.max(1e-9),
            )
        });
        series.push(Series::line("failed", errors));
    }
    let axes = Axes {
        x: "time in s",
        y: "requests/s",
        x_text: seconds,
        y_text: rate_text,
        log: false,
    };
    page.plot("Rate over time", &axes, &series)
}

fn latency_plot(page: &mut Page, stretch: &StretchReport) -> Result<(), String> {
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
        x_text: seconds,
        y_text: time_text,
        log: true,
    };
    page.plot("Latency over time", &axes, &series)
}

/// 0 stands for 0 %, 1 for 90 %, 2 for 99 %.
fn percent(nines: f64) -> String {
    let digits = (nines.round() as i32 - 2).clamp(0, 9) as usize;
    format!("{:.digits$} %", 100.0 - 100.0 * 10f64.powf(-nines))
}

fn distribution_plot(page: &mut Page, stretch: &StretchReport) -> Result<(), String> {
    // The longest stands where the share of one request among all is.
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
        x_text: percent,
        y_text: time_text,
        log: true,
    };
    page.plot("Distribution", &axes, &series)
}

fn kinds(page: &mut Page, stretch: &StretchReport) {
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
    row(page, "", "wait for a free lane", &stretch.wait);
    row(page, "", "lag of the generator", &stretch.lag);
    page.end_table();
}

fn outcomes(page: &mut Page, stretch: &StretchReport) {
    page.element("h2", "", "Outcomes");
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

fn findings(page: &mut Page, audit: &Findings) {
    page.element("h2", "", "Audit");
    let line = format!(
        "{} widgets and {} operations of unknown fate were read back and compared.",
        count_text(audit.widgets_checked),
        count_text(audit.unknown_fates_checked)
    );
    page.element("p", "", &line);
    page.table("words", &["finding", "count"]);
    for (name, count) in audit.rows() {
        page.row("", &[name, &count_text(count)]);
    }
    page.end_table();
    for text in audit.examples.iter().take(20) {
        page.element("p", "bad", text);
    }
}

fn curve(page: &mut Page, report: &Report, search: &Search) -> Result<(), String> {
    let objectives: Vec<String> = search.objectives.iter().map(ToString::to_string).collect();
    page.raw("<div class=\"tiles\">");
    let found = search.rate_per_second.map_or("none".into(), rate_text);
    tile(
        page,
        &found,
        &format!("requests/s, the most with {}", objectives.join(" and ")),
    );
    tile(page, &search.held.len().to_string(), "rates tried");
    page.raw("</div>\n");
    let mut steps: Vec<(&StretchReport, bool)> = report
        .stretches
        .iter()
        .zip(search.held.iter().copied())
        .collect();
    let offered = |stretch: &StretchReport| {
        stretch
            .arrivals
            .offered_per_second
            .unwrap_or(stretch.requests_per_second)
    };
    steps.sort_by(|a, b| offered(a.0).total_cmp(&offered(b.0)));
    let of = |label, figure: fn(&Percentiles) -> f64| {
        Series::line(
            label,
            steps
                .iter()
                .map(|(stretch, _)| (offered(stretch), figure(&stretch.latency).max(1.0))),
        )
        .marked()
    };
    let mut series = vec![
        of("p50", |latency| latency.p50_us),
        of("p99", |latency| latency.p99_us),
        of("p99.9", |latency| latency.p99_9_us),
    ];
    if let Some(bound) = search
        .objectives
        .iter()
        .find_map(Objective::latency_bound_us)
    {
        let ends = [
            0.0,
            steps.last().map_or(1.0, |(stretch, _)| offered(stretch)),
        ];
        series.push(Series::line(
            "objective",
            ends.into_iter().map(|rate| (rate, bound)),
        ));
    }
    let axes = Axes {
        x: "requests/s due",
        y: "latency",
        x_text: rate_text,
        y_text: time_text,
        log: true,
    };
    page.plot("Latency over rate", &axes, &series)?;
    page.element("h2", "", "Rates tried");
    page.table(
        "",
        &[
            "due/s",
            "answered/s",
            "p50",
            "p99",
            "p99.9",
            "longest",
            "failed",
            "not sent",
            "objective",
        ],
    );
    for (stretch, held) in steps {
        let latency = &stretch.latency;
        let times = [
            latency.p50_us,
            latency.p99_us,
            latency.p99_9_us,
            latency.max_us,
        ]
        .map(time_text);
        let [p50, p99, p99_9, max] = &times;
        page.row(
            "",
            &[
                &rate_text(offered(stretch)),
                &rate_text(stretch.requests_per_second),
                p50,
                p99,
                p99_9,
                max,
                &count_text(stretch.errors),
                &count_text(stretch.unsent),
                if held { "held" } else { "missed" },
            ],
        );
    }
    page.end_table();
    Ok(())
}

fn conditions(page: &mut Page, report: &Report) {
    page.element("h2", "", "Conditions");
    page.table("words", &["setting", "value"]);
    for (name, value) in report.settings.iter().chain(&report.labels) {
        page.row("", &[name, value]);
    }
    let host = &report.host;
    page.row("rule", &["version", &report.version]);
    page.row(
        "",
        &[
            "processor",
            &format!("{}, {} cores for the generator", host.processor, host.cores),
        ],
    );
    page.row(
        "",
        &["memory", &format!("{} MiB", count_text(host.memory_mib))],
    );
    page.row("", &["kernel", &host.kernel]);
    page.end_table();
}
