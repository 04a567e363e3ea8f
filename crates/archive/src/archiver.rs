//! The archiver: takes the archive for itself, then copies groups and checkpoints, step by step.
//!
//! What comes is packed while it comes (`packing`). An object is written first, then the manifest that says that it counts, then the journal is let go. Each
//! step can be tried again: what was written although no answer came is recognised.

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
use begin::{begin, check_owner, take_over};
use checkpoint::Reply;
pub(crate) use packing::STRETCH_REST;
use packing::{Packing, Pending};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle};
use widgets_clock::Clock;
use widgets_engine::{JournalEnd, Source};
use widgets_pacing::Pacing;

/// An object has groups of so many bytes, or of one more.
pub(crate) const OBJECT_BYTES_MAX: usize = if cfg!(test) { 2 << 10 } else { 8 << 20 };

/// How long to wait after the copy of a checkpoint failed.
const CHECKPOINT_RETRY: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_secs(30)
};

/// How the archive is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How old an operation may become before it is in the archive, where the bucket is well.
    pub interval: Duration,
    /// A checkpoint is copied at least so often, if anything changed.
    pub checkpoint_age: Duration,
    /// And after so many bytes of journal, or half as many as the last one has where that is more.
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

/// An archive that is written to.
pub struct Archiver {
    bucket: Bucket,
    source: Source,
    clock: Arc<dyn Clock>,
    /// `None`: there is nobody to leave processor time to.
    pacing: Option<Arc<Pacing>>,
    settings: Settings,
    metrics: Metrics,
    manifest: Manifest,
    version: Version,
    /// When we replaced it last.
    replaced_at: Duration,
    writer: u32,
    holder: u64,
    /// Everything before is in the archive.
    reached: JournalEnd,
    /// The next object, as far as it has come.
    packing: Option<Packing>,
    /// For the next one, where none is being packed.
    packer: Option<Packer>,
    /// An object that is not there for sure.
    pending: Option<Pending>,
    /// Where the objects since the last checkpoint begin.
    firsts: VecDeque<JournalEnd>,
    /// The journal since the last checkpoint.
    journal_bytes: u64,
    /// When the last checkpoint was there, or when we began, in microseconds since 1970.
    checkpoint_at: u64,
    /// After a failure no copy begins before this, unless somebody asks.
    checkpoint_retry_at: Duration,
    upload: Option<JoinHandle<Result<Uploaded, Error>>>,
    /// Its parts are there; the journal has not come to what it needs, or the manifest does not say it.
    uploaded: Option<Uploaded>,
    /// Those who wait for a checkpoint, before it is begun and after.
    waiting: Vec<Reply>,
    served: Vec<Reply>,
}

impl Archiver {
    /// Takes the archive for this store. From then on any earlier writer stops.
    pub async fn open(
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
        check_owner(&manifest, &source)?;
        let (begin, is_gap) = begin(&manifest, &source)?;
        let writer = manifest
            .writer
            .checked_add(1)
            .ok_or_else(|| Error::Source("the archive had too many writers".into()))?;
        let holder = crate::random();
        manifest.writer = writer;
        manifest.holder = Hex64(holder);
        manifest.revision += 1;
        // Writers that wrote nothing say nothing; a checkpoint says to which run its writer belongs.
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
                "the journal went before it was archived: moments between cannot be restored, a new checkpoint is copied"
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
        // Another process may have copied the last one long ago.
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

    /// Everything before this is in the archive.
    #[must_use]
    pub fn reached(&self) -> JournalEnd {
        self.reached
    }

    /// Waits until there is something that was not seen yet: a group, or the end of a copy.
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

    /// Does what there is to do: copies an object of groups, and what there is of a checkpoint. Says whether
    /// there is more to do at once. After an error it may be called again.
    ///
    /// Groups that came meanwhile are no such thing while an object has room for them: beside operations around
    /// the clock there are always some, and an object for each few of them would cost more than all the rest. Nor is a
    /// group that says nothing, which waits for one that does. With `is_last` nothing waits.
    pub async fn step(&mut self, is_last: bool) -> Result<bool, Error> {
        self.begin_checkpoint(is_last);
        // Since one that could not be written others came that nobody looked for.
        let is_old = self.pending.is_some();
        if !is_old {
            self.pending = self.next_object(is_last).await?;
        }
        let (mut is_more, mut waiting_since) = (false, 0);
        if let Some(pending) = &self.pending {
            let is_full = pending.raw_bytes >= OBJECT_BYTES_MAX as u64;
            // What is not in it was committed later.
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
        // Whatever becomes of a checkpoint, the journal goes on.
        self.take_upload().await?;
        self.record_checkpoint().await?;
        if self.has_base() {
            self.metrics.waiting_since(waiting_since);
        }
        Ok(is_more)
    }

    /// Whether the archive can be restored at all from what there is.
    fn has_base(&self) -> bool {
        let runs = self.manifest.runs();
        runs.last().is_some_and(|run| {
            self.manifest.begins_empty(run) || self.manifest.checkpoints_of(run).next().is_some()
        })
    }

    /// Has the manifest say that the object is there, and lets go of what it has.
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

    /// Replaces the manifest by one with this change. Where somebody else replaced it, as pruning does, the
    /// change is made to theirs; where it is another writer's, this one is over.
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
            // Whatever becomes of it: an answer that is lost was given.
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

/// The epochs of a store, as the manifest has them.
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

/// Copies everything of a store that nobody asks anything meanwhile, with a checkpoint of it, and ends.
pub async fn back_up(
    bucket: Bucket,
    source: Source,
    clock: Arc<dyn Clock>,
) -> Result<Checkpoint, Error> {
    let metrics = Metrics::default();
    let settings = Settings::default();
    let mut archiver = Archiver::open(bucket, source, (clock, None), settings, metrics).await?;
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
