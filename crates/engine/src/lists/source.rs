//! The widgets that a plan names, by the index that it chose.

use super::plan::{Plan, Source};
use crate::state::{Handle, Position, State, mark};
use std::{
    hint,
    ops::Bound::{self, Excluded, Included, Unbounded},
};
use widgets_registry::query::Direction;

/// The next widgets of the source from a bound on, `most` at most; some may be beyond the bounds of
/// the plan. Then the serial number behind which to go on, `None` where there is nothing behind.
pub(super) fn next(
    plan: &Plan,
    from: &Bound<Box<str>>,
    direction: Direction,
    state: &State,
    most: usize,
) -> (Vec<Handle>, Option<Box<str>>) {
    let forwards = direction == Direction::Ascending;
    let mut numbers = Vec::with_capacity(most);
    let more = match &plan.source {
        Source::All(port) => {
            let (runs, marks) = state.order().serial_numbers();
            let position = place(plan, from, forwards, state);
            let mark = port.map(mark);
            let more = runs.walk(position, forwards, mark, marks, most, &mut numbers);
            more.is_some()
        }
        Source::Name(name) => {
            let position = place(plan, from, forwards, state);
            let names = state.order().names();
            let more = names.walk(position, forwards, None, |_| 0, most, &mut numbers);
            let walked = numbers.len();
            numbers.retain(|&number| state.record(Handle::new(number)).name() == &**name);
            more.is_some() && numbers.len() == walked
        }
        Source::SerialNumbers(serial_numbers) => {
            let range = match (from, forwards) {
                (Unbounded, _) => serial_numbers.range::<str, _>(..),
                (from, true) => serial_numbers.range::<str, _>((as_str(from), Unbounded)),
                (from, false) => serial_numbers.range::<str, _>((Unbounded, as_str(from))),
            };
            let named: Vec<&str> = if forwards {
                range.take(most).map(|text| &**text).collect()
            } else {
                range.rev().take(most).map(|text| &**text).collect()
            };
            let found = named.iter().filter_map(|text| state.find(text));
            let on = named.last().filter(|_| named.len() == most);
            return (found.collect(), on.map(|&text| text.into()));
        }
    };
    let handles: Vec<Handle> = numbers.into_iter().map(Handle::new).collect();
    let last = handles.last().filter(|_| more);
    let on = last.map(|&handle| state.record(handle).serial_number().into());
    (handles, on)
}

fn as_str(bound: &Bound<Box<str>>) -> Bound<&str> {
    match bound {
        Included(text) => Included(text),
        Excluded(text) => Excluded(text),
        Unbounded => Unbounded,
    }
}

/// Where a walk begins: before what is not left out where it goes forwards, else behind it.
fn place(plan: &Plan, bound: &Bound<Box<str>>, forwards: bool, state: &State) -> Position {
    // No serial number and no name has a NUL: with one it is just behind all that do not.
    let (text, behind) = match bound {
        Included(text) => (&**text, !forwards),
        Excluded(text) => (&**text, forwards),
        Unbounded => ("", false),
    };
    let is_open = *bound == Unbounded;
    let after = |text: &str| format!("{text}\0");
    match &plan.source {
        Source::Name(name) => {
            let names = state.order().names();
            if is_open && !forwards {
                state.seek(names, (&after(name), ""))
            } else if behind {
                state.seek(names, (name, &after(text)))
            } else {
                state.seek(names, (name, text))
            }
        }
        Source::All(_) | Source::SerialNumbers(_) => {
            let (runs, _) = state.order().serial_numbers();
            if is_open && !forwards {
                runs.end()
            } else if behind {
                state.seek(runs, (&after(text), ""))
            } else {
                state.seek(runs, (text, ""))
            }
        }
    }
}

/// The widgets of an exact plan, by their rank in its source.
pub(super) struct Range {
    pub(super) first: u64,
    /// Behind the last one.
    pub(super) last: u64,
}

impl Range {
    pub(super) fn of(plan: &Plan, state: &State) -> Self {
        let rank = |bound, forwards| {
            let position = place(plan, bound, forwards, state);
            match &plan.source {
                Source::Name(_) => state.order().names().rank(position, None, |_| 0),
                Source::All(port) => {
                    let (runs, marks) = state.order().serial_numbers();
                    runs.rank(position, port.map(mark), marks)
                }
                Source::SerialNumbers(_) => unreachable!("such a plan is never exact"),
            }
        };
        Self {
            first: rank(&plan.lower, true),
            last: rank(&plan.upper, false),
        }
    }
}

/// The widget of this rank in the source of an exact plan.
pub(super) fn select(plan: &Plan, rank: u64, state: &State) -> Option<Handle> {
    let mut number = Vec::new();
    match &plan.source {
        Source::Name(_) => {
            let names = state.order().names();
            let position = names.select(rank, None, |_| 0);
            names.walk(position, true, None, |_| 0, 1, &mut number);
        }
        Source::All(port) => {
            let (runs, marks) = state.order().serial_numbers();
            let mark = port.map(mark);
            let position = runs.select(rank, mark, marks);
            runs.walk(position, true, mark, marks, 1, &mut number);
        }
        Source::SerialNumbers(_) => {}
    }
    number.pop().map(Handle::new)
}

/// Has records and their text come from memory. Each waits for the memory alone, but none of these
/// waits for another one: what follows then finds them in the cache.
pub(super) fn touch(handles: &[Handle], state: &State) {
    let mut touched = 0;
    for &handle in handles {
        touched ^= state.record(handle).serial_number().len();
    }
    for &handle in handles {
        let text = state.record(handle).name().as_bytes();
        touched ^= usize::from(text.first().copied().unwrap_or_default());
    }
    hint::black_box(touched);
}
