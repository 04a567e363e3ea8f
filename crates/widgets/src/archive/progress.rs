//! Shows progress: a bar on a terminal, and elsewhere a line from time to time.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};
use widgets_archive::Progress;
use widgets_clock::{Clock as _, SystemClock};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress on standard error.
pub(super) struct Shown {
    clock: SystemClock,
    bar: Option<ProgressBar>,
    what: &'static str,
    next_line: Duration,
}

impl Shown {
    pub(super) fn new() -> Self {
        Self {
            clock: SystemClock::new(),
            bar: io::stderr().is_terminal().then(ProgressBar::no_length),
            what: "",
            next_line: LINE_EVERY,
        }
    }

    /// Shows that `done` of `total` is done.
    pub(super) fn set(&mut self, what: &'static str, is_bytes: bool, done: u64, total: u64) {
        let Some(bar) = &self.bar else {
            if self.clock.now() >= self.next_line {
                self.next_line = self.clock.now() + LINE_EVERY;
                let percent = done.saturating_mul(100) / total.max(1);
                // Standard error may be closed.
                drop(writeln!(io::stderr(), "{what}: {percent} %"));
            }
            return;
        };
        if self.what != what {
            self.what = what;
            let amount = if is_bytes {
                "{bytes} of {total_bytes}"
            } else {
                "{human_pos} of {human_len}"
            };
            let template = format!("{{msg}} {{bar:30}} {{percent:>3}} %  {amount}  {{eta}} left");
            // The templates are constants. If one were wrong, the default would be shown.
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.set_message(what);
            bar.reset_eta();
        }
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Shows how far a restore, or the arrival of a backup, is.
    pub(super) fn progress(&mut self, progress: Progress) {
        match progress {
            Progress::Waiting => self.set("waiting for the service's checkpoint", false, 0, 1),
            Progress::Checkpoint(done, total) => self.set("checkpoint", true, done, total),
            Progress::Journal(done, total) => self.set("journal", false, done, total),
            Progress::Checking => self.set("checking", false, 0, 1),
        }
    }

    /// Returns how long it took.
    pub(super) fn finish(&self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.clock.now()
    }
}
