//! Batches by worker, where the registry is distributed: what a batch costs by itself it costs for each worker that
//! it concerns. And what of the registry is away, so that nothing else waits for it.
//!
//! What concerns the same workers is a home. Where much waits of one, it goes in a batch of its own. A home whose
//! batch met a node that is away is lost: for a while what names it is refused at once, and then one batch tries it.
//! As long as there is a lost home every batch is of one home, so that none is held up by another's.

use super::{FEW, Lane, Operation, Queue, Request};
use crate::{
    error::unavailable,
    placement::{Home, Placement},
    send::NODE_LOST,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use widgets_queue::{Submission, Waits as _};
use widgets_registry::{Command, Distributed, Fault};

/// A batch of one home is worth a commit of its own once it has this part of what a mixed one would have, divided by
/// how many workers that one would concern.
const WORTH: usize = 2;

/// A lost home of which nothing came for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// Where what waits is at home.
#[derive(Default)]
pub(super) struct Homes {
    /// Of several workers.
    placement: Option<Arc<Placement>>,
    /// How many nodes have widgets, where the registry is distributed.
    nodes: Option<usize>,
    lost: HashMap<Home, Lost>,
    /// How many batches of one home are on their way.
    busy: HashMap<Home, usize>,
}

/// A home of which a node was away.
#[derive(Clone, Copy)]
struct Lost {
    /// What names it is refused until then,
    until: Duration,
    /// and as long as a batch tries it.
    is_tried: bool,
}

impl Lost {
    const fn until(until: Duration) -> Self {
        Self {
            until,
            is_tried: false,
        }
    }

    fn refuses(self, now: Duration) -> bool {
        self.is_tried || self.until > now
    }
}

/// What goes together in one batch, as it is formed.
pub(super) struct Group {
    placement: Option<Arc<Placement>>,
    /// The homes that have batches of their own; all of them where there is none here.
    apart: Option<Vec<Home>>,
    refused: Vec<Home>,
    chosen: Chosen,
}

/// What the first operation of a batch says of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Nothing,
    Mixed,
    Of(Home),
}

impl Group {
    /// Whether an operation goes into the batch; the first one says which others do.
    pub(super) fn takes(&mut self, command: &Command) -> bool {
        let Some(placement) = &self.placement else {
            return true;
        };
        let home = placement.home(command);
        if self.refused.contains(&home) {
            return false;
        }
        let is_apart = self
            .apart
            .as_ref()
            .is_none_or(|apart| apart.contains(&home));
        let group = if is_apart {
            Chosen::Of(home)
        } else {
            Chosen::Mixed
        };
        if self.chosen == Chosen::Nothing {
            self.chosen = group;
        }
        self.chosen == group
    }

    /// The home of all operations in the batch, where it is one of its own.
    pub(super) fn home(&self) -> Option<Home> {
        match self.chosen {
            Chosen::Of(home) => Some(home),
            Chosen::Nothing | Chosen::Mixed => None,
        }
    }
}

impl Homes {
    /// The nodes, where the registry is distributed. Of a lost pair both are told as long as none of them is lost by
    /// itself: which one it is nobody knows.
    pub(super) fn distributed(&self) -> Option<Distributed> {
        let mut away = Vec::new();
        if let Some(placement) = &self.placement {
            let is_lost = |worker| self.lost.contains_key(&Home(worker, worker));
            for (worker, node) in placement.workers.iter().enumerate() {
                let in_pair = self.lost.keys().any(|&Home(one, two)| {
                    (one == worker || two == worker) && !is_lost(one) && !is_lost(two)
                });
                if is_lost(worker) || in_pair {
                    away.push(node.clone());
                }
            }
        }
        let nodes = self.nodes?;
        Some(Distributed { nodes, away })
    }

    /// What of these the next batch may have.
    pub(super) fn group(
        &mut self,
        waiting: &VecDeque<Submission<Request>>,
        most: usize,
        connections: usize,
        now: Duration,
    ) -> Group {
        self.lost
            .retain(|_, lost| lost.is_tried || lost.until + FORGOTTEN > now);
        let is_refused = |(home, lost): (&Home, &Lost)| lost.refuses(now).then_some(*home);
        // One that is slow leaves a connection to the others, but where few wait.
        let most_busy = if waiting.len() > FEW {
            connections.saturating_sub(1).max(1)
        } else {
            usize::MAX
        };
        let is_busy = |(home, busy): (&Home, &usize)| (*busy >= most_busy).then_some(*home);
        let lost = self.lost.iter().filter_map(is_refused);
        Group {
            placement: self.placement.clone(),
            apart: self.lost.is_empty().then(|| self.worth(waiting, most)),
            refused: lost.chain(self.busy.iter().filter_map(is_busy)).collect(),
            chosen: Chosen::Nothing,
        }
    }

    /// The homes of which enough waits for batches of their own.
    fn worth(&self, waiting: &VecDeque<Submission<Request>>, most: usize) -> Vec<Home> {
        let Some(placement) = &self.placement else {
            return Vec::new();
        };
        let mut waits: HashMap<Home, usize> = HashMap::new();
        for submission in waiting {
            if let Request::Operation(attempt, _) = &submission.request {
                *waits.entry(placement.home(&attempt.command)).or_default() += 1;
            }
        }
        let enough = (WORTH * waiting.len().min(most)).div_ceil(placement.workers.len());
        let is_enough = |(home, count)| (count >= enough.max(FEW)).then_some(home);
        waits.into_iter().filter_map(is_enough).collect()
    }

    /// A batch of this home is on its way: where that one is lost, it is the one that tries it.
    pub(super) fn is_tried(&mut self, home: Home) {
        if let Some(lost) = self.lost.get_mut(&home) {
            lost.is_tried = true;
        }
    }

    /// The home of all of these, where it is one and says which nodes they concern: what goes takes its peers with it.
    fn of<'a>(&self, mut commands: impl Iterator<Item = &'a Command>) -> Option<Home> {
        let placement = self.placement.as_ref()?;
        let home = placement.home(commands.next()?);
        commands
            .all(|command| placement.home(command) == home)
            .then_some(home)
    }

    /// What an operation is told at once whose home is lost.
    pub(super) fn refuse(&self, submission: &Submission<Request>) -> Option<Fault> {
        let (placement, false) = (self.placement.as_ref()?, self.lost.is_empty()) else {
            return None;
        };
        let Request::Operation(attempt, _) = &submission.request else {
            return None;
        };
        let lost = self.lost.get(&placement.home(&attempt.command))?;
        lost.refuses(submission.arrived)
            .then(|| away("it was away a moment ago"))
    }
}

fn away(details: &str) -> Fault {
    unavailable(NODE_LOST, details)
}

impl Queue {
    /// Takes in where the widgets are.
    pub(crate) fn set_placement(&self, placement: Option<Placement>) {
        let mut waiting = self.lock();
        let homes = &mut waiting.homes;
        homes.nodes = placement.as_ref().map(|placement| placement.workers.len());
        let placement = placement.filter(Placement::has_several);
        if homes.placement.as_deref() != placement.as_ref() {
            homes.placement = placement.map(Arc::new);
            // The numbers of the workers are others.
            homes.lost.clear();
            homes.busy.clear();
        }
    }

    /// Where the widgets are.
    pub(crate) fn placement(&self) -> Option<Arc<Placement>> {
        self.lock().homes.placement.clone()
    }

    /// Waits until the widgets may be elsewhere.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Which of two workers or more a widget is on, and only while something is lost.
    pub(crate) fn apart(&self) -> Option<Arc<Placement>> {
        let homes = &self.lock().homes;
        let is_lost = !homes.lost.is_empty();
        is_lost.then(|| homes.placement.clone()).flatten()
    }

    /// A batch was held up by whichever node of these homes: each is tried by itself from now on.
    pub(crate) fn suspect(&self, homes: impl Iterator<Item = Home>, now: Duration) {
        let lost = &mut self.lock().homes.lost;
        for home in homes {
            lost.entry(home).or_insert(Lost::until(now));
        }
    }

    /// Something met a node of this home that is away: what names it is refused for so long, and so is what waits.
    pub(crate) fn lose(&self, home: Home, now: Duration, pause: Duration) {
        let mut refused = Vec::new();
        let mut guard = self.lock();
        let waiting = &mut *guard;
        let Homes {
            placement, lost, ..
        } = &mut waiting.homes;
        lost.insert(home, Lost::until(now + pause));
        if let Some(placement) = placement {
            let lane = Lane::Operations as usize;
            waiting.requests.take(lane, usize::MAX, |submission| {
                let Request::Operation(attempt, _) = &submission.request else {
                    return Some(submission);
                };
                if placement.home(&attempt.command) != home {
                    return Some(submission);
                }
                refused.push(submission.request);
                None
            });
        }
        drop(guard);
        self.moved.notify_one();
        for request in refused {
            request.refuse(away("it was away for what came just before"));
        }
    }

    /// Whether what names this home is refused at present.
    pub(crate) fn is_lost(&self, home: Home, now: Duration) -> bool {
        let lost = self.lock().homes.lost.get(&home).copied();
        lost.is_some_and(|lost| lost.refuses(now))
    }

    /// The nodes of a home are there.
    pub(crate) fn reached(&self, home: Home) {
        self.lock().homes.lost.remove(&home);
    }

    /// The home of a batch, where it is one.
    pub(crate) fn home_of(&self, batch: &[Operation]) -> Option<Home> {
        let commands = batch.iter().map(|operation| &operation.attempt.command);
        self.lock().homes.of(commands)
    }

    /// A batch is on its way; its home, where it is one. Whoever says that says that it has [ended](Self::ended) as well.
    pub(crate) fn began(&self, batch: &[Operation]) -> Option<Home> {
        let home = self.home_of(batch)?;
        *self.lock().homes.busy.entry(home).or_default() += 1;
        Some(home)
    }

    /// Whatever came of it: the next batch of its home may be on its way.
    pub(crate) fn ended(&self, home: Home) {
        let mut waiting = self.lock();
        let Homes { lost, busy, .. } = &mut waiting.homes;
        if let Some(count) = busy.get_mut(&home) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                busy.remove(&home);
            }
        }
        if let Some(lost) = lost.get_mut(&home) {
            lost.is_tried = false;
        }
        drop(waiting);
        self.operations_arrived.notify_one();
    }

    /// Whether a home was away when it was tried last, or held something up.
    pub(crate) fn may_be_lost(&self, home: Home) -> bool {
        self.lock().homes.lost.contains_key(&home)
    }
}

/// A batch that failed in parts, of which one may have been the cause: by their homes, and each operation alone where
/// that is one. What goes takes its peers with it, which may be anywhere: it is alone in any case.
pub(crate) fn parts(placement: Option<&Placement>, batch: Vec<Operation>) -> Vec<Vec<Operation>> {
    let mut parts: Vec<Vec<Operation>> = Vec::new();
    let mut places = HashMap::new();
    let is_one = batch.len();
    for operation in batch {
        let command = &operation.attempt.command;
        let home = placement.map(|placement| placement.home(command));
        match home.filter(|_| !matches!(command, Command::RemoveWidget { .. })) {
            None => parts.push(vec![operation]),
            Some(home) => {
                let place = *places.entry(home).or_insert_with(|| {
                    parts.push(Vec::new());
                    parts.len() - 1
                });
                parts[place].push(operation);
            }
        }
    }
    if parts.len() == 1 && is_one > 1 {
        return parts.into_iter().flatten().map(|one| vec![one]).collect();
    }
    parts
}

#[cfg(test)]
mod tests;
