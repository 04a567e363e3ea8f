//! One list on its way through the widgets.

use super::{
    plan::Plan,
    source::{self, Range},
};
use crate::state::{Rowed, State, View};
use std::{
    collections::BTreeMap,
    ops::Bound::{self, Excluded, Included, Unbounded},
};
use widgets_registry::{
    Widget,
    query::{Direction, Filter, List, Page, Rows, Table},
};

/// So many records are fetched together: while one comes from memory, so do the others.
const FETCHED_TOGETHER: usize = if cfg!(test) { 3 } else { 128 };

/// What looking at a widget costs, whatever the filter, beside the cost of a comparison.
const WIDGET_COST: usize = 4;

/// What a kept widget takes beside its text.
const KEPT_OVERHEAD_BYTES: usize = 200;

/// A list under way. It shows the state of the moment at which it was made.
pub(crate) struct Scan {
    list: List,
    plan: Plan,
    /// What has still to be looked at begins here, in the direction of the list.
    from: Bound<Box<str>>,
    /// Nothing is left to be looked at.
    ended: bool,
    /// Widgets that have changed since the beginning, of those still to be looked at: as they were then,
    /// `None` where there was none.
    kept: BTreeMap<Box<str>, Option<Widget>>,
    kept_bytes: usize,
    /// So many rows are still to be left out.
    skip: u64,
    rows: Rows,
    total: Option<u64>,
    counted: u64,
    scanned: u64,
}

impl Scan {
    /// Begins a list at this moment, at which everything is durable.
    pub(crate) fn new(list: List, state: &State) -> Self {
        let plan = Plan::of(&list, state);
        let (lower, upper) = (plan.lower.clone(), plan.upper.clone());
        let mut scan = Self {
            from: match list.direction {
                Direction::Ascending => lower,
                Direction::Descending => upper,
            },
            ended: false,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            skip: list.offset,
            rows: Rows::none(list.table),
            total: None,
            counted: 0,
            scanned: 0,
            plan,
            list,
        };
        if scan.plan.exact {
            scan.jump(state);
        } else if scan.list.table == Table::Slots && scan.list.filter == Filter::EVERYTHING {
            let counts = state.counts();
            scan.total = Some(counts.free_slots + 2 * counts.associations);
        }
        if !scan.list.count {
            scan.total = None;
        }
        scan
    }

    /// Counts and passes over what comes before the page, without looking at it.
    fn jump(&mut self, state: &State) {
        let range = Range::of(&self.plan, state);
        let total = range.last.saturating_sub(range.first);
        self.total = Some(total);
        if self.skip >= total {
            self.ended = true;
            return;
        }
        let rank = match self.list.direction {
            Direction::Ascending => range.first + self.skip,
            Direction::Descending => range.last - 1 - self.skip,
        };
        self.skip = 0;
        if let Some(handle) = source::select(&self.plan, rank, state) {
            self.from = Included(state.record(handle).serial_number().into());
        }
    }

    /// How much it has kept, in bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Has to be called before a widget changes, comes or goes: keeps how it was, if that is still to
    /// be looked at.
    pub(crate) fn before_change(&mut self, serial_number: &str, state: &State) {
        if self.ended || self.kept.contains_key(serial_number) || !self.is_ahead(serial_number) {
            return;
        }
        if planted!(ChangeAheadMissed) {
            return;
        }
        let widget = state.lookup(serial_number);
        let bytes = widget.as_ref().map_or(0, |widget| {
            let peers = widget.slots.iter().filter_map(|slot| slot.peer.as_ref());
            let peer_bytes = peers.map(|peer| peer.len()).sum::<usize>();
            serial_number.len() + widget.name.len() + peer_bytes
        });
        self.kept_bytes += serial_number.len() + bytes + KEPT_OVERHEAD_BYTES;
        self.kept.insert(serial_number.into(), widget);
    }

    /// Whether the widget has still to be looked at.
    fn is_ahead(&self, serial_number: &str) -> bool {
        if !self.plan.contains(serial_number) {
            return false;
        }
        match (&self.from, self.list.direction) {
            (Unbounded, _) => true,
            (Included(from), Direction::Ascending) => serial_number >= &**from,
            (Excluded(from), Direction::Ascending) => serial_number > &**from,
            (Included(from), Direction::Descending) => serial_number <= &**from,
            (Excluded(from), Direction::Descending) => serial_number < &**from,
        }
    }

    /// Goes on, at about this cost. The page, once it is whole.
    pub(crate) fn step(&mut self, state: &State, budget: &mut usize) -> Option<Page> {
        let cost = WIDGET_COST + self.list.filter.cost();
        while !self.is_done() {
            if *budget == 0 {
                return None;
            }
            let most = (*budget / cost).clamp(1, FETCHED_TOGETHER);
            let looked_at = self.look(state, most);
            *budget = budget.saturating_sub(cost * looked_at);
        }
        let rows = std::mem::replace(&mut self.rows, Rows::none(self.list.table));
        let total = self.list.count.then(|| self.total.unwrap_or(self.counted));
        Some(Page {
            rows,
            total,
            scanned: self.scanned,
        })
    }

    fn is_done(&self) -> bool {
        let is_full = self.rows.len() >= self.list.limit as usize;
        self.ended || is_full && (self.total.is_some() || !self.list.count)
    }

    /// Looks at the next few widgets; how many those were.
    fn look(&mut self, state: &State, most: usize) -> usize {
        let (handles, on) = source::next(&self.plan, &self.from, self.list.direction, state, most);
        source::touch(&handles, state);
        let before = self.scanned;
        for handle in handles {
            let view = View::of(state, handle);
            let serial_number = view.serial_number();
            if !self.plan.contains(serial_number) {
                // Behind the last one that is in question.
                self.end();
                return looked_at(before, self.scanned);
            }
            if !self.kept.is_empty() && self.look_at_kept_until(serial_number) {
                continue;
            }
            self.look_at(&view, !self.plan.exact);
            if self.is_done() {
                return looked_at(before, self.scanned);
            }
        }
        if let Some(on) = on {
            self.look_at_kept_until(&on);
            self.from = Excluded(on);
        } else {
            self.end();
        }
        looked_at(before, self.scanned)
    }

    /// Nothing is left but what was kept.
    fn end(&mut self) {
        while self.look_at_kept() {}
        self.ended = true;
    }

    /// Looks at what was kept up to this serial number. Whether that was kept itself.
    fn look_at_kept_until(&mut self, serial_number: &str) -> bool {
        while let Some(kept) = self.next_kept() {
            let is_it = kept == serial_number;
            let is_before = match self.list.direction {
                Direction::Ascending => kept < serial_number,
                Direction::Descending => kept > serial_number,
            };
            if !is_it && !is_before {
                return false;
            }
            if is_it && planted!(KeptForgotten) {
                return false;
            }
            self.look_at_kept();
            if is_it {
                return true;
            }
        }
        false
    }

    fn next_kept(&self) -> Option<&str> {
        let next = match self.list.direction {
            Direction::Ascending => self.kept.first_key_value(),
            Direction::Descending => self.kept.last_key_value(),
        };
        next.map(|(serial_number, _)| &**serial_number)
    }

    /// Looks at what was kept next, if there is anything.
    fn look_at_kept(&mut self) -> bool {
        let next = match self.list.direction {
            Direction::Ascending => self.kept.pop_first(),
            Direction::Descending => self.kept.pop_last(),
        };
        if let Some((_, Some(widget))) = &next {
            self.look_at(widget, true);
        }
        next.is_some()
    }

    /// Takes the rows of a widget that the filter lets through; it is asked where that `is_open`.
    fn look_at(&mut self, widget: &impl Rowed, is_open: bool) {
        self.scanned += 1;
        match self.list.table {
            Table::Widgets => {
                if !is_open || self.list.filter.matches(widget) {
                    self.take(|rows| {
                        if let Rows::Widgets(rows) = rows {
                            rows.push(widget.widget());
                        }
                    });
                }
            }
            Table::Slots => {
                let mut slots = widget.slots();
                if self.list.direction == Direction::Descending {
                    slots.reverse();
                }
                for slot in slots.into_iter().flatten() {
                    if self.list.filter.matches(&slot) {
                        self.take(|rows| {
                            if let Rows::Slots(rows) = rows {
                                rows.push(slot.row());
                            }
                        });
                    }
                }
            }
        }
    }

    fn take(&mut self, push: impl FnOnce(&mut Rows)) {
        self.counted += 1;
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.rows.len() < self.list.limit as usize {
            push(&mut self.rows);
        }
    }
}

/// Even where there is nothing, somebody has looked.
fn looked_at(before: u64, after: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX).max(1)
}
