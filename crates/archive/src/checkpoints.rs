//! Copying a checkpoint, part by part, beside everything else.

use crate::{Bucket, Error, object};
use bytes::Bytes;
use std::sync::Arc;
use widgets_clock::Clock;
use widgets_engine::{HeldCheckpoint, JournalEnd, Source};
use widgets_pacing::Pacing;

/// The bytes of a checkpoint's file in one part.
const PART_BYTES: usize = if cfg!(test) { 8 << 10 } else { 4 << 20 };

/// A checkpoint whose parts are all there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uploaded {
    pub(crate) begin: JournalEnd,
    pub(crate) next_sequence: u64,
    pub(crate) parts: u32,
    pub(crate) raw_bytes: u64,
    pub(crate) bytes: u64,
}

/// Which checkpoint is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The newest that there is, or a new one where there is none.
    Any,
    /// One that is newer than the one that begins with this entry.
    NewerThan(u64),
    /// One of everything that was answered before.
    New,
}

/// Copies a checkpoint.
pub(crate) async fn upload(
    bucket: Bucket,
    source: Source,
    clock: Arc<dyn Clock>,
    pacing: Option<Arc<Pacing>>,
    writer: u32,
    wanted: Wanted,
) -> Result<Uploaded, Error> {
    let newest = source.newest_checkpoint();
    let is_there = match wanted {
        Wanted::Any => newest.is_some(),
        Wanted::NewerThan(last) => newest.is_some_and(|newest| newest > last),
        Wanted::New => false,
    };
    if !is_there {
        let asked = source.clone();
        let written = tokio::task::spawn_blocking(move || asked.checkpoint()).await;
        written
            .map_err(|error| Error::Source(error.to_string()))?
            .map_err(|error| Error::Source(error.to_string()))?;
    }
    let held = source.hold_checkpoint();
    let Some(held) = held.map_err(|error| reading(&error))? else {
        return Err(Error::Source("the store has no checkpoint yet".into()));
    };
    let (begin, next_sequence) = (held.begin, held.next_sequence);
    let mut parts = Parts::new(held, source.store().identity, writer);
    let mut bytes = 0;
    loop {
        let (number, started) = (parts.count, clock.now());
        let Some(part) = parts.next()? else {
            break;
        };
        // There are operations to answer on the same processors, and nothing waits for a checkpoint.
        let took = clock.now().saturating_sub(started);
        let rest = pacing.as_ref().map(|pacing| pacing.copy_rest(took));
        bytes += part.len() as u64;
        let name = object::part_name(writer, begin.next_sequence, number);
        bucket.put_new(&name, part).await?;
        if let Some(rest) = rest {
            clock.timer(rest).await;
        }
    }
    Ok(Uploaded {
        begin,
        next_sequence,
        parts: parts.count,
        raw_bytes: parts.raw_bytes,
        bytes,
    })
}

/// A checkpoint that is held, part by part.
pub(crate) struct Parts {
    held: HeldCheckpoint,
    store: u64,
    writer: u32,
    /// So many were read.
    count: u32,
    raw_bytes: u64,
}

impl Parts {
    pub(crate) fn new(held: HeldCheckpoint, store: u64, writer: u32) -> Self {
        Self {
            held,
            store,
            writer,
            count: 0,
            raw_bytes: 0,
        }
    }

    /// The next one as an object. `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.raw_bytes >= self.held.bytes {
            return Ok(None);
        }
        let read = self.held.read(self.raw_bytes, PART_BYTES);
        let raw = read.map_err(|error| reading(&error))?;
        if raw.is_empty() {
            return Err(Error::Source(
                "the checkpoint is shorter than it was".into(),
            ));
        }
        let first = self.held.begin.next_sequence;
        let part = object::encode_part(self.store, self.writer, first, self.count, &raw)?;
        self.raw_bytes += raw.len() as u64;
        self.count += 1;
        Ok(Some(part))
    }
}

fn reading(error: &std::io::Error) -> Error {
    Error::Source(format!("reading the checkpoint: {error}"))
}
