//! The primary's side: sends its store, and then its journal as it becomes durable.
//!
//! Each standby is a task of the runtime that serves its request, with one piece at a time on its way. It reads what
//! the engine has made durable, and waits where the standby does not read: nobody who writes waits for it.

use crate::{
    Epoch, Outside,
    outside::{Doing, block},
    wire::{self, Frame},
};
use bytes::Bytes;
use prometheus::IntGauge;
use std::{io, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use widgets_engine::{LoggedGroup, Source, SourceError};

/// More standbys are not sent to at a time.
const STANDBYS_MAX: i64 = 16;

/// Groups are sent in pieces of about so many bytes.
const GROUPS_BYTES: usize = 256 << 10;

/// A checkpoint is sent in pieces of so many bytes.
const CHECKPOINT_BYTES: usize = 256 << 10;

/// So often a primary says that it is there, where nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// The request is not what a standby asks: it says what it must be.
    Malformed(String),
    /// This store cannot go on where the standby ends.
    Elsewhere(String),
    /// There are as many standbys as there may be: it names the limit.
    Busy(String),
    /// The disk failed.
    Unavailable(String),
    /// The roles are as before: it says why.
    NotChanged(String),
    /// Which store is the primary is not known: it says what to look at.
    Unknown(String),
}

/// Those who keep copies of a store. Clones are of the same.
#[derive(Clone)]
pub struct Standbys {
    outside: Arc<dyn Outside>,
    source: Source,
    connected: IntGauge,
}

impl Standbys {
    /// Those of this store. `connected` counts them.
    #[must_use]
    pub const fn new(outside: Arc<dyn Outside>, source: Source, connected: IntGauge) -> Self {
        Self {
            outside,
            source,
            connected,
        }
    }

    /// What a standby's `query` asks for, piece by piece, and the task that sends it until the standby goes or
    /// `stopping` says so.
    pub async fn send(
        self,
        query: String,
        stopping: watch::Receiver<bool>,
    ) -> Result<(mpsc::Receiver<Bytes>, Doing<'static, ()>), Unsendable> {
        let from = wire::asked(&query).map_err(Unsendable::Malformed)?;
        if let Some(from) = from {
            let source = self.source.clone();
            let looked = block(&*self.outside, move || check(&source, from)).await;
            looked.map_err(|error| Unsendable::Unavailable(error.to_string()))??;
        }
        self.connected.inc();
        let counted = Counted(self.connected.clone());
        // Counted before it is looked at: nobody gets in beside somebody else.
        if self.connected.get() > STANDBYS_MAX {
            return Err(Unsendable::Busy(format!("{STANDBYS_MAX} standbys")));
        }
        let (pieces, body) = mpsc::channel(1);
        let sender = Sender {
            outside: self.outside,
            source: self.source,
            pieces,
            stopping,
        };
        let sending = async move {
            let _counted = counted;
            sender.run(from.map(|from| from.next_sequence)).await;
        };
        Ok((body, Box::pin(sending)))
    }
}

struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Whether this store has what a standby has, and what comes after that. May wait for the disk.
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
    pieces: mpsc::Sender<Bytes>,
    stopping: watch::Receiver<bool>,
}

impl Sender {
    async fn run(mut self, from: Option<u64>) {
        let mut piece = Vec::new();
        let store = self.source.store();
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
        self.send_groups(first, store.epoch()).await;
    }

    /// Sends the newest checkpoint, if there is one, and says with which entry the journal goes on. `None` where
    /// the standby has gone.
    async fn send_checkpoint(&mut self) -> io::Result<Option<u64>> {
        let source = self.source.clone();
        let Some(held) = block(&*self.outside, move || source.hold_checkpoint()).await?? else {
            // The journal has everything from its first entry on.
            return Ok(Some(1));
        };
        let held = Arc::new(held);
        let first = held.begin.next_sequence;
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

    /// Sends the journal from this entry on, without an end.
    async fn send_groups(&mut self, first: u64, epoch: u32) {
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
            // Whoever took over in between has another history from there on.
            if self.source.store().epoch() != epoch && !slipped!(SentAcrossEpochs) {
                return;
            }
            let mut piece = Vec::new();
            for group in &groups {
                wire::encode_group(&mut piece, group, group.next_chain());
                next = group.next_sequence();
            }
            let end = self.source.end();
            let behind = self.source.bytes_from(next);
            Frame::End { end, behind }.encode(&mut piece);
            if !self.send(piece).await {
                return;
            }
            if next >= end.next_sequence && !self.wait(next).await {
                return;
            }
        }
    }

    async fn read(&self, first: u64) -> Result<Vec<Arc<LoggedGroup>>, SourceError> {
        let source = self.source.clone();
        block(&*self.outside, move || source.read(first, GROUPS_BYTES)).await?
    }

    /// Waits for the next group, or for as long as nothing may be sent. False where it ends.
    async fn wait(&mut self, next: u64) -> bool {
        let heartbeat = self.outside.clock().timer(HEARTBEAT);
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|&stopping| stopping) => false,
            () = self.pieces.closed() => false,
            () = self.source.appended(next) => true,
            () = heartbeat => true,
        }
    }

    /// Hands a piece over once the one before is taken. False where it ends.
    async fn send(&mut self, piece: Vec<u8>) -> bool {
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|&stopping| stopping) => false,
            sent = self.pieces.send(piece.into()) => sent.is_ok(),
        }
    }
}
