//! Writing a checkpoint in the background, in pieces, with rests between them.

use crate::{
    disk::{Disk, DiskFile},
    files::{self, Removal},
    format::{
        DATA_OFFSET, FORMAT_VERSION,
        checkpoint::{self, CheckpointHeader},
    },
    journal::Position,
    log::Log,
    state::Holding,
    throttle::{PIECE_BYTES, Throttle},
};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, TryRecvError},
    },
};
use widgets_clock::Clock;

/// A checkpoint that is durable, including its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The first entry that is replayed after it.
    pub(crate) first_sequence: u64,
    /// The first entry that no record in it can reflect. The journal must reach it.
    pub(crate) next_sequence: u64,
    /// The length of its file in bytes.
    pub(crate) bytes: u64,
}

/// What is known about a checkpoint when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// The position of the journal: its next entry is the first that is not in the state yet.
    pub(crate) position: Position,
    /// The number of records, including vacant ones.
    pub(crate) records: u32,
    /// The holder.
    pub(crate) holding: Holding,
}

/// A checkpoint that is being written.
pub(crate) struct Draft<D: Disk> {
    disk: D,
    name: String,
    file: D::File,
    beginning: Beginning,
    next_block: u32,
    offset: u64,
}

impl<D: Disk> Draft<D> {
    pub(crate) fn begin(disk: &D, beginning: Beginning) -> io::Result<Self> {
        let name = files::checkpoint_name(beginning.position.next_sequence);
        let file = files::create_unfinished(disk, &name)?;
        Ok(Self {
            disk: disk.clone(),
            name,
            file,
            beginning,
            next_block: 0,
            offset: DATA_OFFSET,
        })
    }

    /// Writes the next block, which has room for a header and then the records.
    pub(crate) fn append(&mut self, block: &mut [u8], records: u32) -> io::Result<()> {
        let first_sequence = self.beginning.position.next_sequence;
        checkpoint::seal_block(block, first_sequence, self.next_block, records);
        self.file.write_all_at(block, self.offset)?;
        self.next_block += 1;
        self.offset += block.len() as u64;
        Ok(())
    }

    /// Makes the checkpoint durable and gives it its name. `next_sequence` is the first entry that
    /// no record in it can reflect.
    pub(crate) fn finish(&self, next_sequence: u64, key_blocks: u32) -> io::Result<Written> {
        let Beginning {
            position,
            records,
            holding,
        } = self.beginning;
        let header = CheckpointHeader {
            version: FORMAT_VERSION,
            store: position.store,
            first_sequence: position.next_sequence,
            next_sequence,
            segment: position.segment,
            at: position.at,
            chain: position.chain,
            records,
            key_blocks,
            holding,
        };
        debug_assert_eq!(
            header.blocks() + key_blocks,
            self.next_block,
            "every record and every key is in a block"
        );
        self.file.write_all_at(&header.encode(), 0)?;
        self.file.sync()?;
        files::finish(&self.disk, &self.name)?;
        Ok(Written {
            first_sequence: position.next_sequence,
            next_sequence,
            bytes: self.offset,
        })
    }

    /// Removes what was written.
    pub(crate) fn discard(self) {
        files::discard(&self.disk, &self.name);
    }
}

/// A message from the owner of the state to the writer.
pub(super) enum Message {
    Begin(Beginning),
    /// A block with room for a header and then records or keys, and how many of them.
    Block(Vec<u8>, u32),
    End {
        next_sequence: u64,
        key_blocks: u32,
    },
    Abandon,
}

/// A message from the writer to the owner of the state.
pub(super) enum Report {
    /// A written buffer, to be filled with the next block.
    Buffer(Vec<u8>),
    /// The outcome of the last checkpoint that was begun.
    Done(io::Result<Written>),
}

/// Writes what the owner of the state copies.
pub(crate) struct Writer<D: Disk, C> {
    disk: D,
    throttle: Throttle<C>,
    messages: mpsc::Receiver<Message>,
    reports: mpsc::Sender<Report>,
    draft: Option<Draft<D>>,
    unsynced: usize,
    log: Arc<Log>,
    /// The files that the last checkpoint made obsolete, if any are left.
    removal: Option<Removal<D::File>>,
}

impl<D: Disk, C: Clock> Writer<D, C> {
    pub(crate) fn new(disk: D, clock: Arc<C>, ends: WriterEnds, log: Arc<Log>) -> Self {
        Self {
            disk,
            throttle: Throttle::new(clock),
            messages: ends.messages,
            reports: ends.reports,
            draft: None,
            unsynced: 0,
            log,
            removal: None,
        }
    }

    /// Writes until the owner is gone. Calls `reported` after each report to it.
    pub(crate) fn run(mut self, reported: impl Fn()) {
        loop {
            let message = if self.removal.is_none() {
                self.messages.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.messages.try_recv()
            };
            match message {
                Ok(message) => {
                    self.handle(message);
                    reported();
                }
                Err(TryRecvError::Empty) => self.remove_piece(),
                Err(TryRecvError::Disconnected) => break,
            }
        }
        self.abandon();
    }

    /// Processes one waiting message or piece of work, without waiting for more. Returns whether
    /// there was one.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn step(&mut self) -> bool {
        if let Ok(message) = self.messages.try_recv() {
            self.handle(message);
            return true;
        }
        let removes = self.removal.is_some();
        self.remove_piece();
        removes
    }

    fn handle(&mut self, message: Message) {
        let outcome = match message {
            Message::Begin(beginning) => self.begin(beginning).map(|()| None),
            Message::Block(mut block, records) => {
                let appended = self.append(&mut block, records);
                self.report(Report::Buffer(block));
                appended.map(|()| None)
            }
            Message::End {
                next_sequence,
                key_blocks,
            } => self.finish(next_sequence, key_blocks),
            Message::Abandon => {
                self.abandon();
                return;
            }
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(written)) => self.report(Report::Done(Ok(written))),
            Err(error) => {
                self.abandon();
                self.report(Report::Done(Err(error)));
            }
        }
    }

    fn begin(&mut self, beginning: Beginning) -> io::Result<()> {
        self.draft = Some(Draft::begin(&self.disk, beginning)?);
        self.unsynced = 0;
        self.throttle.begin_piece();
        Ok(())
    }

    fn append(&mut self, block: &mut [u8], records: u32) -> io::Result<()> {
        // After a failure, the rest of the checkpoint still arrives until the owner learns of the
        // failure.
        let Some(draft) = &mut self.draft else {
            return Ok(());
        };
        draft.append(block, records)?;
        self.unsynced += block.len();
        if self.unsynced >= PIECE_BYTES {
            draft.file.sync()?;
            self.unsynced = 0;
            self.throttle.rest();
            self.throttle.begin_piece();
        }
        Ok(())
    }

    fn finish(&mut self, next_sequence: u64, key_blocks: u32) -> io::Result<Option<Written>> {
        let Some(draft) = &self.draft else {
            return Ok(None);
        };
        if planted!(RemovedTooEarly) {
            let Position {
                next_sequence: first_sequence,
                segment,
                ..
            } = draft.beginning.position;
            let names = files::obsolete(&self.disk, first_sequence, segment)?;
            names.iter().try_for_each(|name| self.disk.remove(name))?;
        }
        let written = draft.finish(next_sequence, key_blocks)?;
        let segment = draft.beginning.position.segment;
        let kept = self.log.release(segment);
        let held = self.log.checkpoint_written(written);
        let held: Vec<_> = held.into_iter().map(files::checkpoint_name).collect();
        let obsolete = files::obsolete(&self.disk, written.first_sequence, kept);
        self.draft = None;
        match obsolete {
            Ok(mut names) => {
                // The next checkpoint removes those that are held now.
                names.retain(|name| !held.contains(name));
                self.removal = Some(Removal::new(names));
            }
            Err(error) => self.removal_failed(&error),
        }
        Ok(Some(written))
    }

    fn remove_piece(&mut self) {
        let Some(removal) = &mut self.removal else {
            return;
        };
        self.throttle.begin_piece();
        match removal.step(&self.disk) {
            Ok(true) => self.throttle.rest(),
            Ok(false) => self.removal = None,
            Err(error) => self.removal_failed(&error),
        }
    }

    fn removal_failed(&mut self, error: &io::Error) {
        // Recovery does not read these files; the next checkpoint or start tries again.
        tracing::warn!(%error, "removing files that a checkpoint made obsolete failed");
        self.removal = None;
    }

    fn abandon(&mut self) {
        if let Some(draft) = self.draft.take() {
            draft.discard();
        }
    }

    fn report(&self, report: Report) {
        // If the owner is gone, nobody needs the report.
        drop(self.reports.send(report));
    }
}

/// The writer's ends of the channels between it and the owner.
pub(crate) struct WriterEnds {
    pub(super) messages: mpsc::Receiver<Message>,
    pub(super) reports: mpsc::Sender<Report>,
}
