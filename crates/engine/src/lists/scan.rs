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

/// How many records are fetched together, so that their waits for memory overlap.
const FETCHED_TOGETHER: usize = if cfg!(test) { 3 } else { 128 };

/// The cost of looking at a widget, whatever the filter, relative to a comparison.
const WIDGET_COST: usize = 4;

/// The cost of sorting a widget, relative to a comparison.
const ORDER_COST: usize = 2;

/// The memory for knowing that a widget changed, beside its serial number.
const CHANGED_BYTES: usize = 80;

/// The memory for a kept widget, beside its texts.
const KEPT_BYTES: usize = 200;

/// The widgets that have changed since a list began and before it reached them, as they were when
/// it began. `None` if the widget did not exist then, or does not pass the filter.
pub(super) type Kept = BTreeMap<Box<str>, Option<Box<Widget>>>;

/// A list under way. It shows the state of the moment at which it was made.
pub(crate) struct Scan {
    list: List,
    plan: Plan,
    /// Where the widgets begin that have not been looked at, in the direction of the list.
    from: Bound<Box<str>>,
    /// Whether nothing is left to look at.
    ended: bool,
    kept: Kept,
    kept_bytes: usize,
    /// How many rows must still be skipped.
    skip: u64,
    rows: Rows,
    total: Option<u64>,
    counted: u64,
    scanned: u64,
    /// Whether deciding the filter may cost much more for some rows than for others.
    strains: bool,
    /// What looking has cost beyond the filter's usual cost since this was last charged.
    strain: usize,
}

/// Where something is, relative to a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Before,
    Here,
    Beyond,
}

impl Scan {
    /// Begins a list at this moment, at which everything must be durable.
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
            strains: list.filter.strains(),
            strain: 0,
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

    /// Counts the rows and skips those before the page, without looking at them.
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

    /// Reports whether an index leads to exactly the rows.
    pub(super) fn is_indexed(&self) -> bool {
        self.plan.exact
    }

    /// Returns how many bytes the old versions occupy.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Returns the old versions, which are not needed any more. Freeing many of them takes long.
    pub(super) fn into_kept(self) -> Kept {
        self.kept
    }

    /// Keeps the old version of a widget if the list has not reached it. Must be called before a
    /// widget is changed, added or removed.
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

    /// Reports whether a row of this widget passes the filter.
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

    /// Reports whether the list has not reached the widget yet.
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

    /// Continues at about this cost. Returns the page once it is complete.
    pub(crate) fn step(&mut self, state: &mut State, budget: &mut usize) -> Option<Page> {
        let cost = WIDGET_COST + self.list.filter.cost();
        let mut strain_each = 0;
        while !self.is_done() {
            if *budget == 0 {
                return None;
            }
            let most = (*budget / (cost + strain_each)).clamp(1, FETCHED_TOGETHER);
            let looked_at = self.look(state, most);
            let put_in_order = ORDER_COST * state.take_put_in_order();
            let strain = std::mem::take(&mut self.strain);
            strain_each = strain / looked_at;
            *budget = budget.saturating_sub(cost * looked_at + strain + put_in_order);
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

    /// Looks at the next few widgets and old versions. Returns how many it looked at.
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
        // The old versions behind the last widget that exists.
        let is_whole = match &on {
            Some(on) => self.look_at_kept_until(on, &mut room) != Next::Before,
            None => self.look_at_kept(&mut room),
        };
        match on {
            _ if !is_whole => self.move_to(reached),
            Some(on) => self.from = Excluded(on),
            None => self.ended = true,
        }
        // Even if there was nothing, looking has a cost.
        (most - room).max(1)
    }

    /// Reports whether all of these are within the bounds, and no old version comes before or at
    /// the last of them.
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

    /// Records that everything up to this serial number was looked at. An old version may already
    /// have led further.
    fn move_to(&mut self, reached: Option<&str>) {
        if let Some(reached) = reached
            && self.is_ahead(reached)
        {
            self.from = Excluded(reached.into());
        }
    }

    /// Looks at the old versions up to this serial number while there is room. Returns where the
    /// next old version is then.
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

    /// Looks at all old versions while there is room. Returns whether none are left.
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

    /// Takes the next old version, and moves behind it.
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

    /// Takes the rows of a widget that pass the filter. If `is_open` is false, the widget is known
    /// to pass.
    fn look_at(&mut self, view: &View<'_>, is_open: bool) {
        self.scanned += 1;
        self.take_rows(view, is_open);
    }

    fn take_rows(&mut self, widget: &impl Rowed, is_open: bool) {
        match self.list.table {
            Table::Widgets => {
                if is_open && self.strains {
                    self.strain += self.list.filter.strain(widget);
                }
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
                    if self.strains {
                        self.strain += self.list.filter.strain(&slot);
                    }
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
