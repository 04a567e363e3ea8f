//! Copying a checkpoint to the archive, part by part, beside everything else.

use crate::{Bucket, Error, object};
use std::{sync::Arc, time::Duration};
use widgets_clock::Clock;
use widgets_engine::{JournalEnd, Source};

/// The bytes of a checkpoint's file in one part.
const PART_BYTES: usize = if cfg!(test) { 8 << 10 } else { 4 << 20 };

/// After a part there is a rest of so many times as long as packing it took: there are operations to answer
/// on the same processors.
const REST_FACTOR: u32 = 2;

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
    let reading = |error: std::io::Error| Error::Source(format!("reading the checkpoint: {error}"));
    let Some(held) = source.hold_checkpoint().map_err(reading)? else {
        return Err(Error::Source("the store has no checkpoint yet".into()));
    };
    let (store, first) = (source.store().identity, held.begin.next_sequence);
    let mut uploaded = Uploaded {
        begin: held.begin,
        next_sequence: held.next_sequence,
        parts: 0,
        raw_bytes: 0,
        bytes: 0,
    };
    while uploaded.raw_bytes < held.bytes {
        let began = clock.now();
        let raw = held.read(uploaded.raw_bytes, PART_BYTES).map_err(reading)?;
        if raw.is_empty() {
            return Err(Error::Source(
                "the checkpoint is shorter than it was".into(),
            ));
        }
        let part = object::encode_part(store, writer, first, uploaded.parts, &raw)?;
        let worked = clock.now().saturating_sub(began);
        uploaded.raw_bytes += raw.len() as u64;
        uploaded.bytes += part.len() as u64;
        let name = object::part_name(writer, first, uploaded.parts);
        bucket.put_new(&name, part).await?;
        uploaded.parts += 1;
        if worked > Duration::ZERO {
            clock.timer(worked * REST_FACTOR).await;
        }
    }
    Ok(uploaded)
}
