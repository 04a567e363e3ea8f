//! Random lists, and a second statement of what each of them must show.
//!
//! This module uses no code of [`widgets_registry::query`] that decides anything: truth values are
//! ordered from false to true and combined by minimum and maximum, patterns are matched character
//! by character, and every page is cut out of all rows.

use crate::Model;
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};
use std::collections::BTreeSet;
use widgets_registry::{
    Port, SerialNumber, Widget,
    query::{
        Asker, Column, Comparison, Contained, Direction, Filter, List, Neighbourhood,
        NeighbourhoodQuery, Pattern, Rows, SlotPattern, SlotRow, Table, Test,
    },
};

/// The truth value of a condition, in ascending order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    False,
    Unknown,
    True,
}

/// A value: text, a number, or null.
enum Cell {
    Null,
    Text(String),
    Number(i64),
}

/// A row as its cells by column, and all slots of a widget.
struct Line {
    cells: Vec<(Column, Cell)>,
    slots: Vec<(Port, Option<String>)>,
}

fn widget_line(widget: &Widget) -> Line {
    Line {
        cells: vec![
            (
                Column::SerialNumber,
                Cell::Text(widget.serial_number.to_string()),
            ),
            (Column::Name, Cell::Text(widget.name.to_string())),
        ],
        slots: (widget.slots.iter())
            .map(|slot| (slot.port, slot.peer.as_ref().map(ToString::to_string)))
            .collect(),
    }
}

fn slot_line(row: &SlotRow) -> Line {
    let peer = row.peer_sn.as_ref();
    Line {
        cells: vec![
            (Column::WidgetSn, Cell::Text(row.widget_sn.to_string())),
            (
                Column::Ordinal,
                Cell::Number(i64::from(row.ordinal.get()) + 1),
            ),
            (Column::Port, Cell::Text(row.port.to_string())),
            (
                Column::PeerSn,
                peer.map_or(Cell::Null, |peer| Cell::Text(peer.to_string())),
            ),
        ],
        slots: Vec::new(),
    }
}

fn truth(filter: &Filter, line: &Line) -> Truth {
    match filter {
        Filter::All(filters) => {
            let all = filters.iter().map(|each| truth(each, line));
            all.min().unwrap_or(Truth::True)
        }
        Filter::Any(filters) => {
            let any = filters.iter().map(|each| truth(each, line));
            any.max().unwrap_or(Truth::False)
        }
        Filter::Not(filter) => match truth(filter, line) {
            Truth::False => Truth::True,
            Truth::Unknown => Truth::Unknown,
            Truth::True => Truth::False,
        },
        Filter::Test(Column::Slots, Test::Contains(contained)) => {
            known(contains(&line.slots, contained))
        }
        Filter::Test(column, test) => {
            let cell = line.cells.iter().find(|(each, _)| each == column);
            test_truth(test, &cell.expect("a column of the table").1)
        }
    }
}

fn known(is_so: bool) -> Truth {
    if is_so { Truth::True } else { Truth::False }
}

fn test_truth(asked: &Test, cell: &Cell) -> Truth {
    if matches!(asked, Test::Null) {
        return known(matches!(cell, Cell::Null));
    }
    // No value is in an empty set, not even an unknown one.
    let of_none = match asked {
        Test::TextIn(wanted) => wanted.is_empty(),
        Test::NumberIn(wanted) => wanted.is_empty(),
        _ => false,
    };
    if of_none {
        return Truth::False;
    }
    let text = match cell {
        Cell::Null => return Truth::Unknown,
        Cell::Text(text) => text.clone(),
        Cell::Number(number) => number.to_string(),
    };
    let number = || match cell {
        Cell::Number(number) => *number,
        _ => panic!("{asked:?} is asked of text"),
    };
    known(match asked {
        Test::Text(comparison, wanted) => {
            let wanted = wanted.as_bytes();
            compare(
                *comparison,
                text.as_bytes() < wanted,
                text.as_bytes() == wanted,
            )
        }
        Test::Number(comparison, wanted) => {
            let wanted = i64::from(*wanted);
            compare(*comparison, number() < wanted, number() == wanted)
        }
        Test::TextIn(wanted) => wanted.iter().any(|each| **each == text),
        Test::NumberIn(wanted) => wanted.iter().any(|each| i64::from(*each) == number()),
        Test::Like(pattern) => {
            let fold = |text: &str| -> Vec<char> {
                let characters = text.chars();
                if pattern.ignores_case() {
                    characters.map(|each| each.to_ascii_lowercase()).collect()
                } else {
                    characters.collect()
                }
            };
            like(&fold(pattern.as_str()), &fold(&text))
        }
        Test::Null | Test::Contains(_) => panic!("{asked:?} is asked of one value"),
    })
}

fn compare(comparison: Comparison, is_less: bool, is_equal: bool) -> bool {
    match comparison {
        Comparison::Equal => is_equal,
        Comparison::NotEqual => !is_equal,
        Comparison::Less => is_less,
        Comparison::LessOrEqual => is_less || is_equal,
        Comparison::Greater => !is_less && !is_equal,
        Comparison::GreaterOrEqual => !is_less,
    }
}

/// Tracks which lengths of the text the pattern so far can match. Trying every part of the text at
/// each `%` would take for ever with many of them.
fn like(mut pattern: &[char], text: &[char]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    loop {
        let (wanted, rest) = match pattern {
            [] => return reached[text.len()],
            ['%', rest @ ..] => {
                let first = reached.iter().position(|&is| is);
                if let Some(first) = first {
                    reached[first..].fill(true);
                }
                pattern = rest;
                continue;
            }
            ['_', rest @ ..] => (None, rest),
            ['\\', wanted, rest @ ..] | [wanted, rest @ ..] => (Some(wanted), rest),
        };
        for place in (0..text.len()).rev() {
            reached[place + 1] = reached[place] && wanted.is_none_or(|it| *it == text[place]);
        }
        reached[0] = false;
        pattern = rest;
    }
}

fn contains(slots: &[(Port, Option<String>)], contained: &Contained) -> bool {
    let Contained(patterns) = contained;
    let is_one = |pattern: &SlotPattern| {
        let mut found = false;
        for (port, peer) in slots {
            let same_port = pattern.port.is_none() || pattern.port == Some(*port);
            let same_peer = match &pattern.peer {
                None => true,
                Some(None) => peer.is_none(),
                Some(Some(wanted)) => peer.as_deref() == Some(&**wanted),
            };
            found |= same_port && same_peer;
        }
        found
    };
    patterns.iter().all(is_one)
}

impl Model {
    /// Returns all widgets, sorted.
    fn widgets(&self) -> Vec<Widget> {
        let widgets = self.serial_numbers().filter_map(|each| self.lookup(each));
        widgets.collect()
    }

    /// Returns the page that the list asks for, and the total number of rows.
    #[must_use]
    pub fn list(&self, list: &List) -> (Rows, u64) {
        let lets_through = |line: &Line| truth(&list.filter, line) == Truth::True;
        let offset = usize::try_from(list.offset).expect("a small offset");
        let limit = list.limit as usize;
        match list.table {
            Table::Widgets => {
                let widgets = self.widgets().into_iter();
                let rows = widgets.filter(|widget| lets_through(&widget_line(widget)));
                let (rows, total) = cut(rows.collect(), list.direction, offset, limit);
                (Rows::Widgets(rows), total)
            }
            Table::Slots => {
                let widgets = self.widgets();
                let rows = widgets.iter().flat_map(SlotRow::of);
                let rows = rows.filter(|row| lets_through(&slot_line(row)));
                let (rows, total) = cut(rows.collect(), list.direction, offset, limit);
                (Rows::Slots(rows), total)
            }
        }
    }

    /// Returns the neighbourhood, computed from the distances of all widgets.
    #[must_use]
    pub fn neighbourhood(&self, query: &NeighbourhoodQuery) -> Option<Neighbourhood> {
        self.lookup(&query.serial_number)?;
        let mut near: Vec<BTreeSet<SerialNumber>> = vec![[query.serial_number.clone()].into()];
        for _ in 0..query.depth {
            let known: BTreeSet<SerialNumber> = near.iter().flatten().cloned().collect();
            let pairs = self
                .pairs()
                .flat_map(|[one, other]| [(one, other), (other, one)]);
            let next = pairs.filter(|(one, other)| known.contains(*one) && !known.contains(*other));
            near.push(next.map(|(_, other)| other.clone()).collect());
        }
        let all: Vec<SerialNumber> = near.into_iter().flatten().collect();
        let truncated = all.len() > query.widgets_max as usize;
        let shown = all.into_iter().take(query.widgets_max as usize);
        let shown: Vec<Widget> = shown.filter_map(|each| self.lookup(&each)).collect();
        let mut associations = Vec::new();
        for widget in &shown {
            for slot in &widget.slots {
                let peer = shown
                    .iter()
                    .find(|other| Some(&other.serial_number) == slot.peer.as_ref());
                if let Some(peer) = peer
                    && widget.serial_number < peer.serial_number
                {
                    associations.push(widgets_registry::query::Association {
                        widget1_sn: widget.serial_number.clone(),
                        widget2_sn: peer.serial_number.clone(),
                        port: slot.port,
                    });
                }
            }
        }
        associations.sort();
        Some(Neighbourhood {
            widgets: shown,
            associations,
            truncated,
        })
    }
}

fn cut<T>(mut rows: Vec<T>, direction: Direction, offset: usize, limit: usize) -> (Vec<T>, u64) {
    let total = rows.len() as u64;
    if direction == Direction::Descending {
        rows.reverse();
    }
    (rows.into_iter().skip(offset).take(limit).collect(), total)
}

/// Generates lists that mostly concern these texts: existing serial numbers and names. Unless the
/// caller adds a filter, a list shows everything that the store holds.
pub fn lists(texts: Vec<String>) -> impl Strategy<Value = List> + use<> {
    select(&Table::ALL[..]).prop_flat_map(move |table| {
        let direction = select(&[Direction::Ascending, Direction::Descending][..]);
        let offset = prop_oneof![3 => Just(0), 1 => 0u64..6];
        let limit = prop_oneof![1 => 0u32..4, 2 => 4u32..40];
        (
            filters(table, &texts),
            direction,
            offset,
            limit,
            any::<bool>(),
        )
            .prop_map(move |(filter, direction, offset, limit, count)| List {
                table,
                filter,
                direction,
                offset,
                limit,
                count,
                asker: Asker::default(),
            })
    })
}

/// Generates filters of a table.
fn filters(table: Table, texts: &[String]) -> BoxedStrategy<Filter> {
    let text = prop_oneof![8 => select(texts.to_vec()), 1 => "[a-z0-9]{0,3}"];
    let text = text.prop_map(String::into_boxed_str).boxed();
    let leaves: Vec<BoxedStrategy<Filter>> = table
        .columns()
        .iter()
        .map(|&column| {
            tests(column, &text)
                .prop_map(move |test| Filter::Test(column, test))
                .boxed()
        })
        .collect();
    let leaf = proptest::strategy::Union::new(leaves);
    let tree = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Filter::All),
            vec(inner.clone(), 0..4).prop_map(Filter::Any),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    });
    prop_oneof![1 => Just(Filter::EVERYTHING), 8 => tree].boxed()
}

fn comparisons() -> impl Strategy<Value = Comparison> {
    select(
        &[
            Comparison::Equal,
            Comparison::NotEqual,
            Comparison::Greater,
            Comparison::GreaterOrEqual,
            Comparison::Less,
            Comparison::LessOrEqual,
        ][..],
    )
}

fn tests(column: Column, text: &BoxedStrategy<Box<str>>) -> BoxedStrategy<Test> {
    let like = patterns(text).prop_map(Test::Like);
    match column {
        Column::Slots => {
            let peer = option::of(option::of(text.clone()));
            let pattern = (option::of(select(&Port::ALL[..])), peer)
                .prop_map(|(port, peer)| SlotPattern { port, peer });
            vec(pattern, 0..3)
                .prop_map(|patterns| Test::Contains(Contained(patterns)))
                .boxed()
        }
        Column::Ordinal => prop_oneof![
            (comparisons(), -1..5)
                .prop_map(|(comparison, number)| Test::Number(comparison, number)),
            vec(0..5, 0..3).prop_map(Test::NumberIn),
            Just(Test::Null),
            select(&["1", "%", "_", "2%"][..])
                .prop_map(|text| Test::Like(Pattern::new(text, false).expect("a pattern"))),
        ]
        .boxed(),
        Column::Port => {
            let ports = Port::ALL.map(Port::as_str);
            prop_oneof![
                (comparisons(), select(ports.to_vec()))
                    .prop_map(|(comparison, port)| Test::Text(comparison, port.into())),
                subsequence(ports.to_vec(), 0..=3)
                    .prop_map(|some| Test::TextIn(some.into_iter().map(Into::into).collect())),
                Just(Test::Null),
                Just(Test::Like(Pattern::new("r", true).expect("a pattern"))),
            ]
            .boxed()
        }
        Column::SerialNumber | Column::Name | Column::WidgetSn | Column::PeerSn => prop_oneof![
            3 => (comparisons(), text.clone())
                .prop_map(|(comparison, text)| Test::Text(comparison, text)),
            2 => vec(text.clone(), 0..4).prop_map(|some| Test::TextIn(some.into_iter().collect())),
            1 => Just(Test::Null),
            2 => like,
        ]
        .boxed(),
    }
}

/// Generates patterns: texts in which some characters have become wildcards.
fn patterns(text: &BoxedStrategy<Box<str>>) -> impl Strategy<Value = Pattern> + use<> {
    let kinds = select(&["", "%", "_", "x"][..]);
    (text.clone(), vec(kinds, 1..6), any::<bool>()).prop_map(|(text, kinds, ignore_case)| {
        let mut pattern = String::new();
        let count = text.chars().count();
        for (place, character) in text.chars().enumerate() {
            // The beginning is kept more often, because it is what serial numbers have in common.
            let kind = kinds[place % kinds.len()];
            match kind {
                "%" | "_" if place * 2 > count => pattern.push_str(kind),
                _ => {
                    if ['%', '_', '\\'].contains(&character) {
                        pattern.push('\\');
                    }
                    pattern.push(character);
                }
            }
        }
        pattern.push_str(if kinds.len() > 2 { "%" } else { "" });
        Pattern::new(&pattern, ignore_case).expect("no escape of nothing")
    })
}
