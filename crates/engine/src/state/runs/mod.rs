//! Records in order: their numbers in runs of some hundred, so that no insertion stalls or
//! searches.
//!
//! There are always three levels. A run has the record numbers of a range of keys; a branch has the
//! runs of a range, in order; the root has the branches. The run of a key is found among
//! separators, which are adjacent in memory ([`key`](self::key)), so no record is read. A new
//! number is appended to its run, behind those that are in order. A run is sorted when somebody
//! reads it ([`reads`](self::reads)) or when it is full ([`upkeep`](self::upkeep)). A full run is
//! split in two, and a nearly empty one is merged with its neighbour. What an insertion or a
//! removal moves therefore does not grow with the number of records.
//!
//! Each run and each branch also counts its records with each mark. So the next marked record, the
//! number of records before a key, and the record at a place are found without visiting the records
//! in between.

mod check;
mod key;
mod reads;
#[cfg(test)]
mod tests;
mod upkeep;

pub(crate) use key::{Key, Sort};
pub(crate) use reads::{Position, Reader};
pub(crate) use upkeep::sort_any;

use super::record::{Handle, Records};
use key::{Separators, bytes_of, compare};
use std::marker::PhantomData;

/// How many numbers a run can have. Tests have few records and want many runs.
const RUN_MAX: usize = if cfg!(test) { 8 } else { 512 };

/// How many runs a branch can have.
const BRANCH_MAX: usize = if cfg!(test) { 4 } else { 256 };

/// How many marks a record can have.
pub(crate) const MARKS: usize = 3;

/// Record numbers in the order of `S`.
pub(crate) struct Runs<S> {
    /// The branches in order, by their index in `branches`.
    order: Vec<u32>,
    /// The separators between the branches.
    separators: Separators,
    branches: Vec<Branch>,
    vacant_branches: Vec<u32>,
    /// Every run, by its number.
    lists: Vec<Run>,
    vacant: Vec<u32>,
    total: Weights,
    /// Where the last record was added. If records come in order, the next one mostly belongs there
    /// too.
    recent: Home,
    /// How many numbers were sorted for readers since the last time this was asked.
    put_in_order: usize,
    sort: PhantomData<S>,
}

#[derive(Default)]
struct Branch {
    runs: Vec<u32>,
    /// The separators between the runs.
    separators: Separators,
    weights: Weights,
}

#[derive(Default)]
struct Run {
    numbers: Vec<u32>,
    /// How many of the numbers are in order. Those behind came later and are in the order of
    /// arrival.
    in_order: u32,
    branch: u32,
    weights: Weights,
}

/// Where a run is: the index of its branch, and its index in the branch.
#[derive(Clone, Copy, Default)]
struct Home {
    branch: usize,
    run: usize,
}

/// The number of records, and of those with each mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    pub(crate) records: u32,
    pub(crate) marked: [u32; MARKS],
}

/// The run whose records have a new place, if any.
pub(crate) type Moved = Option<u32>;

impl Weights {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        for (sum, each) in self.marked.iter_mut().zip(other.marked) {
            *sum += each;
        }
    }

    fn subtract(&mut self, other: Self) {
        self.records -= other.records;
        for (sum, each) in self.marked.iter_mut().zip(other.marked) {
            *sum -= each;
        }
    }

    /// Returns the weights of one record with these marks, given as bits.
    fn of(marks: u8) -> Self {
        let mut weights = Self {
            records: 1,
            ..Self::default()
        };
        for (bit, each) in weights.marked.iter_mut().enumerate() {
            *each = u32::from(marks >> bit & 1);
        }
        weights
    }

    /// Returns how many records have this mark, or how many there are.
    pub(crate) fn with(self, mark: Option<usize>) -> u32 {
        mark.map_or(self.records, |mark| self.marked[mark])
    }
}

impl<S> Default for Runs<S> {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            separators: Separators::default(),
            branches: Vec::new(),
            vacant_branches: Vec::new(),
            lists: Vec::new(),
            vacant: Vec::new(),
            total: Weights::default(),
            recent: Home::default(),
            put_in_order: 0,
            sort: PhantomData,
        }
    }
}

impl Run {
    /// Returns a run of numbers that are in order.
    fn new(numbers: Vec<u32>, marks: &impl Fn(u32) -> u8) -> Self {
        let mut weights = Weights::default();
        for &number in &numbers {
            weights.add(Weights::of(marks(number)));
        }
        Self {
            in_order: number_of(numbers.len()),
            numbers,
            branch: 0,
            weights,
        }
    }

    fn is_in_order(&self) -> bool {
        self.in_order as usize == self.numbers.len()
    }

    /// Appends a number. When the run grows, it gets room for the most numbers it can have, and no
    /// more.
    fn push(&mut self, number: u32) {
        if self.numbers.len() == self.numbers.capacity() {
            let room = RUN_MAX.saturating_sub(self.numbers.len()).max(1);
            self.numbers.reserve_exact(room);
        }
        self.numbers.push(number);
    }

    /// Removes a number without changing the order of the others.
    fn take(&mut self, number: u32) {
        // Most records that are removed are recent.
        let place = self.numbers.iter().rposition(|&each| each == number);
        let Some(place) = place else {
            unreachable!("every record is in order");
        };
        if place < self.in_order as usize {
            self.numbers.remove(place);
            self.in_order -= 1;
        } else {
            self.numbers.swap_remove(place);
        }
    }
}

impl<S: Sort> Runs<S> {
    /// Builds runs from sorted numbers, with slack in every run.
    pub(crate) fn from_sorted(
        sorted: &[u32],
        records: &Records,
        marks: impl Fn(u32) -> u8,
    ) -> Self {
        let mut runs = Self::default();
        let (mut branch, mut separators) = (Branch::default(), Vec::new());
        let (mut branches, mut between) = (Vec::new(), Vec::new());
        for numbers in sorted.chunks(RUN_MAX - RUN_MAX / 8) {
            if branch.runs.len() == BRANCH_MAX - BRANCH_MAX / 4 {
                branch.separators = separators.drain(..).collect();
                branches.push(std::mem::take(&mut branch));
            }
            let first = bytes_of(S::key(records.get(Handle::new(numbers[0]))));
            let run = Run::new(numbers.to_vec(), &marks);
            if !branch.runs.is_empty() {
                separators.push(first);
            } else if !branches.is_empty() {
                between.push(first);
            }
            branch.weights.add(run.weights);
            branch.runs.push(runs.new_run(run));
        }
        if !branch.runs.is_empty() {
            branch.separators = separators.into_iter().collect();
            branches.push(branch);
        }
        for branch in branches {
            runs.total.add(branch.weights);
            runs.insert_branch(runs.order.len(), branch);
        }
        runs.separators = between.into_iter().collect();
        runs
    }

    /// Returns the weights of all records.
    pub(crate) fn total(&self) -> Weights {
        self.total
    }

    /// Returns the run that this key belongs to. There must be a run.
    fn home(&self, key: Key<'_>) -> Home {
        let branch = self.separators.place(key);
        let at = &self.branches[self.order[branch] as usize];
        let run = at.separators.place(key);
        Home { branch, run }
    }

    /// Reports whether there is a run at `home` and this key belongs to it.
    fn is_home(&self, home: Home, key: Key<'_>) -> bool {
        let branch = self.order.get(home.branch);
        if branch.is_none_or(|&id| home.run >= self.branches[id as usize].runs.len()) {
            return false;
        }
        let [before, behind] = self.bounds(home);
        before.is_none_or(|before| compare(key, before).is_ge())
            && behind.is_none_or(|behind| compare(key, behind).is_lt())
    }

    /// Returns the number of the run at `home`.
    fn run(&self, home: Home) -> u32 {
        self.branches[self.order[home.branch] as usize].runs[home.run]
    }

    /// Adds a record. Returns its run, and the run whose records have moved, if any.
    pub(crate) fn insert(
        &mut self,
        number: u32,
        records: &Records,
        marks: impl Fn(u32) -> u8,
    ) -> (u32, Moved) {
        let weights = Weights::of(marks(number));
        let key = S::key(records.get(Handle::new(number)));
        self.total.add(weights);
        if self.order.is_empty() {
            let id = self.new_run(Run::new(vec![number], &marks));
            let branch = Branch {
                runs: vec![id],
                weights,
                ..Branch::default()
            };
            self.insert_branch(0, branch);
            return (id, None);
        }
        if !self.is_home(self.recent, key) {
            self.recent = self.home(key);
        }
        let home = self.recent;
        let id = self.run(home);
        let run = &self.lists[id as usize];
        if run.numbers.len() < RUN_MAX {
            let last = run.numbers.last().filter(|_| run.is_in_order());
            let stays_in_order =
                last.is_some_and(|&last| S::key(records.get(Handle::new(last))) < key);
            self.push(id, number, weights);
            self.lists[id as usize].in_order += u32::from(stays_in_order);
            return (id, None);
        }
        let (right, goes_right) = self.split(home, key, records, &marks);
        let id = if goes_right { right } else { id };
        self.push(id, number, weights);
        (id, Some(right))
    }

    fn push(&mut self, run: u32, number: u32, weights: Weights) {
        let run = &mut self.lists[run as usize];
        run.push(number);
        run.weights.add(weights);
        self.branches[run.branch as usize].weights.add(weights);
    }

    /// Removes a record that still has its key and these marks, from this run if it is known.
    pub(crate) fn remove(
        &mut self,
        number: u32,
        run: Option<u32>,
        records: &Records,
        marks: u8,
    ) -> Moved {
        let weights = Weights::of(marks);
        let home = || self.home(S::key(records.get(Handle::new(number))));
        let (id, home) = match run {
            Some(id) if self.lists[id as usize].numbers.len() > RUN_MAX / 4 => (id, None),
            _ => {
                let home = home();
                (self.run(home), Some(home))
            }
        };
        let run = &mut self.lists[id as usize];
        run.take(number);
        run.weights.subtract(weights);
        let left = run.numbers.len();
        self.branches[run.branch as usize].weights.subtract(weights);
        self.total.subtract(weights);
        match home {
            Some(home) if left == 0 => {
                self.remove_run(home);
                None
            }
            Some(home) if left < RUN_MAX / 4 => self.merge(home),
            _ => None,
        }
    }

    /// Changes the marks of a record in this run.
    pub(crate) fn mark(&mut self, run: u32, before: u8, after: u8) {
        let (before, after) = (Weights::of(before), Weights::of(after));
        let run = &mut self.lists[run as usize];
        for weights in [
            &mut run.weights,
            &mut self.branches[run.branch as usize].weights,
            &mut self.total,
        ] {
            weights.add(after);
            weights.subtract(before);
        }
    }

    /// Returns the numbers of a run, which may be unsorted.
    pub(crate) fn numbers(&self, run: u32) -> &[u32] {
        &self.lists[run as usize].numbers
    }

    /// Returns the numbers of all runs.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let branches = self.order.iter().map(|&id| &self.branches[id as usize]);
        branches.flat_map(|branch| branch.runs.clone()).collect()
    }
}

/// Converts a count of runs or records.
pub(super) fn number_of(count: usize) -> u32 {
    match u32::try_from(count) {
        Ok(number) => number,
        Err(_) => unreachable!("there are fewer than records can be numbered"),
    }
}
