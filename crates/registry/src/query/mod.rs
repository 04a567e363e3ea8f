//! What is asked for: lists of widgets and of slots, and neighbourhoods.
//!
//! A [`List`] says which rows of a table, in which order, and which part of them. [`Filter`] decides
//! purely whether a row is among them, as PostgreSQL would with the collation "C": every store and
//! every test shares it. How it is spelled in a request is not known here.

mod contained;
mod filter;
mod neighbourhood;
mod pattern;

pub use contained::{Contained, SlotPattern};
pub use filter::{Comparison, Filter, Row, Test, Value};
pub use neighbourhood::{
    Association, DEPTH_MAX, DEPTH_MIN, Neighbourhood, NeighbourhoodQuery, neighbourhood,
};
pub use pattern::Pattern;

use crate::{Ordinal, Port, SerialNumber, Widget};

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Every widget is a row; ordered by serial number.
    Widgets,
    /// Every slot of every widget is a row; ordered by its widget's serial number, then by ordinal.
    Slots,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 2] = [Self::Widgets, Self::Slots];

    /// Its name, as in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Widgets => "widgets",
            Self::Slots => "slots",
        }
    }

    /// Its columns in their order.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Widgets => &[Column::SerialNumber, Column::Name, Column::Slots],
            Self::Slots => &[
                Column::WidgetSn,
                Column::Ordinal,
                Column::Port,
                Column::PeerSn,
            ],
        }
    }

    /// The columns that it is ordered by.
    #[must_use]
    pub const fn order(self) -> &'static [Column] {
        match self {
            Self::Widgets => &[Column::SerialNumber],
            Self::Slots => &[Column::WidgetSn, Column::Ordinal],
        }
    }

    /// The column of this name.
    #[must_use]
    pub fn column(self, name: &str) -> Option<Column> {
        let mut columns = self.columns().iter().copied();
        columns.find(|column| column.as_str() == name)
    }
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// A widget's serial number.
    SerialNumber,
    /// A widget's name.
    Name,
    /// A widget's slots, one array.
    Slots,
    /// The serial number of a slot's widget.
    WidgetSn,
    /// Which slot of its widget, from 1.
    Ordinal,
    /// A slot's port type.
    Port,
    /// The serial number of the widget at the other end, null while the slot is free.
    PeerSn,
}

impl Column {
    /// Its name, as in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SerialNumber => "serial_number",
            Self::Name => "name",
            Self::Slots => "slots",
            Self::WidgetSn => "widget_sn",
            Self::Ordinal => "ordinal",
            Self::Port => "port",
            Self::PeerSn => "peer_sn",
        }
    }
}

/// The sense of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Least first.
    #[default]
    Ascending,
    /// Greatest first.
    Descending,
}

/// Who asks, so that nobody takes all there is of something: equal ones are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asker(pub u64);

impl Asker {
    /// How many of so many one asker may have: others always find a quarter, and one of more than one.
    #[must_use]
    pub const fn share(all: usize) -> usize {
        match all {
            0 | 1 => all,
            2..=3 => all - 1,
            _ => all - all / 4,
        }
    }
}

/// A part of the rows that a filter lets through, all as they are at one moment after it was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// Of which table.
    pub table: Table,
    /// Which rows.
    pub filter: Filter,
    /// In which sense of the table's order.
    pub direction: Direction,
    /// So many rows are left out at the beginning.
    pub offset: u64,
    /// And at most so many come then.
    pub limit: u32,
    /// Whether all rows that the filter lets through are counted.
    pub count: bool,
    /// Who asks.
    pub asker: Asker,
}

/// The answer to a [`List`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The rows that were asked for.
    pub rows: Rows,
    /// How many rows the filter lets through, if that was asked for.
    pub total: Option<u64>,
    /// How many rows were looked at.
    pub scanned: u64,
}

impl Page {
    /// Of a table that has no rows.
    #[must_use]
    pub fn empty(list: &List) -> Self {
        Self {
            rows: Rows::none(list.table),
            total: list.count.then_some(0),
            scanned: 0,
        }
    }
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Of [`Table::Widgets`].
    Widgets(Vec<Widget>),
    /// Of [`Table::Slots`].
    Slots(Vec<SlotRow>),
}

impl Rows {
    /// None of this table.
    #[must_use]
    pub const fn none(table: Table) -> Self {
        match table {
            Table::Widgets => Self::Widgets(Vec::new()),
            Table::Slots => Self::Slots(Vec::new()),
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Widgets(rows) => rows.len(),
            Self::Slots(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A slot with its widget and its place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRow {
    /// The widget that has it.
    pub widget_sn: SerialNumber,
    /// Its place among that widget's slots.
    pub ordinal: Ordinal,
    /// Its type.
    pub port: Port,
    /// The widget at the other end, if there is one.
    pub peer_sn: Option<SerialNumber>,
}

impl SlotRow {
    /// Every slot of a widget, in order.
    pub fn of(widget: &Widget) -> impl Iterator<Item = Self> + '_ {
        (0..).zip(&widget.slots).filter_map(|(index, slot)| {
            Some(Self {
                widget_sn: widget.serial_number.clone(),
                ordinal: Ordinal::new(index)?,
                port: slot.port,
                peer_sn: slot.peer.clone(),
            })
        })
    }
}
