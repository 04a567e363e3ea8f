//! Recovery: the newest checkpoint, then the journal from where it began.
//!
//! Exactly what that needs is kept, and all of it must be there and whole: a start never falls back
//! to an older state, which would be one that had been answered away.

use crate::{
    checkpoint::{self, Written},
    disk::Disk,
    error::OpenError,
    files::{self, Files},
    format::SegmentHeader,
    journal::{
        Random, create_segment,
        replay::{self, End},
    },
    state::State,
};
use std::{ops::Range, thread};
use widgets_clock::Clock;

/// More threads would only wait for memory.
const THREADS_MAX: usize = 8;

/// How many threads share the work of a start on this machine.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX))
}

/// What a data directory held.
pub(crate) struct Recovered<F> {
    pub(crate) state: State,
    pub(crate) end: End<F>,
    /// The checkpoint that it began with.
    pub(crate) checkpoint: Option<Written>,
}

/// Reads a data directory on so many threads, and makes the first segment where there is nothing
/// yet. One thread is the caller's: then nothing happens beside it.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    clock: &impl Clock,
    random: &mut Random,
    segment_bytes: u64,
    threads: usize,
) -> Result<Recovered<D::File>, OpenError> {
    let began = clock.now();
    let files = Files::list(disk).map_err(OpenError::io("listing the data directory"))?;
    for name in &files.unfinished {
        disk.remove(name)
            .map_err(OpenError::io(format!("removing {name}")))?;
    }
    if files.segments.is_empty() && files.checkpoints.is_empty() {
        let number = 1;
        let salt = random();
        create_segment(disk, SegmentHeader { number, salt }, segment_bytes, |_| {
            Ok(())
        })
        .map_err(OpenError::io("creating the first segment of the journal"))?;
        return recover(disk, clock, random, segment_bytes, threads);
    }
    let loaded = files
        .checkpoints
        .last()
        .map(|&newest| checkpoint::load(disk, newest, threads))
        .transpose()?;
    let loading = clock.now();
    let (mut state, header, checkpoint) = match loaded {
        Some(loaded) => {
            let written = Written {
                first_sequence: loaded.header.first_sequence,
                bytes: loaded.bytes,
            };
            (loaded.state, Some(loaded.header), Some(written))
        }
        None => (State::default(), None, None),
    };
    let (segment, first_sequence) = match header {
        Some(it) if planted!(ReplayedFromEnd) => (it.segment, it.next_sequence),
        Some(it) => (it.segment, it.first_sequence),
        None => (1, 1),
    };
    let segments = contiguous(&files.segments, segment)?;
    let end = replay::replay(disk, segments, first_sequence, &mut state, threads)?;
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
        // What a crash just after the checkpoint left. The directory is synced: it stays behind.
        files::obsolete(disk, header.first_sequence, header.segment)
            .and_then(|names| names.iter().try_for_each(|name| disk.remove(name)))
            .map_err(OpenError::io("removing what the checkpoint made needless"))?;
    }
    state.finish_replay();
    let counts = state.counts();
    tracing::info!(
        widgets = counts.widgets,
        associations = counts.associations,
        next_sequence = end.next_sequence,
        checkpoint_ms = loading.saturating_sub(began).as_millis(),
        journal_ms = clock.now().saturating_sub(loading).as_millis(),
        journal_bytes = end.replayed_bytes,
        "store opened"
    );
    Ok(Recovered {
        state,
        end,
        checkpoint,
    })
}

/// The segments from number `first` on, which must all be there.
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
