//! The search for the highest rate that holds the objectives.
//!
//! From half of what a closed loop reached, up until a rate misses or down until one holds, then by
//! halves (on a logarithmic scale) until the two are within 5 %. The search itself is pure: whoever
//! drives it tries the rates.

/// How near the highest rate that held and the lowest one that missed must come.
const RESOLUTION: f64 = 1.05;

/// At most so many rates are tried.
const STEPS_MAX: u32 = 16;

/// A search under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FindMax {
    first: f64,
    /// The highest rate that held, below every rate that missed.
    held: Option<f64>,
    /// The lowest rate that missed.
    missed: Option<f64>,
    steps: u32,
}

impl FindMax {
    /// A search that knows how many requests a second a closed loop made.
    pub(crate) const fn new(closed_loop_rate: f64) -> Self {
        Self {
            first: (closed_loop_rate / 2.0).max(1.0),
            held: None,
            missed: None,
            steps: 0,
        }
    }

    /// The next rate to try, or `None` where the search is over.
    pub(crate) fn next(&self) -> Option<f64> {
        if self.steps >= STEPS_MAX {
            return None;
        }
        let rate = match (self.held, self.missed) {
            (None, None) => self.first,
            (Some(held), None) => held * 1.5,
            // Ever larger steps down: a service that misses at once may be far from holding.
            (None, Some(missed)) if missed > 1.0 => (missed / 2.0).max(1.0),
            (Some(held), Some(missed)) if missed / held > RESOLUTION => (held * missed).sqrt(),
            (_, Some(_)) => return None,
        };
        // Three digits: nobody wants to read 12,247.45 requests a second.
        let scale = 10f64.powf(rate.log10().floor() - 2.0).max(1.0);
        Some((rate / scale).round() * scale)
    }

    /// Takes in whether the objectives held at a rate.
    pub(crate) fn tell(&mut self, rate: f64, held: bool) {
        self.steps += 1;
        if held {
            self.held = Some(self.held.map_or(rate, |held| held.max(rate)));
        } else {
            self.missed = Some(self.missed.map_or(rate, |missed| missed.min(rate)));
        }
    }

    /// The highest rate that held.
    pub(crate) const fn found(&self) -> Option<f64> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches in a service that holds up to `limit`.
    fn search(closed_loop_rate: f64, limit: f64) -> (Option<f64>, u32) {
        let mut search = FindMax::new(closed_loop_rate);
        while let Some(rate) = search.next() {
            search.tell(rate, rate <= limit);
        }
        (search.found(), search.steps)
    }

    #[test]
    fn it_finds_the_limit_wherever_it_is() {
        for limit in [7.0, 333.0, 10_000.0, 51_234.0, 99_999.0, 180_000.0] {
            let (found, steps) = search(100_000.0, limit);
            let found = found.unwrap();
            assert!(
                found <= limit && found * 1.08 >= limit,
                "{found} for {limit}"
            );
            assert!(steps <= STEPS_MAX, "{steps} steps for {limit}");
        }
    }

    #[test]
    fn where_nothing_holds_nothing_is_found() {
        let (found, steps) = search(1000.0, 0.0);
        assert_eq!(found, None);
        assert!(steps <= STEPS_MAX);
    }

    #[test]
    fn where_everything_holds_it_stops_all_the_same() {
        let (found, steps) = search(1000.0, f64::INFINITY);
        assert!(found.is_some_and(|found| found > 100_000.0));
        assert_eq!(steps, STEPS_MAX);
    }
}
