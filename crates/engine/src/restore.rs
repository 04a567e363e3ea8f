//! Building a data directory from a copy: a checkpoint, the groups after it, and a new epoch.
//!
//! Until the directory is complete, it has the file [`RESTORING`](files::RESTORING), which every
//! start refuses: a crash at any step leaves nothing that could be served. Before that file is
//! removed, the result is read as a start would read it.

use crate::{
    Counts, DataDirectory, Disk, DiskFile, JournalEnd, LoggedGroup, OpenError, Random, Settings,
    StoreHeader,
    files::{self, Files, RESTORING, STORE},
    format::{
        DATA_OFFSET, EPOCHS_MAX, Epoch, GROUP_HEADER_BYTES, HEADER_BYTES, Role, SegmentHeader,
        checkpoint::CheckpointHeader, seal_group,
    },
    recovery,
};
use std::{io, mem};
use widgets_clock::SystemClock;

/// Groups are written in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// The upper bits of an epoch's number count; this many lower bits are random. So two restores of
/// one copy, which know nothing of each other, do not get the same number.
const EPOCH_RANDOM_BITS: u32 = 16;

/// A data directory that is being built from a copy.
pub struct Restoration<D: Disk = DataDirectory> {
    disk: D,
    random: Random,
    settings: Settings,
    store: StoreHeader,
    /// The highest epoch known anywhere. `None` for a standby, which continues its primary's epoch.
    epoch_max: Option<u32>,
    checkpoint: Option<(u64, D::File, u64)>,
    /// Where the journal ends so far, once its beginning is known.
    end: Option<JournalEnd>,
    /// The checkpoint needs the journal up to this entry.
    reach: u64,
    segment: Option<OpenSegment<D::File>>,
    /// The number of the next segment.
    number: u64,
}

struct OpenSegment<F> {
    header: SegmentHeader,
    file: F,
    /// The offset of the piece in the segment.
    offset: u64,
    piece: Vec<u8>,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How much it contains.
    pub counts: Counts,
    /// Where its journal ends.
    pub end: JournalEnd,
    /// The epoch in which it continues.
    pub epoch: u32,
}

impl Restoration {
    /// Begins in a directory that [`DataDirectory::open_to_restore`] opened.
    pub fn begin(
        disk: DataDirectory,
        settings: &Settings,
        store: StoreHeader,
        epoch_max: u32,
    ) -> Result<Self, OpenError> {
        Self::begin_on(disk, crate::random(), settings, store, epoch_max)
    }

    /// Begins a standby of the primary at this address in such a directory. It gets no new epoch.
    pub fn begin_standby(
        disk: DataDirectory,
        settings: &Settings,
        store: StoreHeader,
        primary: String,
    ) -> Result<Self, OpenError> {
        Self::begin_standby_on(disk, crate::random(), settings, store, primary)
    }
}

impl<D: Disk> Restoration<D> {
    /// Begins on any disk, with any randomness. The disk must be empty, or have what an earlier
    /// restore left. The new epoch comes after `epoch_max`, the highest epoch known anywhere.
    pub fn begin_on(
        disk: D,
        random: Random,
        settings: &Settings,
        store: StoreHeader,
        epoch_max: u32,
    ) -> Result<Self, OpenError> {
        let store = StoreHeader {
            role: Role::Primary,
            ..store
        };
        Self::begin_with(disk, random, settings, store, Some(epoch_max))
    }

    /// Begins a standby on any disk, with any randomness.
    pub fn begin_standby_on(
        disk: D,
        random: Random,
        settings: &Settings,
        store: StoreHeader,
        primary: String,
    ) -> Result<Self, OpenError> {
        let store = StoreHeader {
            role: Role::Standby { primary },
            ..store
        };
        Self::begin_with(disk, random, settings, store, None)
    }

    fn begin_with(
        disk: D,
        mut random: Random,
        settings: &Settings,
        store: StoreHeader,
        epoch_max: Option<u32>,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let store = StoreHeader {
            // A new member number, because nobody may expect this directory to have what another
            // one has.
            member: recovery::new_member(&mut random),
            ..store
        };
        let begin = || {
            let names = disk.list()?;
            if names.iter().any(|name| name == RESTORING) {
                // This marker is removed last, because it says that nobody has used the rest.
                let ours = |name: &&String| files::is_store(name) || files::is_unfinished(name);
                for name in names.iter().filter(ours) {
                    disk.remove(name)?;
                }
                disk.sync_directory()?;
            } else if names.iter().any(|name| files::is_store(name)) {
                return Err(io::Error::other("there is a store in it"));
            } else {
                disk.create(RESTORING)?.sync()?;
            }
            disk.sync_directory()
        };
        begin().map_err(OpenError::io("beginning to restore"))?;
        Ok(Self {
            disk,
            random,
            settings: settings.clone(),
            store,
            epoch_max,
            checkpoint: None,
            end: None,
            reach: 0,
            segment: None,
            number: 1,
        })
    }

    /// Begins with an empty store, whose journal begins here.
    pub fn begin_empty(&mut self) {
        self.end = Some(JournalEnd {
            next_sequence: 1,
            at: 0,
            chain: 0,
        });
    }

    /// Begins with the checkpoint that has this first sequence number. Its bytes must follow.
    pub fn begin_checkpoint(&mut self, first_sequence: u64) -> Result<(), OpenError> {
        let name = files::checkpoint_name(first_sequence);
        let file = files::create_unfinished(&self.disk, &name)
            .map_err(OpenError::io(format!("creating {name}")))?;
        self.checkpoint = Some((first_sequence, file, 0));
        Ok(())
    }

    /// Appends the next bytes of the checkpoint.
    pub fn append_checkpoint(&mut self, bytes: &[u8]) -> Result<(), OpenError> {
        let Some((_, file, offset)) = &mut self.checkpoint else {
            unreachable!("a checkpoint was begun")
        };
        file.write_all_at(bytes, *offset)
            .map_err(OpenError::io("writing the checkpoint"))?;
        *offset += bytes.len() as u64;
        Ok(())
    }

    /// Ends the checkpoint. The groups from its first sequence number on must follow.
    pub fn end_checkpoint(&mut self) -> Result<(), OpenError> {
        let Some((first_sequence, file, _)) = self.checkpoint.take() else {
            unreachable!("a checkpoint was begun")
        };
        let name = files::checkpoint_name(first_sequence);
        let mut bytes = vec![0; HEADER_BYTES];
        let length = crate::disk::read_full_at(&file, &mut bytes, 0)
            .map_err(OpenError::io(format!("reading {name}")))?;
        let header = CheckpointHeader::decode(&bytes[..length])
            .map_err(|defect| OpenError::header(&name, defect))?;
        OpenError::check_store(&name, header.store, Some(self.store.identity))?;
        file.sync()
            .and_then(|()| files::finish(&self.disk, &name))
            .map_err(OpenError::io(format!("finishing {name}")))?;
        self.end = Some(JournalEnd {
            next_sequence: header.first_sequence,
            at: header.at,
            chain: header.chain,
        });
        self.reach = header.next_sequence;
        self.number = header.segment;
        Ok(())
    }

    /// Reports whether the journal reaches as far as the checkpoint needs.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.end().next_sequence >= self.reach
    }

    /// Returns where the journal ends so far, which is where the next group must begin.
    #[must_use]
    pub fn end(&self) -> JournalEnd {
        self.end.unwrap_or_default()
    }

    /// Appends the next group, which must continue the journal.
    pub fn group(&mut self, group: &LoggedGroup) -> Result<(), OpenError> {
        let end = self.end();
        if group.first_sequence != end.next_sequence || group.chain != end.chain {
            return Err(OpenError::Damaged {
                file: "the copy".into(),
                offset: 0,
                defect: format!(
                    "the group of entry {} does not follow from what is before it, which ends before entry {}",
                    group.first_sequence, end.next_sequence
                ),
            });
        }
        let mut bytes = vec![0; GROUP_HEADER_BYTES];
        bytes.extend_from_slice(&group.payload);
        let is_full = self.segment.as_ref().is_some_and(|segment| {
            let used = segment.offset + segment.piece.len() as u64;
            used + (bytes.len() as u64).next_multiple_of(8) > self.settings.segment_bytes
        });
        if is_full {
            self.close_segment(false)?;
        }
        if self.segment.is_none() {
            self.open_segment(end.next_sequence)?;
        }
        let Some(segment) = &mut self.segment else {
            unreachable!("it was opened just now")
        };
        let chain = seal_group(
            &mut bytes,
            segment.header.salt,
            group.stamp(),
            group.entries,
        );
        segment.piece.append(&mut bytes);
        if segment.piece.len() >= PIECE_BYTES {
            segment
                .flush()
                .map_err(OpenError::io("writing the journal"))?;
        }
        self.end = Some(JournalEnd {
            next_sequence: group.next_sequence(),
            at: group.at,
            chain,
        });
        Ok(())
    }

    fn open_segment(&mut self, first_sequence: u64) -> Result<(), OpenError> {
        let is_first = self.segment.is_none() && self.end.is_some() && self.is_origin();
        let header = SegmentHeader {
            // What came before it is not in this directory.
            origin: if is_first { first_sequence } else { 0 },
            ..SegmentHeader::new(self.store.identity, self.number, (self.random)())
        };
        let name = files::segment_name(self.number);
        let file = files::create_unfinished(&self.disk, &name)
            .map_err(OpenError::io(format!("creating {name}")))?;
        self.segment = Some(OpenSegment {
            header,
            file,
            offset: DATA_OFFSET,
            piece: Vec::new(),
        });
        self.number += 1;
        Ok(())
    }

    /// Reports whether the next segment is the first one.
    fn is_origin(&self) -> bool {
        let files = Files::list(&self.disk);
        files.is_ok_and(|files| files.segments.is_empty())
    }

    /// Makes the segment durable, including its name. The last one is filled with zeros, because
    /// the journal continues in it.
    fn close_segment(&mut self, is_last: bool) -> Result<(), OpenError> {
        let Some(mut segment) = self.segment.take() else {
            return Ok(());
        };
        let name = files::segment_name(segment.header.number);
        let mut close = || {
            segment.flush()?;
            while is_last && segment.offset < self.settings.segment_bytes {
                let left = self.settings.segment_bytes - segment.offset;
                let left = usize::try_from(left).unwrap_or(PIECE_BYTES);
                segment.piece.resize(left.min(PIECE_BYTES), 0);
                segment.flush()?;
            }
            segment.file.write_all_at(&segment.header.encode(), 0)?;
            segment.file.sync()?;
            files::finish(&self.disk, &name)
        };
        close().map_err(OpenError::io(format!("writing {name}")))
    }

    /// Completes the directory: gives it a new epoch unless it is a standby, and reads it as a
    /// start would.
    pub fn finish(mut self) -> Result<Restored, OpenError> {
        let end = self.end();
        if !self.is_whole() {
            return Err(OpenError::Damaged {
                file: "the copy".into(),
                offset: 0,
                defect: format!(
                    "its journal ends before entry {}, its checkpoint needs it up to {}",
                    end.next_sequence,
                    self.reach - 1
                ),
            });
        }
        if self.segment.is_none() {
            self.open_segment(end.next_sequence)?;
        }
        self.close_segment(true)?;
        let epoch = match self.epoch_max {
            Some(epoch_max) => self.new_epoch(epoch_max, end.next_sequence)?,
            None => self.store.epoch(),
        };
        let Self {
            disk,
            mut random,
            settings,
            store,
            ..
        } = self;
        recovery::create_store(&disk, &store)?;
        // Nothing may be dropped before an operator has decided how long it is kept.
        let settings = settings.keeping_everything();
        let threads = recovery::threads();
        let read = recovery::recover(&disk, &SystemClock::new(), &mut random, &settings, threads)?;
        let reached = JournalEnd {
            next_sequence: read.end.next_sequence,
            at: read.end.at,
            chain: read.end.chain,
        };
        if (reached.next_sequence, reached.chain) != (end.next_sequence, end.chain) {
            return Err(OpenError::Damaged {
                file: files::segment_name(read.end.segment.header.number),
                offset: read.end.offset,
                defect: format!(
                    "it was written up to entry {} and reads back up to {}",
                    end.next_sequence, reached.next_sequence
                ),
            });
        }
        disk.remove(RESTORING)
            .and_then(|()| disk.sync_directory())
            .map_err(OpenError::io("finishing to restore"))?;
        Ok(Restored {
            counts: read.state.counts(),
            end: reached,
            epoch,
        })
    }

    fn new_epoch(&mut self, epoch_max: u32, first_sequence: u64) -> Result<u32, OpenError> {
        let last = self.store.epochs.last().map_or(0, |last| last.number);
        let last = last.max(epoch_max);
        let counted = (last >> EPOCH_RANDOM_BITS) + 1;
        if counted >= 1 << (u32::BITS - EPOCH_RANDOM_BITS) {
            return Err(OpenError::Damaged {
                file: STORE.into(),
                offset: 0,
                defect: format!("no epoch can follow after {last}"),
            });
        }
        let random = (self.random)() & ((1 << EPOCH_RANDOM_BITS) - 1);
        let number = (counted << EPOCH_RANDOM_BITS) | u32::try_from(random).unwrap_or(0);
        // Epochs that begin after the restored history do not apply to it.
        self.store
            .epochs
            .retain(|epoch| epoch.first_sequence < first_sequence || epoch.number == 1);
        if self.store.epochs.len() == EPOCHS_MAX {
            self.store.epochs.remove(0);
        }
        self.store.epochs.push(Epoch {
            number,
            first_sequence,
        });
        Ok(number)
    }
}

impl<F: DiskFile> OpenSegment<F> {
    fn flush(&mut self) -> io::Result<()> {
        let piece = mem::take(&mut self.piece);
        self.file.write_all_at(&piece, self.offset)?;
        self.offset += piece.len() as u64;
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }
}
