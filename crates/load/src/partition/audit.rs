//! Compares the answer to a lookup with the model.

use super::{Partition, Unresolved, WidgetId, Wrong, table::Record};
use crate::{
    dataset::{Dataset, DatasetWidget},
    random::Random,
};
use serde::Deserialize;
use std::borrow::Cow;

/// The answer to a lookup.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observed<'a> {
    #[serde(borrow)]
    serial_number: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    slots: Vec<ObservedSlot<'a>>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObservedSlot<'a> {
    #[serde(borrow)]
    port: Cow<'a, str>,
    #[serde(borrow)]
    peer: Option<Cow<'a, str>>,
}

impl<'a> Observed<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| {
            let body = String::from_utf8_lossy(body);
            format!("the answer is not a widget ({error}): {body}")
        })
    }

    /// Reports whether it is the widget with this serial number.
    pub(crate) fn is(&self, serial_number: &str) -> bool {
        self.serial_number == serial_number
    }

    /// Describes how an observed widget differs from that of a dataset, in words that can follow
    /// its serial number.
    pub(crate) fn differs_from(
        observed: Option<&Self>,
        dataset: &Dataset,
        widget: &DatasetWidget,
    ) -> Option<String> {
        let Some(observed) = observed else {
            return Some("which is not there".into());
        };
        let name = dataset.name(widget.index);
        if *observed.name != *name {
            return Some(format!("whose name is {:?}, not {name:?}", observed.name));
        }
        let mut expected: Vec<String> = widget
            .ports
            .iter()
            .map(|(ordinal, port)| {
                let mut slot = format!("{port}=");
                if let Some(peer) = widget.peers[ordinal.index()] {
                    Dataset::write_serial_number(peer, &mut slot);
                }
                slot
            })
            .collect();
        let mut found: Vec<String> = observed
            .slots
            .iter()
            .map(|slot| format!("{}={}", slot.port, slot.peer.as_deref().unwrap_or_default()))
            .collect();
        expected.sort_unstable();
        found.sort_unstable();
        (found != expected).then(|| {
            let [found, expected] = [found, expected].map(|slots| slots.join(" "));
            format!("whose slots are \"{found}\", not \"{expected}\"")
        })
    }

    /// Reports whether a slot of this port type names this peer.
    pub(crate) fn names(&self, port: &str, peer: &str) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| slot.port == port && slot.peer.as_deref() == Some(peer))
    }
}

/// How an observed widget differs from the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It must exist, but does not.
    Missing,
    /// It exists, but must not. If `removed`, its removal was acknowledged; otherwise its addition
    /// never was.
    Present { removed: bool },
    /// Its serial number, name or ports differ: expected and observed.
    Content(String, String),
    /// The peer of a slot differs.
    Slot(SlotDifference),
}

/// How a slot differs from the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotDifference {
    pub(crate) port: &'static str,
    pub(crate) expected: Option<String>,
    pub(crate) observed: Option<String>,
    /// Whether an acknowledged removal has ever freed the slot.
    pub(crate) freed: bool,
}

/// An item for the audit to check.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AuditItem {
    /// A widget whose state is known.
    Widget(WidgetId),
    /// An operation of unknown fate, by its position among them.
    Unresolved(usize),
}

impl Partition {
    /// Returns what the audit is to read: all widgets, or a random selection of `widgets_max` with
    /// their peers; and always all operations of unknown fate.
    pub(crate) fn audit_items(&self, widgets_max: Option<u64>, seed: u64) -> Vec<AuditItem> {
        let mut ids: Vec<WidgetId> = self.table.audited().collect();
        let wanted = widgets_max.and_then(|max| usize::try_from(max).ok());
        if let Some(wanted) = wanted.filter(|&wanted| wanted < ids.len()) {
            let mut random = Random::part(seed, self.table.share().partition.into());
            for position in 0..wanted {
                let other = random.index(ids.len() - position).unwrap_or(0);
                ids.swap(position, position + other);
            }
            ids.truncate(wanted);
            // Both ends of each association are read, so that one that only one end names is found.
            let peers: Vec<WidgetId> = ids
                .iter()
                .filter_map(|&id| self.table.get(id))
                .flat_map(Record::peers)
                .map(|(_, _, peer)| peer)
                .filter(|&peer| self.table.get(peer).is_some_and(Record::audited))
                .collect();
            ids.extend(peers);
            ids.sort_unstable();
            ids.dedup();
        }
        let widgets = ids.into_iter().map(AuditItem::Widget);
        let unresolved = (0..self.unresolved.len()).map(AuditItem::Unresolved);
        unresolved.chain(widgets).collect()
    }

    /// Returns how the observed widget differs from the model's, if it does.
    pub(crate) fn difference(
        &self,
        id: WidgetId,
        observed: Option<&Observed<'_>>,
    ) -> Option<Difference> {
        let record = self.table.get(id)?;
        self.difference_to(id, record, observed)
    }

    /// Reports whether an operation of unknown fate was applied, given its observed widgets in the
    /// same order. Returns `None` if they are neither all in the state before it nor all in the
    /// state after it.
    pub(crate) fn was_applied(
        &self,
        unresolved: &Unresolved,
        observed: &[Option<Observed<'_>>],
    ) -> Option<bool> {
        let all = |pick: fn(&(WidgetId, Record, Record)) -> (WidgetId, Record)| {
            unresolved
                .widgets
                .iter()
                .zip(observed)
                .all(|(widget, observed)| {
                    let (id, record) = pick(widget);
                    self.difference_to(id, &record, observed.as_ref()).is_none()
                })
        };
        if all(|&(id, before, _)| (id, before)) {
            return Some(false);
        }
        all(|&(id, _, after)| (id, after)).then_some(true)
    }

    fn difference_to(
        &self,
        id: WidgetId,
        record: &Record,
        observed: Option<&Observed<'_>>,
    ) -> Option<Difference> {
        let observed = match (record.live(), observed) {
            (false, None) => return None,
            (true, None) => return Some(Difference::Missing),
            (false, Some(_)) => {
                let removed = record.was_live();
                return Some(Difference::Present { removed });
            }
            (true, Some(observed)) => observed,
        };
        let content = |expected: &str, observed: &str| {
            (expected != observed).then(|| Difference::Content(expected.into(), observed.into()))
        };
        let mut text = String::with_capacity(48);
        self.table.write_serial_number(id, &mut text);
        let name = self.table.spelling(id, record.generation()).plain;
        let different = content(&text, &observed.serial_number)
            .or_else(|| content(name, &observed.name))
            .or_else(|| {
                let same = record.ports().len() == observed.slots.len()
                    && record
                        .ports()
                        .iter()
                        .zip(&observed.slots)
                        .all(|((_, port), slot)| slot.port == port.as_str());
                let expected = || format!("{:?}", record.ports());
                (!same).then(|| Difference::Content(expected(), format!("{:?}", observed.slots)))
            });
        if different.is_some() {
            return different;
        }
        for ((ordinal, port), slot) in record.ports().iter().zip(&observed.slots) {
            text.clear();
            let expected = record.peer(ordinal).map(|peer| {
                self.table.write_serial_number(peer, &mut text);
                text.as_str()
            });
            if expected != slot.peer.as_deref() {
                return Some(Difference::Slot(SlotDifference {
                    port: port.as_str(),
                    expected: expected.map(str::to_owned),
                    observed: slot.peer.as_deref().map(str::to_owned),
                    freed: record.freed(ordinal),
                }));
            }
        }
        None
    }

    /// Checks the answer to a lookup while the load runs.
    pub(super) fn check_lookup(&mut self, id: WidgetId, body: &[u8]) -> Result<(), Wrong> {
        let serial_number = self.serial_number(id);
        let observed = Observed::parse(body)
            .map_err(|text| Wrong(format!("lookup {serial_number}: {text}")))?;
        match self.difference(id, Some(&observed)) {
            None => Ok(()),
            Some(difference) => {
                let text = format!("lookup {serial_number}: {}", difference.describe());
                Err(Wrong(text))
            }
        }
    }

    /// Returns the serial numbers of an operation's widgets, in its order.
    pub(crate) fn unresolved_serial_numbers(&self, unresolved: &Unresolved) -> Vec<String> {
        let widgets = unresolved.widgets.iter();
        widgets.map(|&(id, ..)| self.serial_number(id)).collect()
    }
}

impl Difference {
    /// Describes the difference.
    pub(crate) fn describe(&self) -> String {
        let peer = |peer: &Option<String>| peer.clone().unwrap_or_else(|| "nothing".into());
        match self {
            Self::Missing => "it must exist, and does not".into(),
            Self::Present { removed: true } => "it was removed, and still exists".into(),
            Self::Present { removed: false } => "it was never added, and exists".into(),
            Self::Content(expected, observed) => {
                format!("{expected} is right, {observed} was answered")
            }
            Self::Slot(slot) => format!(
                "its slot of port {} must be associated with {}, and is with {}",
                slot.port,
                peer(&slot.expected),
                peer(&slot.observed),
            ),
        }
    }
}
