//! The archiver: takes the archive for itself, then copies groups and checkpoints, step by step.
//!
//! An object is written first, then the manifest that says that it counts, then the journal is let go. Each
//! step can be tried again: what was written although no answer came is recognised.

mod begin;

use crate::{
    Bucket, Checkpoint, Error, Manifest, Metrics, Stretch,
    bucket::{Replaced, Version},
    checkpoints::{self, Uploaded, Wanted},
    manifest::Hex64,
    object,
};
use begin::{begin, check_owner, take_over};
use bytes::Bytes;
use std::{collections::VecDeque, mem, sync::Arc, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle};
use widgets_clock::Clock;
use widgets_engine::{JournalEnd, LoggedGroup, Source, SourceError};
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

/// Where somebody waits for a checkpoint: what is told when it is there.
pub(crate) type Reply = oneshot::Sender<Result<Checkpoint, String>>;

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

struct Pending {
    name: String,
    bytes: Bytes,
    raw_bytes: u64,
    end: JournalEnd,
    /// When the first group in it that says something was committed; 0 where none does.
    first_at: u64,
    /// It has all that was durable then, if an object has room for that.
    read_at: u64,
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

    /// Has a checkpoint of everything copied that was answered before.
    pub(crate) fn want_checkpoint(&mut self, reply: Reply) {
        self.waiting.push(reply);
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
            self.pending = self.next_object(is_last)?;
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

    /// The next groups as an object. None where there are none, or only such as can wait.
    fn next_object(&mut self, is_last: bool) -> Result<Option<Pending>, Error> {
        let first = self.reached.next_sequence;
        let read_at = unix_microseconds(&*self.clock);
        let read = self.source.read(first, OBJECT_BYTES_MAX);
        let mut groups = match read {
            Ok(groups) => groups,
            Err(error @ SourceError::Gone { .. }) => {
                return Err(Error::Source(format!(
                    "{error}, and they were not archived"
                )));
            }
            Err(error) => return Err(Error::Source(error.to_string())),
        };
        // What comes in another epoch than the manifest says would be restored with positions that it never had.
        let own = self.manifest.stretches.last().map(|it| &it.epochs);
        if own.is_some_and(|own| *own != epochs(&self.source)) {
            return Err(Error::Source(
                "the store goes on in another epoch: the archive is taken anew".into(),
            ));
        }
        let can_wait = groups.is_empty() || !is_last;
        if can_wait && groups.iter().all(|group| group.is_seal()) {
            return Ok(None);
        }
        if planted!(GroupLeftOut) && groups.len() > 1 {
            groups.remove(0);
        }
        let begin = match groups.first() {
            Some(group) if planted!(GroupLeftOut) => JournalEnd {
                next_sequence: group.first_sequence,
                chain: group.chain,
                ..self.reached
            },
            _ => self.reached,
        };
        let mut end = begin;
        for group in &groups {
            let follows = group.first_sequence == end.next_sequence && group.chain == end.chain;
            if !follows && !planted!(ChainUnchecked) {
                return Err(Error::Source(format!(
                    "the group of entry {} does not follow from what was archived",
                    group.first_sequence
                )));
            }
            end = object::end_of(group);
        }
        let store = self.source.store().identity;
        let bytes = object::encode_piece(store, self.writer, begin, end, &groups)?;
        let counts = |group: &&Arc<LoggedGroup>| !group.is_seal();
        Ok(Some(Pending {
            name: object::journal_name(self.writer, begin.next_sequence),
            bytes,
            raw_bytes: groups.iter().map(|group| group.payload.len() as u64).sum(),
            end,
            first_at: groups.iter().find(counts).map_or(0, |group| group.at),
            read_at,
        }))
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

    /// Begins to copy a checkpoint, if one is due or wanted.
    fn begin_checkpoint(&mut self, is_last: bool) {
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

    /// Takes a copy that has ended.
    async fn take_upload(&mut self) -> Result<(), Error> {
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

    /// Whether a checkpoint is being copied, or is not recorded yet.
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

    /// Has the manifest say that the checkpoint is there, once the journal has come to what it needs.
    async fn record_checkpoint(&mut self) -> Result<(), Error> {
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

fn answer(replies: &mut Vec<Reply>, outcome: &Result<Checkpoint, String>) {
    for reply in replies.drain(..) {
        // Whoever asked may have gone.
        drop(reply.send(outcome.clone()));
    }
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
