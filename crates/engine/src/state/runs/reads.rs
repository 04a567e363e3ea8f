//! Finding records in order, and walking through them. A run is sorted before it is read, which
//! costs no more than its few hundred records.

use super::{Home, Key, RUN_MAX, Runs, Sort, Weights, upkeep::sort};
use crate::state::record::{Handle, Records};

/// In an unsorted run, at most this many marked records are sorted without the rest of the run.
const FEW: usize = RUN_MAX / 8;

/// A place in the order: before a record, or behind the last record of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The index of the branch.
    branch: usize,
    /// The index of the run in the branch.
    run: usize,
    /// The index of the number in the run before which the place is.
    index: usize,
}

/// A reader of the runs: of all records, or of those with a mark.
pub(crate) struct Reader<'r, S, M> {
    pub(super) runs: &'r mut Runs<S>,
    pub(super) records: &'r Records,
    /// Returns the marks of each record.
    pub(super) marks: M,
    pub(super) mark: Option<usize>,
}

impl Position {
    /// The place before the first record.
    pub(crate) const START: Self = Self {
        branch: 0,
        run: 0,
        index: 0,
    };
}

impl<'r, S: Sort> Runs<S> {
    /// Returns a reader of all records, or of those with this mark.
    pub(crate) fn reader<M: Fn(u32) -> u8>(
        &'r mut self,
        records: &'r Records,
        marks: M,
        mark: Option<usize>,
    ) -> Reader<'r, S, M> {
        Reader {
            runs: self,
            records,
            marks,
            mark,
        }
    }

    /// Returns the place behind the last record.
    fn end(&self) -> Position {
        Position {
            branch: self.order.len(),
            ..Position::START
        }
    }

    fn run_at(&self, position: Position) -> Option<u32> {
        let branch = *self.order.get(position.branch)? as usize;
        self.branches[branch].runs.get(position.run).copied()
    }

    /// Returns the beginning of the next run. Skips branches without this mark.
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

    /// Returns the end of the previous run. Skips branches without this mark.
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
}

impl<S: Sort, M: Fn(u32) -> u8> Reader<'_, S, M> {
    /// Returns the place behind the last record.
    pub(crate) fn end(&self) -> Position {
        self.runs.end()
    }

    /// Returns the place of the first record whose key is not less than this one.
    pub(crate) fn seek(&mut self, key: Key<'_>) -> Position {
        if self.runs.order.is_empty() {
            return self.end();
        }
        let home = self.runs.home(key);
        let id = self.runs.ordered(home, self.records);
        let Home { branch, run } = home;
        let less = |&number: &u32| S::key(self.records.get(Handle::new(number))) < key;
        let index = self.runs.numbers(id).partition_point(less);
        Position { branch, run, index }
    }

    /// Returns how many records are before a place that was found since the last change.
    pub(crate) fn rank(&self, position: Position) -> u64 {
        let (runs, mark) = (&*self.runs, self.mark);
        let before = runs.order[..position.branch].iter();
        let before = before.map(|&id| u64::from(runs.branches[id as usize].weights.with(mark)));
        let mut rank = before.sum::<u64>();
        let Some(&branch) = runs.order.get(position.branch) else {
            return rank;
        };
        let ids = &runs.branches[branch as usize].runs;
        for &id in &ids[..position.run] {
            rank += u64::from(runs.lists[id as usize].weights.with(mark));
        }
        if let Some(&id) = ids.get(position.run) {
            let numbers = runs.numbers(id)[..position.index].iter();
            rank += numbers.filter(|&&number| self.is_marked(number)).count() as u64;
        }
        rank
    }

    /// Returns the place before the record that has `rank` records before it.
    pub(crate) fn select(&mut self, rank: u64) -> Position {
        let (runs, mark) = (&*self.runs, self.mark);
        let mut rest = rank;
        let mut passes = |weights: Weights| {
            let weight = u64::from(weights.with(mark));
            let passes = rest >= weight;
            if passes {
                rest -= weight;
            }
            passes
        };
        let mut order = runs.order.iter();
        let Some(branch) = order.position(|&id| !passes(runs.branches[id as usize].weights)) else {
            return self.end();
        };
        let mut ids = runs.branches[runs.order[branch] as usize].runs.iter();
        let Some(run) = ids.position(|&id| !passes(runs.lists[id as usize].weights)) else {
            unreachable!("a branch has as many as its runs")
        };
        let id = self.runs.ordered(Home { branch, run }, self.records);
        let numbers = self.runs.numbers(id).iter();
        let mut marked = numbers
            .enumerate()
            .filter(|&(_, &number)| self.is_marked(number));
        let index = usize::try_from(rest).ok().and_then(|rest| marked.nth(rest));
        let Some((index, _)) = index else {
            unreachable!("a run has as many as it weighs")
        };
        Position { branch, run, index }
    }

    /// Appends the numbers of records from a place that was found since the last change, forwards
    /// or backwards, until there are `enough` or no more. Returns where to continue if there may be
    /// more.
    pub(crate) fn walk(
        &mut self,
        mut from: Position,
        forwards: bool,
        enough: usize,
        numbers: &mut Vec<u32>,
    ) -> Option<Position> {
        loop {
            if let Some(id) = self.runs.run_at(from)
                && self.runs.lists[id as usize].weights.with(self.mark) > 0
                && !self.took_few(id, &mut from, forwards, enough, numbers)
            {
                let Position { branch, run, .. } = from;
                let id = self.runs.ordered(Home { branch, run }, self.records);
                let run = self.runs.numbers(id);
                while numbers.len() < enough {
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
                    if self.is_marked(number) {
                        numbers.push(number);
                    }
                }
            }
            if numbers.len() >= enough {
                return Some(from);
            }
            from = if forwards {
                self.runs.next_run(from, self.mark)?
            } else {
                self.runs.previous_run(from, self.mark)?
            };
        }
    }

    /// Takes the marked records of an unsorted run if they are few, and sorts only them, because
    /// sorting every run on the way would make a long walk slow. Returns whether it did; if so, all
    /// marked records of the run are taken.
    fn took_few(
        &self,
        id: u32,
        from: &mut Position,
        forwards: bool,
        enough: usize,
        numbers: &mut Vec<u32>,
    ) -> bool {
        let run = &self.runs.lists[id as usize];
        let marked = run.weights.with(self.mark) as usize;
        let ends = [0, run.numbers.len()];
        let [begin, end] = if forwards { ends } else { [ends[1], 0] };
        let fits = marked <= FEW.min(enough - numbers.len());
        if run.is_in_order() || from.index != begin || !fits {
            return false;
        }
        let first = numbers.len();
        let few = run.numbers.iter().filter(|&&each| self.is_marked(each));
        numbers.extend(few);
        let few = &mut numbers[first..];
        if !planted!(TailForgotten) {
            sort::<S>(few, self.records, 0);
        }
        if !forwards {
            few.reverse();
        }
        from.index = end;
        true
    }

    fn is_marked(&self, number: u32) -> bool {
        self.mark
            .is_none_or(|mark| (self.marks)(number) >> mark & 1 == 1)
    }
}
