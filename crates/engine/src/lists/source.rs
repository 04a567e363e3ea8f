//! The widgets that a plan names, from the index that it chose.

use super::plan::{Plan, Source};
use crate::state::{Handle, Position, State};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use widgets_registry::query::Direction;

/// Returns at most the next `most` widgets of the source from a bound on, some of which may be
/// outside the plan's bounds. Returns also the serial number after which to continue, or `None` if
/// nothing follows.
pub(super) fn next(
    plan: &Plan,
    from: &Bound<Box<str>>,
    direction: Direction,
    state: &mut State,
    most: usize,
) -> (Vec<Handle>, Option<Box<str>>) {
    let forwards = direction == Direction::Ascending;
    let mut numbers = Vec::with_capacity(most);
    let more = match &plan.source {
        Source::All(port) => {
            let position = place(plan, from, forwards, state);
            let mut widgets = state.by_serial_number(*port);
            let more = widgets.walk(position, forwards, most, &mut numbers);
            more.is_some()
        }
        Source::Name(name) => {
            let position = place(plan, from, forwards, state);
            let more = (state.by_name()).walk(position, forwards, most, &mut numbers);
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

/// Returns where a walk begins: forwards, before the first widget that is not excluded; backwards,
/// behind it.
fn place(plan: &Plan, bound: &Bound<Box<str>>, forwards: bool, state: &mut State) -> Position {
    let (text, behind) = match bound {
        Included(text) => (&**text, !forwards),
        Excluded(text) => (&**text, forwards),
        Unbounded => ("", false),
    };
    let is_open = *bound == Unbounded;
    // No serial number and no name contains a NUL, so this text is greater than `text` and not
    // greater than any other text that is.
    let after = |text: &str| format!("{text}\u{1}");
    match &plan.source {
        Source::Name(name) => {
            let mut widgets = state.by_name();
            if is_open && !forwards {
                widgets.seek((&after(name), ""))
            } else if behind {
                widgets.seek((name, &after(text)))
            } else {
                widgets.seek((name, text))
            }
        }
        Source::All(_) | Source::SerialNumbers(_) => {
            let mut widgets = state.by_serial_number(None);
            if is_open && !forwards {
                widgets.end()
            } else if behind {
                widgets.seek((&after(text), ""))
            } else {
                widgets.seek((text, ""))
            }
        }
    }
}

/// The ranks of an exact plan's widgets in its source.
pub(super) struct Range {
    pub(super) first: u64,
    /// The rank behind the last one.
    pub(super) last: u64,
}

impl Range {
    pub(super) fn of(plan: &Plan, state: &mut State) -> Self {
        let mut rank = |bound, forwards| {
            let position = place(plan, bound, forwards, state);
            match &plan.source {
                Source::Name(_) => state.by_name().rank(position),
                Source::All(port) => state.by_serial_number(*port).rank(position),
                Source::SerialNumbers(_) => unreachable!("such a plan is never exact"),
            }
        };
        Self {
            first: rank(&plan.lower, true),
            last: rank(&plan.upper, false),
        }
    }
}

/// Returns the widget with this rank in the source of an exact plan.
pub(super) fn select(plan: &Plan, rank: u64, state: &mut State) -> Option<Handle> {
    let mut number = Vec::new();
    match &plan.source {
        Source::Name(_) => {
            let mut widgets = state.by_name();
            let position = widgets.select(rank);
            widgets.walk(position, true, 1, &mut number);
        }
        Source::All(port) => {
            let mut widgets = state.by_serial_number(*port);
            let position = widgets.select(rank);
            widgets.walk(position, true, 1, &mut number);
        }
        Source::SerialNumbers(_) => {}
    }
    number.pop().map(Handle::new)
}
