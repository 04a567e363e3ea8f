//! A search for the highest rate: the curve, and the rates that were tried.

use super::{
    super::{
        Percentiles, Report, Search, StretchReport, count_text,
        plot::{Axes, Series},
        rate_text, time_text, time_tick_text,
    },
    page::{Page, tile},
};
use crate::objective::Objective;

/// Appends latency over rate, and a table of the rates.
pub(super) fn curve(page: &mut Page, report: &Report, search: &Search) -> Result<(), String> {
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
        let line = Series::line("objective", ends.into_iter().map(|rate| (rate, bound)));
        series.push(line.reference());
    }
    let axes = Axes {
        x: "requests/s due",
        y: "latency",
        x_labels: 10,
        x_text: rate_text,
        y_text: time_tick_text,
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
            if held { "held" } else { "missed" },
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
