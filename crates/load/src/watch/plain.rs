//! Plain lines for logs: one a second at first, then one every ten seconds.

use crate::{
    report::{rate_text, time_text},
    session::Tick,
    shown,
    stats::{Measured, Percentiles},
};
use std::io::{self, Write as _};

#[derive(Default)]
pub(super) struct Plain {
    since_line: Measured,
    seconds: f64,
}

impl Plain {
    pub(super) fn begin(&mut self, phase: &str) {
        self.since_line.clear();
        self.seconds = 0.0;
        // Standard error may be closed, here and below; the report is what counts.
        let _ = writeln!(io::stderr(), "{phase}");
    }

    pub(super) fn tick(&mut self, tick: &Tick<'_>) {
        self.since_line.add(tick.measured);
        self.seconds += tick.point.seconds;
        let step = if tick.point.at_seconds < 10.5 {
            0.95
        } else {
            9.95
        };
        if self.seconds < step {
            return;
        }
        let latency = Percentiles::from(&self.since_line.latency());
        let [p50, p99, max] = [latency.p50_us, latency.p99_us, latency.max_us].map(time_text);
        let rate = rate_text(self.since_line.requests() as f64 / self.seconds);
        let (errors, wrong) = (self.since_line.errors(), self.since_line.wrong);
        let at = tick.point.at_seconds;
        let lost = match (tick.lanes, tick.connect_error) {
            ((0, _), Some(error)) => format!("  no connection: {}", shown(error)),
            _ => String::new(),
        };
        let _ = writeln!(
            io::stderr(),
            "{at:7.1} s {rate:>10}/s  p50 {p50:>8}  p99 {p99:>8}  longest {max:>8}  \
             {errors} failed  {wrong} wrong{lost}"
        );
        self.since_line.clear();
        self.seconds = 0.0;
    }
}
