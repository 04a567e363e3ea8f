//! Batches by worker, for a distributed registry. Each worker that a batch concerns adds the fixed
//! cost of a batch. This module also knows which parts of the registry are lost, so that nothing
//! else waits for them.
//!
//! Operations that concern the same workers have the same home. If many of one home are waiting,
//! they go in a separate batch. A home whose batch met a node that cannot be reached is lost:
//! operations of that home are refused at once for a while, and then one batch tries it. While any
//! home is lost, every batch is of one home, so that none is held up by another's nodes.

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

/// A separate batch for one home pays once it has this many times the average share of a worker in
/// a mixed batch.
const WORTH: usize = 2;

/// A lost home is forgotten if no operation of it arrives for this long.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// The homes of the waiting operations.
#[derive(Default)]
pub(super) struct Homes {
    /// `None` unless there are several workers.
    placement: Option<Arc<Placement>>,
    /// How many nodes hold widgets. `None` if the registry is not distributed.
    nodes: Option<usize>,
    lost: HashMap<Home, Lost>,
    /// How many batches of each home are in flight.
    busy: HashMap<Home, usize>,
}

/// A home with a node that could not be reached.
#[derive(Clone, Copy)]
struct Lost {
    /// Operations of this home are refused until this time,
    until: Duration,
    /// and while a batch is trying it.
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

/// The operations that can go together in the batch being formed.
pub(super) struct Group {
    placement: Option<Arc<Placement>>,
    /// The homes that get separate batches. `None` means all of them.
    apart: Option<Vec<Home>>,
    refused: Vec<Home>,
    chosen: Chosen,
}

/// What the first operation in a batch decides about the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Nothing,
    Mixed,
    Of(Home),
}

impl Group {
    /// Reports whether an operation goes into the batch. The first operation decides which others
    /// do.
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

    /// Returns the home of all operations in the batch, if the batch is of one home.
    pub(super) fn home(&self) -> Option<Home> {
        match self.chosen {
            Chosen::Of(home) => Some(home),
            Chosen::Nothing | Chosen::Mixed => None,
        }
    }
}

impl Homes {
    /// Returns the nodes if the registry is distributed. For a lost pair, both nodes are reported
    /// unless one of them is lost on its own, because nobody knows which of the two it is.
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

    /// Returns which of these operations the next batch may take.
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
        // A slow home leaves a connection to the others, unless few operations are waiting.
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

    /// Returns the homes with enough waiting operations for separate batches.
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

    /// Records that a batch of this home is in flight. If the home is lost, this batch is the one
    /// that tries it.
    pub(super) fn is_tried(&mut self, home: Home) {
        if let Some(lost) = self.lost.get_mut(&home) {
            lost.is_tried = true;
        }
    }

    /// Returns the home of all these commands if they have the same one. It does not cover the
    /// peers of a removed widget, which may be on other nodes.
    fn of<'a>(&self, mut commands: impl Iterator<Item = &'a Command>) -> Option<Home> {
        let placement = self.placement.as_ref()?;
        let home = placement.home(commands.next()?);
        commands
            .all(|command| placement.home(command) == home)
            .then_some(home)
    }

    /// Returns the fault for an operation whose home is lost.
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
    /// Stores the current placement of the widgets.
    pub(crate) fn set_placement(&self, placement: Option<Placement>) {
        let mut waiting = self.lock();
        let homes = &mut waiting.homes;
        homes.nodes = placement.as_ref().map(|placement| placement.workers.len());
        let placement = placement.filter(Placement::has_several);
        if homes.placement.as_deref() != placement.as_ref() {
            homes.placement = placement.map(Arc::new);
            // The numbers of the workers have changed.
            homes.lost.clear();
            homes.busy.clear();
        }
    }

    /// Returns the placement of the widgets.
    pub(crate) fn placement(&self) -> Option<Arc<Placement>> {
        self.lock().homes.placement.clone()
    }

    /// Waits until the placement may have changed.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Returns the placement if there are several workers and something is lost.
    pub(crate) fn apart(&self) -> Option<Arc<Placement>> {
        let homes = &self.lock().homes;
        let is_lost = !homes.lost.is_empty();
        is_lost.then(|| homes.placement.clone()).flatten()
    }

    /// Handles a batch that timed out because of a node of one of these homes. From now on each
    /// home is tried separately.
    pub(crate) fn suspect(&self, homes: impl Iterator<Item = Home>, now: Duration) {
        let lost = &mut self.lock().homes.lost;
        for home in homes {
            lost.entry(home).or_insert(Lost::until(now));
        }
    }

    /// Records that a node of this home could not be reached. Operations of the home that are
    /// waiting, or that arrive within `pause`, are refused.
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

    /// Reports whether operations of this home are refused at present.
    pub(crate) fn is_lost(&self, home: Home, now: Duration) -> bool {
        let lost = self.lock().homes.lost.get(&home).copied();
        lost.is_some_and(|lost| lost.refuses(now))
    }

    /// Records that the nodes of a home can be reached.
    pub(crate) fn reached(&self, home: Home) {
        self.lock().homes.lost.remove(&home);
    }

    /// Returns the home of a batch, if all its operations have the same one.
    pub(crate) fn home_of(&self, batch: &[Operation]) -> Option<Home> {
        let commands = batch.iter().map(|operation| &operation.attempt.command);
        self.lock().homes.of(commands)
    }

    /// Records that a batch is in flight, and returns its home if it has one. The caller must call
    /// [`Self::ended`] afterwards.
    pub(crate) fn began(&self, batch: &[Operation]) -> Option<Home> {
        let home = self.home_of(batch)?;
        *self.lock().homes.busy.entry(home).or_default() += 1;
        Some(home)
    }

    /// Records that a batch has ended, whatever its outcome. The home's next batch may start.
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

    /// Reports whether a home was lost when it was last tried, or has held up a batch.
    pub(crate) fn may_be_lost(&self, home: Home) -> bool {
        self.lock().homes.lost.contains_key(&home)
    }
}

/// Divides a failed batch into parts, one of which may hold the cause: one part per home, or one
/// per operation if all have the same home. A removal affects the widget's peers, which may be on
/// any node, so it is always a separate part.
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
