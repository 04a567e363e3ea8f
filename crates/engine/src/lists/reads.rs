//! Reads of many widgets, waiting for their turn or under way.
//!
//! The owner gives them some time between batches, when everything is durable. A read that an index
//! serves is done within one turn. Any other becomes a scan, and the number of scans is limited.

use super::{Scan, scan::Kept};
use crate::{
    owner::Replies,
    state::{Handle, State},
};
use std::{collections::VecDeque, time::Duration};
use widgets_mailbox::Address;
use widgets_queue::{Answered, Asked};
use widgets_registry::{
    Change, Command, Fault,
    query::{Asker, List, NeighbourhoodQuery, Page, neighbourhood},
};

/// What a turn may cost, in comparisons: some hundred microseconds.
const TURN_COST: usize = if cfg!(test) { 20 } else { 10_000 };

/// The cost of a widget in a neighbourhood.
const NEIGHBOUR_COST: usize = 40;

/// How many bytes of old versions a scan may keep.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// How many of an ended scan's old versions are freed in a turn.
const GIVEN_BACK: usize = if cfg!(test) { 2 } else { 1000 };

/// A read of many widgets.
pub(crate) enum Read {
    List(Box<Asked<List>>),
    Neighbourhood(Box<Asked<NeighbourhoodQuery>>),
}

/// Which reads have their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The reads that have not begun.
    Begin,
    /// The reads that have not begun, and then the scans.
    All,
}

/// All reads of many widgets.
pub(crate) struct Reads {
    /// The reads that have not begun, and when they arrived.
    waiting: VecDeque<(Read, Address, Duration)>,
    scans: VecDeque<(Box<Asked<List>>, Address, Scan)>,
    /// The old versions that ended scans kept. They are freed gradually, because freeing all of
    /// them at once would take as long as many turns.
    kept: Vec<Kept>,
    waiting_max: usize,
    scans_max: usize,
}

impl Read {
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::List(asked) => asked.text_bytes(),
            Self::Neighbourhood(asked) => asked.text_bytes(),
        }
    }

    fn is_given_up(&self) -> bool {
        match self {
            Self::List(asked) => asked.is_given_up(),
            Self::Neighbourhood(asked) => asked.is_given_up(),
        }
    }

    /// Returns the answer that the read cannot be done.
    pub(crate) fn refused(self, fault: Fault) -> Answered {
        match self {
            Self::List(mut asked) => {
                asked.answer(|_| Err(fault));
                Answered::Other(asked)
            }
            Self::Neighbourhood(mut asked) => {
                asked.answer(|_| Err(fault));
                Answered::Other(asked)
            }
        }
    }
}

impl Reads {
    pub(crate) fn new(waiting_max: usize, scans_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            scans: VecDeque::new(),
            kept: Vec::new(),
            waiting_max,
            scans_max,
        }
    }

    /// Queues a read for its turn, or answers that it cannot be done.
    pub(crate) fn push(
        &mut self,
        read: Read,
        reply_to: Address,
        arrived: Duration,
        replies: &mut Replies,
    ) {
        if self.waiting.len() >= self.waiting_max {
            let limit = format!("queue_operations_max = {}", self.waiting_max);
            return replies.send_fault(reply_to, read.refused(busy(limit)));
        }
        self.waiting.push_back((read, reply_to, arrived));
    }

    /// Reports whether anything is waiting, under way or left to free.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.scans.is_empty() || !self.kept.is_empty()
    }

    /// Reports whether a read has not begun.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns how many scans are under way. A list that an index serves is none, even if it needs a
    /// second turn.
    pub(crate) fn scans(&self) -> usize {
        let scans = self.scans.iter();
        scans.filter(|(_, _, scan)| !scan.is_indexed()).count()
    }

    /// Lets the scans keep old versions. Must be called before a decided change is applied.
    pub(crate) fn before_change(
        &mut self,
        state: &State,
        command: &Command,
        change: Change<Handle>,
    ) {
        if self.scans.is_empty() {
            return;
        }
        state.touched(command, change, |serial_number| {
            for (_, _, scan) in &mut self.scans {
                scan.before_change(serial_number, state);
            }
        });
    }

    /// Advances the reads by one turn. Everything in the state must be durable. `late` returns a
    /// fault if a read that arrived at this time has waited too long.
    pub(crate) fn advance(
        &mut self,
        turn: Turn,
        state: &mut State,
        late: impl Fn(Duration) -> Option<Fault>,
        replies: &mut Replies,
    ) {
        // A caller that has disconnected needs no answer.
        self.waiting.retain(|(read, ..)| !read.is_given_up());
        if turn == Turn::All {
            for _ in 0..self.scans.len() {
                match self.scans.pop_front() {
                    Some((asked, _, scan)) if asked.is_given_up() => self.end(scan),
                    Some(goes_on) => self.scans.push_back(goes_on),
                    None => {}
                }
            }
            self.give_back();
        }
        let mut budget = TURN_COST;
        while budget > 0
            && let Some((read, reply_to, arrived)) = self.waiting.pop_front()
        {
            if let Some(fault) = late(arrived) {
                replies.send_fault(reply_to, read.refused(fault));
            } else {
                self.begin(read, reply_to, state, &mut budget, replies);
            }
        }
        // The scans take turns.
        for _ in 0..self.scans.len() {
            if budget == 0 || turn == Turn::Begin {
                break;
            }
            if let Some((asked, reply_to, scan)) = self.scans.pop_front() {
                self.go_on(asked, reply_to, scan, state, &mut budget, replies);
            }
        }
    }

    fn begin(
        &mut self,
        read: Read,
        reply_to: Address,
        state: &mut State,
        budget: &mut usize,
        replies: &mut Replies,
    ) {
        match read {
            Read::Neighbourhood(mut asked) => {
                asked.answer(|query| {
                    let found = neighbourhood(&query, |serial_number| state.lookup(serial_number));
                    let widgets = found.as_ref().map_or(1, |found| found.widgets.len());
                    *budget = budget.saturating_sub(widgets * NEIGHBOUR_COST);
                    Ok(found)
                });
                replies.send(reply_to, Answered::Other(asked));
            }
            Read::List(asked) => {
                let Some(list) = asked.request() else { return };
                let scan = Scan::new(list.clone(), state);
                // Each has a whole turn: what those before it have left may be too little even for
                // a list that an index serves. Planning has a cost for each condition.
                let planned = list.filter.cost();
                let mut own = TURN_COST;
                self.go_on(asked, reply_to, scan, state, &mut own, replies);
                *budget = budget.saturating_sub(TURN_COST - own + planned);
            }
        }
    }

    fn go_on(
        &mut self,
        mut asked: Box<Asked<List>>,
        reply_to: Address,
        mut scan: Scan,
        state: &mut State,
        budget: &mut usize,
        replies: &mut Replies,
    ) {
        let answer: Result<Page, Fault> = if let Some(page) = scan.step(state, budget) {
            Ok(page)
        } else if scan.kept_bytes() > KEPT_BYTES_MAX {
            let limit = format!("{KEPT_BYTES_MAX} bytes of what changed while a list was made");
            Err(busy(limit))
        } else if scan.is_indexed() {
            return self.scans.push_back((asked, reply_to, scan));
        } else if self.scans() >= self.scans_max {
            Err(busy(format!("http.scans_max = {}", self.scans_max)))
        } else if self.scans_of(&asked) >= Asker::share(self.scans_max) {
            let share = Asker::share(self.scans_max);
            let limit = format!("{share} of http.scans_max = {} for one", self.scans_max);
            Err(busy(limit))
        } else {
            return self.scans.push_back((asked, reply_to, scan));
        };
        asked.answer(|_| answer);
        replies.send(reply_to, Answered::Other(asked));
        self.end(scan);
    }

    /// Returns how many scans of the same asker are under way.
    fn scans_of(&self, asked: &Asked<List>) -> usize {
        let who = |asked: &Asked<List>| asked.request().map(|list| list.asker);
        let of_same = |(each, _, scan): &&(Box<Asked<List>>, Address, Scan)| {
            who(each) == who(asked) && !scan.is_indexed()
        };
        self.scans.iter().filter(of_same).count()
    }

    fn end(&mut self, scan: Scan) {
        let kept = scan.into_kept();
        if !kept.is_empty() {
            self.kept.push(kept);
        }
    }

    /// Frees some of the old versions that ended scans kept.
    fn give_back(&mut self) {
        if let Some(kept) = self.kept.last_mut() {
            for _ in 0..GIVEN_BACK {
                if kept.pop_first().is_none() {
                    self.kept.pop();
                    return;
                }
            }
        }
    }
}

fn busy(limit: String) -> Fault {
    Fault::Busy {
        limit,
        retry_after_seconds: 1,
    }
}
