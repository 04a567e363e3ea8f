//! The primary's side: sends the store's header, and then its journal as it becomes durable.
//!
//! Each standby is served by a task in the runtime that serves its request, with one piece in
//! flight at a time. The task reads what the engine has made durable. If the standby does not read,
//! only this task waits; writers never do.

use crate::{
    Epoch, MemberId, Outside,
    acknowledge::{Acknowledger, Limit},
    outside::{Doing, block},
    wire::{self, Frame, Reports},
};
use bytes::Bytes;
use prometheus::IntGauge;
use std::{future::pending, io, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use widgets_engine::{JournalHold, LoggedGroup, Source, SourceError};

/// The maximum number of standbys that are served at a time.
const STANDBYS_MAX: i64 = 16;

/// The approximate size of a piece of groups.
const GROUPS_BYTES: usize = 256 << 10;

/// The size of a piece of a checkpoint.
const CHECKPOINT_BYTES: usize = 256 << 10;

/// How much journal is held for a copy at most: as much as for a backup.
const HELD_BYTES_MAX: u64 = 4 << 30;

/// How often a primary sends its end when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// The request is not one that a standby sends: says what it must be.
    Malformed(String),
    /// This store's history does not contain the point where the standby's ends.
    Elsewhere(String),
    /// Too many standbys are connected, or the standby must ask again later: says the limit, or the
    /// reason.
    Busy(String),
    /// The disk failed.
    Unavailable(String),
    /// The roles are unchanged: says why.
    NotChanged(String),
    /// It is unknown which store is the primary: says what to look at.
    Unknown(String),
    /// The rules do not allow it: what anybody may read about that, and the detailed reason.
    Refused(&'static str, String),
}

/// Serves the standbys of a store. Clones share their state.
#[derive(Clone)]
pub struct Standbys {
    outside: Arc<dyn Outside>,
    source: Source,
    connected: IntGauge,
    acknowledger: Option<Acknowledger>,
}

impl Standbys {
    /// Serves the standbys of this store. `connected` counts them. If answers wait for one of them,
    /// `acknowledger` takes their reports.
    #[must_use]
    pub(crate) const fn new(
        outside: Arc<dyn Outside>,
        source: Source,
        connected: IntGauge,
        acknowledger: Option<Acknowledger>,
    ) -> Self {
        Self {
            outside,
            source,
            connected,
            acknowledger,
        }
    }

    /// Returns the receiver of what a standby's `query` asks for, piece by piece, and the task that
    /// sends it until the standby disconnects or `stopping` becomes true. `reports` receives the
    /// request's body.
    pub async fn send(
        self,
        query: String,
        reports: mpsc::Receiver<Bytes>,
        stopping: watch::Receiver<bool>,
    ) -> Result<(mpsc::Receiver<Bytes>, Doing<'static, ()>), Unsendable> {
        let (from, member) = wire::asked(&query).map_err(Unsendable::Malformed)?;
        if let Some(from) = from {
            let source = self.source.clone();
            let looked = block(&*self.outside, move || check(&source, from)).await;
            looked.map_err(|error| Unsendable::Unavailable(error.to_string()))??;
        }
        self.connected.inc();
        let counted = Counted(self.connected.clone());
        // Count first and check afterwards, so that no two standbys share the last place.
        if self.connected.get() > STANDBYS_MAX {
            return Err(Unsendable::Busy(format!("{STANDBYS_MAX} standbys")));
        }
        let (pieces, body) = mpsc::channel(1);
        let epoch = Epoch::new(self.source.store().epoch());
        let limit = self.acknowledger.as_ref().map(Acknowledger::limit);
        let hearing = hear(self.acknowledger.clone(), member, epoch, reports);
        let sender = Sender {
            outside: self.outside,
            source: self.source,
            acknowledger: self.acknowledger,
            member,
            epoch,
            limit,
            journal: None,
            pieces,
            stopping,
        };
        let sending = async move {
            let _counted = counted;
            tokio::select! {
                biased;
                () = hearing => {}
                () = sender.run(from.map(|from| from.next_sequence)) => {}
            }
        };
        Ok((body, Box::pin(sending)))
    }
}

/// Takes a standby's reports until there are no more. Never returns if the standby cannot be the
/// holder.
async fn hear(
    acknowledger: Option<Acknowledger>,
    member: Option<MemberId>,
    epoch: Epoch,
    mut pieces: mpsc::Receiver<Bytes>,
) {
    let (Some(acknowledger), Some(member)) = (acknowledger, member) else {
        return pending().await;
    };
    let mut reports = Reports::default();
    let mut attached = None;
    while let Some(piece) = pieces.recv().await {
        if let Some(sequence) = reports.push(&piece) {
            // Only now is it certain that the standby follows; before its first report it might be
            // one that is refused.
            attached.get_or_insert_with(|| acknowledger.attach(member));
            acknowledger.report(member, epoch, sequence);
        }
    }
}

struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Checks that this store has the standby's history and what comes after it. May block on the disk.
fn check(source: &Source, from: wire::From) -> Result<(), Unsendable> {
    let store = source.store();
    let elsewhere = |why: String| Err(Unsendable::Elsewhere(why));
    if from.store != store.identity {
        return elsewhere(format!(
            "the standby is a copy of store {:016x}, this is store {:016x}",
            from.store, store.identity
        ));
    }
    if Epoch::new(from.epoch) > Epoch::new(store.epoch()) {
        return elsewhere(format!(
            "the standby is of epoch {}, this store of epoch {}, which that has replaced",
            from.epoch,
            store.epoch()
        ));
    }
    let end = source.end();
    if from.next_sequence > end.next_sequence {
        return elsewhere(format!(
            "the standby has entries up to {}, this store up to {}",
            from.next_sequence - 1,
            end.next_sequence - 1
        ));
    }
    match source.chain_before(from.next_sequence) {
        Ok(Some(chain)) if chain == from.chain => Ok(()),
        Ok(_) => elsewhere(format!(
            "this store's history before entry {} is not the standby's",
            from.next_sequence
        )),
        Err(SourceError::Gone { oldest }) => elsewhere(format!(
            "the standby has entries before {}, this store's journal begins at {oldest}",
            from.next_sequence
        )),
        Err(SourceError::Io(error)) => Err(Unsendable::Unavailable(error.to_string())),
    }
}

/// Sends to one standby.
struct Sender {
    outside: Arc<dyn Outside>,
    source: Source,
    acknowledger: Option<Acknowledger>,
    member: Option<MemberId>,
    /// The epoch in which the standby asked: its reports count for this one only.
    epoch: Epoch,
    /// How far this standby may be sent the journal.
    limit: Option<watch::Receiver<Limit>>,
    /// The hold on what a copy still needs of the journal, until the copy has reached its end.
    journal: Option<JournalHold>,
    pieces: mpsc::Sender<Bytes>,
    stopping: watch::Receiver<bool>,
}

impl Sender {
    async fn run(mut self, from: Option<u64>) {
        // What the standby already has may yet be lost. Until it is acknowledged, it must not be
        // confirmed either.
        if !self.is_within_limit(from.unwrap_or_default()).await {
            return;
        }
        // A promotion may have come between the request and this point. The standby then asks again:
        // as long as this stream lasted, none of its reports would count.
        let store = self.source.store();
        if !self.is_of_epoch(store.epoch()) {
            return;
        }
        let mut piece = Vec::new();
        Frame::Store(Box::new((*store).clone())).encode(&mut piece);
        if !self.send(piece).await {
            return;
        }
        let first = match from {
            Some(first) => first,
            None => match self.send_checkpoint().await {
                Ok(Some(first)) => first,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the checkpoint cannot be sent to a standby");
                    return;
                }
            },
        };
        self.send_groups(first).await;
    }

    /// Sends the newest checkpoint, if there is one, and returns the entry with which the journal
    /// continues; `None` if the standby has disconnected. Sending it can take long, so the journal
    /// is held from there on: newer checkpoints would make it obsolete.
    async fn send_checkpoint(&mut self) -> io::Result<Option<u64>> {
        self.journal = Some(self.source.hold_journal(HELD_BYTES_MAX));
        let source = self.source.clone();
        let Some(held) = block(&*self.outside, move || source.hold_checkpoint()).await?? else {
            // The journal is complete from its first entry.
            return Ok(Some(1));
        };
        let held = Arc::new(held);
        let first = held.begin.next_sequence;
        if let Some(journal) = &self.journal {
            journal.advance(first);
        }
        let mut piece = Vec::new();
        Frame::Checkpoint {
            first_sequence: first,
            bytes: held.bytes,
        }
        .encode(&mut piece);
        let mut offset = 0;
        while offset < held.bytes {
            let left = usize::try_from(held.bytes - offset).unwrap_or(CHECKPOINT_BYTES);
            let (reader, wanted) = (held.clone(), left.min(CHECKPOINT_BYTES));
            let bytes = block(&*self.outside, move || reader.read(offset, wanted)).await??;
            if bytes.is_empty() {
                return Err(io::Error::other("it is shorter than it was"));
            }
            offset += bytes.len() as u64;
            Frame::Piece(bytes).encode(&mut piece);
            if !self.send(std::mem::take(&mut piece)).await {
                return Ok(None);
            }
        }
        Ok(Some(first))
    }

    /// Sends the journal from this entry on, endlessly.
    async fn send_groups(&mut self, first: u64) {
        let mut next = first;
        loop {
            let groups = match self.source.recent(next, GROUPS_BYTES) {
                Some(groups) => groups,
                None => match self.read(next).await {
                    Ok(groups) => groups,
                    Err(error) => {
                        tracing::warn!(%error, "a standby cannot be sent more of the journal");
                        return;
                    }
                },
            };
            // If this store took over meanwhile, or follows another primary, its history differs
            // from there on.
            if !self.is_of_epoch(self.source.store().epoch()) {
                return;
            }
            let (limit, mut piece) = (self.limit(), Vec::new());
            let is_beyond = |group: &Arc<LoggedGroup>| group.next_sequence() > limit;
            let beyond = groups.iter().position(is_beyond);
            for group in &groups[..beyond.unwrap_or(groups.len())] {
                wire::encode_group(&mut piece, group, group.next_chain());
                next = group.next_sequence();
            }
            let withheld = beyond.map(|_| limit);
            let mut end = self.source.end();
            let newest = end.next_sequence;
            // The standby must not learn of entries that it may not have yet, nor that it has
            // everything while it lacks entries that it may have.
            end.next_sequence = match withheld {
                Some(_) => next,
                None => newest.min(limit).max(next),
            };
            let behind = self.source.bytes_from(next);
            Frame::End { end, behind }.encode(&mut piece);
            if !self.send(piece).await {
                return;
            }
            self.hold_from(next, newest);
            if next >= end.next_sequence && !self.wait(next, withheld).await {
                return;
            }
        }
    }

    /// Lets go of the journal that a copy no longer needs: what is before `next`, and everything
    /// once the copy has reached `newest`, where the journal ends.
    fn hold_from(&mut self, next: u64, newest: u64) {
        if next >= newest {
            self.journal = None;
        } else if let Some(journal) = &self.journal {
            journal.advance(next);
        }
    }

    fn is_of_epoch(&self, epoch: u32) -> bool {
        Epoch::new(epoch) == self.epoch || slipped!(SentAcrossEpochs)
    }

    /// Returns the entry before which the standby may have everything.
    fn limit(&mut self) -> u64 {
        let limit = self.limit.as_mut().filter(|_| !slipped!(SentBeyondHolder));
        limit.map_or(u64::MAX, |it| it.borrow_and_update().of(self.member))
    }

    /// Waits until the standby may have everything before this entry. Returns false if sending must
    /// end.
    async fn is_within_limit(&mut self, next: u64) -> bool {
        let Some(limit) = &mut self.limit else {
            return true;
        };
        let member = self.member;
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|&stopping| stopping) => false,
            () = self.pieces.closed() => false,
            allowed = limit.wait_for(|limit| limit.of(member) >= next) => allowed.is_ok(),
        }
    }

    async fn read(&self, first: u64) -> Result<Vec<Arc<LoggedGroup>>, SourceError> {
        let source = self.source.clone();
        block(&*self.outside, move || source.read(first, GROUPS_BYTES)).await?
    }

    /// Waits for the next group, or at most for a heartbeat. Returns false if sending must end.
    async fn wait(&mut self, next: u64, withheld: Option<u64>) -> bool {
        let heartbeat = self.outside.clock().timer(HEARTBEAT);
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping, &*self.outside, self.acknowledger.as_ref()) => false,
            () = self.pieces.closed() => false,
            () = more(&self.source, &mut self.limit, self.member, next, withheld) => true,
            () = heartbeat => true,
        }
    }

    /// Sends a piece once the previous one is taken. Returns false if sending must end.
    async fn send(&mut self, piece: Vec<u8>) -> bool {
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping, &*self.outside, self.acknowledger.as_ref()) => false,
            sent = self.pieces.send(piece.into()) => sent.is_ok(),
        }
    }
}

/// How often a stopping service checks whether answers still wait for a standby.
const STOP_AGAIN: Duration = Duration::from_millis(10);

/// Waits until the service stops and no answer waits for a standby any more: accepted operations
/// are answered first.
async fn stopped(
    stopping: &mut watch::Receiver<bool>,
    outside: &dyn Outside,
    acknowledger: Option<&Acknowledger>,
) {
    // An error means that the service is gone.
    drop(stopping.wait_for(|&stopping| stopping).await);
    while acknowledger.is_some_and(Acknowledger::is_waited_for) {
        outside.clock().timer(STOP_AGAIN).await;
    }
}

/// Waits for an entry at or after `next`; if entries were withheld, until the limit rises.
async fn more(
    source: &Source,
    limit: &mut Option<watch::Receiver<Limit>>,
    member: Option<MemberId>,
    next: u64,
    withheld: Option<u64>,
) {
    match (limit, withheld) {
        // An error means that the store is gone, so there is nothing to wait for.
        (Some(limit), Some(before)) => {
            drop(limit.wait_for(|limit| limit.of(member) > before).await);
        }
        _ => source.appended(next).await,
    }
}

#[cfg(test)]
mod tests;
