//! Records in order: their numbers in sorted runs of some hundred, so that no insertion stalls.
//!
//! Three levels of fixed depth. A run is a sorted list of record numbers; a branch has the runs of a
//! range, in order; the root has the branches. A key is compared with the first keys of branches, then
//! of runs, which are at hand here, and only then with the keys of some records. A run that is full is
//! split in two, and one that is nearly empty is put together with its neighbour: what an insertion or
//! a removal moves does not grow with the number of records.
//!
//! Each run also knows how many of its records are marked, by each of some marks, and each branch: so
//! the next marked record, the number of records before a key and the record at a place are found
//! without a walk through the records between.

use super::record::{Handle, Record, Records};
use std::{cmp::Ordering, marker::PhantomData};

/// How many numbers a run can have. Tests have few records and want many runs.
const RUN_MAX: usize = if cfg!(test) { 8 } else { 512 };

/// How many runs a branch can have.
const BRANCH_MAX: usize = if cfg!(test) { 4 } else { 256 };

/// How many marks a record can have.
pub(crate) const MARKS: usize = 3;

/// What records are sorted by. No two records have the same key.
pub(crate) trait Sort {
    /// The key of a record: compared by its first text, then by its second.
    fn key(record: &Record) -> Key<'_>;
}

/// Two texts, compared one after the other.
pub(crate) type Key<'a> = (&'a str, &'a str);

/// Record numbers in the order of `S`.
pub(crate) struct Runs<S> {
    /// The branches in order, by their place in `branches`.
    order: Vec<u32>,
    /// The first separator of each, at hand.
    firsts: Vec<Separator>,
    branches: Vec<Branch>,
    vacant_branches: Vec<u32>,
    /// Every run, by its number.
    lists: Vec<Run>,
    /// How much is in each run.
    weights: Vec<Weights>,
    vacant: Vec<u32>,
    total: Weights,
    sort: PhantomData<S>,
}

#[derive(Default)]
struct Branch {
    /// Not greater than any key of the run at the same place, except that the very first run of all
    /// takes whatever is less.
    separators: Vec<Separator>,
    runs: Vec<u32>,
    weights: Weights,
}

#[derive(Default)]
struct Run {
    numbers: Vec<u32>,
    branch: u32,
}

/// How many records there are, and how many of them have each mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    pub(crate) records: u32,
    pub(crate) marked: [u32; MARKS],
}

/// A key that stays when its record goes.
#[derive(Clone)]
struct Separator {
    /// Its first eight bytes decide most comparisons.
    head: u64,
    first: Box<str>,
    second: Box<str>,
}

/// A place in the order: before a record, or behind the last one of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Which branch, in order.
    branch: usize,
    /// Which run of it.
    run: usize,
    /// Before which number of it.
    index: usize,
}

/// What of the places of records has changed: those of this run are there now.
pub(crate) type Moved = Option<u32>;

impl Separator {
    fn new(key: Key<'_>) -> Self {
        Self {
            head: head(key),
            first: key.0.into(),
            second: key.1.into(),
        }
    }

    fn compare(&self, head: u64, key: Key<'_>) -> Ordering {
        let heads = self.head.cmp(&head);
        heads.then_with(|| (&*self.first, &*self.second).cmp(&key))
    }
}

/// The first eight bytes of a key, as a number that is ordered as they are.
fn head(key: Key<'_>) -> u64 {
    let mut bytes = [0; 8];
    let length = key.0.len().min(8);
    bytes[..length].copy_from_slice(&key.0.as_bytes()[..length]);
    u64::from_be_bytes(bytes)
}

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

    /// Those of one record with these marks, bit by bit.
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

    /// How many have this mark, or how many there are.
    pub(crate) fn with(self, mark: Option<usize>) -> u32 {
        mark.map_or(self.records, |mark| self.marked[mark])
    }
}

impl<S> Default for Runs<S> {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            firsts: Vec::new(),
            branches: Vec::new(),
            vacant_branches: Vec::new(),
            lists: Vec::new(),
            weights: Vec::new(),
            vacant: Vec::new(),
            total: Weights::default(),
            sort: PhantomData,
        }
    }
}

impl<S: Sort> Runs<S> {
    /// Of sorted numbers, with room in every run for some more.
    pub(crate) fn from_sorted(
        sorted: &[u32],
        records: &Records,
        marks: impl Fn(u32) -> u8,
    ) -> Self {
        let mut runs = Self::default();
        let mut branch = Branch::default();
        for numbers in sorted.chunks(RUN_MAX - RUN_MAX / 8) {
            if branch.runs.len() == BRANCH_MAX - BRANCH_MAX / 4 {
                runs.push_branch(std::mem::take(&mut branch));
            }
            let first = records.get(Handle::new(numbers[0]));
            let id = runs.new_run(numbers.to_vec(), &marks);
            branch.separators.push(Separator::new(S::key(first)));
            branch.runs.push(id);
            branch.weights.add(runs.weights[id as usize]);
        }
        if !branch.runs.is_empty() {
            runs.push_branch(branch);
        }
        runs
    }

    fn push_branch(&mut self, branch: Branch) {
        self.total.add(branch.weights);
        self.insert_branch(self.order.len(), branch);
    }

    /// How much there is.
    #[cfg(test)]
    pub(crate) fn total(&self) -> Weights {
        self.total
    }

    /// Adds a record. Its own place is in the run that is returned first.
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
            let id = self.new_run(vec![number], &marks);
            let branch = Branch {
                separators: vec![Separator::new(key)],
                runs: vec![id],
                weights,
            };
            self.insert_branch(0, branch);
            return (id, None);
        }
        let position = self.seek(key, records);
        let branch = self.order[position.branch];
        let id = self.branches[branch as usize].runs[position.run];
        self.branches[branch as usize].weights.add(weights);
        let numbers = &mut self.lists[id as usize].numbers;
        if numbers.len() < RUN_MAX {
            insert_into(numbers, position.index, number);
            self.weights[id as usize].add(weights);
            return (id, None);
        }
        // Whatever comes in order fills its runs; everything else leaves room in both halves.
        let at = if position.index == RUN_MAX {
            RUN_MAX
        } else {
            RUN_MAX / 2
        };
        let mut right = numbers.split_off(at);
        let goes_right = position.index >= at;
        let (half, index) = if goes_right {
            (&mut right, position.index - at)
        } else {
            (numbers, position.index)
        };
        insert_into(half, index, number);
        let first = S::key(records.get(Handle::new(right[0])));
        let right_id = self.new_run(right, &marks);
        let right_weights = self.weights[right_id as usize];
        let left_weights = &mut self.weights[id as usize];
        left_weights.add(weights);
        left_weights.subtract(right_weights);
        self.insert_run(position, right_id, Separator::new(first));
        let home = if goes_right { right_id } else { id };
        (home, Some(right_id))
    }

    /// Removes a record that still has its key and these marks.
    pub(crate) fn remove(&mut self, number: u32, records: &Records, marks: u8) -> Moved {
        let weights = Weights::of(marks);
        let position = self.seek(S::key(records.get(Handle::new(number))), records);
        let branch = self.order[position.branch] as usize;
        let id = self.branches[branch].runs[position.run];
        let numbers = &mut self.lists[id as usize].numbers;
        assert_eq!(
            numbers.get(position.index),
            Some(&number),
            "every record is in order"
        );
        numbers.remove(position.index);
        let left = numbers.len();
        self.weights[id as usize].subtract(weights);
        self.branches[branch].weights.subtract(weights);
        self.total.subtract(weights);
        if left == 0 {
            self.remove_run(position.branch, position.run);
            None
        } else if left < RUN_MAX / 4 {
            self.merge(position.branch, position.run)
        } else {
            None
        }
    }

    /// Changes the marks of a record of this run.
    pub(crate) fn mark(&mut self, run: u32, before: u8, after: u8) {
        let (before, after) = (Weights::of(before), Weights::of(after));
        let branch = self.lists[run as usize].branch as usize;
        for weights in [
            &mut self.weights[run as usize],
            &mut self.branches[branch].weights,
            &mut self.total,
        ] {
            weights.add(after);
            weights.subtract(before);
        }
    }

    /// The numbers of a run.
    pub(crate) fn numbers(&self, run: u32) -> &[u32] {
        &self.lists[run as usize].numbers
    }

    /// Where the first record is whose key is not less.
    pub(crate) fn seek(&self, key: Key<'_>, records: &Records) -> Position {
        let head = head(key);
        let not_greater = |each: &Separator| each.compare(head, key).is_le();
        let branch = self.firsts.partition_point(not_greater).saturating_sub(1);
        let Some(&id) = self.order.get(branch) else {
            return self.end();
        };
        let at = &self.branches[id as usize];
        let run = at.separators.partition_point(not_greater).saturating_sub(1);
        let less = |&number: &u32| S::key(records.get(Handle::new(number))) < key;
        let index = self.lists[at.runs[run] as usize]
            .numbers
            .partition_point(less);
        Position { branch, run, index }
    }

    /// Before the first record.
    pub(crate) const fn start() -> Position {
        Position {
            branch: 0,
            run: 0,
            index: 0,
        }
    }

    /// Behind the last record.
    pub(crate) fn end(&self) -> Position {
        Position {
            branch: self.order.len(),
            run: 0,
            index: 0,
        }
    }

    fn run_at(&self, position: Position) -> Option<u32> {
        let branch = *self.order.get(position.branch)? as usize;
        self.branches[branch].runs.get(position.run).copied()
    }

    /// How many records are before this place, or how many of them have this mark.
    pub(crate) fn rank(
        &self,
        position: Position,
        mark: Option<usize>,
        marks: impl Fn(u32) -> u8,
    ) -> u64 {
        let branches = self.order[..position.branch].iter();
        let before = branches.map(|&id| u64::from(self.branches[id as usize].weights.with(mark)));
        let mut rank = before.sum::<u64>();
        let Some(&branch) = self.order.get(position.branch) else {
            return rank;
        };
        let runs = &self.branches[branch as usize].runs;
        for &id in &runs[..position.run] {
            rank += u64::from(self.weights[id as usize].with(mark));
        }
        if let Some(&id) = runs.get(position.run) {
            let numbers = &self.lists[id as usize].numbers[..position.index];
            rank += match mark {
                None => numbers.len() as u64,
                Some(mark) => {
                    let marked = |number: &&u32| marks(**number) >> mark & 1 == 1;
                    numbers.iter().filter(marked).count() as u64
                }
            };
        }
        rank
    }

    /// The place before the record that has so many before it, or so many with this mark.
    pub(crate) fn select(
        &self,
        rank: u64,
        mark: Option<usize>,
        marks: impl Fn(u32) -> u8,
    ) -> Position {
        let mut rest = rank;
        let mut passes = |weights: Weights| {
            let weight = u64::from(weights.with(mark));
            let passes = rest >= weight;
            if passes {
                rest -= weight;
            }
            passes
        };
        let mut order = self.order.iter();
        let Some(branch) = order.position(|&id| !passes(self.branches[id as usize].weights)) else {
            return self.end();
        };
        let runs = &self.branches[self.order[branch] as usize].runs;
        let run = runs
            .iter()
            .position(|&id| !passes(self.weights[id as usize]));
        let Some(run) = run else {
            unreachable!("a branch has as many as its runs")
        };
        let numbers = self.lists[runs[run] as usize].numbers.iter();
        let mut marked = numbers.enumerate().filter(|&(_, &number)| match mark {
            None => true,
            Some(mark) => marks(number) >> mark & 1 == 1,
        });
        let index = usize::try_from(rest).ok().and_then(|rest| marked.nth(rest));
        let Some((index, _)) = index else {
            unreachable!("a run has as many as it weighs")
        };
        Position { branch, run, index }
    }

    /// Appends the numbers of records from this place on, forwards or backwards, of those with this
    /// mark, until there are at least `enough` or no more. Says where to go on, if there may be more.
    pub(crate) fn walk(
        &self,
        mut from: Position,
        forwards: bool,
        mark: Option<usize>,
        marks: impl Fn(u32) -> u8,
        enough: usize,
        numbers: &mut Vec<u32>,
    ) -> Option<Position> {
        let is_marked = |number: u32| mark.is_none_or(|mark| marks(number) >> mark & 1 == 1);
        loop {
            if let Some(id) = self.run_at(from)
                && self.weights[id as usize].with(mark) > 0
            {
                let run = &self.lists[id as usize].numbers;
                let mut room = enough - numbers.len();
                while room > 0 {
                    let number = if forwards {
                        let Some(&number) = run.get(from.index) else {
                            break;
                        };
                        from.index += 1;
                        number
                    } else {
                        let Some(index) = from.index.checked_sub(1) else {
                            break;
                        };
                        from.index = index;
                        run[index]
                    };
                    if is_marked(number) {
                        numbers.push(number);
                        room -= 1;
                    }
                }
                if room == 0 {
                    return Some(from);
                }
            }
            from = if forwards {
                self.next_run(from, mark)?
            } else {
                self.previous_run(from, mark)?
            };
        }
    }

    /// The beginning of the next run; branches without this mark are passed over.
    fn next_run(&self, position: Position, mark: Option<usize>) -> Option<Position> {
        let id = *self.order.get(position.branch)? as usize;
        if position.run + 1 < self.branches[id].runs.len() {
            return Some(Position {
                run: position.run + 1,
                index: 0,
                ..position
            });
        }
        let rest = self.order[position.branch + 1..].iter();
        let mut weights = rest.map(|&id| self.branches[id as usize].weights.with(mark));
        let skip = weights.position(|weight| weight > 0)?;
        Some(Position {
            branch: position.branch + 1 + skip,
            run: 0,
            index: 0,
        })
    }

    /// The end of the run before; branches without this mark are passed over.
    fn previous_run(&self, position: Position, mark: Option<usize>) -> Option<Position> {
        let (branch, run) = if let Some(run) = position.run.checked_sub(1) {
            (position.branch, run)
        } else {
            let before = self.order[..position.branch].iter();
            let mut weights = before.map(|&id| self.branches[id as usize].weights.with(mark));
            let branch = weights.rposition(|weight| weight > 0)?;
            let runs = &self.branches[self.order[branch] as usize].runs;
            (branch, runs.len() - 1)
        };
        let id = self.branches[self.order[branch] as usize].runs[run];
        Some(Position {
            branch,
            run,
            index: self.lists[id as usize].numbers.len(),
        })
    }

    fn new_run(&mut self, numbers: Vec<u32>, marks: &impl Fn(u32) -> u8) -> u32 {
        let mut weights = Weights::default();
        for &number in &numbers {
            weights.add(Weights::of(marks(number)));
        }
        let run = Run { numbers, branch: 0 };
        if let Some(id) = self.vacant.pop() {
            self.lists[id as usize] = run;
            self.weights[id as usize] = weights;
            return id;
        }
        let id = number_of(self.lists.len());
        self.lists.push(run);
        self.weights.push(weights);
        id
    }

    fn insert_branch(&mut self, place: usize, branch: Branch) {
        let first = branch.separators[0].clone();
        let id = if let Some(id) = self.vacant_branches.pop() {
            self.branches[id as usize] = branch;
            id
        } else {
            self.branches.push(branch);
            number_of(self.branches.len() - 1)
        };
        for &run in &self.branches[id as usize].runs {
            self.lists[run as usize].branch = id;
        }
        self.order.insert(place, id);
        self.firsts.insert(place, first);
    }

    /// Puts a run behind the one at this place, whose branch counts it already.
    fn insert_run(&mut self, position: Position, run: u32, separator: Separator) {
        let id = self.order[position.branch];
        let branch = &mut self.branches[id as usize];
        self.lists[run as usize].branch = id;
        branch.runs.insert(position.run + 1, run);
        branch.separators.insert(position.run + 1, separator);
        if branch.runs.len() <= BRANCH_MAX {
            return;
        }
        let at = if position.run + 2 == branch.runs.len() {
            branch.runs.len() - 1
        } else {
            branch.runs.len() / 2
        };
        let mut right = Branch {
            separators: branch.separators.split_off(at),
            runs: branch.runs.split_off(at),
            weights: Weights::default(),
        };
        for &run in &right.runs {
            right.weights.add(self.weights[run as usize]);
        }
        branch.weights.subtract(right.weights);
        self.insert_branch(position.branch + 1, right);
    }

    /// Takes an empty run out, and its branch if that was the last one.
    fn remove_run(&mut self, place: usize, run: usize) {
        let id = self.order[place];
        let branch = &mut self.branches[id as usize];
        self.vacant.push(branch.runs.remove(run));
        if branch.runs.is_empty() {
            *branch = Branch::default();
            self.vacant_branches.push(id);
            self.order.remove(place);
            self.firsts.remove(place);
            return;
        }
        // The run behind the first one takes what is less than its own first key from now on.
        branch
            .separators
            .remove(run.max(1).min(branch.separators.len() - 1));
        if branch.runs.len() < BRANCH_MAX / 4 {
            self.merge_branch(place);
        }
    }

    /// Puts a small run together with a neighbour in its branch, where both fit well into one.
    fn merge(&mut self, place: usize, run: usize) -> Moved {
        let branch = &self.branches[self.order[place] as usize];
        let length = |run: usize| {
            let id = *branch.runs.get(run)? as usize;
            Some(self.lists[id].numbers.len())
        };
        let fits = |left: usize| Some(length(left)? + length(left + 1)? <= RUN_MAX / 4 * 3);
        let left = if fits(run) == Some(true) {
            run
        } else {
            run.checked_sub(1)
                .filter(|&left| fits(left) == Some(true))?
        };
        let (left_id, right_id) = (branch.runs[left], branch.runs[left + 1]);
        let moved = std::mem::take(&mut self.lists[right_id as usize].numbers);
        let weights = std::mem::take(&mut self.weights[right_id as usize]);
        self.lists[left_id as usize].numbers.extend(moved);
        self.weights[left_id as usize].add(weights);
        self.remove_run(place, left + 1);
        Some(left_id)
    }

    /// The same for a branch.
    fn merge_branch(&mut self, place: usize) {
        let length = |place: usize| {
            let id = *self.order.get(place)? as usize;
            Some(self.branches[id].runs.len())
        };
        let fits = |left: usize| Some(length(left)? + length(left + 1)? <= BRANCH_MAX / 4 * 3);
        let left = if fits(place) == Some(true) {
            place
        } else {
            match place.checked_sub(1) {
                Some(left) if fits(left) == Some(true) => left,
                _ => return,
            }
        };
        let (left_id, right_id) = (self.order[left], self.order[left + 1]);
        let right = std::mem::take(&mut self.branches[right_id as usize]);
        for &run in &right.runs {
            self.lists[run as usize].branch = left_id;
        }
        let branch = &mut self.branches[left_id as usize];
        branch.runs.extend(right.runs);
        branch.separators.extend(right.separators);
        branch.weights.add(right.weights);
        self.vacant_branches.push(right_id);
        self.order.remove(left + 1);
        self.firsts.remove(left + 1);
    }

    /// Every run.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let branches = self.order.iter().map(|&id| &self.branches[id as usize]);
        branches.flat_map(|branch| branch.runs.clone()).collect()
    }

    /// All numbers in order, for checks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let branches = self.order.iter().map(|&id| &self.branches[id as usize]);
        let runs = branches.flat_map(|branch| branch.runs.iter());
        runs.flat_map(|&id| self.lists[id as usize].numbers.iter().copied())
    }

    /// Whether everything hangs together: names the first defect.
    pub(crate) fn check(&self, records: &Records, marks: impl Fn(u32) -> u8) -> Result<(), String> {
        let numbers: Vec<u32> = self.iter().collect();
        let key = |number: u32| S::key(records.get(Handle::new(number)));
        for pair in numbers.windows(2) {
            let (one, other) = (key(pair[0]), key(pair[1]));
            if one >= other {
                return Err(format!("{one:?} is before {other:?}"));
            }
        }
        let mut total = Weights::default();
        for (place, &id) in self.order.iter().enumerate() {
            let branch = &self.branches[id as usize];
            let mut sum = Weights::default();
            for (at, (&run, separator)) in branch.runs.iter().zip(&branch.separators).enumerate() {
                let mut weights = Weights::default();
                for &number in &self.lists[run as usize].numbers {
                    weights.add(Weights::of(marks(number)));
                    let key = key(number);
                    let is_first = place == 0 && at == 0;
                    if !is_first && separator.compare(head(key), key).is_gt() {
                        return Err(format!("{key:?} is behind its separator"));
                    }
                }
                if weights != self.weights[run as usize] || self.lists[run as usize].branch != id {
                    return Err(format!("run {run} weighs {weights:?}, or is astray"));
                }
                sum.add(weights);
            }
            let first = &self.firsts[place];
            let same = branch.separators[0].compare(first.head, (&first.first, &first.second));
            if sum != branch.weights || same.is_ne() || branch.runs.len() != branch.separators.len()
            {
                return Err(format!("branch {id} weighs {sum:?}, or is astray"));
            }
            total.add(sum);
        }
        if total == self.total {
            Ok(())
        } else {
            Err(format!("all weigh {total:?}, kept {:?}", self.total))
        }
    }
}

/// Adds to a run, which then has room for as many as it can have and no more.
fn insert_into(numbers: &mut Vec<u32>, index: usize, number: u32) {
    if numbers.len() == numbers.capacity() {
        numbers.reserve_exact(RUN_MAX.saturating_sub(numbers.len()).max(1));
    }
    numbers.insert(index, number);
}

fn number_of(count: usize) -> u32 {
    match u32::try_from(count) {
        Ok(number) => number,
        Err(_) => unreachable!("there are fewer runs than records"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use widgets_registry::Ports;

    struct BySerialNumber;

    impl Sort for BySerialNumber {
        fn key(record: &Record) -> Key<'_> {
            (record.serial_number(), "")
        }
    }

    fn marks(number: u32) -> u8 {
        (number % 5) as u8
    }

    /// What every question is answered from by looking at everything.
    fn check(runs: &Runs<BySerialNumber>, records: &Records, model: &BTreeMap<String, u32>) {
        assert_eq!(runs.check(records, marks), Ok(()));
        assert_eq!(
            runs.iter().collect::<Vec<_>>(),
            model.values().copied().collect::<Vec<_>>()
        );
        for mark in [None, Some(0), Some(1), Some(2)] {
            let is_marked = |number: &u32| mark.is_none_or(|mark| marks(*number) >> mark & 1 == 1);
            let marked: Vec<u32> = model.values().copied().filter(is_marked).collect();
            assert_eq!(runs.total().with(mark) as usize, marked.len());
            for (rank, number) in marked.iter().enumerate() {
                let key = BySerialNumber::key(records.get(Handle::new(*number)));
                let position = runs.seek(key, records);
                assert_eq!(runs.rank(position, mark, marks), rank as u64);
                let selected = runs.select(rank as u64, mark, marks);
                let mut found = Vec::new();
                runs.walk(selected, true, mark, marks, 1, &mut found);
                assert_eq!(found, [*number]);
                let mut before = Vec::new();
                runs.walk(position, false, mark, marks, 3, &mut before);
                let expected: Vec<u32> = marked[..rank].iter().rev().take(3).copied().collect();
                assert_eq!(before, expected);
            }
            let (mut all, mut from) = (Vec::new(), Some(Runs::<BySerialNumber>::start()));
            while let Some(position) = from {
                let enough = all.len() + 3;
                from = runs.walk(position, true, mark, marks, enough, &mut all);
            }
            assert_eq!(all, marked);
            let (mut all, mut from) = (Vec::new(), Some(runs.end()));
            while let Some(position) = from {
                let enough = all.len() + 3;
                from = runs.walk(position, false, mark, marks, enough, &mut all);
            }
            all.reverse();
            assert_eq!(all, marked);
        }
    }

    proptest! {
        #[test]
        fn agree_with_a_sorted_map(
            built in prop::collection::btree_set("[a-c]{1,4}", 0..60),
            steps in prop::collection::vec((any::<bool>(), "[a-c]{1,4}"), 0..200),
        ) {
            let mut records = Records::default();
            let mut model = BTreeMap::new();
            for text in built {
                let handle = records.insert(Record::new(&text, "", Ports::NONE));
                model.insert(text, handle.number());
            }
            let sorted: Vec<u32> = model.values().copied().collect();
            let mut runs = Runs::<BySerialNumber>::from_sorted(&sorted, &records, marks);
            check(&runs, &records, &model);
            for (adds, text) in steps {
                match (adds, model.get(&text).copied()) {
                    (true, None) => {
                        let handle = records.insert(Record::new(&text, "", Ports::NONE));
                        let (home, _) = runs.insert(handle.number(), &records, marks);
                        prop_assert!(runs.numbers(home).contains(&handle.number()));
                        model.insert(text, handle.number());
                    }
                    (false, Some(number)) => {
                        runs.remove(number, &records, marks(number));
                        records.remove(Handle::new(number));
                        model.remove(&text);
                    }
                    _ => continue,
                }
                prop_assert_eq!(runs.check(&records, marks), Ok(()));
            }
            check(&runs, &records, &model);
        }
    }
}
