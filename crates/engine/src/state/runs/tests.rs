//! The runs against a sorted map, with random insertions, removals and reads.

use super::*;
use crate::state::record::Record;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use widgets_registry::Ports;

struct ByName;

impl Sort for ByName {
    fn key(record: &Record) -> Key<'_> {
        (record.name(), record.serial_number())
    }
}

/// A name and a serial number.
type Texts = (String, String);

fn key((name, serial_number): &Texts) -> Key<'_> {
    (name, serial_number)
}

fn marks(number: u32) -> u8 {
    (number % 5) as u8
}

fn is_marked(number: u32, mark: Option<usize>) -> bool {
    mark.is_none_or(|mark| marks(number) >> mark & 1 == 1)
}

#[derive(Clone, Debug)]
enum Step {
    Add(Texts),
    Remove(prop::sample::Index),
    /// Gives the record another name.
    Rename(prop::sample::Index, String),
    /// Reads a page after or before a key.
    Page(Texts, bool, Option<usize>),
    /// Asks how many records are before a key, and for the record at a place.
    Rank(Texts, prop::sample::Index, Option<usize>),
}

fn texts() -> impl Strategy<Value = Texts> {
    ("[ab]{0,2}", "[a-c]{1,5}")
}

fn step() -> impl Strategy<Value = Step> {
    let mark = || prop::sample::select(vec![None, Some(0), Some(1), Some(2)]);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => texts().prop_map(Step::Add),
        2 => index().prop_map(Step::Remove),
        1 => (index(), "[ab]{0,2}").prop_map(|(index, name)| Step::Rename(index, name)),
        1 => (texts(), any::<bool>(), mark()).prop_map(|(key, on, mark)| Step::Page(key, on, mark)),
        1 => (texts(), index(), mark()).prop_map(|(key, at, mark)| Step::Rank(key, at, mark)),
    ]
}

/// The runs, and the map that they must agree with.
#[derive(Default)]
struct World {
    records: Records,
    runs: Runs<ByName>,
    model: BTreeMap<Texts, u32>,
    /// The run of each record, as its owner knows it.
    homes: HashMap<u32, u32>,
}

impl World {
    fn of(built: impl IntoIterator<Item = Texts>) -> Self {
        let mut world = Self::default();
        for texts in built {
            let record = Record::new(&texts.1, &texts.0, Ports::NONE);
            let handle = world.records.insert(record);
            world.model.insert(texts, handle.number());
        }
        let sorted: Vec<u32> = world.model.values().copied().collect();
        world.runs = Runs::from_sorted(&sorted, &world.records, marks);
        for run in world.runs.ids() {
            world.settle(Some(run));
        }
        world
    }

    fn settle(&mut self, moved: Moved) {
        if let Some(run) = moved {
            for &number in self.runs.numbers(run) {
                self.homes.insert(number, run);
            }
        }
    }

    fn add(&mut self, texts: Texts) {
        if self.model.contains_key(&texts) {
            return;
        }
        let handle = self
            .records
            .insert(Record::new(&texts.1, &texts.0, Ports::NONE));
        let number = handle.number();
        let (home, moved) = self.runs.insert(number, &self.records, marks);
        self.homes.insert(number, home);
        self.settle(moved);
        self.model.insert(texts, number);
    }

    fn remove(&mut self, index: prop::sample::Index) -> Option<Texts> {
        let texts = self.nth(index)?;
        let number = self.model.remove(&texts)?;
        let home = self.homes.remove(&number).filter(|_| index.index(2) == 0);
        let moved = self.runs.remove(number, home, &self.records, marks(number));
        self.settle(moved);
        self.records.remove(Handle::new(number));
        Some(texts)
    }

    fn nth(&self, index: prop::sample::Index) -> Option<Texts> {
        let place = index.index(self.model.len().max(1));
        self.model.keys().nth(place).cloned()
    }

    fn marked(&self, mark: Option<usize>) -> Vec<(Texts, u32)> {
        let all = self.model.clone().into_iter();
        all.filter(|(_, number)| is_marked(*number, mark)).collect()
    }

    fn page(&mut self, from: &Texts, forwards: bool, mark: Option<usize>) {
        let expected = self.marked(mark).into_iter();
        let expected: Vec<u32> = if forwards {
            let behind = expected.filter(|(texts, _)| texts >= from);
            behind.map(|(_, number)| number).take(7).collect()
        } else {
            let before = expected.rev().filter(|(texts, _)| texts < from);
            before.map(|(_, number)| number).take(7).collect()
        };
        let mut reader = self.runs.reader(&self.records, marks, mark);
        let position = reader.seek(key(from));
        let mut numbers = Vec::new();
        reader.walk(position, forwards, 7, &mut numbers);
        assert_eq!(numbers, expected);
    }

    fn rank(&mut self, from: &Texts, at: prop::sample::Index, mark: Option<usize>) {
        let marked = self.marked(mark);
        let mut reader = self.runs.reader(&self.records, marks, mark);
        let position = reader.seek(key(from));
        let before = marked.iter().filter(|(texts, _)| texts < from).count();
        assert_eq!(reader.rank(position), before as u64);
        if !marked.is_empty() {
            let at = at.index(marked.len());
            let position = reader.select(at as u64);
            let mut found = Vec::new();
            reader.walk(position, true, 1, &mut found);
            assert_eq!(found, [marked[at].1]);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Add(texts) => self.add(texts.clone()),
            Step::Remove(index) => drop(self.remove(*index)),
            Step::Rename(index, name) => {
                if let Some((_, serial_number)) = self.remove(*index) {
                    self.add((name.clone(), serial_number));
                }
            }
            Step::Page(from, forwards, mark) => self.page(from, *forwards, *mark),
            Step::Rank(from, at, mark) => self.rank(from, *at, *mark),
        }
    }

    fn check(&self) {
        assert_eq!(self.runs.check(&self.records, marks), Ok(()));
        let all: Vec<u32> = self.model.values().copied().collect();
        assert_eq!(self.runs.sorted(&self.records), all);
        for (number, home) in &self.homes {
            assert!(self.runs.numbers(*home).contains(number));
        }
    }

    /// Reads everything in both directions, some at a time.
    fn walk_all(&mut self) {
        for mark in [None, Some(0), Some(1), Some(2)] {
            let marked = self.marked(mark).into_iter();
            let marked: Vec<u32> = marked.map(|(_, number)| number).collect();
            assert_eq!(self.runs.total().with(mark) as usize, marked.len());
            for forwards in [true, false] {
                let mut reader = self.runs.reader(&self.records, marks, mark);
                let begin = if forwards {
                    Position::START
                } else {
                    reader.end()
                };
                let (mut all, mut from) = (Vec::new(), Some(begin));
                while let Some(position) = from {
                    let enough = all.len() + 3;
                    from = reader.walk(position, forwards, enough, &mut all);
                }
                if !forwards {
                    all.reverse();
                }
                assert_eq!(all, marked);
            }
        }
    }
}

proptest! {
    #[test]
    fn runs_agree_with_a_sorted_map(
        built in prop::collection::btree_set(texts(), 0..60),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::of(built);
        world.check();
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.walk_all();
        world.check();
    }
}

/// Keys that are inserted in order fill their runs, even if nothing is read in between.
#[test]
fn keys_inserted_in_order_fill_their_runs() {
    let mut world = World::default();
    for number in 0..RUN_MAX * 10 {
        world.add((String::new(), format!("{number:04}")));
    }
    world.check();
    let runs = world.runs.ids().into_iter();
    let lengths: Vec<usize> = runs.map(|run| world.runs.numbers(run).len()).collect();
    assert_eq!(lengths, [RUN_MAX; 10]);
}

/// A run that was sorted for one reader stays sorted for the next one, and is counted once.
#[test]
fn a_run_is_sorted_only_once() {
    let mut world = World::default();
    for number in [2, 3, 1] {
        world.add((String::new(), number.to_string()));
    }
    assert_eq!(world.runs.take_put_in_order(), 0);
    for expected in [3, 0] {
        world.page(&(String::new(), String::new()), true, None);
        assert_eq!(world.runs.take_put_in_order(), expected);
    }
}
