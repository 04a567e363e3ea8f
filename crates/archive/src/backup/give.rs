//! Gives backups: a thread for each backup reads what is durable and sends it piece by piece.

use super::frame::{self, Frame, Head};
use crate::{
    Error,
    archiver::OBJECT_BYTES_MAX,
    checkpoints::{Parts, Step},
    manifest::{Hex64, Secret},
    object::{GrowingPiece, Packer, STRETCH_BYTES},
};
use bytes::Bytes;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self as threads, RecvTimeoutError},
    },
    thread,
    time::Duration,
};
use tokio::sync::mpsc;
use widgets_clock::Clock;
use widgets_engine::{JournalEnd, Source};
use widgets_pacing::Pacing;

/// How much journal is held for a backup at most, unless set otherwise: as much as may be held for
/// readers of changes anyway.
const HELD_BYTES_MAX: u64 = 4 << 30;

/// How often the stream says that the checkpoint is still being written. A client that has gone is
/// noticed by that.
const WAITING_EVERY: Duration = Duration::from_secs(1);

/// What a checkpoint needs of the journal becomes durable a moment later. This is how often that is
/// checked.
const NEEDED_PAUSE: Duration = Duration::from_millis(5);
const NEEDED_TIME_MAX: Duration = Duration::from_secs(30);

/// A writer's number that no archive has.
pub(super) const NO_WRITER: u32 = 0;

/// Gives backups of a running store, one at a time.
pub struct Backups {
    source: Source,
    clock: Arc<dyn Clock>,
    pacing: Arc<Pacing>,
    held_bytes_max: u64,
    begin: Arc<dyn Fn() + Send + Sync>,
    is_given: Arc<AtomicBool>,
}

impl Backups {
    /// Gives backups of this store. `begin` is called first on each thread that gives one.
    pub fn new(
        source: Source,
        clock: Arc<dyn Clock>,
        pacing: Arc<Pacing>,
        begin: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            source,
            clock,
            pacing,
            held_bytes_max: HELD_BYTES_MAX,
            begin: Arc::new(begin),
            is_given: Arc::default(),
        }
    }

    /// Limits how much journal is held.
    #[cfg(test)]
    pub(crate) fn holding(self, held_bytes_max: u64) -> Self {
        Self {
            held_bytes_max,
            ..self
        }
    }

    /// Begins a backup and returns its bytes, a piece each time the previous one is taken. Dropping
    /// the receiver ends the backup. Returns `None` if another backup is being given.
    pub fn give(&self) -> io::Result<Option<mpsc::Receiver<Bytes>>> {
        if self.is_given.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        let turn = Turn(self.is_given.clone());
        let (pieces, receiver) = mpsc::channel(1);
        let giver = Giver {
            source: self.source.clone(),
            clock: self.clock.clone(),
            pacing: self.pacing.clone(),
            held_bytes_max: self.held_bytes_max,
            pieces,
            bytes: 0,
        };
        let begin = self.begin.clone();
        let work = move || {
            let _turn = turn;
            begin();
            giver.run();
        };
        thread::Builder::new().name("backup".into()).spawn(work)?;
        Ok(Some(receiver))
    }
}

/// The right to give a backup; nobody else has it until this is dropped.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Why a backup ended early.
enum Ended {
    /// The receiver is gone.
    Untaken,
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

struct Giver {
    source: Source,
    clock: Arc<dyn Clock>,
    pacing: Arc<Pacing>,
    held_bytes_max: u64,
    pieces: mpsc::Sender<Bytes>,
    bytes: u64,
}

impl Giver {
    fn run(mut self) {
        let began = self.clock.now();
        match self.give() {
            Ok(end) => {
                let seconds = self.clock.now().saturating_sub(began).as_secs();
                let (bytes, next_sequence) = (self.bytes, end.next_sequence);
                tracing::info!(bytes, next_sequence, seconds, "a backup was given");
            }
            Err(Ended::Untaken) => {
                tracing::info!(bytes = self.bytes, "the client of a backup has gone");
            }
            Err(Ended::Failed(error)) => {
                tracing::warn!(%error, bytes = self.bytes, "a backup could not be given");
                // The receiver may be gone as well.
                drop(self.send(Frame::Failed(error.to_string()).encode()));
            }
        }
    }

    fn send(&mut self, piece: Bytes) -> Result<(), Ended> {
        self.bytes += piece.len() as u64;
        let sent = self.pieces.blocking_send(piece);
        sent.map_err(|_| Ended::Untaken)
    }

    fn give(&mut self) -> Result<JournalEnd, Ended> {
        // The head of the response is sent with the first piece, so a client learns at once that
        // its request was accepted.
        self.send(frame::beginning())?;
        let journal = self.source.hold_journal(self.held_bytes_max);
        self.write_checkpoint()?;
        let reading = |error: io::Error| Error::Source(format!("reading the checkpoint: {error}"));
        let held = self.source.hold_checkpoint().map_err(reading)?;
        let held = held.ok_or_else(|| Error::Source("the store has no checkpoint yet".into()))?;
        let (begin, needed) = (held.begin, held.next_sequence);
        journal.advance(begin.next_sequence);
        let store = self.source.store();
        let identity = store.identity;
        let epochs = store.epochs.iter();
        let first = Head {
            store: Hex64(identity),
            secret: Secret(store.secret),
            epochs: epochs.map(|it| (it.number, it.first_sequence)).collect(),
            begin: begin.into(),
            next_sequence: needed,
            raw_bytes: held.bytes,
        };
        self.send(Frame::Head(first).encode())?;
        let mut parts = Parts::new(held, identity, NO_WRITER)?;
        loop {
            let started = self.clock.now();
            let step = parts.step()?;
            let rest = self.rest_after(started);
            match step {
                Step::Grown => {}
                Step::Part(_, part) => self.send(Frame::Part(part).encode())?,
                Step::End => break,
            }
            self.clock.sleep(rest);
        }
        drop(parts);
        let end = self.needed(needed)?;
        let mut reached = begin;
        let mut packer = Packer::new()?;
        while reached.next_sequence < end {
            let piece;
            (piece, reached, packer) = self.piece(packer, identity, reached, end)?;
            self.send(Frame::Piece(piece).encode())?;
            journal.advance(reached.next_sequence);
        }
        self.send(Frame::End(reached.into()).encode())?;
        Ok(reached)
    }

    /// Returns how long to rest after work that began at `started`.
    fn rest_after(&self, started: Duration) -> Duration {
        self.pacing
            .copy_rest(self.clock.now().saturating_sub(started))
    }

    /// Writes a checkpoint that contains everything answered so far, and sends frames meanwhile
    /// that say so.
    fn write_checkpoint(&mut self) -> Result<(), Ended> {
        let (written, outcome) = threads::channel();
        let source = self.source.clone();
        let work = move || {
            // The receiver may be gone.
            drop(written.send(source.checkpoint()));
        };
        let failed = |error: &dyn std::fmt::Display| Error::Source(error.to_string());
        let thread = thread::Builder::new().name("backup".into()).spawn(work);
        thread.map_err(|error| failed(&error))?;
        loop {
            match outcome.recv_timeout(WAITING_EVERY) {
                Ok(written) => return Ok(written.map_err(|error| failed(&error))?),
                Err(RecvTimeoutError::Timeout) => self.send(Frame::Waiting.encode())?,
                Err(error @ RecvTimeoutError::Disconnected) => return Err(failed(&error).into()),
            }
        }
    }

    /// Waits until what the checkpoint needs of the journal is durable, and returns where the
    /// journal ends then.
    fn needed(&self, next_sequence: u64) -> Result<u64, Ended> {
        let until = self.clock.now() + NEEDED_TIME_MAX;
        loop {
            let end = self.source.end().next_sequence;
            if end >= next_sequence {
                return Ok(end);
            }
            if self.pieces.is_closed() {
                return Err(Ended::Untaken);
            }
            if self.clock.now() >= until {
                let why = format!(
                    "the journal ends before entry {end}, the checkpoint needs it up to {}",
                    next_sequence - 1
                );
                return Err(Error::Source(why).into());
            }
            self.clock.sleep(NEEDED_PAUSE);
        }
    }

    /// Packs the groups from a place on as a piece of the journal, up to the entry before `to` or a
    /// little further, and returns the piece and its end.
    fn piece(
        &self,
        packer: Packer,
        identity: u64,
        from: JournalEnd,
        to: u64,
    ) -> Result<(Bytes, JournalEnd, Packer), Error> {
        let mut piece = GrowingPiece::new(packer, identity, NO_WRITER, from);
        loop {
            let started = self.clock.now();
            let read = self.source.read(piece.end().next_sequence, STRETCH_BYTES);
            let groups = read.map_err(|error| {
                Error::Source(format!(
                    "{error}: it is held for a backup up to {} bytes",
                    self.held_bytes_max
                ))
            })?;
            for group in &groups {
                piece.add(group)?;
            }
            let is_full = piece.payload_bytes() >= OBJECT_BYTES_MAX as u64;
            if groups.is_empty() || is_full || piece.end().next_sequence >= to {
                break;
            }
            self.clock.sleep(self.rest_after(started));
        }
        let end = piece.end();
        if end == from {
            return Err(Error::Source(format!(
                "the journal has no entry {}",
                from.next_sequence
            )));
        }
        let (object, packer) = piece.finish()?;
        Ok((object, end, packer))
    }
}
