//! The content of the live view, independent of any terminal: the run's progress, its rate and
//! latency over time, and a table of each kind of request. It fits 80 columns and 24 rows, and uses
//! more if there are more.

use super::Subject;
use crate::{
    mix::Kind,
    report::{count_text, rate_text, time_text, time_tick_text},
    session::Tick,
    stats::{Measured, Outcome, Percentiles},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, GraphType, LineGauge, Paragraph, Row, Table},
};
use std::{collections::VecDeque, time::Duration};

/// The maximum number of points of time that are shown: ten minutes at the default interval.
const HISTORY: usize = 1200;

/// In a terminal with fewer rows, the two charts are side by side.
const ROWS_STACKED: u16 = 32;

/// A chart with fewer columns has no room for the current latencies in its title.
const WIDTH_FOR_VALUES: u16 = 60;

/// Everything that is shown.
pub(super) struct View {
    subject: Subject,
    phase: String,
    length: Option<Duration>,
    /// Seconds since the start of this phase.
    at_seconds: f64,
    /// Seconds of the phases before this one.
    seconds_before: f64,
    offered_per_second: Option<f64>,
    lanes: (usize, usize),
    connect_error: Option<String>,
    moments: VecDeque<Moment>,
    rows: Vec<TimesRow>,
    requests: u64,
    errors: u64,
    wrong: u64,
}

/// One interval.
#[derive(Clone, Copy)]
struct Moment {
    at_seconds: f64,
    seconds: f64,
    requests_per_second: f64,
    /// Requests per second that were due; `None` in closed loop.
    offered_per_second: Option<f64>,
    latency: Percentiles,
}

/// A row of the table.
struct TimesRow {
    name: &'static str,
    /// Accepted, refused, failed.
    counts: Option<[u64; 3]>,
    times: Percentiles,
}

impl View {
    pub(super) fn new(subject: Subject) -> Self {
        Self {
            subject,
            phase: "starting".into(),
            length: None,
            at_seconds: 0.0,
            seconds_before: 0.0,
            offered_per_second: None,
            lanes: (0, 0),
            connect_error: None,
            moments: VecDeque::new(),
            rows: Vec::new(),
            requests: 0,
            errors: 0,
            wrong: 0,
        }
    }

    /// Begins a phase, with its length if that is known.
    pub(super) fn begin(&mut self, phase: &str, length: Option<Duration>) {
        phase.clone_into(&mut self.phase);
        self.length = length;
        self.seconds_before += self.at_seconds;
        self.at_seconds = 0.0;
    }

    pub(super) fn take(&mut self, tick: &Tick<'_>) {
        self.at_seconds = tick.point.at_seconds;
        self.offered_per_second = tick.offered_per_second;
        self.lanes = tick.lanes;
        self.connect_error = tick.connect_error.map(str::to_owned);
        self.moments.push_back(Moment {
            at_seconds: self.seconds_before + tick.point.at_seconds,
            seconds: tick.point.seconds,
            requests_per_second: tick.point.requests_per_second,
            offered_per_second: tick.offered_per_second,
            latency: tick.point.latency,
        });
        if self.moments.len() > HISTORY {
            self.moments.pop_front();
        }
        let kinds = Kind::ALL
            .into_iter()
            .map(|kind| TimesRow::of(kind, tick.total));
        self.rows = kinds.collect();
        let count = |at: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.counts)
                .map(|counts| counts[at])
                .sum()
        };
        let counts = [count(0), count(1), count(2)];
        self.rows.push(TimesRow {
            name: "all",
            counts: Some(counts),
            times: Percentiles::from(&tick.total.latency()),
        });
        self.rows.push(TimesRow {
            name: "service time",
            counts: None,
            times: Percentiles::from(&tick.total.service),
        });
        self.requests = tick.total.requests();
        self.errors = tick.total.errors();
        self.wrong = tick.total.wrong;
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let table_rows = Kind::ALL.len() as u16 + 5;
        let areas = Layout::vertical([
            Constraint::Length(4),
            Constraint::Min(4),
            Constraint::Length(table_rows),
            Constraint::Length(1),
        ]);
        let [head, charts, table, foot] = areas.areas(frame.area());
        self.draw_head(frame, head);
        let halves = [Constraint::Fill(1), Constraint::Fill(1)];
        let [rate, latency] = if frame.area().height < ROWS_STACKED {
            Layout::horizontal(halves).areas(charts)
        } else {
            Layout::vertical(halves).areas(charts)
        };
        self.draw_rate(frame, rate);
        self.draw_latency(frame, latency);
        self.draw_table(frame, table);
        let help = " q or Ctrl-C ends the load early; the audit and the report follow";
        frame.render_widget(Paragraph::new(help.dim()), foot);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let title = format!(" widgets load {} ", self.subject.url);
        let right = Line::from(format!(" run {} ", self.subject.run)).right_aligned();
        let block = Block::bordered().title(title.bold()).title(right.dim());
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let [progress, counts] = Layout::vertical([Constraint::Length(1); 2]).areas(inner);
        self.draw_progress(frame, progress);
        frame.render_widget(Paragraph::new(self.counts()), counts);
    }

    fn draw_progress(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(length) = self.length else {
            frame.render_widget(Paragraph::new(format!(" {}", self.phase)), area);
            return;
        };
        let length = length.as_secs_f64().max(1e-9);
        let gauge = LineGauge::default()
            .ratio((self.at_seconds / length).clamp(0.0, 1.0))
            .label(format!(
                " {}, {:.0} of {length:.0} s",
                self.phase, self.at_seconds
            ))
            .filled_style(Style::new().fg(Color::Cyan))
            .unfilled_style(Style::new().fg(Color::DarkGray));
        frame.render_widget(gauge, area);
    }

    fn counts(&self) -> Line<'_> {
        let (connected, lanes) = self.lanes;
        if let (Some(error), 0) = (&self.connect_error, connected) {
            return Line::from(format!(" {error}").red().bold());
        }
        let alarm = |count: u64, what: &str| {
            let text = format!("  {} {what}", count_text(count));
            if count > 0 {
                text.red().bold()
            } else {
                text.green()
            }
        };
        let lanes = format!("  {connected}/{lanes} lanes");
        Line::from(vec![
            Span::raw(format!(" {} requests", count_text(self.requests))),
            alarm(self.errors, "failed"),
            alarm(self.wrong, "wrong"),
            Span::raw(lanes),
        ])
    }

    /// Returns the first and the last moment of the time axis.
    fn times(&self) -> [f64; 2] {
        let first = self.moments.front();
        let first = first.map_or(0.0, |moment| moment.at_seconds - moment.seconds);
        let last = self.moments.back().map_or(0.0, |moment| moment.at_seconds);
        [first, last.max(first + 10.0)]
    }

    fn points(&self, figure: impl Fn(&Moment) -> Option<f64>) -> Vec<(f64, f64)> {
        let points = self.moments.iter();
        points
            .filter_map(|moment| Some((moment.at_seconds, figure(moment)?)))
            .collect()
    }

    fn draw_rate(&self, frame: &mut Frame<'_>, area: Rect) {
        let answered = self.points(|moment| Some(moment.requests_per_second));
        let due = self.points(|moment| moment.offered_per_second);
        let most = answered.iter().chain(&due).map(|&(_, rate)| rate);
        let most = round_up(most.fold(1.0, f64::max));
        let now = self.moments.back();
        let mut title = vec![
            Span::raw(" requests/s "),
            dot(Color::Cyan),
            Span::raw(now.map_or(String::new(), |now| {
                format!("{} ", rate_text(now.requests_per_second))
            })),
        ];
        match self.offered_per_second {
            Some(rate) => title.extend([
                dot(Color::DarkGray),
                Span::raw(format!("{} due ", rate_text(rate))),
            ]),
            None => title.push(" closed loop ".into()),
        }
        let labels = [0.0, most / 2.0, most].map(rate_text);
        let lines = [(&due, Color::DarkGray), (&answered, Color::Cyan)];
        self.draw_chart(frame, area, title, &lines, [0.0, most], labels.into());
    }

    fn draw_latency(&self, frame: &mut Frame<'_>, area: Rect) {
        type Figure = fn(&Percentiles) -> f64;
        let figures: [(&str, Color, Figure); 3] = [
            ("p50", Color::Green, |latency| latency.p50_us),
            ("p99", Color::Yellow, |latency| latency.p99_us),
            ("longest", Color::Magenta, |latency| latency.max_us),
        ];
        let mut title = vec![Span::raw(" latency ")];
        let mut lines = Vec::new();
        let now = self.moments.back();
        for (name, colour, figure) in figures {
            // If nothing was answered, there is no latency, rather than a latency of zero.
            let points = self.points(|moment| {
                let latency = &moment.latency;
                (latency.count > 0).then(|| figure(latency).max(1.0).log10())
            });
            lines.push((points, colour));
            title.extend([dot(colour), Span::raw(format!("{name} "))]);
            if let (Some(now), WIDTH_FOR_VALUES..) = (now, area.width) {
                title.push(format!("{} ", time_text(figure(&now.latency))).into());
            }
        }
        let all = || {
            lines
                .iter()
                .flat_map(|(points, _)| points)
                .map(|&(_, log)| log)
        };
        let low = all().fold(f64::INFINITY, f64::min);
        let low = if low.is_finite() { low.floor() } else { 3.0 };
        let high = all().fold(low + 1.0, f64::max).ceil();
        let decades = low as i32..=high as i32;
        let labels = decades.map(|decade| time_tick_text(10f64.powi(decade)));
        // The longest comes first, so that the others remain visible where they meet.
        let lines: Vec<_> = lines
            .iter()
            .rev()
            .map(|(points, colour)| (points, *colour))
            .collect();
        self.draw_chart(frame, area, title, &lines, [low, high], labels.collect());
    }

    fn draw_chart(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        title: Vec<Span<'_>>,
        lines: &[(&Vec<(f64, f64)>, Color)],
        bounds: [f64; 2],
        labels: Vec<String>,
    ) {
        let datasets = lines.iter().map(|(points, colour)| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(*colour))
                .data(points)
        });
        let quiet = Style::new().fg(Color::DarkGray);
        let times = self.times();
        let chart = Chart::new(datasets.collect())
            .block(Block::bordered().title(Line::from(title)))
            .legend_position(None)
            .x_axis(
                Axis::default()
                    .style(quiet)
                    .bounds(times)
                    .labels(times.map(|time| format!("{time:.0} s"))),
            )
            .y_axis(Axis::default().style(quiet).bounds(bounds).labels(labels));
        frame.render_widget(chart, area);
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect) {
        let heads = [
            "", "accepted", "refused", "failed", "p50", "p99", "p99.9", "longest",
        ];
        let right = |text: String| Line::from(text).right_aligned();
        let head = Row::new(heads.map(|head| right(head.into()))).dim();
        let rows = self.rows.iter().map(|row| {
            let counts = row.counts.map_or_else(
                || [const { String::new() }; 3],
                |counts| counts.map(count_text),
            );
            let times = &row.times;
            let times = [times.p50_us, times.p99_us, times.p99_9_us, times.max_us].map(time_text);
            let cells = counts.into_iter().chain(times).map(right);
            let line = Row::new(std::iter::once(Line::from(format!(" {}", row.name))).chain(cells));
            match row.name {
                "all" => line.bold(),
                "service time" => line.dim(),
                _ => line,
            }
        });
        let widths = [
            Constraint::Length(19),
            Constraint::Min(10),
            Constraint::Min(8),
            Constraint::Min(6),
        ];
        let widths = widths.into_iter().chain([Constraint::Min(7); 4]);
        let block = Block::bordered().title(" latency since the start of this phase ");
        frame.render_widget(Table::new(rows, widths).header(head).block(block), area);
    }
}

impl TimesRow {
    fn of(kind: Kind, total: &Measured) -> Self {
        let count = |wanted: fn(Outcome) -> bool| {
            let outcomes = Outcome::all().filter(|&outcome| wanted(outcome));
            outcomes.map(|outcome| total.count_of(kind, outcome)).sum()
        };
        Self {
            name: kind.as_str(),
            counts: Some([
                count(|outcome| outcome == Outcome::OK),
                count(|outcome| outcome != Outcome::OK && !outcome.is_error()),
                count(Outcome::is_error),
            ]),
            times: Percentiles::from(&total.latency[kind.index()]),
        }
    }
}

/// Returns the beginning of a legend's entry.
fn dot(colour: Color) -> Span<'static> {
    Span::styled("● ", Style::new().fg(colour))
}

/// Returns a round number, at least `value`, for the end of an axis.
fn round_up(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0];
    let step = steps.into_iter().find(|step| step * decade >= value);
    step.unwrap_or(10.0) * decade
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Point;
    use ratatui::{Terminal, backend::TestBackend};

    /// Returns the screen of a view that has seen a second of load.
    fn screen(columns: u16, rows: u16) -> Vec<String> {
        let mut view = View::new(Subject {
            run: "Lmwuyaelc".into(),
            url: "http://127.0.0.1:32935".into(),
        });
        view.begin("measured load", Some(Duration::from_secs(30)));
        let measured = Measured::default();
        let latency = Percentiles {
            count: 1,
            p50_us: 410.0,
            p99_us: 2_300.0,
            max_us: 31_000.0,
            ..Percentiles::default()
        };
        for half in 1..=2 {
            view.take(&Tick {
                point: Point {
                    at_seconds: f64::from(half) / 2.0,
                    seconds: 0.5,
                    requests_per_second: 4_990.0,
                    latency,
                    ..Point::default()
                },
                measured: &measured,
                total: &measured,
                offered_per_second: Some(5_000.0),
                lanes: (64, 64),
                connect_error: None,
            });
        }
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
        (0..rows).map(row).collect()
    }

    #[test]
    fn no_text_of_the_live_view_is_cut_off_at_usual_terminal_sizes() {
        for (columns, rows) in [(80, 24), (110, 34), (140, 40)] {
            let text = screen(columns, rows).join("\n");
            for part in [
                "measured load, 1 of 30 s",
                "0 requests  0 failed  0 wrong  64/64 lanes",
                "● 4,990 ● 5,000 due",
                if columns == 80 {
                    "● p50 ● p99 ● longest"
                } else {
                    "● p50 410 µs ● p99 2.30 ms ● longest 31.0 ms"
                },
                "100 µs",
                "100 ms",
                "6,000",
                "remove_association ",
                "associate_widgets ",
                "longest",
                "service time",
                "run Lmwuyaelc",
            ] {
                assert!(text.contains(part), "{part} at {columns}x{rows}:\n{text}");
            }
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [1.0, 5_003.0, 12_000.0, 95_000.0].map(round_up);
        assert_eq!(ends.map(rate_text), ["1.0", "6,000", "12,000", "100,000"]);
    }
}
