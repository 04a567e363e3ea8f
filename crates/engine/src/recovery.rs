//! Recovery: the newest checkpoint, then the journal from where it began.
//!
//! Only what this needs is kept, and all of it must be present and intact: a start never falls back
//! to an older state, because operations that were acknowledged since would be lost.

use crate::{
    Settings,
    checkpoint::{self, Written},
    disk::{Disk, DiskFile, read_full_at},
    error::OpenError,
    files::{self, Files, STORE},
    format::{
        DATA_OFFSET, Epoch, FORMAT_VERSION, FORMAT_VERSION_OLDEST, HEADER_BYTES, NO_MEMBER, Role,
        SegmentHeader, StoreHeader, checkpoint::CheckpointHeader,
    },
    journal::{
        Position, Random, create_segment,
        replay::{self, End, Replayed, Start},
    },
    log::{self, KeptSegment},
    retries::Retries,
    state::State,
};
use std::{collections::VecDeque, ops::Range, thread, time::Duration};
use widgets_clock::Clock;

/// The most threads that a start uses. More would only wait for memory.
const THREADS_MAX: usize = 8;

/// Returns how many threads share the work of a start on this machine.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX))
}

/// The contents of a data directory.
pub(crate) struct Recovered<F> {
    pub(crate) store: StoreHeader,
    pub(crate) state: State,
    pub(crate) retries: Retries,
    pub(crate) end: End<F>,
    /// The checkpoint from which it was recovered.
    pub(crate) checkpoint: Option<Written>,
    /// The segments whose groups can be read.
    pub(crate) segments: VecDeque<KeptSegment>,
}

/// Reads a data directory on `threads` threads, and creates the first segment if there is nothing
/// yet. One of the threads is the caller's, so with one thread no other is started.
///
/// Files of an older version are read as well, and replaced with files of the newest version.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    clock: &impl Clock,
    random: &mut Random,
    settings: &Settings,
    threads: usize,
) -> Result<Recovered<D::File>, OpenError> {
    let began = clock.now();
    let mut files = Files::list(disk).map_err(OpenError::io("listing the data directory"))?;
    for name in &files.unfinished {
        disk.remove(name)
            .map_err(OpenError::io(format!("removing {name}")))?;
    }
    let mut store = files.has_store.then(|| read_store(disk)).transpose()?;
    if let Some(store) = &mut store
        && store.member == NO_MEMBER
    {
        store.member = new_member(random);
        create_store(disk, store)?;
    }
    if files.checkpoints.is_empty() {
        match &store {
            None => store = begin(disk, random, settings, &mut files)?,
            Some(store) if files.segments.is_empty() && planted!(JournalForgotten) => {
                create_first_segment(disk, random, settings, store, &mut files)?;
            }
            Some(_) => {}
        }
    }
    let identity = store.as_ref().map(|store| store.identity);
    let read = read(disk, &files, identity, settings, threads, || clock.now())?;
    let counts = read.state.counts();
    tracing::info!(
        widgets = counts.widgets,
        associations = counts.associations,
        idempotency_keys = read.retries.len(),
        next_sequence = read.end.next_sequence,
        checkpoint_ms = read.loaded_at.saturating_sub(began).as_millis(),
        journal_ms = read.replayed_at.saturating_sub(read.loaded_at).as_millis(),
        order_ms = clock.now().saturating_sub(read.replayed_at).as_millis(),
        journal_bytes = read.end.replayed_bytes,
        "store opened"
    );
    let is_current = read.end.segment.header.version == FORMAT_VERSION
        && read
            .header
            .is_none_or(|header| header.version == FORMAT_VERSION);
    let store = if let Some(store) = store {
        store
    } else {
        let store = new_store(random, read.end.next_sequence);
        create_store(disk, &store)?;
        store
    };
    let recovered = read.of(store);
    if is_current {
        return Ok(recovered);
    }
    let recovered = recovered.begin_anew(disk, random, settings)?;
    tracing::info!(
        from = FORMAT_VERSION_OLDEST,
        to = FORMAT_VERSION,
        "the data directory was converted: older versions of this program can no longer read it"
    );
    Ok(recovered)
}

/// Creates a store in a directory that has none.
pub(crate) fn create<D: Disk>(
    disk: &D,
    random: &mut Random,
    settings: &Settings,
) -> Result<Recovered<D::File>, OpenError> {
    let store = new_store(random, 1);
    let mut files = Files::default();
    create_first_segment(disk, random, settings, &store, &mut files)?;
    create_store(disk, &store)?;
    let identity = Some(store.identity);
    let read = read(disk, &files, identity, settings, 1, || Duration::ZERO)?;
    Ok(read.of(store))
}

/// What the files of a directory contain.
pub(crate) struct Read<F> {
    pub(crate) state: State,
    pub(crate) retries: Retries,
    pub(crate) end: End<F>,
    pub(crate) header: Option<CheckpointHeader>,
    pub(crate) checkpoint: Option<Written>,
    pub(crate) segments: VecDeque<KeptSegment>,
    /// When the checkpoint was loaded.
    pub(crate) loaded_at: Duration,
    /// When the journal was replayed.
    pub(crate) replayed_at: Duration,
}

impl<F> Read<F> {
    fn of(self, store: StoreHeader) -> Recovered<F> {
        Recovered {
            store,
            state: self.state,
            retries: self.retries,
            end: self.end,
            checkpoint: self.checkpoint,
            segments: self.segments,
        }
    }
}

/// Reads the newest checkpoint and the journal from where it began, and removes obsolete files.
pub(crate) fn read<D: Disk>(
    disk: &D,
    files: &Files,
    store: Option<u64>,
    settings: &Settings,
    threads: usize,
    now: impl Fn() -> Duration,
) -> Result<Read<D::File>, OpenError> {
    let loaded = files
        .checkpoints
        .last()
        .map(|&newest| checkpoint::load(disk, newest, store, threads))
        .transpose()?;
    let loaded_at = now();
    let mut retries = Retries::new(settings);
    let (mut state, header, checkpoint) = match loaded {
        Some(loaded) => {
            let written = Written {
                first_sequence: loaded.header.first_sequence,
                next_sequence: loaded.header.next_sequence,
                bytes: loaded.bytes,
            };
            for kept in loaded.keys {
                retries.insert(kept);
            }
            retries.settle(replay::seconds(loaded.header.at));
            (loaded.state, Some(loaded.header), Some(written))
        }
        None => (State::default(), None, None),
    };
    let segment = header.map_or(FIRST_SEGMENT, |it| it.segment);
    let start = Start {
        store,
        first_sequence: header.map_or(1, |it| it.first_sequence),
        at: header.map_or(0, |it| it.at),
        chain: header.map_or(0, |it| it.chain),
    };
    let start = match header {
        Some(it) if planted!(ReplayedFromEnd) => Start {
            first_sequence: it.next_sequence,
            ..start
        },
        _ => start,
    };
    let segments = contiguous(&files.segments, segment).map_err(|error| match error {
        OpenError::Missing { file } if header.is_none() && !files.segments.contains(&segment) => {
            OpenError::NoBeginning { file }
        }
        error => error,
    })?;
    let replayed = Replayed {
        state: &mut state,
        retries: &mut retries,
    };
    let end = replay::replay(disk, segments, start, replayed, threads)?;
    let replayed_at = now();
    let last = end.segment.header;
    let mut segments = log::retained(disk, &files.segments, last, end.next_sequence);
    for segment in &mut segments {
        let is_last = segment.header.number == last.number;
        segment.bytes = if is_last {
            end.offset
        } else {
            settings.segment_bytes
        };
    }
    log::release(&mut segments, segment, end.at, settings);
    if let Some(header) = header {
        if end.next_sequence < header.next_sequence {
            return Err(OpenError::Damaged {
                file: files::segment_name(end.segment.header.number),
                offset: end.offset,
                defect: format!(
                    "the journal ends before change {}, {} has changes up to {}",
                    end.next_sequence,
                    files::checkpoint_name(header.first_sequence),
                    header.next_sequence - 1,
                ),
            });
        }
        // A crash soon after the checkpoint may have left obsolete files. The directory is synced,
        // so the checkpoint is durable and they can be removed.
        let kept = segments
            .front()
            .map_or(header.segment, |it| it.header.number);
        files::obsolete(disk, header.first_sequence, kept.min(header.segment))
            .and_then(|names| names.iter().try_for_each(|name| disk.remove(name)))
            .map_err(OpenError::io(
                "removing files that the checkpoint made obsolete",
            ))?;
    }
    state.finish_replay(threads);
    Ok(Read {
        state,
        retries,
        end,
        header,
        checkpoint,
        segments,
        loaded_at,
        replayed_at,
    })
}

impl<F: DiskFile> Recovered<F> {
    /// Writes a checkpoint of everything, which replaces all files before it, and a segment with
    /// which the journal begins anew. A crash leaves either the old files or the new ones in full:
    /// until the checkpoint has its name, the new segment is a prepared and unused one.
    pub(crate) fn begin_anew<D: Disk<File = F>>(
        self,
        disk: &D,
        random: &mut Random,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        let segment = SegmentHeader {
            origin: self.end.next_sequence,
            ..SegmentHeader::new(
                self.store.identity,
                self.end.segment.header.number + 1,
                random(),
            )
        };
        let position = Position {
            store: self.store.identity,
            segment: segment.number,
            next_sequence: self.end.next_sequence,
            at: self.end.at,
            chain: self.end.chain,
        };
        let segment = create_segment(disk, segment, settings.segment_bytes, |_| Ok(()))
            .map_err(OpenError::io("creating a segment of the journal"))?;
        let written = checkpoint::write_all(disk, &self.state, &self.retries, position)
            .map_err(OpenError::io("writing the checkpoint"))?;
        let removed = files::obsolete(disk, written.first_sequence, position.segment)
            .and_then(|names| names.iter().try_for_each(|name| disk.remove(name)));
        if let Err(error) = removed {
            // The checkpoint is durable; the next start removes the files.
            tracing::warn!(%error, "removing files that the checkpoint made obsolete failed");
        }
        let end = End {
            segment,
            offset: DATA_OFFSET,
            is_sealed: true,
            before_seals: position,
            replayed_bytes: 0,
            ..self.end
        };
        let segments = [KeptSegment {
            header: end.segment.header,
            first_sequence: end.next_sequence,
            first_at: 0,
            bytes: 0,
        }];
        Ok(Self {
            end,
            checkpoint: Some(written),
            segments: segments.into(),
            ..self
        })
    }
}

pub(crate) fn read_store<D: Disk>(disk: &D) -> Result<StoreHeader, OpenError> {
    let mut bytes = vec![0; HEADER_BYTES];
    let length = disk
        .open(STORE)
        .and_then(|file| read_full_at(&file, &mut bytes, 0))
        .map_err(OpenError::io(format!("reading {STORE}")))?;
    StoreHeader::decode(&bytes[..length]).map_err(|defect| OpenError::header(STORE, defect))
}

/// Creates a store if there is none yet: first segment 1, and then the file `store`. So if that
/// file exists, there was a journal, and a directory that has the file but no journal has lost what
/// was acknowledged. If a crash in between left only an empty segment, this continues with it.
/// Returns `None` if there are files of an older format, or a journal whose file `store` was lost.
fn begin<D: Disk>(
    disk: &D,
    random: &mut Random,
    settings: &Settings,
    files: &mut Files,
) -> Result<Option<StoreHeader>, OpenError> {
    let mut store = new_store(random, 1);
    match files.segments[..] {
        [] => create_first_segment(disk, random, settings, &store, files)?,
        [FIRST_SEGMENT] => match replay::unused(disk, FIRST_SEGMENT)? {
            Some(header) if header.version > 1 => store.identity = header.store,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    }
    create_store(disk, &store)?;
    Ok(Some(store))
}

const FIRST_SEGMENT: u64 = 1;

fn create_first_segment<D: Disk>(
    disk: &D,
    random: &mut Random,
    settings: &Settings,
    store: &StoreHeader,
    files: &mut Files,
) -> Result<(), OpenError> {
    let segment = SegmentHeader {
        origin: 1,
        ..SegmentHeader::new(store.identity, FIRST_SEGMENT, random())
    };
    create_segment(disk, segment, settings.segment_bytes, |_| Ok(()))
        .map_err(OpenError::io("creating the first segment of the journal"))?;
    files.segments.push(FIRST_SEGMENT);
    Ok(())
}

/// Returns the header of a new store whose first entry has this number.
fn new_store(random: &mut Random, first_sequence: u64) -> StoreHeader {
    let mut secret = [0; 16];
    secret[..8].copy_from_slice(&random().to_le_bytes());
    secret[8..].copy_from_slice(&random().to_le_bytes());
    StoreHeader {
        identity: random(),
        member: new_member(random),
        secret,
        epochs: vec![Epoch {
            number: 1,
            first_sequence,
        }],
        role: Role::Primary,
    }
}

/// Returns a new random member number, which identifies a directory.
pub(crate) fn new_member(random: &mut Random) -> u64 {
    // 0 means nobody.
    random().max(1)
}

/// Creates the file `store`, durably.
pub(crate) fn create_store<D: Disk>(disk: &D, store: &StoreHeader) -> Result<(), OpenError> {
    let created = replace_store(disk, store);
    created.map_err(|NotReplaced { error, .. }| error)
}

/// Why the file `store` was not replaced.
pub(crate) struct NotReplaced {
    pub(crate) error: OpenError,
    /// Whether the file may be the new one already. Otherwise it is unchanged.
    pub(crate) is_unknown: bool,
}

/// Replaces the file `store`, durably.
pub(crate) fn replace_store<D: Disk>(disk: &D, store: &StoreHeader) -> Result<(), NotReplaced> {
    let not_replaced = |is_unknown| {
        move |error| NotReplaced {
            error: OpenError::io(format!("creating {STORE}"))(error),
            is_unknown,
        }
    };
    let write = || {
        let file = files::create_unfinished(disk, STORE)?;
        file.write_all_at(&store.encode(), 0)?;
        file.sync()
    };
    write().map_err(not_replaced(false))?;
    files::finish(disk, STORE).map_err(not_replaced(true))
}

/// Returns the segments from number `first` on, which must follow each other without gaps.
fn contiguous(numbers: &[u64], first: u64) -> Result<Range<u64>, OpenError> {
    let needed = numbers.iter().copied().filter(|&number| number >= first);
    let mut end = first;
    let missing = |number| OpenError::Missing {
        file: files::segment_name(number),
    };
    for number in needed {
        if number != end {
            return Err(missing(end));
        }
        end += 1;
    }
    if end == first {
        return Err(missing(first));
    }
    Ok(first..end)
}
