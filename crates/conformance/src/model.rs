//! The rules a second time, stated as plainly as possible.

use std::collections::{BTreeMap, BTreeSet};
use widgets_registry::{
    Command, Happened, Name, Ordinal, Pair, Place, Port, PortCounts, Refusal, SerialNumber, Slot,
    Widget,
};

/// All widgets and associations. Every question is answered by examining all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Model {
    widgets: BTreeMap<SerialNumber, Plan>,
    /// Each association once, with its ends in order, so that it cannot be known to only one of its
    /// widgets.
    associations: BTreeSet<[End; 2]>,
}

/// The properties of a widget that never change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Plan {
    name: Name,
    ports: Vec<Port>,
}

/// One slot: the widget and the slot's position, counted from 0.
type End = (SerialNumber, usize);

impl Model {
    /// Applies one operation, or returns why it is refused.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::AddWidget {
                serial_number,
                name,
                ports,
            } => {
                if self.widgets.contains_key(serial_number) {
                    let serial_number = serial_number.clone();
                    return Err(Refusal::SerialNumberTaken { serial_number });
                }
                let plan = Plan {
                    name: name.clone(),
                    ports: ports.iter().map(|(_, port)| port).collect(),
                };
                self.widgets.insert(serial_number.clone(), plan);
            }
            Command::RemoveWidget { serial_number } => {
                self.must_exist(serial_number)?;
                self.widgets.remove(serial_number);
                self.associations
                    .retain(|ends| ends.iter().all(|end| end.0 != *serial_number));
            }
            Command::AssociateWidgets(pair) => {
                self.must_exist(pair.widget1())?;
                self.must_exist(pair.widget2())?;
                if self.association(pair).is_some() {
                    return Err(Refusal::AlreadyAssociated {
                        widget1: pair.widget1().clone(),
                        widget2: pair.widget2().clone(),
                        port: pair.port(),
                    });
                }
                let mut ends = [
                    self.free_slot(pair.widget1(), pair.port())?,
                    self.free_slot(pair.widget2(), pair.port())?,
                ];
                ends.sort();
                self.associations.insert(ends);
            }
            Command::RemoveAssociation(pair) => {
                self.must_exist(pair.widget1())?;
                self.must_exist(pair.widget2())?;
                let Some(ends) = self.association(pair) else {
                    return Err(Refusal::NotAssociated {
                        widget1: pair.widget1().clone(),
                        widget2: pair.widget2().clone(),
                        port: pair.port(),
                    });
                };
                self.associations.remove(&ends);
            }
        }
        Ok(())
    }

    /// Returns what the feed must report about an operation that is about to be accepted.
    #[must_use]
    pub fn foretell(&self, command: &Command) -> Option<Happened> {
        let place = |(serial_number, position): &End| Place {
            serial_number: serial_number.clone(),
            ordinal: u8::try_from(*position)
                .ok()
                .and_then(Ordinal::new)
                .expect("a widget has few slots"),
        };
        let ordered = |ends: [End; 2], pair: &Pair| {
            let [one, other] = ends;
            if one.0 == *pair.widget1() {
                [place(&one), place(&other)]
            } else {
                [place(&other), place(&one)]
            }
        };
        Some(match command {
            Command::AddWidget {
                serial_number,
                name,
                ports,
            } => Happened::AddWidget {
                serial_number: serial_number.clone(),
                name: name.clone(),
                ports: *ports,
            },
            Command::RemoveWidget { serial_number } => {
                let slots = self.widgets.get(serial_number)?.ports.len();
                let freed = (0..slots).filter_map(|position| {
                    let own = (serial_number.clone(), position);
                    let other = |[one, other]: &[End; 2]| match &own {
                        own if own == one => Some(other.clone()),
                        own if own == other => Some(one.clone()),
                        _ => None,
                    };
                    self.associations.iter().find_map(other)
                });
                Happened::RemoveWidget {
                    serial_number: serial_number.clone(),
                    freed: freed.map(|end| place(&end)).collect(),
                }
            }
            Command::AssociateWidgets(pair) => {
                self.must_exist(pair.widget1()).ok()?;
                self.must_exist(pair.widget2()).ok()?;
                let ends = [
                    self.free_slot(pair.widget1(), pair.port()).ok()?,
                    self.free_slot(pair.widget2(), pair.port()).ok()?,
                ];
                let [one, other] = ordered(ends, pair);
                Happened::AssociateWidgets(one, other, pair.port())
            }
            Command::RemoveAssociation(pair) => {
                let [one, other] = ordered(self.association(pair)?, pair);
                Happened::RemoveAssociation(one, other, pair.port())
            }
        })
    }

    /// Returns the widget with this serial number, with its slots and their peers.
    #[must_use]
    pub fn lookup(&self, serial_number: &SerialNumber) -> Option<Widget> {
        let plan = self.widgets.get(serial_number)?;
        let slots = plan.ports.iter().enumerate().map(|(position, &port)| Slot {
            port,
            peer: self.peer(&(serial_number.clone(), position)),
        });
        Some(Widget {
            serial_number: serial_number.clone(),
            name: plan.name.clone(),
            slots: slots.collect(),
        })
    }

    /// Returns the serial numbers of all widgets, sorted.
    pub fn serial_numbers(&self) -> impl Iterator<Item = &SerialNumber> {
        self.widgets.keys()
    }

    /// Returns how many slots have no peer, by port type.
    #[must_use]
    pub fn free_slots(&self) -> PortCounts {
        let mut free = PortCounts::default();
        for (serial_number, plan) in &self.widgets {
            for (position, &port) in plan.ports.iter().enumerate() {
                if self.peer(&(serial_number.clone(), position)).is_none() {
                    free.add(port, 1);
                }
            }
        }
        free
    }

    /// Returns the two widgets of every association.
    pub fn pairs(&self) -> impl Iterator<Item = [&SerialNumber; 2]> {
        self.associations
            .iter()
            .map(|[one, other]| [&one.0, &other.0])
    }

    /// Returns the chosen widgets with their associations. If one end of an association is chosen,
    /// the other must be, too.
    #[must_use]
    pub fn part(&self, is_chosen: impl Fn(&SerialNumber) -> bool) -> Self {
        let widgets = self.widgets.iter().filter(|(each, _)| is_chosen(each));
        let chosen = |ends: &&[End; 2]| ends.iter().any(|end| is_chosen(&end.0));
        Self {
            widgets: widgets.map(|(k, v)| (k.clone(), v.clone())).collect(),
            associations: self.associations.iter().filter(chosen).cloned().collect(),
        }
    }

    /// Returns the state that these lookups show together. They must include every widget that one
    /// of them has as a peer. Returns an error if an association is not known to both its widgets.
    pub fn from_lookups(widgets: impl IntoIterator<Item = Widget>) -> Result<Self, String> {
        let mut model = Self::default();
        let mut ends: BTreeMap<(SerialNumber, SerialNumber, Port), End> = BTreeMap::new();
        for widget in widgets {
            let serial_number = widget.serial_number;
            for (position, slot) in widget.slots.iter().enumerate() {
                let Some(peer) = &slot.peer else { continue };
                let end = (serial_number.clone(), position);
                let key = (serial_number.clone(), peer.clone(), slot.port);
                if ends.insert(key, end).is_some() {
                    let port = slot.port;
                    return Err(format!(
                        "{serial_number:?} has {peer:?} twice on port {port}"
                    ));
                }
            }
            let plan = Plan {
                name: widget.name,
                ports: widget.slots.iter().map(|slot| slot.port).collect(),
            };
            model.widgets.insert(serial_number, plan);
        }
        for ((one, other, port), end) in &ends {
            let Some(back) = ends.get(&(other.clone(), one.clone(), *port)) else {
                return Err(format!(
                    "{one:?} has {other:?} on port {port}, which does not have it"
                ));
            };
            let mut ends = [end.clone(), back.clone()];
            ends.sort();
            model.associations.insert(ends);
        }
        Ok(model)
    }

    fn must_exist(&self, serial_number: &SerialNumber) -> Result<(), Refusal> {
        if self.widgets.contains_key(serial_number) {
            return Ok(());
        }
        let serial_number = serial_number.clone();
        Err(Refusal::WidgetMissing { serial_number })
    }

    fn association(&self, pair: &Pair) -> Option<[End; 2]> {
        let joins = |ends: &&[End; 2]| {
            let between = [pair.widget1(), pair.widget2()];
            ends.iter().all(|end| between.contains(&&end.0)) && self.port(&ends[0]) == pair.port()
        };
        self.associations.iter().find(joins).cloned()
    }

    fn free_slot(&self, serial_number: &SerialNumber, port: Port) -> Result<End, Refusal> {
        (0..self.widgets[serial_number].ports.len())
            .map(|position| (serial_number.clone(), position))
            .find(|end| self.port(end) == port && self.peer(end).is_none())
            .ok_or_else(|| Refusal::NoFreeSlot {
                serial_number: serial_number.clone(),
                port,
            })
    }

    fn port(&self, (serial_number, position): &End) -> Port {
        self.widgets[serial_number].ports[*position]
    }

    fn peer(&self, end: &End) -> Option<SerialNumber> {
        self.associations.iter().find_map(|[one, other]| {
            if one == end {
                Some(other.0.clone())
            } else if other == end {
                Some(one.0.clone())
            } else {
                None
            }
        })
    }
}
