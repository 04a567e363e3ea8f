//! Which widgets a list has to look at: as few as the indexes allow.
//!
//! A plan may name more widgets than the filter lets through, never fewer: the filter decides about
//! each one again. Only where the plan says that it is exact are widgets passed over or counted without
//! being looked at.

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
    /// Serial numbers outside of these are out of the question.
    pub(crate) lower: Bound<Box<str>>,
    pub(crate) upper: Bound<Box<str>>,
    /// Whether every widget of the source between the bounds is a row, and nothing else is.
    pub(crate) exact: bool,
}

/// Widgets in the order of serial numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// All of them, or those with a free slot of this port type.
    All(Option<Port>),
    /// Those with this name.
    Name(Box<str>),
    /// These, as far as they exist.
    SerialNumbers(BTreeSet<Box<str>>),
}

/// More peers are not looked up beforehand: the whole order is walked instead.
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

    /// Leaves out what is before the first and behind the last widget that there is now: what comes there
    /// later is out of the question.
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

    /// Whether a serial number is within the bounds.
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

/// What all have to hold.
fn conjuncts(filter: &Filter) -> Vec<&Filter> {
    match filter {
        Filter::All(filters) => filters.iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

/// Whether the filter says nothing but a bound of the serial number.
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

/// The port types of which a widget must have a free slot.
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

/// The widgets that are named by the filter: no other one can pass it.
fn serial_numbers(filter: &Filter, state: &State) -> Option<BTreeSet<Box<str>>> {
    match filter {
        // Any of them would do; the fewest are the best.
        Filter::All(filters) => {
            let named = filters
                .iter()
                .filter_map(|each| serial_numbers(each, state));
            named.min_by_key(BTreeSet::len)
        }
        Filter::Any(filters) => {
            let mut all = BTreeSet::new();
            for each in filters {
                all.append(&mut serial_numbers(each, state)?);
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

/// Bounds of the serial numbers of all that pass the filter.
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

/// The least text that is greater than all that begin with the prefix, where there is one.
fn after_prefix(prefix: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(prefix).ok()?;
    let mut characters = text.chars();
    let last = characters.next_back()?;
    let next = match u32::from(last) + 1 {
        // Between the surrogates there is no character.
        0xd800 => 0xe000,
        next => next,
    };
    let mut after = characters.as_str().to_owned();
    after.push(char::from_u32(next)?);
    Some(after)
}

/// The bound that leaves less. `is_tighter` says it of two texts; of the same text, the one that
/// excludes it.
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

/// The bound that leaves more.
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
