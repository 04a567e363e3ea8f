//! Checkpoints: when one is due, and copying the state for it slice by slice.
//!
//! A checkpoint is fuzzy. Between its batches, the owner of the state copies some hundred records
//! at a time into a buffer, and a [writer](write) writes full buffers to the disk. The parts of a
//! checkpoint are therefore from different moments, and the journal from its beginning on is
//! replayed over it: `docs/file-format.md` has the argument. The owner never waits for the writer:
//! if it has no empty buffer, it copies nothing.
//!
//! A failed checkpoint costs only time: the journal has everything, and older files are removed
//! only once a checkpoint is durable.

mod load;
mod write;

pub(crate) use load::load;
pub(crate) use write::{Beginning, Draft, Writer, WriterEnds, Written};

use crate::{
    Settings,
    format::checkpoint::{BLOCK_KEYS, BLOCK_RECORDS, begin_block, encode_key, encode_record},
    journal::Position,
    metrics::Metrics,
    retries::Retries,
    state::{Handle, State},
};
use std::{io, mem, sync::mpsc, time::Duration};
use write::{Message, Report};

/// How many records the owner copies at a time, which takes some 50 µs. Tests have few widgets, and
/// need changes between slices too.
const SLICE_RECORDS: u32 = if cfg!(test) { 1 } else { 512 };

/// How many keys the owner copies at a time. Keys are small.
const SLICE_KEYS: u32 = if cfg!(test) { 3 } else { 2048 };

/// The owner stops a slice of records early after this many bytes.
const SLICE_BYTES: usize = 128 << 10;

/// The buffers between the owner and the writer. Each has a block: about 200 KB, 5.3 MB at most.
const BUFFERS: usize = 4;

/// How long to wait after a failed checkpoint.
const RETRY: Duration = Duration::from_secs(30);

/// Why a requested checkpoint was not written. Nothing was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no checkpoint was written: {reason}")]
pub struct CheckpointError {
    reason: String,
}

impl CheckpointError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Where a caller waits for a checkpoint.
pub(crate) type Reply = mpsc::Sender<Result<(), CheckpointError>>;

/// What the owner of the state knows about checkpoints.
pub(crate) struct Checkpoints {
    messages: mpsc::Sender<Message>,
    reports: mpsc::Receiver<Report>,
    requests: mpsc::Receiver<Reply>,
    buffers: Vec<Vec<u8>>,
    progress: Progress,
    last: Option<Written>,
    /// Callers that wait for the next checkpoint to begin.
    waiting: Vec<Reply>,
    journal_bytes_min: u64,
    /// The bytes of the journal since the beginning of the last checkpoint.
    journal_bytes: u64,
    /// After a failure, no checkpoint becomes due before this time.
    retry_at: Duration,
}

enum Progress {
    Idle,
    Copying(Copy, Running),
    /// Everything is copied, but the writer has not finished.
    Writing(Running),
}

/// A checkpoint between its beginning and its outcome.
struct Running {
    began: Duration,
    journal_bytes_before: u64,
    replies: Vec<Reply>,
}

/// The progress of the copying: first the records, then the keys.
struct Copy {
    records: u32,
    next: u32,
    /// Whether the records are done, so that keys are being copied.
    keys: bool,
    key_blocks: u32,
    /// The block that is being filled. `in_block` counts what is in it.
    block: Option<Vec<u8>>,
    in_block: u32,
}

impl Checkpoints {
    /// Returns the owner's part and the writer's. Requests come from `requests`.
    pub(crate) fn new(
        settings: &Settings,
        last: Option<Written>,
        journal_bytes: u64,
        requests: mpsc::Receiver<Reply>,
    ) -> (Self, WriterEnds) {
        let (to_writer, messages) = mpsc::channel();
        let (to_owner, reports) = mpsc::channel();
        let checkpoints = Self {
            messages: to_writer,
            reports,
            requests,
            buffers: vec![Vec::new(); BUFFERS],
            progress: Progress::Idle,
            last,
            waiting: Vec::new(),
            journal_bytes_min: settings.checkpoint_journal_bytes,
            journal_bytes,
            retry_at: Duration::ZERO,
        };
        let ends = WriterEnds {
            messages,
            reports: to_owner,
        };
        (checkpoints, ends)
    }

    /// Counts `bytes` by which the journal has grown.
    pub(crate) fn appended(&mut self, bytes: u64) {
        self.journal_bytes += bytes;
    }

    /// Returns how many bytes a restart would replay.
    pub(crate) fn journal_bytes(&self) -> u64 {
        self.journal_bytes
    }

    #[cfg(test)]
    pub(crate) fn last(&self) -> Option<Written> {
        self.last
    }

    /// Reports whether the last checkpoint needs journal entries from this one on. A checkpoint
    /// that an older version wrote may need the seals at the journal's end; one that is under way
    /// does not.
    pub(crate) fn needs_after(&self, next_sequence: u64) -> bool {
        self.last.is_some_and(|it| it.next_sequence > next_sequence)
    }

    /// Reports whether [`Self::advance`] has a slice to copy, so that the owner must not sleep.
    pub(crate) fn has_work(&self) -> bool {
        match &self.progress {
            Progress::Copying(copy, _) => copy.block.is_some() || !self.buffers.is_empty(),
            Progress::Idle | Progress::Writing(_) => false,
        }
    }

    /// Takes reports and requests, begins a checkpoint if one is due, and copies one slice of it.
    /// Everything in `state` and `retries` must be durable in the journal before `position`.
    pub(crate) fn advance(
        &mut self,
        state: &State,
        retries: &mut Retries,
        position: Position,
        now: Duration,
        metrics: &Metrics,
    ) {
        self.take_reports(now, metrics);
        self.waiting.extend(self.requests.try_iter());
        if matches!(self.progress, Progress::Idle) && self.is_due(position, now) {
            self.begin(state, position, now);
        }
        self.copy_slice(state, retries, position);
    }

    /// Abandons a checkpoint that is being copied, and refuses those that were requested, because
    /// the state must not be relied on any more.
    pub(crate) fn stop(&mut self, reason: &str, now: Duration, metrics: &Metrics) {
        self.take_reports(now, metrics);
        let refused = self.waiting.drain(..).chain(self.requests.try_iter());
        let mut refused: Vec<_> = refused.collect();
        match mem::replace(&mut self.progress, Progress::Idle) {
            Progress::Idle => {}
            Progress::Copying(_, running) => {
                self.send(Message::Abandon);
                refused.extend(running.replies);
            }
            // Everything in it was already durable.
            writing @ Progress::Writing(_) => self.progress = writing,
        }
        answer(refused, &Err(CheckpointError::new(reason)));
    }

    fn take_reports(&mut self, now: Duration, metrics: &Metrics) {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                Report::Buffer(buffer) => self.buffers.push(buffer),
                Report::Done(outcome) => self.done(outcome, now, metrics),
            }
        }
    }

    fn is_due(&mut self, position: Position, now: Duration) -> bool {
        let last = self.last.map_or(0, |last| last.first_sequence);
        if last == position.next_sequence {
            // The last checkpoint is as good as a new one.
            answer(mem::take(&mut self.waiting), &Ok(()));
            return false;
        }
        let limit = self
            .last
            .map_or(0, |last| last.bytes / 2)
            .max(self.journal_bytes_min);
        !self.waiting.is_empty() || self.journal_bytes >= limit && now >= self.retry_at
    }

    fn begin(&mut self, state: &State, position: Position, now: Duration) {
        let records = state.extent();
        self.send(Message::Begin(Beginning {
            position,
            records,
            holding: state.holding(),
        }));
        let copy = Copy {
            records,
            next: 0,
            keys: false,
            key_blocks: 0,
            block: None,
            in_block: 0,
        };
        let running = Running {
            began: now,
            journal_bytes_before: self.journal_bytes,
            replies: mem::take(&mut self.waiting),
        };
        self.progress = Progress::Copying(copy, running);
    }

    fn copy_slice(&mut self, state: &State, retries: &mut Retries, position: Position) {
        let Progress::Copying(copy, _) = &mut self.progress else {
            return;
        };
        if !copy.is_done(retries) {
            let Some(mut block) = copy.block.take().or_else(|| {
                let mut block = self.buffers.pop()?;
                begin_block(&mut block);
                Some(block)
            }) else {
                return;
            };
            if copy.fill(&mut block, state, retries) {
                let count = mem::take(&mut copy.in_block);
                // Not through `self.send`, because `copy` is borrowed.
                drop(self.messages.send(Message::Block(block, count)));
            } else {
                copy.block = Some(block);
            }
        }
        if copy.is_done(retries) {
            let end = Message::End {
                next_sequence: position.next_sequence,
                key_blocks: copy.key_blocks,
            };
            self.send(end);
            if let Progress::Copying(_, running) = mem::replace(&mut self.progress, Progress::Idle)
            {
                self.progress = Progress::Writing(running);
            }
        }
    }

    fn done(&mut self, outcome: io::Result<Written>, now: Duration, metrics: &Metrics) {
        let running = match mem::replace(&mut self.progress, Progress::Idle) {
            Progress::Idle => return,
            Progress::Copying(copy, running) => {
                self.buffers.extend(copy.block);
                running
            }
            Progress::Writing(running) => running,
        };
        let duration = now.saturating_sub(running.began);
        metrics.checkpoint(outcome.is_ok(), duration);
        let answered = match outcome {
            Ok(written) => {
                tracing::info!(
                    first_sequence = written.first_sequence,
                    bytes = written.bytes,
                    duration_ms = duration.as_millis(),
                    "checkpoint written"
                );
                self.last = Some(written);
                self.journal_bytes -= running.journal_bytes_before;
                metrics.journal(self.journal_bytes);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "writing a checkpoint failed: the journal keeps growing \
                until a retry succeeds");
                self.retry_at = now + RETRY;
                Err(CheckpointError::new(error.to_string()))
            }
        };
        answer(running.replies, &answered);
    }

    fn send(&self, message: Message) {
        // If the writer is gone, no reply is expected either; its thread has reported why.
        drop(self.messages.send(message));
    }
}

impl Copy {
    /// Reports whether everything is copied. The keys that exist when the records are done are
    /// copied; later ones are in the journal from the checkpoint's beginning on.
    fn is_done(&mut self, retries: &mut Retries) -> bool {
        if self.next < self.records {
            return false;
        }
        if !mem::replace(&mut self.keys, true) && !planted!(KeysForgotten) {
            retries.begin_copy();
        }
        retries.is_copied() && self.in_block == 0
    }

    /// Copies one slice into the block. Returns whether the block must be written now.
    fn fill(&mut self, block: &mut Vec<u8>, state: &State, retries: &mut Retries) -> bool {
        if self.keys {
            let slice_end = (self.in_block + SLICE_KEYS).min(BLOCK_KEYS);
            while self.in_block < slice_end
                && let Some(kept) = retries.copy_next()
            {
                encode_key(block, &kept);
                self.in_block += 1;
            }
            let is_full = self.in_block == BLOCK_KEYS || retries.is_copied();
            self.key_blocks += u32::from(is_full);
            return is_full;
        }
        let bytes_max = block.len() + SLICE_BYTES;
        let records_max = (self.next + SLICE_RECORDS).min(self.records);
        while self.next < records_max && self.in_block < BLOCK_RECORDS && block.len() < bytes_max {
            encode_record(block, state.record(Handle::new(self.next)));
            self.next += 1;
            self.in_block += 1;
        }
        self.in_block == BLOCK_RECORDS || self.next == self.records
    }
}

fn answer(replies: Vec<Reply>, outcome: &Result<(), CheckpointError>) {
    for reply in replies {
        // The caller may be gone.
        drop(reply.send(outcome.clone()));
    }
}

/// Writes a checkpoint of a state and keys that do not change meanwhile.
pub(crate) fn write_all<D: crate::Disk>(
    disk: &D,
    state: &State,
    retries: &Retries,
    position: Position,
) -> io::Result<Written> {
    let records = state.extent();
    let beginning = Beginning {
        position,
        records,
        holding: state.holding(),
    };
    let mut draft = Draft::begin(disk, beginning)?;
    let mut block = Vec::new();
    let mut write = || {
        let mut next = 0;
        while next < records {
            begin_block(&mut block);
            let end = records.min(next + BLOCK_RECORDS);
            for number in next..end {
                encode_record(&mut block, state.record(Handle::new(number)));
            }
            draft.append(&mut block, end - next)?;
            next = end;
        }
        let (mut keys, mut key_blocks) = (retries.iter().peekable(), 0);
        while keys.peek().is_some() {
            begin_block(&mut block);
            let mut in_block = 0;
            for kept in keys.by_ref().take(BLOCK_KEYS as usize) {
                encode_key(&mut block, kept);
                in_block += 1;
            }
            draft.append(&mut block, in_block)?;
            key_blocks += 1;
        }
        draft.finish(position.next_sequence, key_blocks)
    };
    let outcome = write();
    if outcome.is_err() {
        draft.discard();
    }
    outcome
}
