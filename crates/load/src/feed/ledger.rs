//! Compares the answers with the changes that the feed reports, as both arrive.
//!
//! A lane has one request in flight, and names widgets that no other lane names. Therefore the
//! changes of its widgets are its acknowledged operations in its own order. Operations of unknown
//! fate may appear anywhere among them, or not at all. Across lanes, if one operation was answered
//! before another was sent, its change must come first. An order that meets both conditions
//! explains every answer: refusals and lookups follow from the lane's own operations.
//!
//! Whatever agrees is forgotten at once. Memory holds only answers without their changes and
//! changes without their answers.

use super::{Effect, FeedFindings};
use crate::partition::{Share, WidgetId};
use std::{collections::VecDeque, time::Duration};
use widgets_client::Change;

/// The maximum number of findings that are kept as text. All are counted.
const EXAMPLES_MAX: usize = 20;

/// How many of a lane's last changes are remembered, to recognise one that is reported again.
const REMEMBERED: usize = 16;

/// A completed operation that was applied, or may have been.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) lane: u32,
    pub(crate) effect: Effect,
    /// When it was first sent, and when it was answered: `None` if its fate is unknown.
    pub(crate) sent: Duration,
    pub(crate) answered: Option<Duration>,
}

/// A change whose operation has not been found yet.
#[derive(Debug)]
struct Told {
    effect: Effect,
    /// When the change arrived, at the latest.
    heard: Duration,
    /// Its place in the order of the feed.
    place: u64,
    position: String,
}

/// A change in the order of the feed.
#[derive(Debug)]
enum Entry {
    /// Its operation is not known yet.
    Open,
    /// It does not count in the order: it has no operation, or was already found out of order.
    Void,
    Of(Explained),
}

/// When the operation of a change was in progress.
#[derive(Debug)]
struct Explained {
    lane: u32,
    effect: Effect,
    sent: Duration,
    answered: Option<Duration>,
}

#[derive(Debug, Default)]
struct Lane {
    answered: VecDeque<Settled>,
    /// Acknowledged operations whose changes are missing although a later change of the lane has
    /// been reported.
    passed_over: VecDeque<Settled>,
    /// Operations of unknown fate without a change so far; and the effects of those whose change
    /// was reported.
    in_doubt: Vec<Settled>,
    doubts_told: Vec<Effect>,
    told: VecDeque<Told>,
    last: VecDeque<Effect>,
}

/// Everything that does not agree yet.
#[derive(Debug)]
pub(crate) struct Ledger {
    share: Share,
    lanes: Vec<Lane>,
    /// This run's changes in the order of the feed, from the first one whose operation is unknown.
    window: VecDeque<Entry>,
    window_first: u64,
    /// Of the operations before the window, the one that was sent last.
    latest: Option<Explained>,
    position: Option<String>,
    at: String,
    is_read: bool,
    findings: FeedFindings,
}

impl Ledger {
    /// Returns an empty ledger for all lanes of this run; `share` may be that of any of them.
    pub(crate) fn new(share: Share) -> Self {
        let lanes = (0..share.partitions).map(|_| Lane::default()).collect();
        Self {
            share,
            lanes,
            window: VecDeque::new(),
            window_first: 0,
            latest: None,
            position: None,
            at: String::new(),
            is_read: false,
            findings: FeedFindings::default(),
        }
    }

    /// Records an operation that was acknowledged or is of unknown fate. Those of a lane must be
    /// recorded in its order.
    pub(crate) fn settle(&mut self, settled: Settled) {
        let (number, sent) = (settled.lane, settled.sent);
        let Some(lane) = self.lanes.get_mut(number as usize) else {
            return;
        };
        if settled.answered.is_some() {
            lane.answered.push_back(settled);
        } else {
            lane.in_doubt.push(settled);
        }
        self.explain(number);
        // The operation of a change that arrived before this one was sent has been recorded
        // already, or does not exist.
        while let Some(told) = self.told_before(number, sent) {
            self.unexplained(number, &told);
            self.explain(number);
        }
    }

    fn told_before(&mut self, lane: u32, sent: Duration) -> Option<Told> {
        let lane = self.lanes.get_mut(lane as usize)?;
        lane.told.pop_front_if(|told| told.heard < sent)
    }

    /// Records a change that had arrived by `heard`.
    pub(crate) fn tell(&mut self, change: &Change, heard: Duration) {
        let position = &change.position;
        if let Some(last) = &self.position {
            if position == last {
                self.findings.told_twice += 1;
                return self.example(|| format!("twice in the feed: position {position}"));
            }
            if position < last {
                self.findings.out_of_order += 1;
                let text = format!("out of order: position {position} is told after {last}");
                self.example(|| text);
            }
        }
        if self.position.as_ref().is_none_or(|last| last < position) {
            self.position = Some(position.clone());
        }
        if change.at < self.at {
            self.findings.out_of_order += 1;
            let text = format!(
                "out of order: position {position} was committed at {}, the one before it at {}",
                change.at, self.at
            );
            self.example(|| text);
        }
        self.at.clone_from(&change.at);
        let (lane, effect) = match Effect::of(change, &self.share) {
            None => {
                self.findings.of_others += 1;
                return;
            }
            Some(Err(why)) => {
                self.findings.unasked += 1;
                let operation = &change.operation;
                return self.example(|| format!("unasked: {operation} at {position}: {why}"));
            }
            Some(Ok(told)) => told,
        };
        let place = self.window_first + self.window.len() as u64;
        self.window.push_back(Entry::Open);
        if let Some(lane) = self.lanes.get_mut(lane as usize) {
            lane.told.push_back(Told {
                effect,
                heard,
                place,
                position: position.clone(),
            });
        }
        self.explain(lane);
    }

    /// Matches a lane's changes with the operations that were recorded so far.
    fn explain(&mut self, number: u32) {
        while let Some(lane) = self.lanes.get_mut(number as usize)
            && let Some(found) = lane.find()
            && let Some(told) = lane.told.pop_front()
        {
            let settled = match found {
                Found::InTurn | Found::Altered => lane.answered.pop_front(),
                Found::InDoubt(index) => {
                    lane.doubts_told.push(told.effect.clone());
                    Some(lane.in_doubt.swap_remove(index))
                }
                Found::TooLate(index) => lane.passed_over.remove(index),
                Found::TooEarly(index) => {
                    let before = lane.answered.drain(..index);
                    lane.passed_over.extend(before);
                    lane.answered.pop_front()
                }
            };
            lane.remember(told.effect.clone());
            self.findings.changes_checked += 1;
            let mut entry = settled.map_or(Entry::Void, |settled| {
                Entry::Of(Explained {
                    lane: number,
                    effect: told.effect.clone(),
                    sent: settled.sent,
                    answered: settled.answered,
                })
            });
            let text = |what: &str, ledger: &Self| {
                let effect = ledger.describe(number, &told.effect);
                format!("{what}: {effect} at {}", told.position)
            };
            match found {
                Found::Altered => {
                    self.findings.altered += 1;
                    let text = text("altered", self);
                    self.example(|| text);
                }
                Found::TooLate(_) => {
                    self.findings.out_of_order += 1;
                    let text = text("out of order, after a later one of its lane", self);
                    self.example(|| text);
                    // One finding is enough.
                    entry = Entry::Void;
                }
                Found::InTurn | Found::InDoubt(_) | Found::TooEarly(_) => {}
            }
            self.place(told.place, entry);
        }
    }

    /// Records a change that no operation explains.
    fn unexplained(&mut self, number: u32, told: &Told) {
        let lane = self.lanes.get_mut(number as usize);
        let again = lane.is_some_and(|lane| lane.last.contains(&told.effect));
        let what = if again {
            "twice in the feed"
        } else {
            "unasked"
        };
        if again {
            self.findings.told_twice += 1;
        } else {
            self.findings.unasked += 1;
        }
        let effect = self.describe(number, &told.effect);
        self.example(|| format!("{what}: {effect} at {}", told.position));
        self.place(told.place, Entry::Void);
    }

    /// Assigns an entry to a change, and then checks the order of all changes up to the first whose
    /// operation is unknown.
    fn place(&mut self, place: u64, entry: Entry) {
        let index = place.checked_sub(self.window_first);
        if let Some(open) = index.and_then(|index| self.window.get_mut(index as usize)) {
            *open = entry;
        }
        let is_known = |entry: &mut Entry| !matches!(entry, Entry::Open);
        while let Some(entry) = self.window.pop_front_if(is_known) {
            self.window_first += 1;
            let Entry::Of(next) = entry else {
                continue;
            };
            if let (Some(answered), Some(latest)) = (next.answered, &self.latest)
                && answered < latest.sent
            {
                self.findings.out_of_order += 1;
                let [next, latest] =
                    [&next, latest].map(|each| self.describe(each.lane, &each.effect));
                self.example(|| {
                    format!("out of order: {next} was answered before {latest} was sent, and is told after it")
                });
            }
            if self
                .latest
                .as_ref()
                .is_none_or(|latest| latest.sent < next.sent)
            {
                self.latest = Some(next);
            }
        }
    }

    /// Reports whether the feed reported a lane's operation of unknown fate. Returns `None` before
    /// the feed was read to its end.
    pub(crate) fn is_told(&self, lane: u32, effect: &Effect) -> Option<bool> {
        let lane = self.lanes.get(lane as usize).filter(|_| self.is_read)?;
        Some(lane.doubts_told.iter().any(|told| effect.is_told_as(told)))
    }

    /// Records that the feed was read to its end.
    pub(crate) const fn was_read(&mut self) {
        self.is_read = true;
    }

    /// Ends the comparison: no more answers or changes will arrive, so whatever is left is a fault.
    pub(crate) fn finish(&mut self) -> FeedFindings {
        for number in 0..self.share.partitions {
            while let Some(told) = self.told_before(number, Duration::MAX) {
                self.unexplained(number, &told);
                self.explain(number);
            }
            let Some(lane) = self.lanes.get_mut(number as usize) else {
                continue;
            };
            self.findings.doubts_told += lane.doubts_told.len() as u64;
            let untold: Vec<Settled> =
                (lane.passed_over.drain(..).chain(lane.answered.drain(..))).collect();
            for settled in untold {
                self.findings.never_told += 1;
                let effect = self.describe(number, &settled.effect);
                self.example(|| format!("not in the feed: {effect}, which was acknowledged"));
            }
        }
        self.findings.clone()
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.findings.examples.len() < EXAMPLES_MAX {
            self.findings.examples.push(text());
        }
    }

    fn describe(&self, lane: u32, effect: &Effect) -> String {
        let share = Share {
            partition: lane,
            ..self.share.clone()
        };
        let text = |id: WidgetId| {
            let mut text = String::new();
            share.write_serial_number(id, &mut text);
            text
        };
        match effect {
            Effect::Add { id, name, ports } => {
                format!("add_widget {} {name:?} {ports:?}", text(*id))
            }
            Effect::Remove { id, .. } => format!("remove_widget {}", text(*id)),
            Effect::Associate(one, two, port) => {
                format!("associate_widgets {} {} {port}", text(one.0), text(two.0))
            }
            Effect::Dissociate(one, two, port) => {
                format!("remove_association {} {} {port}", text(one.0), text(two.0))
            }
        }
    }
}

/// The operation of a lane that explains its next change.
enum Found {
    /// The next acknowledged operation.
    InTurn,
    /// An operation of unknown fate.
    InDoubt(usize),
    /// An operation whose change should have come before one that was already reported.
    TooLate(usize),
    /// An operation whose change should have come after others that are missing.
    TooEarly(usize),
    /// The next acknowledged operation, reported with a different effect.
    Altered,
}

impl Lane {
    fn find(&self) -> Option<Found> {
        let told = &self.told.front()?.effect;
        let is = |settled: &Settled| settled.effect.is_told_as(told);
        let next = self.answered.front();
        if next.is_some_and(is) {
            return Some(Found::InTurn);
        }
        (self.in_doubt.iter().position(is).map(Found::InDoubt))
            .or_else(|| self.passed_over.iter().position(is).map(Found::TooLate))
            .or_else(|| self.answered.iter().position(is).map(Found::TooEarly))
            .or_else(|| {
                let akin = next.is_some_and(|next| next.effect.is_akin_to(told));
                akin.then_some(Found::Altered)
            })
    }

    fn remember(&mut self, effect: Effect) {
        self.last.push_back(effect);
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
