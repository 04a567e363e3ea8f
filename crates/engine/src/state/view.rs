//! Views of a widget for filters, which copy nothing.

use super::{Handle, Record, State};
use widgets_registry::{
    Ordinal, Port, SLOTS_MAX, SerialNumber, Widget,
    query::{Column, Contained, Row, SlotRow, Value},
};

/// A widget in the state.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    state: &'a State,
    record: &'a Record,
    handle: Handle,
}

/// A slot of a widget in the state.
#[derive(Clone, Copy)]
pub(crate) struct SlotView<'a> {
    widget_sn: &'a str,
    ordinal: Ordinal,
    port: Port,
    peer_sn: Option<&'a str>,
}

/// A widget from which a row of either table can be made.
pub(crate) trait Rowed: Row {
    /// Returns the widget's row.
    fn widget(&self) -> Widget;
    /// Returns the widget's slots, one after the other.
    fn slots(&self) -> [Option<SlotView<'_>>; SLOTS_MAX];
}

impl<'a> View<'a> {
    /// Returns a view of the widget in this record, which must not be vacant.
    pub(crate) fn of(state: &'a State, handle: Handle) -> Self {
        let record = state.record(handle);
        Self {
            state,
            record,
            handle,
        }
    }

    pub(crate) fn serial_number(&self) -> &'a str {
        self.record.serial_number()
    }

    fn peer(&self, ordinal: Ordinal) -> Option<&'a str> {
        let peer = self.record.peer(ordinal)?;
        Some(self.state.record(peer).serial_number())
    }
}

impl Row for View<'_> {
    fn value(&self, column: Column) -> Value<'_> {
        match column {
            Column::SerialNumber => Value::Text(self.record.serial_number()),
            Column::Name => Value::Text(self.record.name()),
            _ => Value::Null,
        }
    }

    fn contains(&self, contained: &Contained) -> bool {
        let slots = self.record.ports().iter();
        let slots: [_; SLOTS_MAX] = {
            let mut slots = slots.map(|(ordinal, port)| (port, self.peer(ordinal)));
            std::array::from_fn(|_| slots.next())
        };
        contained.is_in(&slots.into_iter().flatten())
    }
}

impl Rowed for View<'_> {
    fn widget(&self) -> Widget {
        match self.state.widget(self.handle) {
            Some(widget) => widget,
            None => unreachable!("a vacant record is in no order"),
        }
    }

    fn slots(&self) -> [Option<SlotView<'_>>; SLOTS_MAX] {
        let mut slots = self.record.ports().iter();
        std::array::from_fn(|_| {
            let (ordinal, port) = slots.next()?;
            Some(SlotView {
                widget_sn: self.record.serial_number(),
                ordinal,
                port,
                peer_sn: self.peer(ordinal),
            })
        })
    }
}

impl Rowed for Widget {
    fn widget(&self) -> Widget {
        self.clone()
    }

    fn slots(&self) -> [Option<SlotView<'_>>; SLOTS_MAX] {
        let mut slots = (0..).zip(&self.slots);
        std::array::from_fn(|_| {
            let (index, slot) = slots.next()?;
            Some(SlotView {
                widget_sn: &self.serial_number,
                ordinal: Ordinal::new(index)?,
                port: slot.port,
                peer_sn: slot.peer.as_deref(),
            })
        })
    }
}

impl SlotView<'_> {
    pub(crate) fn row(&self) -> SlotRow {
        let stored = |text| super::text(SerialNumber::new("serial_number", text));
        SlotRow {
            widget_sn: stored(self.widget_sn),
            ordinal: self.ordinal,
            port: self.port,
            peer_sn: self.peer_sn.map(stored),
        }
    }
}

impl Row for SlotView<'_> {
    fn value(&self, column: Column) -> Value<'_> {
        match column {
            Column::WidgetSn => Value::Text(self.widget_sn),
            Column::Ordinal => Value::Number(i32::from(self.ordinal.get()) + 1),
            Column::Port => Value::Text(self.port.as_str()),
            Column::PeerSn => self.peer_sn.map_or(Value::Null, Value::Text),
            _ => Value::Null,
        }
    }

    fn contains(&self, _: &Contained) -> bool {
        false
    }
}
