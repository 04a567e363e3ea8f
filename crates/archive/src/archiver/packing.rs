//! The next object of the journal, packed as its groups arrive so that little is left to do when it
//! is due.

use super::{Archiver, OBJECT_BYTES_MAX, epochs, unix_microseconds};
use crate::{
    Error,
    object::{self, GrowingPiece, Packer, STRETCH_BYTES},
};
use bytes::Bytes;
use std::time::Duration;
use widgets_engine::{JournalEnd, SourceError};

/// The pause between two pieces of work, in which other threads run.
pub(crate) const STRETCH_REST: Duration = Duration::from_millis(1);

/// A growing object. Nothing in it is archived: after a crash or an error, it is packed again from
/// its beginning.
pub(super) struct Packing {
    piece: GrowingPiece,
    /// When the first group in it that is no seal was committed; 0 if there is none.
    first_at: u64,
}

impl Packing {
    fn is_full(&self) -> bool {
        self.piece.payload_bytes() >= OBJECT_BYTES_MAX as u64
    }
}

/// A complete object that may not have reached the bucket yet.
pub(super) struct Pending {
    pub(super) name: String,
    pub(super) bytes: Bytes,
    pub(super) raw_bytes: u64,
    pub(super) end: JournalEnd,
    /// When the first group in it that is no seal was committed; 0 if there is none.
    pub(super) first_at: u64,
    /// The object contains everything that was durable at this time, if it has room for that.
    pub(super) read_at: u64,
}

impl Archiver {
    /// Packs about [`STRETCH_BYTES`] of what is durable and not packed yet, and returns how many
    /// bytes that was: 0 if the object is full or another one is on its way. After an error, the
    /// next object is packed again from where the archive ends.
    pub(crate) fn pack(&mut self) -> Result<usize, Error> {
        if self.pending.is_some() {
            return Ok(0);
        }
        let mut packing = match self.packing.take() {
            Some(packing) => packing,
            None => self.begin_object()?,
        };
        let packed = self.pack_into(&mut packing);
        if packed.is_ok() || planted!(FailedPackingGoesOn) {
            self.packing = Some(packing);
        }
        packed
    }

    fn begin_object(&mut self) -> Result<Packing, Error> {
        let packer = self.packer.take().map_or_else(Packer::new, Ok)?;
        let mut begin = self.reached;
        if planted!(GroupLeftOut)
            && let Ok(groups) = self.source.read(begin.next_sequence, STRETCH_BYTES)
            && groups.len() > 1
        {
            begin = object::end_of(&groups[0]);
        }
        let store = self.source.store().identity;
        Ok(Packing {
            piece: GrowingPiece::new(packer, store, self.writer, begin),
            first_at: 0,
        })
    }

    fn pack_into(&self, packing: &mut Packing) -> Result<usize, Error> {
        if packing.is_full() {
            return Ok(0);
        }
        let first = packing.piece.end().next_sequence;
        let groups = self.source.read(first, STRETCH_BYTES);
        let groups = groups.map_err(|error| match error {
            SourceError::Gone { .. } => {
                Error::Source(format!("{error}, and they were not archived"))
            }
            SourceError::Io(_) => Error::Source(error.to_string()),
        })?;
        // Groups of another epoch than the manifest names would be restored with positions that
        // they never had.
        let own = self.manifest.stretches.last().map(|it| &it.epochs);
        if own.is_some_and(|own| *own != epochs(&self.source)) {
            return Err(Error::Source(
                "the store continues in another epoch: the archive is taken over again".into(),
            ));
        }
        let mut bytes = 0;
        for group in &groups {
            if packing.first_at == 0 && !group.is_seal() {
                packing.first_at = group.at;
            }
            packing.piece.add(group)?;
            bytes += group.payload.len();
        }
        if planted!(PackedLetGo) {
            self.source.hold(Some(packing.piece.end().next_sequence));
        }
        Ok(bytes)
    }

    /// Returns whether the next object is full.
    pub(crate) fn is_full(&self) -> bool {
        self.packing.as_ref().is_some_and(Packing::is_full)
    }

    /// Packs the rest of what is durable now, and returns the next object. Returns `None` if there
    /// is nothing, or only what can wait.
    pub(super) async fn next_object(&mut self, is_last: bool) -> Result<Option<Pending>, Error> {
        let (read_at, until) = (unix_microseconds(&*self.clock), self.source.end());
        while self.pack()? > 0 && self.packed() < until.next_sequence {
            if self.pacing.is_some() {
                self.clock.timer(STRETCH_REST).await;
            }
        }
        let is_due = |packing: &mut Packing| {
            let has_any = packing.piece.end() != packing.piece.begin();
            packing.first_at > 0 || packing.is_full() || is_last && has_any
        };
        let Some(Packing { piece, first_at }) = self.packing.take_if(is_due) else {
            return Ok(None);
        };
        let (begin, raw_bytes) = (piece.begin(), piece.payload_bytes());
        let end = if planted!(EndOfJournalForObject) {
            self.source.end()
        } else {
            piece.end()
        };
        let (bytes, packer) = piece.finish()?;
        self.packer = Some(packer);
        Ok(Some(Pending {
            name: object::journal_name(self.writer, begin.next_sequence),
            bytes,
            raw_bytes,
            end,
            first_at,
            read_at,
        }))
    }

    /// Returns the entry before which everything is packed or archived.
    fn packed(&self) -> u64 {
        let packing = self.packing.as_ref();
        let packed = packing.map_or(self.reached, |packing| packing.piece.end());
        packed.next_sequence
    }
}
