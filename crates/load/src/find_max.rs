//! The search for the highest rate that meets the objectives.
//!
//! It begins at half of what a closed loop reached, goes up until a rate misses or down until one
//! holds, and then bisects (on a logarithmic scale) until the two are within 5 %. The rate that
//! missed is then tried once more: if it holds, the miss was chance, and the search continues. The
//! search itself is pure: its caller tries the rates.

/// The search ends once the lowest rate that missed is within this factor of the highest one that
/// held.
const RESOLUTION: f64 = 1.05;

/// The maximum number of attempts.
const STEPS_MAX: usize = 20;

/// A search in progress.
#[derive(Clone, Debug)]
pub(crate) struct FindMax {
    first: f64,
    /// The rates that were tried, in this order, and whether each held.
    tried: Vec<(f64, bool)>,
}

impl FindMax {
    /// Creates a search that begins at half this rate, the requests a second of a closed loop.
    pub(crate) const fn new(closed_loop_rate: f64) -> Self {
        Self {
            first: (closed_loop_rate / 2.0).max(1.0),
            tried: Vec::new(),
        }
    }

    /// Returns the next rate to try, or `None` once the search is over.
    pub(crate) fn next(&self) -> Option<f64> {
        if self.tried.len() >= STEPS_MAX {
            return None;
        }
        match (self.found(), self.missed()) {
            (None, None) => Some(round(self.first)),
            (Some(held), None) => Some(round(held * 1.5)),
            // Halves the rate each time, because a service that misses at once may be far from
            // holding.
            (None, Some(missed)) => (missed > 1.0).then(|| round((missed / 2.0).max(1.0))),
            (Some(held), Some(missed)) => {
                let between = round((held * missed).sqrt());
                let is_new = !is_same(between, held) && !is_same(between, missed);
                if missed / held > RESOLUTION && is_new {
                    return Some(between);
                }
                // A single miss may be chance, so the rate at which the search ends is tried twice.
                (self.tries(missed) == 1).then_some(missed)
            }
        }
    }

    /// Records whether the objectives held at a rate.
    pub(crate) fn tell(&mut self, rate: f64, held: bool) {
        self.tried.push((rate, held));
    }

    /// Returns the highest rate that held.
    pub(crate) fn found(&self) -> Option<f64> {
        let held = self.tried.iter().filter(|(_, held)| *held);
        held.map(|&(rate, _)| rate).reduce(f64::max)
    }

    /// Returns the lowest rate above it that missed.
    fn missed(&self) -> Option<f64> {
        let found = self.found().unwrap_or(0.0);
        let missed = self
            .tried
            .iter()
            .filter(|&&(rate, held)| !held && rate > found);
        missed.map(|&(rate, _)| rate).reduce(f64::min)
    }

    fn tries(&self, rate: f64) -> usize {
        let alike = self.tried.iter().filter(|&&(each, _)| is_same(each, rate));
        alike.count()
    }

    /// Returns evidence of noise: a rate that missed, and a rate that held although it is not
    /// lower.
    pub(crate) fn noise(&self) -> Option<(f64, f64)> {
        let found = self.found()?;
        let missed = self
            .tried
            .iter()
            .filter(|&&(rate, held)| !held && rate <= found);
        let missed = missed.map(|&(rate, _)| rate).reduce(f64::min)?;
        Some((missed, found))
    }
}

/// Rounds to three digits, because nobody wants to read 12,247.45 requests a second.
fn round(rate: f64) -> f64 {
    let scale = 10f64.powf(rate.log10().floor() - 2.0).max(1.0);
    (rate / scale).round() * scale
}

/// Reports whether two rates are the same. Rates are whole numbers.
fn is_same(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a service that holds up to `limit`.
    fn search(closed_loop_rate: f64, limit: f64) -> (Option<f64>, usize) {
        let mut search = FindMax::new(closed_loop_rate);
        while let Some(rate) = search.next() {
            search.tell(rate, rate <= limit);
        }
        assert_eq!(search.noise(), None);
        (search.found(), search.tried.len())
    }

    #[test]
    fn the_search_finds_any_limit_within_8_percent() {
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
    fn no_rate_is_found_if_every_rate_misses_the_objectives() {
        let (found, steps) = search(1000.0, 0.0);
        assert_eq!(found, None);
        assert!(steps <= STEPS_MAX);
    }

    #[test]
    fn the_search_stops_even_if_every_rate_meets_the_objectives() {
        let (found, steps) = search(1000.0, f64::INFINITY);
        assert!(found.is_some_and(|found| found > 100_000.0));
        assert_eq!(steps, STEPS_MAX);
    }

    #[test]
    fn a_rate_is_tried_twice_at_most() {
        // Each rate misses the objectives at the first try, and low rates are close together.
        for limit in [0.0, 5.0, 6.0, 100.0, 700.0] {
            let mut search = FindMax::new(1600.0);
            while let Some(rate) = search.next() {
                assert!(search.tries(rate) < 2, "{rate}");
                search.tell(rate, rate <= limit && search.tries(rate) == 1);
            }
            assert!(search.tried.len() < STEPS_MAX, "{limit}");
        }
    }

    #[test]
    fn a_chance_miss_is_reported_and_does_not_end_the_search() {
        let mut search = FindMax::new(2000.0);
        let mut disturbances = 0;
        while let Some(rate) = search.next() {
            // Simulates another load that disturbs the first rate above 2,000. The limit is 5,000.
            let disturbed = rate > 2000.0 && disturbances == 0;
            disturbances += usize::from(disturbed);
            search.tell(rate, rate <= 5000.0 && !disturbed);
        }
        let (missed, held) = search.noise().expect("a rate that held and missed");
        assert!(
            missed > 2000.0 && missed <= held,
            "{missed} missed, {held} held"
        );
        let found = search.found().expect("a rate that held");
        assert!((4600.0..=5000.0).contains(&found), "{found}");
    }
}
