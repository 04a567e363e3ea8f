//! How runs and branches are sorted, split and merged.

use super::{
    BRANCH_MAX, Branch, Home, Key, Moved, RUN_MAX, Run, Runs, Sort, Weights, bytes_of,
    key::{head_at, same},
    number_of,
};
use crate::state::record::{Handle, Records};

/// Sorts numbers by their records' keys, whose first `same` bytes at least are equal.
pub(super) fn sort<S: Sort>(numbers: &mut [u32], records: &Records, same: usize) {
    records.touch(numbers.iter().map(|&number| Handle::new(number)));
    let mut elements: Vec<(u64, u32)> = numbers.iter().map(|&number| (0, number)).collect();
    sort_behind::<S>(&mut elements, records, same);
    for (place, (_, number)) in numbers.iter_mut().zip(elements) {
        *place = number;
    }
}

/// Sorts any numbers by their records' keys.
pub(crate) fn sort_any<S: Sort>(numbers: &mut [u32], records: &Records) {
    let first_text = |number: u32| S::key(records.get(Handle::new(number))).0.as_bytes();
    let Some(&first) = numbers.first() else {
        return;
    };
    let first = first_text(first);
    let same = numbers
        .iter()
        .map(|&number| same(first, first_text(number)));
    let same = same.min().unwrap_or_default();
    sort::<S>(numbers, records, same);
}

/// Sorts by eight bytes of each key from `depth` on, and elements with the same eight by what
/// follows.
fn sort_behind<S: Sort>(elements: &mut [(u64, u32)], records: &Records, depth: usize) {
    for (head, number) in &mut *elements {
        *head = head_at(S::key(records.get(Handle::new(*number))), depth);
    }
    elements.sort_by_key(|element| element.0);
    for group in elements.chunk_by_mut(|one, other| one.0 == other.0) {
        // If all eight are 0, the keys have ended.
        if group.len() > 1 && group[0].0 != 0 {
            sort_behind::<S>(group, records, depth + 8);
        }
    }
}

impl<S: Sort> Runs<S> {
    /// Sorts a run for a reader, and returns the run.
    pub(super) fn ordered(&mut self, home: Home, records: &Records) -> u32 {
        let id = self.run(home);
        let run = &self.lists[id as usize];
        if !run.is_in_order() && !planted!(TailForgotten) {
            self.put_in_order += run.numbers.len();
            self.put_in_order(home, records);
        }
        id
    }

    fn put_in_order(&mut self, home: Home, records: &Records) {
        let same = match self.bounds(home) {
            [Some(before), Some(behind)] => same(before, behind),
            _ => 0,
        };
        let id = self.run(home);
        let run = &mut self.lists[id as usize];
        sort::<S>(&mut run.numbers, records, same);
        run.in_order = number_of(run.numbers.len());
    }

    /// Returns the separators before and behind a run.
    pub(super) fn bounds(&self, home: Home) -> [Option<&[u8]>; 2] {
        let separators = &self.branches[self.order[home.branch] as usize].separators;
        let before = match (home.run.checked_sub(1), home.branch.checked_sub(1)) {
            (Some(run), _) => separators.get(run),
            (None, Some(branch)) => self.separators.get(branch),
            (None, None) => None,
        };
        let behind = separators.get(home.run);
        [before, behind.or_else(|| self.separators.get(home.branch))]
    }

    /// Returns how many numbers were sorted for readers since the last call.
    pub(crate) fn take_put_in_order(&mut self) -> usize {
        std::mem::take(&mut self.put_in_order)
    }

    pub(super) fn new_run(&mut self, run: Run) -> u32 {
        if let Some(id) = self.vacant.pop() {
            self.lists[id as usize] = run;
            return id;
        }
        let id = number_of(self.lists.len());
        self.lists.push(run);
        id
    }

    /// Splits a full run because a record with this key is to be added. Returns the new run, which
    /// follows the old one, and whether the record belongs there.
    pub(super) fn split(
        &mut self,
        home: Home,
        key: Key<'_>,
        records: &Records,
        marks: &impl Fn(u32) -> u8,
    ) -> (u32, bool) {
        let id = self.run(home) as usize;
        if !self.lists[id].is_in_order() && !planted!(TailSplit) {
            self.put_in_order(home, records);
        }
        let left = &mut self.lists[id];
        let key_of = |number: u32| S::key(records.get(Handle::new(number)));
        // Keys that come in order fill their runs; any other split leaves room in both halves.
        let is_last = left.numbers.last().is_some_and(|&last| key_of(last) < key);
        let (right, separator) = if is_last {
            (Vec::new(), key)
        } else {
            // Both will be full again.
            let mut right = Vec::with_capacity(RUN_MAX);
            right.extend(left.numbers.drain(RUN_MAX / 2..));
            let first = key_of(right[0]);
            (right, first)
        };
        left.in_order = number_of(left.numbers.len());
        let right = Run::new(right, marks);
        left.weights.subtract(right.weights);
        let right = self.new_run(right);
        self.insert_run(home, right, bytes_of(separator));
        (right, separator <= key)
    }

    /// Inserts a branch at this place. The separator before it must be added afterwards.
    pub(super) fn insert_branch(&mut self, place: usize, branch: Branch) {
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
    }

    /// Inserts a run behind the one at this place. Its branch must already count its records.
    fn insert_run(&mut self, home: Home, run: u32, separator: Box<[u8]>) {
        let id = self.order[home.branch];
        let branch = &mut self.branches[id as usize];
        self.lists[run as usize].branch = id;
        branch.runs.insert(home.run + 1, run);
        branch.separators.insert(home.run, separator);
        if branch.runs.len() <= BRANCH_MAX {
            return;
        }
        let at = if home.run + 2 == branch.runs.len() {
            branch.runs.len() - 1
        } else {
            branch.runs.len() / 2
        };
        let (between, separators) = branch.separators.split_off(at - 1);
        let mut right = Branch {
            runs: branch.runs.split_off(at),
            separators,
            weights: Weights::default(),
        };
        for &run in &right.runs {
            right.weights.add(self.lists[run as usize].weights);
        }
        branch.weights.subtract(right.weights);
        self.insert_branch(home.branch + 1, right);
        self.separators.insert(home.branch, between);
    }

    /// Removes an empty run, and its branch if that was the last one in it.
    pub(super) fn remove_run(&mut self, home: Home) {
        let id = self.order[home.branch];
        let branch = &mut self.branches[id as usize];
        let run = branch.runs.remove(home.run);
        self.lists[run as usize] = Run::default();
        self.vacant.push(run);
        if branch.runs.is_empty() {
            *branch = Branch::default();
            self.vacant_branches.push(id);
            self.order.remove(home.branch);
            if !self.order.is_empty() {
                self.separators.remove(home.branch.saturating_sub(1));
            }
            return;
        }
        // The run before it takes over its range; if it was the first one, the run behind it does.
        branch.separators.remove(home.run.saturating_sub(1));
        if branch.runs.len() < BRANCH_MAX / 4 {
            self.merge_branch(home.branch);
        }
    }

    /// Merges a small run with a neighbour in its branch, if both fit well into one.
    pub(super) fn merge(&mut self, home: Home) -> Moved {
        let branch = &self.branches[self.order[home.branch] as usize];
        let length = |run: usize| {
            let id = *branch.runs.get(run)? as usize;
            Some(self.lists[id].numbers.len())
        };
        let fits = |left: usize| Some(length(left)? + length(left + 1)? <= RUN_MAX / 4 * 3);
        let left = if fits(home.run) == Some(true) {
            home.run
        } else {
            let left = home.run.checked_sub(1);
            left.filter(|&left| fits(left) == Some(true))?
        };
        let (left_id, right_id) = (branch.runs[left], branch.runs[left + 1]);
        let right = std::mem::take(&mut self.lists[right_id as usize]);
        let run = &mut self.lists[left_id as usize];
        if run.is_in_order() {
            run.in_order += right.in_order;
        }
        run.numbers.extend(right.numbers);
        run.weights.add(right.weights);
        self.remove_run(Home {
            run: left + 1,
            ..home
        });
        Some(left_id)
    }

    /// Merges a small branch with a neighbour, likewise.
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
        let between = self.separators.remove(left);
        branch.separators.append(between, right.separators);
        branch.weights.add(right.weights);
        self.vacant_branches.push(right_id);
        self.order.remove(left + 1);
    }
}
