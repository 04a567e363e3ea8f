//! The archiver: takes over the archive, and then copies groups and checkpoints, step by step.
//!
//! Groups are packed as they arrive (`packing`). The archiver first writes an object, then the
//! manifest that makes it count, and only then lets the journal go. Each step can be repeated: the
//! archiver recognises its own write if the answer to it was lost.

mod begin;
mod checkpoint;
mod packing;

use crate::{
    Bucket, Checkpoint, Error, Manifest, Metrics, Stretch,
    bucket::{Replaced, Version},
    checkpoints::Uploaded,
    manifest::Hex64,
    object::{self, Packer},
};
use begin::{begin, check_last_writer, check_owner, take_over};
use checkpoint::Reply;
pub(crate) use packing::STRETCH_REST;
use packing::{Packing, Pending};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle};
use widgets_clock::Clock;
use widgets_engine::{JournalEnd, Source};
use widgets_pacing::Pacing;

/// The payload of an object's groups. The group that reaches this limit is the last one in its
/// object.
pub(crate) const OBJECT_BYTES_MAX: usize = if cfg!(test) { 2 << 10 } else { 8 << 20 };

/// How long to wait after copying a checkpoint failed.
const CHECKPOINT_RETRY: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_secs(30)
};

/// How the archive is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The maximum age of an operation before it is in the archive, as long as the bucket works.
    pub interval: Duration,
    /// The longest time between two copies of a checkpoint, if anything changed.
    pub checkpoint_age: Duration,
    /// A checkpoint is also copied after this many bytes of journal, or after half the size of the
    /// last checkpoint if that is more.
    pub checkpoint_journal_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            checkpoint_age: Duration::from_hours(24),
            checkpoint_journal_bytes: 1 << 30,
        }
    }
}

/// An archive that this process writes to.
pub struct Archiver {
    bucket: Bucket,
    source: Source,
    clock: Arc<dyn Clock>,
    /// `None` if there is nobody to leave CPU time to.
    pacing: Option<Arc<Pacing>>,
    settings: Settings,
    metrics: Metrics,
    manifest: Manifest,
    version: Version,
    /// When this archiver last replaced the manifest.
    replaced_at: Duration,
    writer: u32,
    holder: u64,
    /// Everything before this is in the archive.
    reached: JournalEnd,
    /// The next object, as far as it is packed.
    packing: Option<Packing>,
    /// The packer for the next object, while none is being packed.
    packer: Option<Packer>,
    /// A complete object that may not have reached the bucket yet.
    pending: Option<Pending>,
    /// Where each object since the last checkpoint begins.
    firsts: VecDeque<JournalEnd>,
    /// The bytes of journal since the last checkpoint.
    journal_bytes: u64,
    /// When the last checkpoint was complete, or when this archiver began, in microseconds since
    /// 1970.
    checkpoint_at: u64,
    /// After a failure, the time before which no copy begins unless somebody asks for one.
    checkpoint_retry_at: Duration,
    upload: Option<JoinHandle<Result<Uploaded, Error>>>,
    /// A checkpoint whose parts are all in the bucket, while the archived journal does not reach
    /// far enough or the manifest does not name it yet.
    uploaded: Option<Uploaded>,
    /// The callers who wait for a checkpoint: those whose copy has not begun, and those whose copy
    /// has.
    waiting: Vec<Reply>,
    served: Vec<Reply>,
}

impl Archiver {
    /// Takes over the archive for this store. From then on, any earlier writer stops.
    pub async fn open(
        bucket: Bucket,
        source: Source,
        times: (Arc<dyn Clock>, Option<Arc<Pacing>>),
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        Self::open_if(check_owner, bucket, source, times, settings, metrics).await
    }

    /// Takes over the archive if the check allows it for what the manifest says.
    async fn open_if(
        check: fn(&Manifest, &Source) -> Result<(), Error>,
        bucket: Bucket,
        source: Source,
        (clock, pacing): (Arc<dyn Clock>, Option<Arc<Pacing>>),
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        metrics.watch(source.clone(), clock.clone());
        let found = bucket.manifest().await?;
        let (mut manifest, before) = match found {
            Some((manifest, version)) => (manifest, Some(version)),
            None => (Manifest::new(&source.store()), None),
        };
        check(&manifest, &source)?;
        let (begin, is_gap) = begin(&manifest, &source)?;
        let writer = manifest
            .writer
            .checked_add(1)
            .ok_or_else(|| Error::Source("the archive had too many writers".into()))?;
        let holder = crate::random();
        manifest.writer = writer;
        manifest.holder = Hex64(holder);
        manifest.revision += 1;
        // A stretch without journal is dropped, unless a checkpoint of its writer needs it: the
        // stretch says to which run that checkpoint belongs.
        let checkpoints = &manifest.checkpoints;
        manifest.stretches.retain(|it| {
            it.begin.next_sequence < it.end.next_sequence
                || checkpoints.iter().any(|own| own.writer == it.writer)
        });
        manifest.stretches.push(Stretch {
            writer,
            began: unix_microseconds(&*clock),
            epochs: epochs(&source),
            begin: begin.into(),
            end: begin.into(),
        });
        let version = take_over(&bucket, &manifest, before.as_ref()).await?;
        bucket.check_conditions(&version, &*clock).await?;
        let replaced_at = clock.now();
        if is_gap {
            metrics.gaps.inc();
            tracing::error!(
                from = manifest
                    .stretches
                    .iter()
                    .rev()
                    .nth(1)
                    .map(|it| it.end.next_sequence),
                to = begin.next_sequence,
                "the journal was deleted before it was archived: moments in the gap cannot be \
                 restored, and a new checkpoint is copied"
            );
        }
        source.hold(Some(begin.next_sequence));
        metrics.reached(begin.next_sequence);
        metrics.stopped.set(0);
        tracing::info!(
            url = bucket.url(),
            writer,
            next_sequence = begin.next_sequence,
            "archiving"
        );
        // The last checkpoint may be old, and may come from another process.
        let last = manifest.checkpoints.last();
        let now = unix_microseconds(&*clock);
        let checkpoint_at = last.map_or(now, |last| last.written);
        let journal_bytes = source.bytes_from(last.map_or(1, |last| last.begin.next_sequence));
        let archiver = Self {
            bucket,
            source,
            clock,
            pacing,
            settings,
            metrics,
            manifest,
            version,
            replaced_at,
            writer,
            holder,
            reached: begin,
            packing: None,
            packer: None,
            pending: None,
            firsts: VecDeque::new(),
            journal_bytes,
            checkpoint_at,
            checkpoint_retry_at: Duration::ZERO,
            upload: None,
            uploaded: None,
            waiting: Vec::new(),
            served: Vec::new(),
        };
        if !archiver.has_base() {
            let now = unix_microseconds(&*archiver.clock);
            archiver.metrics.waiting_since(now);
        }
        Ok(archiver)
    }

    /// Returns the position up to which everything is in the archive.
    #[must_use]
    pub fn reached(&self) -> JournalEnd {
        self.reached
    }

    /// Waits until something is new since `seen`: a group, or the end of a copy.
    pub(crate) async fn changed(&mut self, seen: u64) {
        let (source, upload) = (&self.source, &mut self.upload);
        let ended = async {
            match upload {
                Some(upload) => {
                    while !upload.is_finished() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = source.changed(seen) => {}
            () = ended => {}
        }
    }

    /// Copies the next object of groups, if there is one, and continues the copy of a checkpoint.
    /// Returns whether there is more to do at once. After an error it may be called again.
    ///
    /// Groups that arrive meanwhile do not count as more to do while an object has room for them:
    /// under continuous load there are always some, and an object for every few of them would cost
    /// more than everything else. Nor does a seal count: it waits for a group that says something.
    /// With `is_last` nothing waits.
    pub async fn step(&mut self, is_last: bool) -> Result<bool, Error> {
        self.begin_checkpoint(is_last);
        // If an earlier object could not be written, groups have arrived since that nobody looked
        // for.
        let is_old = self.pending.is_some();
        if !is_old {
            self.pending = self.next_object(is_last).await?;
        }
        let (mut is_more, mut waiting_since) = (false, 0);
        if let Some(pending) = &self.pending {
            let is_full = pending.raw_bytes >= OBJECT_BYTES_MAX as u64;
            // Whatever is not in the object was committed later than this.
            let later = if is_full {
                pending.end.at
            } else {
                pending.read_at
            };
            if pending.first_at > 0 {
                self.metrics.waiting_since(pending.first_at);
            }
            if planted!(LetGoTooEarly) {
                self.source.hold(Some(self.source.end().next_sequence));
            }
            if planted!(ManifestBeforeObject) {
                self.record_piece().await?;
            }
            let pending = self.pending.as_ref();
            if let Some(Pending { name, bytes, .. }) = pending {
                self.bucket.put_new(name, bytes.clone()).await?;
                self.metrics.wrote(bytes.len());
            }
            self.record_piece().await?;
            self.pending = None;
            if self.reached.next_sequence < self.source.end().next_sequence {
                is_more = is_full || is_old || is_last;
                waiting_since = later;
            }
        }
        // A failed checkpoint must not hold up the journal, so it comes last.
        self.take_upload().await?;
        self.record_checkpoint().await?;
        if self.has_base() {
            self.metrics.waiting_since(waiting_since);
        }
        Ok(is_more)
    }

    /// Returns whether the present content of the archive can be restored at all.
    fn has_base(&self) -> bool {
        let runs = self.manifest.runs();
        runs.last().is_some_and(|run| {
            self.manifest.begins_empty(run) || self.manifest.checkpoints_of(run).next().is_some()
        })
    }

    /// Adds the pending object to the manifest, and lets the journal before its end go.
    async fn record_piece(&mut self) -> Result<(), Error> {
        let Some(pending) = &self.pending else {
            return Ok(());
        };
        let (end, raw_bytes) = (pending.end, pending.raw_bytes);
        let writer = self.writer;
        self.commit(|manifest| {
            let own = manifest
                .stretches
                .iter_mut()
                .rev()
                .find(|stretch| stretch.writer == writer);
            if let Some(stretch) = own
                && stretch.end.next_sequence < end.next_sequence
            {
                stretch.end = end.into();
            }
        })
        .await?;
        self.firsts.push_back(self.reached);
        self.reached = end;
        self.journal_bytes += raw_bytes;
        self.metrics.reached(end.next_sequence);
        self.source.hold(Some(end.next_sequence));
        Ok(())
    }

    /// Replaces the manifest with one that has this change. If someone else replaced it without
    /// taking the archive over, as pruning does, applies the change to theirs; if another writer
    /// has taken over, returns an error.
    async fn commit(&mut self, change: impl Fn(&mut Manifest)) -> Result<(), Error> {
        loop {
            let mut next = self.manifest.clone();
            change(&mut next);
            next.revision += 1;
            let since = self.clock.now().saturating_sub(self.replaced_at);
            let pause = self.bucket.replace_pause().saturating_sub(since);
            if pause > Duration::ZERO {
                self.clock.timer(pause).await;
            }
            // Set whatever the outcome: if the answer is lost, the write may still have happened.
            self.replaced_at = self.clock.now();
            match self.bucket.replace(&next, Some(&self.version)).await? {
                Replaced::Done(version) => {
                    (self.manifest, self.version) = (next, version);
                    return Ok(());
                }
                Replaced::Changed => {
                    let Some((found, version)) = self.bucket.manifest().await? else {
                        return Err(Error::Damaged {
                            object: object::MANIFEST.into(),
                            defect: "it has gone".into(),
                        });
                    };
                    if (found.writer, found.holder.0) != (self.writer, self.holder)
                        && !planted!(WriterIgnored)
                    {
                        return Err(Error::Lost {
                            writer: found.writer,
                            ours: self.writer,
                        });
                    }
                    if planted!(LateAnswerForgotten) {
                        return Err(Error::Lost {
                            writer: found.writer,
                            ours: self.writer,
                        });
                    }
                    (self.manifest, self.version) = (found, version);
                }
            }
        }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}

/// Returns the epochs of a store in the form that the manifest uses.
fn epochs(source: &Source) -> Vec<(u32, u64)> {
    let store = source.store();
    let epochs = store.epochs.iter();
    epochs
        .map(|epoch| (epoch.number, epoch.first_sequence))
        .collect()
}

pub(crate) fn unix_microseconds(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.unix_time().as_micros()).unwrap_or(u64::MAX)
}

/// Copies a store that takes no requests completely, with a checkpoint, and ends. Takes the archive
/// over only from the same store in the same epoch.
pub async fn back_up(
    bucket: Bucket,
    source: Source,
    clock: Arc<dyn Clock>,
) -> Result<Checkpoint, Error> {
    let metrics = Metrics::default();
    let settings = Settings::default();
    let times = (clock, None);
    let opened = Archiver::open_if(check_last_writer, bucket, source, times, settings, metrics);
    let mut archiver = opened.await?;
    let (reply, mut outcome) = oneshot::channel();
    archiver.want_checkpoint(reply);
    loop {
        archiver.step(true).await?;
        match outcome.try_recv() {
            Ok(told) => return told.map_err(Error::Source),
            Err(oneshot::error::TryRecvError::Empty) => {}
            Err(error @ oneshot::error::TryRecvError::Closed) => {
                return Err(Error::Source(error.to_string()));
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
