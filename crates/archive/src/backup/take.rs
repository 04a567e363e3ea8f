//! Takes a backup into an empty directory and verifies all of it.

use super::{
    frame::{self, Frame, Head, damaged},
    give::NO_WRITER,
};
use crate::{Error, Progress, object, plan::time_text, restore::epoch_of};
use bytes::Bytes;
use std::{
    io::{self, Read},
    path::Path,
};
use widgets_engine::{DataDirectory, JournalEnd, Restoration, Restored, Settings};
use widgets_registry::Position;

/// An empty directory in which a backup is to arrive. No start accepts it until the backup is
/// complete.
pub struct Arrival(DataDirectory);

/// What arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// What was restored.
    pub restored: Restored,
    /// The position that was reached.
    pub position: Position,
    /// When the last operation in it was committed.
    pub reached: String,
    /// How many bytes were received.
    pub bytes: u64,
}

impl Arrival {
    /// Opens the directory, or creates it. A directory that an earlier attempt left unfinished
    /// counts as empty; one with anything else is refused.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let directory = DataDirectory::open_to_restore(path)?;
        // Now rather than with the head of the backup: the service may be gone before it sends one,
        // and a start would make an empty store here.
        directory.mark_unfinished()?;
        Ok(Self(directory))
    }

    /// Gives up because no backup will arrive. Removes the directory if opening it created it;
    /// otherwise no start accepts it until a backup or a restore into it is complete.
    pub fn give_up(self) {
        self.0.remove_if_made();
    }

    /// Takes a backup. If it fails, no start accepts the directory.
    pub fn take(
        self,
        stream: impl Read,
        settings: &Settings,
        mut progress: impl FnMut(Progress),
    ) -> Result<Arrived, Error> {
        let mut stream = Counted(stream, 0);
        frame::read_beginning(&mut stream)?;
        progress(Progress::Waiting);
        let head = loop {
            match next(&mut stream)? {
                Frame::Waiting => {}
                Frame::Head(head) => break head,
                _ => return Err(damaged("it does not begin with its head")),
            }
        };
        let restoration = Restoration::begin(self.0, settings, head.store(), 0)?;
        let mut taking = Taking {
            head,
            restoration,
            parts: 0,
            raw_bytes: 0,
            has_checkpoint: false,
        };
        taking.restoration.begin_checkpoint(taking.first())?;
        let end = loop {
            match next(&mut stream)? {
                Frame::Waiting => {}
                Frame::Part(part) => progress(taking.part(&part)?),
                Frame::Piece(piece) => progress(taking.piece(&piece)?),
                Frame::End(end) => break JournalEnd::from(end),
                Frame::Head(_) | Frame::Failed(_) => {
                    return Err(damaged("it has more than one head"));
                }
            }
        };
        taking.end_checkpoint()?;
        let Taking {
            head, restoration, ..
        } = taking;
        if restoration.end() != end {
            return Err(damaged(&format!(
                "it ends before entry {}, and says that it ends before {}",
                restoration.end().next_sequence,
                end.next_sequence
            )));
        }
        progress(Progress::Checking);
        let restored = restoration.finish()?;
        let sequence = end.next_sequence.saturating_sub(1);
        Ok(Arrived {
            position: Position {
                store: head.store.0,
                epoch: epoch_of(&head.epochs, sequence),
                sequence,
            },
            reached: time_text(end.at),
            bytes: stream.1,
            restored,
        })
    }
}

/// A stream, and how many bytes were received from it.
struct Counted<R>(R, u64);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1 += read as u64;
        Ok(read)
    }
}

/// Returns the next frame. If the service reports a failure, that is the error.
fn next(stream: &mut impl Read) -> Result<Frame, Error> {
    match Frame::read(stream)? {
        Frame::Failed(why) => Err(Error::Source(format!(
            "the service could not give the backup: {why}. Run the same command again to start over"
        ))),
        frame => Ok(frame),
    }
}

struct Taking {
    head: Head,
    restoration: Restoration,
    parts: u32,
    raw_bytes: u64,
    /// Whether all parts of the checkpoint were taken.
    has_checkpoint: bool,
}

impl Taking {
    fn first(&self) -> u64 {
        self.head.begin.next_sequence
    }

    fn part(&mut self, bytes: &Bytes) -> Result<Progress, Error> {
        let name = format!("part {} of the backup", self.parts);
        let (store, first) = (self.head.store.0, self.first());
        let raw = object::decode_part(&name, bytes, store, NO_WRITER, first, self.parts)?;
        if self.has_checkpoint {
            return Err(damaged("a part of its checkpoint follows the journal"));
        }
        self.restoration.append_checkpoint(&raw)?;
        self.parts = self.parts.saturating_add(1);
        self.raw_bytes += raw.len() as u64;
        Ok(Progress::Checkpoint(self.raw_bytes, self.head.raw_bytes))
    }

    /// Completes the checkpoint when the first piece of the journal arrives.
    fn end_checkpoint(&mut self) -> Result<(), Error> {
        if self.has_checkpoint {
            return Ok(());
        }
        if self.raw_bytes != self.head.raw_bytes {
            return Err(damaged(&format!(
                "its checkpoint has {} bytes, its head says {}",
                self.raw_bytes, self.head.raw_bytes
            )));
        }
        self.restoration.end_checkpoint()?;
        if self.restoration.end() != JournalEnd::from(self.head.begin) {
            return Err(damaged(
                "its checkpoint begins elsewhere than its head says",
            ));
        }
        self.has_checkpoint = true;
        Ok(())
    }

    fn piece(&mut self, bytes: &Bytes) -> Result<Progress, Error> {
        self.end_checkpoint()?;
        let end = self.restoration.end();
        let name = format!(
            "the piece of the backup from entry {} on",
            end.next_sequence
        );
        let piece = object::decode_piece(&name, bytes, self.head.store.0)?;
        if piece.begin != end {
            return Err(damaged(&format!(
                "entry {} does not follow from what is before it, which ends before entry {}",
                piece.begin.next_sequence, end.next_sequence
            )));
        }
        for group in &piece.groups {
            self.restoration.group(group)?;
        }
        let reached = self.restoration.end().next_sequence;
        let done = reached.saturating_sub(self.first());
        let needed = self.head.next_sequence.saturating_sub(self.first());
        Ok(Progress::Journal(done, needed.max(done)))
    }
}
