//! One list on its way through the widgets.

use super::{
    plan::Plan,
    source::{self, Range},
};
use crate::state::{Handle, Rowed, State, View};
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

/// What it costs to put a widget in order, beside the cost of a comparison.
const ORDER_COST: usize = 2;

/// What it takes to know that something changed, beside its serial number.
const CHANGED_BYTES: usize = 80;

/// What a kept widget takes beside its text.
const KEPT_BYTES: usize = 200;

/// Widgets that have changed since a list began, of those that it has still to look at: as they were
/// then, `None` where the filter lets nothing of them through, or there was none.
pub(super) type Kept = BTreeMap<Box<str>, Option<Box<Widget>>>;

/// A list under way. It shows the state of the moment at which it was made.
pub(crate) struct Scan {
    list: List,
    plan: Plan,
    /// What has still to be looked at begins here, in the direction of the list.
    from: Bound<Box<str>>,
    /// Nothing is left to be looked at.
    ended: bool,
    kept: Kept,
    kept_bytes: usize,
    /// So many rows are still to be left out.
    skip: u64,
    rows: Rows,
    total: Option<u64>,
    counted: u64,
    scanned: u64,
}

/// Where something is, seen from a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Before,
    Here,
    Beyond,
}

impl Scan {
    /// Begins a list at this moment, at which everything is durable.
    pub(crate) fn new(list: List, state: &mut State) -> Self {
        let mut plan = Plan::of(&list, state);
        if !plan.exact {
            plan.narrow(state);
        }
        let (lower, upper) = (plan.lower.clone(), plan.upper.clone());
        let mut scan = Self {
            from: match list.direction {
                Direction::Ascending => lower,
                Direction::Descending => upper,
            },
            ended: false,
            kept: Kept::new(),
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
            scan.total = Some(counts.free_slots.total() + 2 * counts.associations);
        }
        if !scan.list.count {
            scan.total = None;
        }
        scan
    }

    /// Counts and passes over what comes before the page, without looking at it.
    fn jump(&mut self, state: &mut State) {
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

    /// What it has kept and has no more use for: a great deal takes long to be given back.
    pub(super) fn into_kept(self) -> Kept {
        self.kept
    }

    /// Has to be called before a widget changes, comes or goes: keeps how it was, if that is still to
    /// be looked at.
    pub(crate) fn before_change(&mut self, serial_number: &str, state: &State) {
        if self.ended || !self.is_ahead(serial_number) || self.kept.contains_key(serial_number) {
            return;
        }
        if planted!(ChangeAheadMissed) {
            return;
        }
        self.kept_bytes += serial_number.len() + CHANGED_BYTES;
        let view = state.find(serial_number).map(|it| View::of(state, it));
        self.scanned += u64::from(view.is_some());
        let passing = view.filter(|view| self.lets_through(view));
        let widget = passing.map(|view| Box::new(view.widget()));
        if let Some(widget) = &widget {
            let peers = widget.slots.iter().filter_map(|slot| slot.peer.as_ref());
            let peer_bytes = peers.map(|peer| peer.len()).sum::<usize>();
            self.kept_bytes += serial_number.len() + widget.name.len() + peer_bytes + KEPT_BYTES;
        }
        self.kept.insert(serial_number.into(), widget);
    }

    /// Whether a row of this widget is one of the list.
    fn lets_through(&self, view: &View<'_>) -> bool {
        let filter = &self.list.filter;
        match self.list.table {
            Table::Widgets => filter.matches(view),
            Table::Slots => {
                let mut slots = view.slots().into_iter().flatten();
                slots.any(|slot| filter.matches(&slot))
            }
        }
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
    pub(crate) fn step(&mut self, state: &mut State, budget: &mut usize) -> Option<Page> {
        let cost = WIDGET_COST + self.list.filter.cost();
        while !self.is_done() {
            if *budget == 0 {
                return None;
            }
            let most = (*budget / cost).clamp(1, FETCHED_TOGETHER);
            let looked_at = self.look(state, most);
            let put_in_order = ORDER_COST * state.take_put_in_order();
            *budget = budget.saturating_sub(cost * looked_at + put_in_order);
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

    /// Looks at the next few widgets and at what was kept; how much that was.
    fn look(&mut self, state: &mut State, most: usize) -> usize {
        let (handles, mut on) =
            source::next(&self.plan, &self.from, self.list.direction, state, most);
        let state = &*state;
        state.touch(&handles);
        let mut room = most;
        let is_plain = self.is_plain(&handles, state);
        let mut reached = None;
        for handle in handles {
            let view = View::of(state, handle);
            let serial_number = view.serial_number();
            if !is_plain {
                if !self.plan.contains(serial_number) {
                    on = None;
                    break;
                }
                match self.look_at_kept_until(serial_number, &mut room) {
                    Next::Here => continue,
                    Next::Beyond if room > 0 => {}
                    Next::Beyond | Next::Before => {
                        self.move_to(reached);
                        return most;
                    }
                }
            }
            self.look_at(&view, !self.plan.exact);
            room -= 1;
            if self.is_done() {
                return most - room;
            }
            reached = Some(serial_number);
        }
        // What was kept behind the last widget that is there.
        let is_whole = match &on {
            Some(on) => self.look_at_kept_until(on, &mut room) != Next::Before,
            None => self.look_at_kept(&mut room),
        };
        match on {
            _ if !is_whole => self.move_to(reached),
            Some(on) => self.from = Excluded(on),
            None => self.ended = true,
        }
        // Even where there is nothing, somebody has looked.
        (most - room).max(1)
    }

    /// Whether all of these are in question, and nothing was kept up to the last of them.
    fn is_plain(&self, handles: &[Handle], state: &State) -> bool {
        let Some(&last) = handles.last() else {
            return false;
        };
        let last = state.record(last).serial_number();
        let is_free = self
            .next_kept()
            .is_none_or(|kept| self.is_before(last, kept));
        is_free && self.plan.contains(last)
    }

    fn is_before(&self, one: &str, other: &str) -> bool {
        match self.list.direction {
            Direction::Ascending => one < other,
            Direction::Descending => one > other,
        }
    }

    /// Everything up to this serial number was looked at. What was kept may have led further.
    fn move_to(&mut self, reached: Option<&str>) {
        if let Some(reached) = reached
            && self.is_ahead(reached)
        {
            self.from = Excluded(reached.into());
        }
    }

    /// Looks at what was kept up to this serial number, as long as there is room. Where what was kept
    /// next is then.
    fn look_at_kept_until(&mut self, serial_number: &str, room: &mut usize) -> Next {
        while let Some(kept) = self.next_kept() {
            if self.is_before(serial_number, kept) {
                break;
            }
            if *room == 0 {
                return Next::Before;
            }
            let is_it = kept == serial_number;
            let is_forgotten = is_it && planted!(KeptForgotten);
            if !is_forgotten {
                *room -= 1;
            }
            self.look_at_next_kept(is_forgotten);
            if is_it && !is_forgotten {
                return Next::Here;
            }
        }
        Next::Beyond
    }

    /// Looks at all that was kept, as long as there is room. Whether nothing is left.
    fn look_at_kept(&mut self, room: &mut usize) -> bool {
        while *room > 0 && !self.kept.is_empty() {
            *room -= 1;
            self.look_at_next_kept(false);
        }
        self.kept.is_empty()
    }

    fn next_kept(&self) -> Option<&str> {
        let next = match self.list.direction {
            Direction::Ascending => self.kept.first_key_value(),
            Direction::Descending => self.kept.last_key_value(),
        };
        next.map(|(serial_number, _)| &**serial_number)
    }

    /// Takes what was kept next, and goes on behind it.
    fn look_at_next_kept(&mut self, is_forgotten: bool) {
        let next = match self.list.direction {
            Direction::Ascending => self.kept.pop_first(),
            Direction::Descending => self.kept.pop_last(),
        };
        let Some((serial_number, widget)) = next else {
            return;
        };
        if let Some(widget) = widget
            && !is_forgotten
        {
            self.take_rows(&*widget, true);
        }
        if !is_forgotten && !planted!(KeptLookedAtTwice) {
            self.from = Excluded(serial_number);
        }
    }

    /// Takes the rows of a widget that the filter lets through; it is asked where that `is_open`.
    fn look_at(&mut self, view: &View<'_>, is_open: bool) {
        self.scanned += 1;
        self.take_rows(view, is_open);
    }

    fn take_rows(&mut self, widget: &impl Rowed, is_open: bool) {
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
