//! A partition: widgets that one lane alone names, and a model of them that predicts every answer.
//!
//! A lane has at most one request in flight, and no other lane names its widgets. So whatever the
//! server does with everybody's requests, what it must answer to this one follows from this
//! partition's past alone. The model is small and independent: it shares no rule with the service.
//!
//! Where an operation's fate is unknown (no answer came, or WG505), it may even be applied later. Its
//! widgets are then left alone for the rest of the run, and the audit accepts the state before or the
//! state after it, whole.

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

/// So many operations of unknown fate are remembered by a partition; more are only counted.
const UNRESOLVED_MAX: usize = 1 << 16;

/// A request and what must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) action: Action,
    /// The refusal's code, or `None` where it must be accepted.
    pub(crate) expected: Option<&'static str>,
}

/// What a request does where it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Add(WidgetId, Ports),
    /// An addition that breaks a limit, whatever the state.
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

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// Accepted: the operation was applied, or the lookup or the list answered this body.
    Accepted(&'a [u8]),
    /// Refused by the rules with this code.
    Refused(&'a str),
    /// Not applied, for a reason that no model predicts: too busy, read-only, never sent.
    NotApplied,
    /// No answer, or one that says that nobody knows.
    FateUnknown,
}

/// An answer that the rules do not allow, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) String);

/// An operation of unknown fate: its widgets before it, and after it.
#[derive(Clone, Debug)]
pub(crate) struct Unresolved {
    pub(crate) operation: String,
    /// What it did, if it was applied.
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
    /// Where a free slot of each port type may be. Entries may be out of date.
    open: [Vec<WidgetId>; Port::ALL.len()],
    /// Associations that were made here. Entries may be out of date.
    associations: Vec<(WidgetId, WidgetId, Port)>,
    /// Widgets that do not exist: removed, or refused. Entries may be out of date.
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

    /// What the answer to this request must be: the refusal's code, or `None` for acceptance.
    ///
    /// Where several refusals apply, the first of the specification's order.
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

    /// What a request is about to do, where it must be accepted and changes anything.
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

    /// Takes in what came of a request.
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
            (Some(expected), Answer::Refused(code)) if expected == code => Ok(()),
            (_, Answer::NotApplied) => {
                // The audit sees whether it really was not.
                for id in self.named(plan.action) {
                    if let Some(record) = self.table.get_mut(id) {
                        record.touch();
                    }
                }
                if let (Action::Add(id, _), None) = (plan.action, plan.expected) {
                    self.absent.push(id);
                }
                Ok(())
            }
            // Refused in every case, or a read: the state is as it was.
            (Some(_), Answer::FateUnknown) => Ok(()),
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
                // What the server holds now is anybody's guess. After an undue refusal the audit
                // still looks whether the model's state is there; after an undue acceptance it is not.
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

    /// Changes the model as an accepted request changes the server.
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

    /// Leaves an operation's widgets alone, in the state before it or the state after it.
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

    /// The widgets that a request names.
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
            // Nothing happens to what is listed, whatever the answer.
            Action::List(_) => Vec::new(),
        }
    }

    /// A request in words.
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

    /// Which partition it is, and so which lane's.
    pub(crate) fn number(&self) -> u32 {
        self.table.share().partition
    }

    pub(crate) fn serial_number(&self, id: WidgetId) -> String {
        let mut text = String::new();
        self.table.write_serial_number(id, &mut text);
        text
    }

    /// How many widgets were made and are no longer remembered.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.table.forgotten()
    }

    /// How many operations of unknown fate will not be checked, since there were too many.
    pub(crate) const fn unresolved_dropped(&self) -> u64 {
        self.unresolved_dropped
    }

    pub(crate) fn unresolved(&self) -> &[Unresolved] {
        &self.unresolved
    }
}
