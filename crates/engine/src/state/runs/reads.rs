//! Looking for records in order, and walking through them. Whoever reads a run puts it in order first,
//! which costs no more than its few hundred records.

use super::{Home, Key, RUN_MAX, Runs, Sort, Weights, upkeep::sort};
use crate::state::record::{Handle, Records};

/// Of a run that is not in order no more marked records than these are put in order by themselves.
const FEW: usize = RUN_MAX / 8;

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

/// Somebody who reads runs: of all records, or of those with a mark.
pub(crate) struct Reader<'r, S, M> {
    pub(super) runs: &'r mut Runs<S>,
    pub(super) records: &'r Records,
    /// The marks of each record.
    pub(super) marks: M,
    pub(super) mark: Option<usize>,
}

impl Position {
    /// Before the first record.
    pub(crate) const START: Self = Self {
        branch: 0,
        run: 0,
        index: 0,
    };
}

impl<'r, S: Sort> Runs<S> {
    /// For somebody who wants all records, or those with this mark.
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

    /// Behind the last record.
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
}

impl<S: Sort, M: Fn(u32) -> u8> Reader<'_, S, M> {
    /// Behind the last record.
    pub(crate) fn end(&self) -> Position {
        self.runs.end()
    }

    /// Where the first record is whose key is not less.
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

    /// How many records are before a place that was found since the last change.
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

    /// The place before the record that has so many before it.
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

    /// Appends the numbers of records from a place on that was found since the last change, forwards or
    /// backwards, until there are `enough` or no more. Says where to go on, if there may be more.
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

    /// Where a run that is not in order has but a few of the mark, these are put in order by themselves:
    /// a walk past many such runs would take long. Whether it was so, and all of them are taken.
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
