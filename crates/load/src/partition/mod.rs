//! A partition: widgets that only one lane names, and a model of them that predicts every answer.
//!
//! A lane has at most one request in flight, and no other lane names its widgets. Therefore the
//! right answer to each of its requests follows from the partition's past alone, whatever the
//! server does with other requests. The model is small and independent: it shares no rule with the
//! service.
//!
//! If an operation's fate is unknown (no answer came, or WG505), the operation may even be applied
//! later. No further request of the run names its widgets, and the audit accepts either the
//! complete state before the operation or the complete state after it.

mod audit;
mod list;
mod plan;
mod table;

pub(crate) use audit::{AuditItem, Difference, Observed, SlotDifference};
pub(crate) use list::Listed;
pub(crate) use table::{Share, WidgetId};

use crate::{
    feed::{Effect, removal},
    mix::{Kind, Mix},
    random::Random,
};
use table::{Record, Table};
use widgets_registry::{Port, Ports};

/// The maximum number of operations of unknown fate that a partition remembers. Further ones are
/// only counted.
const UNRESOLVED_MAX: usize = 1 << 16;

/// A request and its expected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) action: Action,
    /// The refusal's code, or `None` if the request must be accepted.
    pub(crate) expected: Option<&'static str>,
}

/// The effect of a request if it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Add(WidgetId, Ports),
    /// An addition that breaks a limit and is refused in any state.
    AddMisshapen(WidgetId, Misshapen),
    Remove(WidgetId),
    Associate(WidgetId, WidgetId, Port),
    Dissociate(WidgetId, WidgetId, Port),
    Lookup(WidgetId),
    List(Listed),
}

/// How an addition breaks a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misshapen {
    TooManySlots,
    PortUnknown,
    NameTooLong,
}

/// The answer to a request, as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// Accepted: the operation was applied, or this is the body of the lookup or list.
    Accepted(&'a [u8]),
    /// Refused by the rules with this code.
    Refused(&'a str),
    /// Not applied, for a reason that no model predicts: too busy, read-only, never sent.
    NotApplied,
    /// No answer, or an answer that the fate is unknown.
    FateUnknown,
}

/// A description of an answer that the rules do not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) String);

/// An operation of unknown fate, with the records of its widgets before and after it.
#[derive(Clone, Debug)]
pub(crate) struct Unresolved {
    pub(crate) operation: String,
    /// Its effect, if it was applied.
    pub(crate) effect: Option<Effect>,
    pub(crate) widgets: Vec<(WidgetId, Record, Record)>,
}

/// The model of one lane's widgets.
#[derive(Debug)]
pub(crate) struct Partition {
    table: Table,
    mix: Mix,
    conflicts: f64,
    random: Random,
    /// Widgets that may have a free slot of each port type. Entries may be out of date.
    open: [Vec<WidgetId>; Port::ALL.len()],
    /// Associations made by this partition. Entries may be out of date.
    associations: Vec<(WidgetId, WidgetId, Port)>,
    /// Widgets that do not exist, because they were removed or refused. Entries may be out of date.
    absent: Vec<WidgetId>,
    unresolved: Vec<Unresolved>,
    unresolved_dropped: u64,
}

impl Partition {
    pub(crate) fn new(share: Share, mix: Mix, conflicts: f64, seed: u64) -> Self {
        Self {
            random: Random::part(seed, share.partition.into()),
            table: Table::new(share),
            mix,
            conflicts,
            open: Default::default(),
            associations: Vec::new(),
            absent: Vec::new(),
            unresolved: Vec::new(),
            unresolved_dropped: 0,
        }
    }

    /// Returns the expected answer to a request: the refusal's code, or `None` for acceptance.
    ///
    /// If several refusals apply, returns the first in the specification's order.
    fn predict(&self, action: Action) -> Option<&'static str> {
        let live = |id| self.table.get(id).filter(|record| record.live());
        match action {
            Action::Add(id, _) => live(id).map(|_| "23505"),
            Action::AddMisshapen(_, Misshapen::TooManySlots) => Some("WG006"),
            Action::AddMisshapen(_, Misshapen::PortUnknown) => Some("22P02"),
            Action::AddMisshapen(_, Misshapen::NameTooLong) => Some("WG007"),
            Action::List(_) => None,
            Action::Remove(id) | Action::Lookup(id) => match live(id) {
                Some(_) => None,
                None => Some("WG001"),
            },
            Action::Associate(one, two, _) | Action::Dissociate(one, two, _) if one == two => {
                Some("WG005")
            }
            Action::Associate(one, two, port) => {
                let (Some(one_record), Some(two_record)) = (live(one), live(two)) else {
                    return Some("WG001");
                };
                if one_record.slot_to(port, two).is_some() {
                    return Some("WG003");
                }
                let full = |record: &Record| record.free_slot(port).is_none();
                (full(one_record) || full(two_record)).then_some("WG002")
            }
            Action::Dissociate(one, two, port) => {
                let (Some(record), Some(_)) = (live(one), live(two)) else {
                    return Some("WG001");
                };
                record.slot_to(port, two).is_none().then_some("WG004")
            }
        }
    }

    /// Returns the effect of a request that must be accepted and changes anything.
    pub(crate) fn effect_of(&self, plan: &Plan) -> Option<Effect> {
        match plan.expected {
            None => self.effect(plan.action),
            Some(_) => None,
        }
    }

    fn effect(&self, action: Action) -> Option<Effect> {
        match action {
            Action::Add(id, ports) => {
                let generation = self.table.get(id)?.generation();
                let name = self.table.spelling(id, generation).plain.into();
                Some(Effect::Add { id, name, ports })
            }
            Action::Remove(id) => {
                let peers = self.table.get(id)?.peers();
                let freed = peers.map(|(_, port, peer)| {
                    let record = self.table.get(peer);
                    (peer, record.and_then(|record| record.slot_to(port, id)))
                });
                removal(id, freed.collect())
            }
            Action::Associate(one, two, port) => {
                let place = |id| Some((id, self.table.get(id)?.free_slot(port)?));
                Some(Effect::Associate(place(one)?, place(two)?, port))
            }
            Action::Dissociate(one, two, port) => {
                let place = |id, peer| Some((id, self.table.get(id)?.slot_to(port, peer)?));
                Some(Effect::Dissociate(place(one, two)?, place(two, one)?, port))
            }
            Action::AddMisshapen(..) | Action::Lookup(_) | Action::List(_) => None,
        }
    }

    /// Checks the answer to a request and updates the model.
    pub(crate) fn settle(&mut self, plan: &Plan, answer: Answer<'_>) -> Result<(), Wrong> {
        match (plan.expected, answer) {
            (None, Answer::Accepted(body)) => {
                if let Action::Lookup(id) = plan.action {
                    return self.check_lookup(id, body);
                }
                if let Action::List(listed) = plan.action {
                    return self.check_list(listed, body);
                }
                self.apply(plan.action);
                Ok(())
            }
            (Some(expected), Answer::Refused(code)) if expected == code => {
                self.touch(plan.action);
                Ok(())
            }
            (_, Answer::NotApplied) => {
                self.touch(plan.action);
                if let (Action::Add(id, _), None) = (plan.action, plan.expected) {
                    self.absent.push(id);
                }
                Ok(())
            }
            // The request is refused in any case, or only reads: the state is unchanged.
            (Some(_), Answer::FateUnknown) => {
                self.touch(plan.action);
                Ok(())
            }
            (None, Answer::FateUnknown) => {
                self.suspend(plan.action);
                Ok(())
            }
            (expected, Answer::Accepted(_) | Answer::Refused(_)) => {
                let got = match answer {
                    Answer::Refused(code) => code,
                    _ => "acceptance",
                };
                let text = format!(
                    "{}: {} is right, the answer was {got}",
                    self.describe(plan.action),
                    expected.unwrap_or("acceptance"),
                );
                // The server's state is now unknown. After an unexpected refusal, the audit still
                // checks that the state is the model's; after an unexpected acceptance it does not.
                let audited = matches!(answer, Answer::Refused(_));
                for id in self.named(plan.action) {
                    if let Some(record) = self.table.get_mut(id) {
                        record.quarantine(audited);
                    }
                }
                Err(Wrong(text))
            }
        }
    }

    /// Makes the audit check that a request was not applied.
    fn touch(&mut self, action: Action) {
        for id in self.named(action) {
            if let Some(record) = self.table.get_mut(id) {
                record.touch();
            }
        }
    }

    /// Applies an accepted request to the model.
    fn apply(&mut self, action: Action) {
        match action {
            Action::Add(id, ports) => {
                if let Some(record) = self.table.get_mut(id) {
                    record.add(ports);
                    record.touch();
                    for port in Port::ALL {
                        if record.free_slot(port).is_some() {
                            self.open[port as usize - 1].push(id);
                        }
                    }
                }
            }
            Action::Remove(id) => {
                let Some(record) = self.table.get_mut(id) else {
                    return;
                };
                let peers = record.peers();
                record.remove();
                record.touch();
                for (_, port, peer) in peers {
                    self.free(peer, port, id);
                }
                self.absent.push(id);
            }
            Action::Associate(one, two, port) => {
                for (id, other) in [(one, two), (two, one)] {
                    if let Some(record) = self.table.get_mut(id)
                        && let Some(ordinal) = record.free_slot(port)
                    {
                        record.occupy(ordinal, other);
                        record.touch();
                    }
                }
                self.associations.push((one, two, port));
            }
            Action::Dissociate(one, two, port) => {
                self.free(one, port, two);
                self.free(two, port, one);
            }
            Action::AddMisshapen(..) | Action::Lookup(_) | Action::List(_) => {}
        }
    }

    /// Frees the slot of `id` whose peer is `peer`, if the partition still remembers it.
    fn free(&mut self, id: WidgetId, port: Port, peer: WidgetId) {
        if let Some(record) = self.table.get_mut(id)
            && let Some(ordinal) = record.slot_to(port, peer)
        {
            record.free(ordinal);
            record.touch();
            self.open[port as usize - 1].push(id);
        }
    }

    /// Excludes the widgets of an operation of unknown fate from further requests, and records
    /// their states before and after the operation.
    fn suspend(&mut self, action: Action) {
        if matches!(
            action,
            Action::Lookup(_) | Action::List(_) | Action::AddMisshapen(..)
        ) {
            return;
        }
        let mut involved = self.named(action);
        if let Action::Remove(id) = action
            && let Some(record) = self.table.get(id)
        {
            involved.extend(record.peers().map(|(_, _, peer)| peer));
            involved.sort_unstable();
            involved.dedup();
        }
        let states = |table: &Table| -> Vec<(WidgetId, Record)> {
            let records = involved.iter();
            records
                .filter_map(|&id| Some((id, *table.get(id)?)))
                .collect()
        };
        let before = states(&self.table);
        let effect = self.effect(action);
        self.apply(action);
        let after = states(&self.table);
        for &(id, record) in &before {
            if let Some(place) = self.table.get_mut(id) {
                *place = record;
                place.quarantine(false);
            }
        }
        if self.unresolved.len() >= UNRESOLVED_MAX {
            self.unresolved_dropped += 1;
            return;
        }
        let widgets = before.into_iter().zip(after);
        self.unresolved.push(Unresolved {
            operation: self.describe(action),
            effect,
            widgets: widgets
                .map(|((id, before), (_, after))| (id, before, after))
                .collect(),
        });
    }

    /// Returns the widgets that a request names.
    #[expect(
        clippy::unused_self,
        reason = "a question to the model, as its neighbours are"
    )]
    fn named(&self, action: Action) -> Vec<WidgetId> {
        match action {
            Action::Add(id, _)
            | Action::AddMisshapen(id, _)
            | Action::Remove(id)
            | Action::Lookup(id) => vec![id],
            Action::Associate(one, two, _) | Action::Dissociate(one, two, _) => vec![one, two],
            // No answer changes the state of a listed widget.
            Action::List(_) => Vec::new(),
        }
    }

    /// Describes a request.
    fn describe(&self, action: Action) -> String {
        let text = |id| self.serial_number(id);
        match action {
            Action::Add(id, ports) => format!("add_widget {} {ports:?}", text(id)),
            Action::AddMisshapen(id, how) => format!("add_widget {} ({how:?})", text(id)),
            Action::Remove(id) => format!("remove_widget {}", text(id)),
            Action::Associate(one, two, port) => {
                format!("associate_widgets {} {} {port}", text(one), text(two))
            }
            Action::Dissociate(one, two, port) => {
                format!("remove_association {} {} {port}", text(one), text(two))
            }
            Action::Lookup(id) => format!("lookup {}", text(id)),
            Action::List(listed) => self.describe_list(listed),
        }
    }

    /// Returns the partition's number, which is also its lane's.
    pub(crate) fn number(&self) -> u32 {
        self.table.share().partition
    }

    pub(crate) fn serial_number(&self, id: WidgetId) -> String {
        let mut text = String::new();
        self.table.write_serial_number(id, &mut text);
        text
    }

    /// Returns how many widgets were made and have been forgotten since.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.table.forgotten()
    }

    /// Returns how many operations of unknown fate will not be checked because there were too many.
    pub(crate) const fn unresolved_dropped(&self) -> u64 {
        self.unresolved_dropped
    }

    pub(crate) fn unresolved(&self) -> &[Unresolved] {
        &self.unresolved
    }
}
