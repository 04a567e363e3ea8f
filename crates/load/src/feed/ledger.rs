//! What was answered beside what the feed tells, as both come in.
//!
//! A lane has one request in flight, and names widgets that no other lane names. So the changes of its
//! widgets are its acknowledged operations, in its own order, with those of unknown fate at any place or
//! at none. Across lanes, a change must not be told after one that was sent only when it had been answered.
//! An order in which both hold explains every answer: refusals and lookups follow from their own lane's.
//!
//! What agrees is forgotten at once: memory is for what is answered and not told yet, and the other way
//! round.

use super::{Effect, FeedFindings};
use crate::partition::{Share, WidgetId};
use std::{collections::VecDeque, time::Duration};
use widgets_client::Change;

/// So many findings are kept in words; all are counted.
const EXAMPLES_MAX: usize = 20;

/// So many of a lane's last changes are remembered, to know one that is told again.
const REMEMBERED: usize = 16;

/// An operation that came to its end, where it was or may have been applied.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) lane: u32,
    pub(crate) effect: Effect,
    /// When it was sent first, and when it was answered: `None` where nobody knows its fate.
    pub(crate) sent: Duration,
    pub(crate) answered: Option<Duration>,
}

/// A change that is not explained yet.
#[derive(Debug)]
struct Told {
    effect: Effect,
    /// When it was there at the latest.
    heard: Duration,
    /// Its place in the order of the feed.
    place: u64,
    position: String,
}

/// A change in the order of the feed.
#[derive(Debug)]
enum Entry {
    /// Which operation it is of is not known yet.
    Open,
    /// It does not count in the order: it is of none, or was found out of order already.
    Void,
    Of(Explained),
}

/// When the operation of a change was under way.
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
    /// Acknowledged, and something later of the lane was told already.
    passed_over: VecDeque<Settled>,
    /// Of unknown fate, and not told so far; and those that were.
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
    /// The changes of this run from the first one on that is not explained, in the order of the feed.
    window: VecDeque<Entry>,
    window_first: u64,
    /// The operation, of all before the window, that was sent last.
    latest: Option<Explained>,
    position: Option<String>,
    at: String,
    is_read: bool,
    findings: FeedFindings,
}

impl Ledger {
    /// An empty one for the lanes of this run, whichever lane's share it is.
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

    /// Takes in an operation that was acknowledged or is in doubt. Each lane's come in its order.
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
        // What was told before this one was sent is of one that has come in already, or of none.
        while let Some(told) = self.told_before(number, sent) {
            self.unexplained(number, &told);
            self.explain(number);
        }
    }

    fn told_before(&mut self, lane: u32, sent: Duration) -> Option<Told> {
        let lane = self.lanes.get_mut(lane as usize)?;
        lane.told.pop_front_if(|told| told.heard < sent)
    }

    /// Takes in a change, which was there at this moment at the latest.
    pub(crate) fn tell(&mut self, change: &Change, heard: Duration) {
        let position = &change.position;
        if let Some(last) = &self.position {
            if position == last {
                self.findings.told_twice += 1;
                return self.example(|| format!("told twice: position {position}"));
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

    /// Finds the operations of a lane's changes, as far as they have come in.
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
                    // Once is enough.
                    entry = Entry::Void;
                }
                Found::InTurn | Found::InDoubt(_) | Found::TooEarly(_) => {}
            }
            self.place(told.place, entry);
        }
    }

    /// A change that no operation explains.
    fn unexplained(&mut self, number: u32, told: &Told) {
        let lane = self.lanes.get_mut(number as usize);
        let again = lane.is_some_and(|lane| lane.last.contains(&told.effect));
        let what = if again { "told twice" } else { "unasked" };
        if again {
            self.findings.told_twice += 1;
        } else {
            self.findings.unasked += 1;
        }
        let effect = self.describe(number, &told.effect);
        self.example(|| format!("{what}: {effect} at {}", told.position));
        self.place(told.place, Entry::Void);
    }

    /// Gives a change its operation, or says that it has none, and looks at all up to the first one of which
    /// that is not known.
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

    /// Whether a lane's operation of unknown fate was told; `None` before everything was read.
    pub(crate) fn is_told(&self, lane: u32, effect: &Effect) -> Option<bool> {
        let lane = self.lanes.get(lane as usize).filter(|_| self.is_read)?;
        Some(lane.doubts_told.iter().any(|told| effect.is_told_as(told)))
    }

    /// Everything that was told by now has come in.
    pub(crate) const fn was_read(&mut self) {
        self.is_read = true;
    }

    /// What is left disagrees: nothing more will come.
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
                self.example(|| format!("never told: {effect}, which was acknowledged"));
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

/// Which of a lane's operations explains its next change.
enum Found {
    /// The next one that was acknowledged.
    InTurn,
    /// One of unknown fate.
    InDoubt(usize),
    /// One that had to come before a change that was told already.
    TooLate(usize),
    /// One that had to come after others that are not told.
    TooEarly(usize),
    /// The next one that was acknowledged, told otherwise.
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
