//! The live view in a terminal.

use super::Subject;
use crate::{
    mix::Kind,
    report::{count_text, rate_text, time_text},
    session::Tick,
    stats::{Measured, Outcome, Percentiles},
};
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row, Sparkline, Table},
};
use std::{collections::VecDeque, io, ops::ControlFlow, time::Duration};

/// As many points as the widest terminal has columns.
const HISTORY: usize = 512;

/// A terminal that is drawn on until this is dropped.
pub(super) struct Terminal {
    terminal: DefaultTerminal,
    view: View,
}

impl Terminal {
    pub(super) fn open(subject: Subject) -> io::Result<Self> {
        Ok(Self {
            terminal: ratatui::try_init()?,
            view: View::new(subject),
        })
    }

    pub(super) fn begin(&mut self, phase: &str) {
        self.view.begin(phase);
        self.draw();
    }

    /// Draws, and looks whether the user wants to stop.
    pub(super) fn tick(&mut self, tick: &Tick<'_>) -> ControlFlow<()> {
        self.view.take(tick);
        self.draw();
        // In raw mode Ctrl-C is a key like any other. A terminal that cannot be read stops nothing.
        while event::poll(Duration::ZERO).unwrap_or(false) {
            if let Ok(Event::Key(key)) = event::read() {
                let control_c =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if control_c || key.code == KeyCode::Char('q') {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn draw(&mut self) {
        // A terminal that went away must not end a run that others wait for.
        drop(self.terminal.draw(|frame| self.view.draw(frame)));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What is shown, apart from any terminal.
struct View {
    subject: Subject,
    phase: String,
    at_seconds: f64,
    offered_per_second: Option<f64>,
    lanes: (usize, usize),
    connect_error: Option<String>,
    last: Percentiles,
    total: Percentiles,
    service: Percentiles,
    rates: VecDeque<u64>,
    p99s: VecDeque<u64>,
    kinds: Vec<KindLine>,
    requests: u64,
    errors: u64,
    wrong: u64,
}

struct KindLine {
    kind: Kind,
    accepted: u64,
    refused: u64,
    failed: u64,
    latency: Percentiles,
}

impl View {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            phase: "starting".into(),
            at_seconds: 0.0,
            offered_per_second: None,
            lanes: (0, 0),
            connect_error: None,
            last: Percentiles::default(),
            total: Percentiles::default(),
            service: Percentiles::default(),
            rates: VecDeque::new(),
            p99s: VecDeque::new(),
            kinds: Vec::new(),
            requests: 0,
            errors: 0,
            wrong: 0,
        }
    }

    fn begin(&mut self, phase: &str) {
        phase.clone_into(&mut self.phase);
    }

    fn take(&mut self, tick: &Tick<'_>) {
        self.at_seconds = tick.point.at_seconds;
        self.offered_per_second = tick.offered_per_second;
        self.lanes = tick.lanes;
        self.connect_error = tick.connect_error.map(str::to_owned);
        self.last = tick.point.latency;
        self.total = Percentiles::from(&tick.total.latency());
        self.service = Percentiles::from(&tick.total.service);
        for (history, value) in [
            (&mut self.rates, tick.point.requests_per_second),
            (&mut self.p99s, tick.point.latency.p99_us),
        ] {
            history.push_back(value as u64);
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
        self.kinds = Kind::ALL.map(|kind| KindLine::new(kind, tick.total)).into();
        self.requests = tick.total.requests();
        self.errors = tick.total.errors();
        self.wrong = tick.total.wrong;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([
            Constraint::Length(4),
            Constraint::Min(4),
            Constraint::Min(4),
            Constraint::Length(8),
            Constraint::Length(1),
        ]);
        let [head, rate, latency, kinds, foot] = areas.areas(frame.area());
        self.draw_head(frame, head);
        let title = format!(" requests/s: {} now ", rate_text(self.rate() as f64));
        sparkline(frame, rate, title, &self.rates, Color::Cyan, |rate| {
            rate_text(rate as f64)
        });
        let title = format!(" latency p99: {} now ", time_text(self.last.p99_us));
        sparkline(frame, latency, title, &self.p99s, Color::Yellow, |us| {
            time_text(us as f64)
        });
        self.draw_kinds(frame, kinds);
        let help = "q or Ctrl-C: end the load early; the audit and the report follow";
        frame.render_widget(Paragraph::new(help.dim()), foot);
    }

    fn rate(&self) -> u64 {
        self.rates.back().copied().unwrap_or_default()
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let title = format!(" widgets load {} ", self.subject.url);
        let right = format!(" {}: {:.0} s ", self.phase, self.at_seconds);
        let block = Block::default()
            .borders(Borders::ALL)
            .title(title.bold())
            .title(Line::from(right).right_aligned());
        let alarm = |count: u64| {
            let text = count_text(count);
            if count > 0 {
                text.red().bold()
            } else {
                text.green()
            }
        };
        let due = self.offered_per_second;
        let due = due.map_or("closed loop".into(), |rate| {
            format!("{} due/s", rate_text(rate))
        });
        let (connected, lanes) = self.lanes;
        let counts = Line::from(vec![
            Span::raw(format!(
                "{due}   {} requests   failed ",
                count_text(self.requests)
            )),
            alarm(self.errors),
            Span::raw("   wrong answers "),
            alarm(self.wrong),
            Span::raw(format!(
                "   lanes {connected}/{lanes}   run {}",
                self.subject.run
            )),
        ]);
        let total = &self.total;
        let times = [total.p50_us, total.p99_us, total.p99_9_us, total.max_us].map(time_text);
        let [p50, p99, p99_9, longest] = times;
        let mut times = Line::from(format!(
            "latency p50 {p50}  p99 {p99}  p99.9 {p99_9}  longest {longest}"
        ));
        if let (Some(error), 0) = (&self.connect_error, connected) {
            times = Line::from(error.as_str().red());
        }
        frame.render_widget(Paragraph::new(vec![counts, times]).block(block), area);
    }

    fn draw_kinds(&self, frame: &mut Frame<'_>, area: Rect) {
        let style = Style::default().add_modifier(Modifier::DIM);
        let heads = [
            "", "accepted", "refused", "failed", "p50", "p99", "p99.9", "longest",
        ];
        let right = |text: String| Line::from(text).right_aligned();
        let head = Row::new(heads.map(|head| right(head.into()))).style(style);
        let rows = self.kinds.iter().map(|line| {
            let counts = [line.accepted, line.refused, line.failed].map(count_text);
            let latency = &line.latency;
            let times = [
                latency.p50_us,
                latency.p99_us,
                latency.p99_9_us,
                latency.max_us,
            ];
            let cells = counts.into_iter().chain(times.map(time_text)).map(right);
            Row::new(std::iter::once(Line::from(line.kind.as_str())).chain(cells))
        });
        let widths = [Constraint::Length(18)]
            .into_iter()
            .chain([Constraint::Min(8); 7]);
        let block = Block::default()
            .borders(Borders::ALL)
            .title(" since the start of this phase ");
        frame.render_widget(Table::new(rows, widths).header(head).block(block), area);
    }
}

impl KindLine {
    fn new(kind: Kind, total: &Measured) -> Self {
        let count = |wanted: fn(Outcome) -> bool| {
            let outcomes = Outcome::all().filter(|&outcome| wanted(outcome));
            outcomes.map(|outcome| total.count_of(kind, outcome)).sum()
        };
        Self {
            kind,
            accepted: count(|outcome| outcome == Outcome::OK),
            refused: count(|outcome| outcome != Outcome::OK && !outcome.is_error()),
            failed: count(Outcome::is_error),
            latency: Percentiles::from(&total.latency[kind.index()]),
        }
    }
}

/// The last values as bars, with the scale that they have.
fn sparkline(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    values: &VecDeque<u64>,
    colour: Color,
    text: impl Fn(u64) -> String,
) {
    let width = usize::from(area.width.saturating_sub(2));
    let shown: Vec<u64> = values.iter().rev().take(width).rev().copied().collect();
    let most = shown.iter().copied().max().unwrap_or_default();
    let block = Block::default()
        .borders(Borders::ALL)
        .title(title)
        .title(Line::from(format!(" full height: {} ", text(most))).right_aligned());
    let bars = Sparkline::default()
        .block(block)
        .data(&shown)
        .max(most.max(1))
        .style(Style::default().fg(colour));
    frame.render_widget(bars, area);
}
