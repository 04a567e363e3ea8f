//! Copies a checkpoint, part by part, beside everything else: no piece of work takes longer than
//! answers can wait.

use crate::{
    Bucket, Error,
    object::{self, GrowingPart, STRETCH_BYTES},
};
use bytes::Bytes;
use std::sync::Arc;
use widgets_clock::Clock;
use widgets_engine::{HeldCheckpoint, JournalEnd, Source};
use widgets_pacing::Pacing;

/// The bytes of a checkpoint's file in one part.
const PART_BYTES: usize = if cfg!(test) { 8 << 10 } else { 4 << 20 };

/// A checkpoint whose parts are all in the bucket.
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
    /// The newest one, or a new one if there is none.
    Any,
    /// One that is newer than the checkpoint that begins with this entry.
    NewerThan(u64),
    /// A new one, which contains everything answered so far.
    New,
}

/// Copies a checkpoint to the bucket.
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
    let mut parts = Parts::new(held, source.store().identity, writer)?;
    let mut bytes = 0;
    loop {
        let started = clock.now();
        let step = parts.step()?;
        // The same cores have operations to answer, and nothing waits for a checkpoint.
        let took = clock.now().saturating_sub(started);
        let rest = pacing.as_ref().map(|pacing| pacing.copy_rest(took));
        match step {
            Step::Grown => {}
            Step::Part(number, part) => {
                bytes += part.len() as u64;
                let name = object::part_name(writer, begin.next_sequence, number);
                bucket.put_new(&name, part).await?;
            }
            Step::End => break,
        }
        if let Some(rest) = rest {
            clock.timer(rest).await;
        }
    }
    Ok(Uploaded {
        begin,
        next_sequence,
        parts: parts.part.number(),
        raw_bytes: parts.raw_bytes,
        bytes,
    })
}

/// Splits a held checkpoint into parts.
pub(crate) struct Parts {
    held: HeldCheckpoint,
    part: GrowingPart,
    /// How many bytes of its file were read.
    raw_bytes: u64,
}

/// The outcome of a piece of work.
pub(crate) enum Step {
    /// A part has grown.
    Grown,
    /// A part is complete: its number, and the object.
    Part(u32, Bytes),
    /// There are no more parts.
    End,
}

impl Parts {
    pub(crate) fn new(held: HeldCheckpoint, store: u64, writer: u32) -> Result<Self, Error> {
        let part = GrowingPart::new(store, writer, held.begin.next_sequence)?;
        Ok(Self {
            held,
            part,
            raw_bytes: 0,
        })
    }

    /// Reads and packs a little more of the checkpoint.
    pub(crate) fn step(&mut self) -> Result<Step, Error> {
        let is_end = self.raw_bytes >= self.held.bytes;
        let in_part = usize::try_from(self.part.raw_bytes()).unwrap_or(PART_BYTES);
        if in_part >= PART_BYTES || is_end && in_part > 0 {
            let number = self.part.number();
            return Ok(Step::Part(number, self.part.finish()?));
        }
        if is_end {
            return Ok(Step::End);
        }
        let bytes = STRETCH_BYTES.min(PART_BYTES - in_part);
        let read = self.held.read(self.raw_bytes, bytes);
        let raw = read.map_err(|error| reading(&error))?;
        if raw.is_empty() {
            return Err(Error::Source(
                "the checkpoint is shorter than it was".into(),
            ));
        }
        self.part.add(&raw)?;
        self.raw_bytes += raw.len() as u64;
        Ok(Step::Grown)
    }
}

fn reading(error: &std::io::Error) -> Error {
    Error::Source(format!("reading the checkpoint: {error}"))
}
