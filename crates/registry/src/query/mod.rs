//! Queries: lists of widgets and of slots, and neighbourhoods.
//!
//! A [`List`] names the rows of a table, their order, and the part of them to return. [`Filter`]
//! decides as a pure function whether a row is among them, like PostgreSQL with the collation "C";
//! every store and every test shares it. The syntax of requests is not known here.

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
    /// Each widget is a row. Ordered by serial number.
    Widgets,
    /// Each slot of each widget is a row. Ordered by its widget's serial number, then by ordinal.
    Slots,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 2] = [Self::Widgets, Self::Slots];

    /// Returns its name, as in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Widgets => "widgets",
            Self::Slots => "slots",
        }
    }

    /// Returns its columns in order.
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

    /// Returns the columns that it is ordered by.
    #[must_use]
    pub const fn order(self) -> &'static [Column] {
        match self {
            Self::Widgets => &[Column::SerialNumber],
            Self::Slots => &[Column::WidgetSn, Column::Ordinal],
        }
    }

    /// Returns the column of this name.
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
    /// A widget's slots, as one array.
    Slots,
    /// The serial number of a slot's widget.
    WidgetSn,
    /// A slot's place in its widget, from 1.
    Ordinal,
    /// A slot's port type.
    Port,
    /// The serial number of the widget at the other end, null while the slot is free.
    PeerSn,
}

impl Column {
    /// Returns its name, as in requests.
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

/// The direction of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Least first.
    #[default]
    Ascending,
    /// Greatest first.
    Descending,
}

/// Who asks, so that nobody takes all of a shared resource. Equal values are the same asker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asker(pub u64);

impl Asker {
    /// Returns how many of `all` one asker may have. A quarter is always left for others, and at
    /// least one if there is more than one.
    #[must_use]
    pub const fn share(all: usize) -> usize {
        match all {
            0 | 1 => all,
            2..=3 => all - 1,
            _ => all - all / 4,
        }
    }
}

/// A query for a part of the rows that match a filter, all as they are at one moment after the
/// query began.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// The table.
    pub table: Table,
    /// Which rows match.
    pub filter: Filter,
    /// The direction of the table's order.
    pub direction: Direction,
    /// How many rows are skipped at the beginning.
    pub offset: u64,
    /// How many rows are returned at most.
    pub limit: u32,
    /// Whether all matching rows are counted.
    pub count: bool,
    /// Who asks.
    pub asker: Asker,
}

/// The answer to a [`List`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The requested rows.
    pub rows: Rows,
    /// The number of matching rows, if requested.
    pub total: Option<u64>,
    /// How many rows were examined.
    pub scanned: u64,
}

impl Page {
    /// Returns the page of a table without rows.
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
    /// Rows of [`Table::Widgets`].
    Widgets(Vec<Widget>),
    /// Rows of [`Table::Slots`].
    Slots(Vec<SlotRow>),
}

impl Rows {
    /// Returns no rows of this table.
    #[must_use]
    pub const fn none(table: Table) -> Self {
        match table {
            Table::Widgets => Self::Widgets(Vec::new()),
            Table::Slots => Self::Slots(Vec::new()),
        }
    }

    /// Returns the number of rows.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Widgets(rows) => rows.len(),
            Self::Slots(rows) => rows.len(),
        }
    }

    /// Reports whether there are none.
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
    /// Returns every slot of a widget, in order.
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
