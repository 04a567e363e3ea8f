//! Chooses the next request: by the mix, from the existing widgets, with deliberate conflicts.

use super::{Action, Misshapen, Partition, Plan, WidgetId, table::Record};
use crate::{dataset, mix::Kind};
use std::io::Write as _;
use widgets_registry::{NAME_BYTES_MAX, Port};

/// How often a random choice is repeated before another request is sent instead.
const ATTEMPTS_MAX: usize = 16;

/// The probability that an addition reuses a removed serial number.
const REUSE: f64 = 0.1;

impl Partition {
    /// Chooses the next request, and appends its path to `path` and its body to `body` (lookups and
    /// lists have none).
    ///
    /// If the partition cannot provide what the mix demands (for example, an association while no
    /// slot is free), a widget is added instead; the report shows what was really sent.
    pub(crate) fn plan(&mut self, path: &mut String, body: &mut Vec<u8>) -> Plan {
        let kind = self.mix.choose(self.random.below(self.mix.total()));
        let conflict = self.random.chance(self.conflicts);
        let action = match kind {
            Kind::AddWidget if conflict => Some(self.conflicting_add()),
            Kind::RemoveWidget if conflict => Some(Action::Remove(self.absent())),
            Kind::AssociateWidgets if conflict => self.conflicting_associate(),
            Kind::RemoveAssociation if conflict => self.conflicting_dissociate(),
            Kind::Lookup if conflict => Some(Action::Lookup(self.absent())),
            Kind::AddWidget => None,
            Kind::RemoveWidget => self.removable().map(Action::Remove),
            Kind::AssociateWidgets => self.open_pair(),
            Kind::RemoveAssociation => self
                .association()
                .map(|(one, two, port)| Action::Dissociate(one, two, port)),
            Kind::Lookup => self.live().map(Action::Lookup),
            Kind::List => self.list().map(Action::List),
        };
        let action = action.unwrap_or_else(|| self.add());
        let plan = Plan {
            kind: action.kind(),
            action,
            expected: self.predict(action),
        };
        self.write(action, path, body);
        plan
    }

    fn add(&mut self) -> Action {
        let reused = if self.random.chance(REUSE) {
            self.removed()
        } else {
            None
        };
        let id = reused.unwrap_or_else(|| self.table.fresh());
        if reused.is_some()
            && let Some(record) = self.table.get_mut(id)
        {
            record.next_generation();
        }
        Action::Add(id, dataset::ports(&mut self.random))
    }

    fn conflicting_add(&mut self) -> Action {
        if self.random.chance(0.5)
            && let Some(id) = self.live()
        {
            return Action::Add(id, dataset::ports(&mut self.random));
        }
        let how = match self.random.below(3) {
            0 => Misshapen::TooManySlots,
            1 => Misshapen::PortUnknown,
            _ => Misshapen::NameTooLong,
        };
        let id = self.never_added();
        Action::AddMisshapen(id, how)
    }

    fn conflicting_associate(&mut self) -> Option<Action> {
        let port = self.port();
        let one = self.live()?;
        match self.random.below(4) {
            0 => Some(Action::Associate(one, one, port)),
            1 => {
                let (absent, swap) = (self.absent(), self.random.chance(0.5));
                let (one, two) = if swap { (absent, one) } else { (one, absent) };
                Some(Action::Associate(one, two, port))
            }
            2 => {
                let (one, two, port) = self.association()?;
                Some(Action::Associate(one, two, port))
            }
            // Uses a port type of which the first widget has no free slot.
            _ => {
                let record = self.table.get(one)?;
                let full = Port::ALL
                    .into_iter()
                    .find(|&port| record.free_slot(port).is_none())?;
                Some(Action::Associate(one, self.live()?, full))
            }
        }
    }

    fn conflicting_dissociate(&mut self) -> Option<Action> {
        let (one, port) = (self.live()?, self.port());
        let two = match self.random.below(3) {
            0 => self.absent(),
            1 => one,
            // The two are mostly not associated. If they are, acceptance is predicted.
            _ => self.live()?,
        };
        Some(Action::Dissociate(one, two, port))
    }

    fn port(&mut self) -> Port {
        match self.random.below(3) {
            0 => Port::P,
            1 => Port::Q,
            _ => Port::R,
        }
    }

    /// Returns the widget's record, if it exists and may be named.
    fn usable(&self, id: WidgetId) -> Option<&Record> {
        let record = self.table.get(id)?;
        (record.live() && !record.quarantined()).then_some(record)
    }

    /// Returns a random existing widget.
    fn live(&mut self) -> Option<WidgetId> {
        for _ in 0..ATTEMPTS_MAX {
            let id = self.table.any(&mut self.random)?;
            if self.usable(id).is_some() {
                return Some(id);
            }
        }
        None
    }

    /// Returns a random widget whose removal affects no widget of unknown state.
    fn removable(&mut self) -> Option<WidgetId> {
        let id = self.live()?;
        let mut peers = self.table.get(id)?.peers();
        // The state of a peer that was forgotten may be unknown as well, and the audit still reads it.
        let doubt = |peer| self.table.get(peer).is_none_or(Record::quarantined);
        (!peers.any(|(_, _, peer)| doubt(peer))).then_some(id)
    }

    /// Returns a widget that does not exist: one that was removed, or one that was never added.
    fn absent(&mut self) -> WidgetId {
        if self.random.chance(0.5)
            && let Some(id) = self.removed()
        {
            self.absent.push(id);
            return id;
        }
        self.never_added()
    }

    /// Returns a widget that was removed, and takes it off the list.
    fn removed(&mut self) -> Option<WidgetId> {
        while let Some(position) = self.random.index(self.absent.len()) {
            let id = self.absent.swap_remove(position);
            if self
                .table
                .get(id)
                .is_some_and(|record| !record.live() && !record.quarantined())
            {
                return Some(id);
            }
        }
        None
    }

    /// Returns a new serial number that no request adds. It is remembered so that the audit checks
    /// that it stays absent.
    fn never_added(&mut self) -> WidgetId {
        let id = self.table.fresh();
        if let Some(record) = self.table.get_mut(id) {
            record.touch();
        }
        self.absent.push(id);
        id
    }

    /// Chooses two widgets that can be associated.
    fn open_pair(&mut self) -> Option<Action> {
        let first = self.port();
        let mut ports = Port::ALL.into_iter().cycle().skip(first as usize - 1);
        for _ in 0..Port::ALL.len() {
            let port = ports.next()?;
            let Some(one) = self.open_widget(port, None) else {
                continue;
            };
            let two = self.open_widget(port, Some(one));
            // The widget that was not used stays on the list.
            self.open[port as usize - 1].push(one);
            if let Some(two) = two {
                self.open[port as usize - 1].push(two);
                return Some(Action::Associate(one, two, port));
            }
        }
        None
    }

    /// Returns a widget with a free slot of this port type that can be associated with `other`.
    fn open_widget(&mut self, port: Port, other: Option<WidgetId>) -> Option<WidgetId> {
        let fits = |partition: &Self, id: WidgetId| {
            let strange = |record: &Record| {
                other.is_none_or(|other| id != other && record.slot_to(port, other).is_none())
            };
            partition
                .usable(id)
                .is_some_and(|record| record.free_slot(port).is_some() && strange(record))
        };
        // The dataset's widgets are not on the list, but most of them have a free slot.
        for _ in 0..ATTEMPTS_MAX / 2 {
            let Some(id) = self.table.any_of_dataset(&mut self.random) else {
                break;
            };
            if fits(self, id) {
                return Some(id);
            }
        }
        for _ in 0..ATTEMPTS_MAX {
            let position = self.random.index(self.open[port as usize - 1].len())?;
            let id = self.open[port as usize - 1][position];
            if fits(self, id) {
                self.open[port as usize - 1].swap_remove(position);
                return Some(id);
            }
            let open = |record: &Record| record.free_slot(port).is_some();
            if !self.usable(id).is_some_and(open) {
                self.open[port as usize - 1].swap_remove(position);
            }
        }
        None
    }

    /// Returns two widgets that are associated.
    fn association(&mut self) -> Option<(WidgetId, WidgetId, Port)> {
        let there = |partition: &Self, one, two, port| {
            partition.usable(two).is_some()
                && partition
                    .usable(one)
                    .is_some_and(|record| record.slot_to(port, two).is_some())
        };
        // The dataset's associations are not on the list.
        for _ in 0..ATTEMPTS_MAX / 2 {
            let Some(one) = self.table.any_of_dataset(&mut self.random) else {
                break;
            };
            let peer = self.table.get(one).and_then(|record| record.peers().next());
            if let Some((_, port, two)) = peer
                && there(self, one, two, port)
            {
                return Some((one, two, port));
            }
        }
        for _ in 0..ATTEMPTS_MAX {
            let position = self.random.index(self.associations.len())?;
            let (one, two, port) = self.associations[position];
            if there(self, one, two, port) {
                let swap = self.random.chance(0.5);
                return Some(if swap {
                    (two, one, port)
                } else {
                    (one, two, port)
                });
            }
            self.associations.swap_remove(position);
        }
        None
    }

    /// Writes the path and the body of a request.
    fn write(&self, action: Action, path: &mut String, body: &mut Vec<u8>) {
        if let Action::Lookup(id) = action {
            path.push_str("/widgets/");
            self.table.write_serial_number(id, path);
            return;
        }
        if let Action::List(listed) = action {
            return self.write_list(listed, path);
        }
        path.push_str("/rpc/");
        path.push_str(action.kind().as_str());
        let mut text = String::with_capacity(48);
        let mut serial_number = |id| {
            text.clear();
            self.table.write_serial_number(id, &mut text);
            text.clone()
        };
        // The serial numbers, names and ports are made here, of characters that need no escapes in
        // JSON or are already escaped. Writing to a vector cannot fail.
        let _ = match action {
            Action::Add(id, ports) => {
                let generation = self.table.get(id).map_or(0, Record::generation);
                let name = self.table.spelling(id, generation).json;
                let mut list = String::with_capacity(16);
                for (ordinal, port) in ports.iter() {
                    list.push_str(if ordinal.get() == 0 { "\"" } else { ",\"" });
                    list.push_str(port.as_str());
                    list.push('"');
                }
                write_add(body, &serial_number(id), name, &list)
            }
            Action::AddMisshapen(id, how) => {
                let long = "x".repeat(NAME_BYTES_MAX + 1);
                let (name, list) = match how {
                    Misshapen::TooManySlots => ("", r#""P","Q","R","P""#),
                    Misshapen::PortUnknown => ("", r#""P","p""#),
                    Misshapen::NameTooLong => (long.as_str(), ""),
                };
                write_add(body, &serial_number(id), name, list)
            }
            Action::Remove(id) => write!(body, r#"{{"widget_sn":"{}"}}"#, serial_number(id)),
            Action::Associate(one, two, port) | Action::Dissociate(one, two, port) => {
                let (one, two) = (serial_number(one), serial_number(two));
                write!(
                    body,
                    r#"{{"widget1_sn":"{one}","widget2_sn":"{two}","port":"{port}"}}"#
                )
            }
            Action::Lookup(_) | Action::List(_) => Ok(()),
        };
    }
}

fn write_add(body: &mut Vec<u8>, sn: &str, name: &str, slots: &str) -> std::io::Result<()> {
    write!(
        body,
        r#"{{"widget_sn":"{sn}","widget_name":"{name}","slots":[{slots}]}}"#
    )
}

impl Action {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Add(..) | Self::AddMisshapen(..) => Kind::AddWidget,
            Self::Remove(_) => Kind::RemoveWidget,
            Self::Associate(..) => Kind::AssociateWidgets,
            Self::Dissociate(..) => Kind::RemoveAssociation,
            Self::Lookup(_) => Kind::Lookup,
            Self::List(_) => Kind::List,
        }
    }
}
