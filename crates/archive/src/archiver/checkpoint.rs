//! Decides when a checkpoint is copied, and when it counts.

use super::{Archiver, CHECKPOINT_RETRY, unix_microseconds};
use crate::{
    Checkpoint, Error,
    checkpoints::{self, Wanted},
};
use std::{mem, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle};
use widgets_engine::JournalEnd;

/// Sends the outcome to a caller that waits for a checkpoint.
pub(crate) type Reply = oneshot::Sender<Result<Checkpoint, String>>;

impl Archiver {
    /// Asks for a copy of a checkpoint that contains everything answered so far.
    pub(crate) fn want_checkpoint(&mut self, reply: Reply) {
        self.waiting.push(reply);
    }

    /// Begins to copy a checkpoint if one is due or was asked for.
    pub(super) fn begin_checkpoint(&mut self, is_last: bool) {
        let is_later = self.clock.now() < self.checkpoint_retry_at && self.waiting.is_empty();
        if self.upload.is_some() || self.uploaded.is_some() || is_later {
            return;
        }
        let last = self.manifest.checkpoints.last();
        let age = unix_microseconds(&*self.clock).saturating_sub(self.checkpoint_at);
        let age = Duration::from_micros(age);
        let bytes_max = last
            .map_or(0, |last| last.raw_bytes / 2)
            .max(self.settings.checkpoint_journal_bytes);
        let is_due = self.journal_bytes >= bytes_max
            || age >= self.settings.checkpoint_age && self.journal_bytes > 0;
        let wanted = if !self.waiting.is_empty() {
            Wanted::New
        } else if !self.has_base() {
            Wanted::Any
        } else if is_due && !is_last {
            let last = last.map_or(0, |last| last.begin.next_sequence);
            Wanted::NewerThan(last)
        } else {
            return;
        };
        self.served = mem::take(&mut self.waiting);
        let (bucket, source) = (self.bucket.clone(), self.source.clone());
        let (clock, pacing) = (self.clock.clone(), self.pacing.clone());
        let work = checkpoints::upload(bucket, source, clock, pacing, self.writer, wanted);
        self.upload = Some(tokio::spawn(work));
    }

    /// Takes the outcome of a copy that has ended.
    pub(super) async fn take_upload(&mut self) -> Result<(), Error> {
        if !self.upload.as_ref().is_some_and(JoinHandle::is_finished) {
            return Ok(());
        }
        let Some(upload) = self.upload.take() else {
            return Ok(());
        };
        match upload.await {
            Ok(Ok(uploaded)) => {
                for _ in 0..uploaded.parts {
                    self.metrics.objects.inc();
                }
                self.metrics.bytes.inc_by(uploaded.bytes);
                self.uploaded = Some(uploaded);
                Ok(())
            }
            Ok(Err(error)) => {
                self.checkpoint_retry_at = self.clock.now() + CHECKPOINT_RETRY;
                answer(&mut self.served, &Err(error.to_string()));
                Err(error)
            }
            Err(error) => {
                self.checkpoint_retry_at = self.clock.now() + CHECKPOINT_RETRY;
                answer(&mut self.served, &Err(error.to_string()));
                Err(Error::Source(error.to_string()))
            }
        }
    }

    /// Returns whether a checkpoint is being copied, or is not recorded yet.
    #[cfg(test)]
    pub(crate) fn is_copying(&self) -> bool {
        self.upload.is_some() || self.uploaded.is_some()
    }

    /// Waits for the copy of a checkpoint that is under way.
    #[cfg(test)]
    pub(crate) async fn finish_upload(&mut self) {
        while self.upload.as_ref().is_some_and(|it| !it.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Adds the checkpoint to the manifest, once the archived journal reaches what it needs.
    pub(super) async fn record_checkpoint(&mut self) -> Result<(), Error> {
        let Some(uploaded) = self.uploaded else {
            return Ok(());
        };
        let is_early = self.reached.next_sequence < uploaded.next_sequence;
        if is_early && !planted!(CheckpointTooEarly) {
            return Ok(());
        }
        let first = uploaded.begin.next_sequence;
        let has_it = |begin: &&JournalEnd| begin.next_sequence <= first;
        let from = self.firsts.iter().rev().find(has_it).copied();
        let checkpoint = Checkpoint {
            writer: self.writer,
            written: unix_microseconds(&*self.clock),
            begin: uploaded.begin.into(),
            next_sequence: uploaded.next_sequence,
            usable_at: self.reached.at,
            from: from.map(Into::into),
            parts: uploaded.parts,
            raw_bytes: uploaded.raw_bytes,
            bytes: uploaded.bytes,
        };
        let added = checkpoint.clone();
        self.commit(|manifest| {
            let key = |it: &Checkpoint| (it.writer, it.begin.next_sequence);
            if !manifest.checkpoints.iter().any(|it| key(it) == key(&added)) {
                manifest.checkpoints.push(added.clone());
            }
        })
        .await?;
        self.uploaded = None;
        self.journal_bytes = 0;
        self.checkpoint_at = checkpoint.written;
        while self
            .firsts
            .get(1)
            .is_some_and(|second| second.next_sequence <= first)
        {
            self.firsts.pop_front();
        }
        let seconds = i64::try_from(checkpoint.written / 1_000_000).unwrap_or(i64::MAX);
        self.metrics.checkpoint_timestamp.set(seconds);
        tracing::info!(
            first_sequence = first,
            bytes = checkpoint.bytes,
            "a checkpoint is in the archive"
        );
        answer(&mut self.served, &Ok(checkpoint));
        Ok(())
    }
}

fn answer(replies: &mut Vec<Reply>, outcome: &Result<Checkpoint, String>) {
    for reply in replies.drain(..) {
        // The caller may be gone.
        drop(reply.send(outcome.clone()));
    }
}
