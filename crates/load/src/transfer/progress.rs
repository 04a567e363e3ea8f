//! The progress of a transfer: a bar with rate and time left on a terminal, lines otherwise.

use crate::{
    clock::Clock,
    report::{count_text, rate_text},
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of one transfer, on standard error.
pub struct Progress {
    clock: Clock,
    bar: Option<ProgressBar>,
    total: Option<u64>,
    done: u64,
    next_line: Duration,
}

impl Progress {
    /// Begins to show progress towards this number of widgets, if it is known.
    #[must_use]
    pub fn new(total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = match total {
                Some(_) => "{bar:40} {percent:>3} %  {human_pos} of {human_len} widgets  {per_sec}  {eta} left",
                None => "{spinner} {human_pos} widgets  {per_sec}",
            };
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            // The templates are constants; if one were invalid, the default style would be shown.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self {
            clock: Clock::start(),
            bar,
            total,
            done: 0,
            next_line: LINE_EVERY,
        }
    }

    /// Records how many widgets are done.
    pub fn set(&mut self, widgets: u64) {
        self.done = widgets;
        // Reading the clock for each of ten million widgets would take longer than some of the
        // work.
        if !widgets.is_multiple_of(64) {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_position(widgets),
            None if self.clock.now() >= self.next_line => {
                self.next_line = self.clock.now() + LINE_EVERY;
                self.line();
            }
            None => {}
        }
    }

    fn line(&self) {
        let elapsed = self.clock.now().as_secs_f64();
        let rate = self.done as f64 / elapsed.max(1e-9);
        let done = count_text(self.done);
        let left = self.total.map_or(String::new(), |total| {
            let left = total.saturating_sub(self.done) as f64 / rate.max(1e-9);
            format!(" of {}, {left:.0} s left", count_text(total))
        });
        // Standard error may be closed, here and below.
        let rate = rate_text(rate);
        let _ = writeln!(
            io::stderr(),
            "{elapsed:.0} s: {done} widgets{left}, {rate} a second"
        );
    }

    /// Records that all widgets have been taken, and shows what comes next.
    pub fn finishing(&mut self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.finish();
        }
        let (done, elapsed) = (count_text(self.done), self.clock.now().as_secs_f64());
        let _ = writeln!(
            io::stderr(),
            "{done} widgets taken in {elapsed:.1} s; {what}"
        );
    }

    /// Returns the time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.now()
    }
}
