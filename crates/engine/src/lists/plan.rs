//! Which widgets a list has to look at: as few as the indexes allow.
//!
//! A plan may name more widgets than pass the filter, but never fewer, because the filter then
//! checks each one. Only if a plan is exact are widgets skipped or counted without being looked at.

use crate::State;
use std::{
    collections::BTreeSet,
    ops::Bound::{self, Excluded, Included, Unbounded},
};
use widgets_registry::{
    Port,
    query::{Column, Comparison, Contained, Filter, List, Table, Test},
};

/// Where to look.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) source: Source,
    /// Serial numbers outside of these bounds are not rows.
    pub(crate) lower: Bound<Box<str>>,
    pub(crate) upper: Bound<Box<str>>,
    /// Whether exactly the widgets of the source that are between the bounds are rows.
    pub(crate) exact: bool,
}

/// Widgets in the order of their serial numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// All widgets, or those with a free slot of this port type.
    All(Option<Port>),
    /// The widgets with this name.
    Name(Box<str>),
    /// The widgets with these serial numbers, if they exist.
    SerialNumbers(BTreeSet<Box<str>>),
}

/// With more peers than this, they are not looked up in advance, and the whole order is walked
/// instead.
const PEERS_MAX: usize = 256;

impl Plan {
    pub(crate) fn of(list: &List, state: &State) -> Self {
        let conjuncts = conjuncts(&list.filter);
        let (lower, upper) = bounds(&list.filter);
        let mut source = Source::All(None);
        if let Some(serial_numbers) = serial_numbers(&list.filter, state) {
            source = Source::SerialNumbers(serial_numbers);
        } else if let Some(name) = conjuncts.iter().find_map(|each| name(each)) {
            source = Source::Name(name.into());
        } else if let Some(port) = free_port(list.table, &conjuncts) {
            source = Source::All(Some(port));
        }
        let served = |each: &&Filter| match &source {
            _ if is_bound(each) => true,
            Source::All(Some(port)) => free_ports(each) == [*port] && is_one_pattern(each),
            Source::Name(wanted) => name(each) == Some(wanted),
            _ => false,
        };
        let exact = list.table == Table::Widgets
            && !matches!(source, Source::SerialNumbers(_))
            && conjuncts.iter().all(served);
        Self {
            source,
            lower,
            upper,
            exact,
        }
    }

    /// Excludes everything before the first and after the last widget that exists now. What is
    /// added there later is not part of the list.
    pub(crate) fn narrow(&mut self, state: &mut State) {
        let [first, last] = state
            .ends()
            .map(|end| end.map(Into::into).map_or(Unbounded, Included));
        let unbounded = || Unbounded;
        let lower = std::mem::replace(&mut self.lower, unbounded());
        self.lower = tighter(lower, first, |one, other| one >= other);
        let upper = std::mem::replace(&mut self.upper, unbounded());
        self.upper = tighter(upper, last, |one, other| one <= other);
    }

    /// Reports whether a serial number is within the bounds.
    pub(crate) fn contains(&self, serial_number: &str) -> bool {
        let above = match &self.lower {
            Included(bound) => serial_number >= &**bound,
            Excluded(bound) => serial_number > &**bound,
            Unbounded => true,
        };
        above
            && match &self.upper {
                Included(bound) => serial_number <= &**bound,
                Excluded(bound) => serial_number < &**bound,
                Unbounded => true,
            }
    }
}

/// Returns the conditions that must all hold.
fn conjuncts(filter: &Filter) -> Vec<&Filter> {
    match filter {
        Filter::All(filters) => filters.iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

/// Reports whether the filter is only a bound of the serial number.
fn is_bound(filter: &Filter) -> bool {
    match filter {
        Filter::Test(Column::SerialNumber, Test::Text(comparison, _)) => {
            *comparison != Comparison::NotEqual
        }
        Filter::Test(Column::SerialNumber, Test::Like(pattern)) => {
            let (prefix, all) = pattern.prefix();
            all && (prefix.is_empty() || after_prefix(prefix).is_some())
        }
        _ => false,
    }
}

fn name(filter: &Filter) -> Option<&str> {
    match filter {
        Filter::Test(Column::Name, Test::Text(Comparison::Equal, name)) => Some(name),
        Filter::Test(Column::Name, Test::TextIn(names)) if names.len() == 1 => {
            names.first().map(|name| &**name)
        }
        _ => None,
    }
}

/// Returns the port types of which a widget must have a free slot.
fn free_ports(filter: &Filter) -> Vec<Port> {
    let Filter::Test(Column::Slots, Test::Contains(Contained(patterns))) = filter else {
        return Vec::new();
    };
    let is_free = patterns.iter().filter(|pattern| pattern.peer == Some(None));
    is_free.filter_map(|pattern| pattern.port).collect()
}

fn is_one_pattern(filter: &Filter) -> bool {
    matches!(filter, Filter::Test(_, Test::Contains(Contained(patterns))) if patterns.len() == 1)
}

fn free_port(table: Table, conjuncts: &[&Filter]) -> Option<Port> {
    match table {
        Table::Widgets => conjuncts.iter().find_map(|each| free_ports(each).pop()),
        Table::Slots => {
            let is_free = |each: &&&Filter| **each == &Filter::Test(Column::PeerSn, Test::Null);
            conjuncts.iter().find(is_free)?;
            conjuncts.iter().find_map(|each| match each {
                Filter::Test(Column::Port, Test::Text(Comparison::Equal, port)) => {
                    Port::parse(port).ok()
                }
                _ => None,
            })
        }
    }
}

/// Returns the widgets that the filter names, if no others can pass it.
fn serial_numbers(filter: &Filter, state: &State) -> Option<BTreeSet<Box<str>>> {
    match filter {
        // Any of them would do; the smallest set is the cheapest.
        Filter::All(filters) => {
            let named = filters
                .iter()
                .filter_map(|each| serial_numbers(each, state));
            named.min_by_key(BTreeSet::len)
        }
        Filter::Any(filters) => {
            let mut all = BTreeSet::new();
            for each in filters {
                // Not `append`, which walks through both sets.
                all.extend(serial_numbers(each, state)?);
            }
            Some(all)
        }
        Filter::Test(Column::SerialNumber | Column::WidgetSn, asked) => match asked {
            Test::Text(Comparison::Equal, text) => Some(BTreeSet::from([text.clone()])),
            Test::TextIn(texts) => Some(texts.clone()),
            _ => None,
        },
        Filter::Test(Column::PeerSn, asked) => match asked {
            Test::Text(Comparison::Equal, text) => Some(peers(text, state)),
            Test::TextIn(texts) if texts.len() <= PEERS_MAX => {
                Some(texts.iter().flat_map(|text| peers(text, state)).collect())
            }
            _ => None,
        },
        Filter::Test(Column::Slots, Test::Contains(Contained(patterns))) => {
            let mut named = patterns.iter().filter_map(|pattern| pattern.peer.as_ref());
            let peer = named.find_map(Option::as_deref)?;
            Some(peers(peer, state))
        }
        _ => None,
    }
}

fn peers(serial_number: &str, state: &State) -> BTreeSet<Box<str>> {
    let slots = state.lookup(serial_number).map(|widget| widget.slots);
    let peers = slots.into_iter().flatten().filter_map(|slot| slot.peer);
    peers.map(|peer| (&*peer).into()).collect()
}

type Bounds = (Bound<Box<str>>, Bound<Box<str>>);

/// Returns bounds for the serial numbers of all widgets that pass the filter.
fn bounds(filter: &Filter) -> Bounds {
    match filter {
        Filter::All(filters) => {
            let all = filters.iter().map(bounds);
            all.fold((Unbounded, Unbounded), |(lower, upper), (l, u)| {
                (
                    tighter(lower, l, |one, other| one >= other),
                    tighter(upper, u, |one, other| one <= other),
                )
            })
        }
        Filter::Any(filters) => {
            let any = filters.iter().map(bounds);
            let hull = any.reduce(|(lower, upper), (l, u)| {
                (
                    looser(lower, l, |one, other| one <= other),
                    looser(upper, u, |one, other| one >= other),
                )
            });
            hull.unwrap_or((Unbounded, Unbounded))
        }
        Filter::Test(Column::SerialNumber | Column::WidgetSn, test) => test_bounds(test),
        _ => (Unbounded, Unbounded),
    }
}

fn test_bounds(asked: &Test) -> Bounds {
    match asked {
        Test::Text(comparison, text) => {
            let text = text.clone();
            match comparison {
                Comparison::Equal => (Included(text.clone()), Included(text)),
                Comparison::NotEqual => (Unbounded, Unbounded),
                Comparison::Greater => (Excluded(text), Unbounded),
                Comparison::GreaterOrEqual => (Included(text), Unbounded),
                Comparison::Less => (Unbounded, Excluded(text)),
                Comparison::LessOrEqual => (Unbounded, Included(text)),
            }
        }
        Test::Like(pattern) => {
            let (prefix, _) = pattern.prefix();
            let Ok(text) = std::str::from_utf8(prefix) else {
                return (Unbounded, Unbounded);
            };
            let upper = after_prefix(prefix).map_or(Unbounded, |after| Excluded(after.into()));
            (Included(text.into()), upper)
        }
        _ => (Unbounded, Unbounded),
    }
}

/// Returns the least text that is greater than all texts with this prefix, if there is one.
fn after_prefix(prefix: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(prefix).ok()?;
    let mut characters = text.chars();
    let last = characters.next_back()?;
    let next = match u32::from(last) + 1 {
        // The surrogates are not characters.
        0xd800 => 0xe000,
        next => next,
    };
    let mut after = characters.as_str().to_owned();
    after.push(char::from_u32(next)?);
    Some(after)
}

/// Returns the bound that excludes more. `is_tighter` compares two texts; of two bounds with the
/// same text, the excluding one is tighter.
fn tighter(
    one: Bound<Box<str>>,
    other: Bound<Box<str>>,
    is_tighter: impl Fn(&str, &str) -> bool,
) -> Bound<Box<str>> {
    match (text(&one), text(&other)) {
        (_, None) => one,
        (Some(a), Some(b)) if a == b => match one {
            Excluded(_) => one,
            _ => other,
        },
        (Some(a), Some(b)) if is_tighter(a, b) => one,
        _ => other,
    }
}

/// Returns the bound that excludes less.
fn looser(
    one: Bound<Box<str>>,
    other: Bound<Box<str>>,
    is_looser: impl Fn(&str, &str) -> bool,
) -> Bound<Box<str>> {
    match (text(&one), text(&other)) {
        (None, _) | (_, None) => Unbounded,
        (Some(a), Some(b)) if a == b => match one {
            Included(_) => one,
            _ => other,
        },
        (Some(a), Some(b)) if is_looser(a, b) => one,
        _ => other,
    }
}

fn text(bound: &Bound<Box<str>>) -> Option<&str> {
    match bound {
        Included(text) | Excluded(text) => Some(text),
        Unbounded => None,
    }
}
