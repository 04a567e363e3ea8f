//! Which rows: a tree of conditions with the three-valued logic of SQL, in which null makes a
//! condition unknown.

use super::{Column, Contained, Pattern, SlotRow};
use crate::Widget;
use std::{cmp::Ordering, collections::BTreeSet};

/// A condition on a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these. If there are none, every row matches.
    All(Vec<Filter>),
    /// At least one of these. If there are none, no row matches.
    Any(Vec<Filter>),
    /// The opposite. Unknown stays unknown.
    Not(Box<Filter>),
    /// A test of one column's value.
    Test(Column, Test),
}

/// A test of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Text, compared by bytes.
    Text(Comparison, Box<str>),
    /// A number, compared by value.
    Number(Comparison, i32),
    /// One of these texts.
    TextIn(BTreeSet<Box<str>>),
    /// One of these numbers.
    NumberIn(Vec<i32>),
    /// Text that matches a pattern.
    Like(Pattern),
    /// Null.
    Null,
    /// Slots that contain this.
    Contains(Contained),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `eq`
    Equal,
    /// `neq`
    NotEqual,
    /// `gt`
    Greater,
    /// `gte`
    GreaterOrEqual,
    /// `lt`
    Less,
    /// `lte`
    LessOrEqual,
}

impl Comparison {
    /// Reports whether the comparison holds for two values in this order.
    #[must_use]
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// None.
    Null,
    /// Text, or the name of a port type.
    Text(&'a str),
    /// A number.
    Number(i32),
}

/// A row of a table, as filters see it.
pub trait Row {
    /// Returns the value of a column of its table; null for any other column, and for slots.
    fn value(&self, column: Column) -> Value<'_>;

    /// Reports whether its slots, if it has that column, contain this.
    fn contains(&self, contained: &Contained) -> bool;
}

impl Filter {
    /// Matches every row.
    pub const EVERYTHING: Self = Self::All(Vec::new());

    /// Reports whether the row matches. Unknown does not.
    pub fn matches(&self, row: &impl Row) -> bool {
        self.decide(row) == Some(true)
    }

    /// Returns `None` if the result is unknown.
    fn decide(&self, row: &impl Row) -> Option<bool> {
        match self {
            Self::All(filters) => decide_all(filters, row, true),
            Self::Any(filters) => decide_all(filters, row, false),
            Self::Not(filter) => filter.decide(row).map(|known| !known),
            Self::Test(_, Test::Contains(contained)) => Some(row.contains(contained)),
            Self::Test(column, test) => test.decide(row.value(*column)),
        }
    }

    /// Returns how many bytes of text it has.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().map(Self::text_bytes).sum(),
            Self::Not(filter) => filter.text_bytes(),
            Self::Test(_, test) => match test {
                Test::Text(_, wanted) => wanted.len(),
                Test::TextIn(wanted) => wanted.iter().map(|each| each.len()).sum(),
                Test::Like(pattern) => pattern.as_str().len(),
                Test::Contains(Contained(patterns)) => {
                    let peers = patterns.iter().filter_map(|pattern| pattern.peer.as_ref());
                    peers.flatten().map(|peer| peer.len()).sum()
                }
                Test::Number(..) | Test::NumberIn(_) | Test::Null => 0,
            },
        }
    }

    /// Estimates the cost of deciding it, in comparisons.
    #[must_use]
    pub fn cost(&self) -> usize {
        match self {
            Self::All(filters) | Self::Any(filters) => {
                filters.iter().map(Self::cost).sum::<usize>() + 1
            }
            Self::Not(filter) => filter.cost(),
            Self::Test(_, Test::Like(pattern)) => pattern.cost(),
            Self::Test(_, Test::Contains(Contained(patterns))) => 1 + patterns.len(),
            Self::Test(_, Test::NumberIn(numbers)) => 1 + numbers.len() / 8,
            Self::Test(..) => 1,
        }
    }

    /// Reports whether deciding it may cost much more than [`Self::cost`].
    #[must_use]
    pub fn strains(&self) -> bool {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().any(Self::strains),
            Self::Not(filter) => filter.strains(),
            Self::Test(_, Test::Like(pattern)) => pattern.strains(),
            Self::Test(..) => false,
        }
    }

    /// Estimates what deciding it for this row may cost beyond [`Self::cost`], in comparisons: a
    /// pattern can make many attempts at a long text.
    pub fn strain(&self, row: &impl Row) -> usize {
        match self {
            Self::All(filters) | Self::Any(filters) => {
                filters.iter().map(|each| each.strain(row)).sum()
            }
            Self::Not(filter) => filter.strain(row),
            Self::Test(column, Test::Like(pattern)) => match row.value(*column) {
                Value::Text(text) => pattern.strain(text.len()),
                Value::Null | Value::Number(_) => 0,
            },
            Self::Test(..) => 0,
        }
    }
}

/// Decides "all" if `sought` is true, and "any" otherwise: the first result known to be different
/// from `sought` decides.
fn decide_all(filters: &[Filter], row: &impl Row, sought: bool) -> Option<bool> {
    let mut all = Some(sought);
    for filter in filters {
        match filter.decide(row) {
            Some(known) if known == sought => {}
            Some(otherwise) => return Some(otherwise),
            None => all = None,
        }
    }
    all
}

impl Test {
    fn decide(&self, value: Value<'_>) -> Option<bool> {
        match self {
            Self::Null => return Some(value == Value::Null),
            // Even an unknown value is in no empty set.
            Self::TextIn(wanted) if wanted.is_empty() => return Some(false),
            Self::NumberIn(wanted) if wanted.is_empty() => return Some(false),
            _ => {}
        }
        match (self, value) {
            (Self::Text(comparison, wanted), Value::Text(text)) => {
                Some(comparison.holds(text.cmp(wanted)))
            }
            (Self::TextIn(wanted), Value::Text(text)) => Some(wanted.contains(text)),
            (Self::Like(pattern), Value::Text(text)) => Some(pattern.matches(text)),
            (Self::Like(pattern), Value::Number(number)) => {
                Some(pattern.matches(&number.to_string()))
            }
            (Self::Number(comparison, wanted), Value::Number(number)) => {
                Some(comparison.holds(number.cmp(wanted)))
            }
            (Self::NumberIn(wanted), Value::Number(number)) => Some(wanted.contains(&number)),
            _ => None,
        }
    }
}

impl Row for Widget {
    fn value(&self, column: Column) -> Value<'_> {
        match column {
            Column::SerialNumber => Value::Text(&self.serial_number),
            Column::Name => Value::Text(&self.name),
            _ => Value::Null,
        }
    }

    fn contains(&self, contained: &Contained) -> bool {
        let slots = self.slots.iter();
        contained.is_in(&slots.map(|slot| (slot.port, slot.peer.as_deref())))
    }
}

impl Row for SlotRow {
    fn value(&self, column: Column) -> Value<'_> {
        match column {
            Column::WidgetSn => Value::Text(&self.widget_sn),
            Column::Ordinal => Value::Number(i32::from(self.ordinal.get()) + 1),
            Column::Port => Value::Text(self.port.as_str()),
            Column::PeerSn => self.peer_sn.as_deref().map_or(Value::Null, Value::Text),
            _ => Value::Null,
        }
    }

    fn contains(&self, _: &Contained) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, Ordinal, Port, SerialNumber, Slot, query::SlotPattern};

    fn sn(text: &str) -> SerialNumber {
        SerialNumber::new("sn", text).expect("within the limits")
    }

    fn eq(column: Column, text: &str) -> Filter {
        Filter::Test(column, Test::Text(Comparison::Equal, text.into()))
    }

    fn not(filter: Filter) -> Filter {
        Filter::Not(Box::new(filter))
    }

    #[test]
    fn filters_use_three_valued_logic_for_null() {
        let free = SlotRow {
            widget_sn: sn("E"),
            ordinal: Ordinal::new(0).expect("an ordinal"),
            port: Port::P,
            peer_sn: None,
        };
        let unknown = || eq(Column::PeerSn, "F");
        let (yes, no) = (eq(Column::Port, "P"), eq(Column::Port, "Q"));
        let cases = [
            (unknown(), false),
            (not(unknown()), false),
            (Filter::Any(vec![unknown(), yes.clone()]), true),
            (Filter::Any(vec![unknown(), no.clone()]), false),
            (not(Filter::Any(vec![unknown(), no.clone()])), false),
            (not(Filter::All(vec![unknown(), no.clone()])), true),
            (not(Filter::All(vec![unknown(), yes.clone()])), false),
            (Filter::All(vec![]), true),
            (Filter::Any(vec![]), false),
            (Filter::Test(Column::PeerSn, Test::Null), true),
            (not(Filter::Test(Column::PeerSn, Test::Null)), false),
            (
                Filter::Test(Column::Ordinal, Test::Number(Comparison::Less, 2)),
                true,
            ),
            (
                Filter::Test(Column::Ordinal, Test::NumberIn(vec![0, 2])),
                false,
            ),
        ];
        for (filter, expected) in cases {
            assert_eq!(filter.matches(&free), expected, "{filter:?}");
        }
    }

    #[test]
    fn slot_containment_follows_the_rules_of_jsonb() {
        let widget = Widget {
            serial_number: sn("E"),
            name: Name::new("name", "").expect("within the limits"),
            slots: vec![
                Slot {
                    port: Port::P,
                    peer: Some(sn("F")),
                },
                Slot {
                    port: Port::R,
                    peer: None,
                },
            ],
        };
        let slot = |port, peer: Option<Option<&str>>| SlotPattern {
            port,
            peer: peer.map(|peer| peer.map(Into::into)),
        };
        let contains = |patterns: Vec<SlotPattern>| {
            let contained = Contained(patterns);
            Filter::Test(Column::Slots, Test::Contains(contained)).matches(&widget)
        };
        assert!(contains(vec![]));
        assert!(contains(vec![slot(None, None), slot(None, None)]));
        assert!(contains(vec![slot(Some(Port::R), Some(None))]));
        assert!(!contains(vec![slot(Some(Port::P), Some(None))]));
        assert!(contains(vec![slot(None, Some(Some("F")))]));
        assert!(!contains(vec![slot(Some(Port::R), Some(Some("F")))]));
        assert!(!contains(vec![
            slot(Some(Port::P), None),
            slot(Some(Port::Q), None)
        ]));
    }
}
