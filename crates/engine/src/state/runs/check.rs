//! Checks whether the runs are consistent.

use super::{Handle, Home, Records, Runs, Sort, Weights, key::bytes_of, upkeep::sort};

impl<S: Sort> Runs<S> {
    /// Returns all numbers in order.
    pub(crate) fn sorted(&self, records: &Records) -> Vec<u32> {
        let mut all = Vec::new();
        for id in self.ids() {
            let first = all.len();
            all.extend_from_slice(self.numbers(id));
            sort::<S>(&mut all[first..], records, 0);
        }
        all
    }

    /// Returns the first defect.
    pub(crate) fn check(&self, records: &Records, marks: impl Fn(u32) -> u8) -> Result<(), String> {
        let key = |number: u32| S::key(records.get(Handle::new(number)));
        let in_order = |numbers: &[u32]| {
            let mut pairs = numbers.windows(2);
            match pairs.find(|pair| key(pair[0]) >= key(pair[1])) {
                Some(pair) => Err(format!("{:?} is before {:?}", key(pair[0]), key(pair[1]))),
                None => Ok(()),
            }
        };
        in_order(&self.sorted(records))?;
        for run in &self.lists {
            in_order(&run.numbers[..run.in_order as usize])?;
        }
        let mut total = Weights::default();
        for (place, &id) in self.order.iter().enumerate() {
            let branch = &self.branches[id as usize];
            let mut sum = Weights::default();
            for (at, &run) in branch.runs.iter().enumerate() {
                let mut weights = Weights::default();
                let home = Home {
                    branch: place,
                    run: at,
                };
                let [before, behind] = self.bounds(home);
                for &number in self.numbers(run) {
                    weights.add(Weights::of(marks(number)));
                    let bytes = bytes_of(key(number));
                    let is_before = before.is_some_and(|before| *bytes < *before);
                    if is_before || behind.is_some_and(|behind| *bytes >= *behind) {
                        return Err(format!("{:?} is not between separators", key(number)));
                    }
                }
                let run = &self.lists[run as usize];
                if weights != run.weights || run.branch != id {
                    return Err(format!("a run weighs {weights:?}, or is astray"));
                }
                sum.add(weights);
            }
            if sum != branch.weights || branch.runs.len() != branch.separators.len() + 1 {
                return Err(format!("branch {id} weighs {sum:?}, or is astray"));
            }
            total.add(sum);
        }
        let between = self.order.len().saturating_sub(1);
        if total == self.total && self.separators.len() == between {
            Ok(())
        } else {
            Err(format!("all weigh {total:?}, kept {:?}", self.total))
        }
    }
}
