//! Restoring: reads the newest checkpoint before the moment, then the groups up to it, into an
//! empty directory.
//!
//! Everything that is read is checked, and the result is read as a start reads it. A damaged
//! checkpoint is reported, and an older one with more of the journal replaces it. If an object
//! disappears because the archive is pruned meanwhile, the restore begins again with what the
//! manifest names then.

use crate::{
    Bucket, Checkpoint, Error, Manifest, Stretch,
    object::{self, Piece},
    plan::{Plan, Target, plan, time_text},
};
use futures_util::{StreamExt as _, stream};
use std::path::Path;
use widgets_engine::{
    DataDirectory, JournalEnd, Restoration, Restored, Role, Settings, StoreHeader,
};
use widgets_registry::Position;

/// How many objects are fetched at a time.
const AHEAD: usize = 6;

/// How many times a restore begins again because the archive was pruned. Pruning by age does not
/// happen more often.
const ANEW_MAX: usize = 4;

/// How far a restore, or the arrival of a backup, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The service is writing the checkpoint that is to arrive.
    Waiting,
    /// The bytes of the checkpoint that have arrived, and all of its bytes.
    Checkpoint(u64, u64),
    /// The entries of the journal that have arrived, and the maximum.
    Journal(u64, u64),
    /// Everything has arrived, and is being read as a start would read it.
    Checking,
}

/// The result of a restore.
#[derive(Clone, Debug)]
pub struct Restore {
    /// What was restored.
    pub restored: Restored,
    /// The position that was reached.
    pub position: Position,
    /// When the last operation in it was committed.
    pub reached: String,
    /// The number of entries that the archive has after that, in the same history.
    pub entries_after: u64,
    /// When the last of those was committed, if there are any.
    pub last_after: Option<String>,
    /// How many later runs the archive has, each after a gap or a restore to an earlier moment.
    pub later_runs: usize,
    /// What was found damaged and was not needed.
    pub damaged: Vec<String>,
    /// What was gone because the archive was pruned meanwhile, one for each time that the restore
    /// began again.
    pub pruned: Vec<String>,
}

/// The outcome of one attempt.
enum Attempt {
    Done(Box<Restore>),
    /// This object is gone, because the archive was pruned meanwhile.
    Pruned(Error),
}

/// Restores a moment into an empty directory.
pub async fn restore(
    bucket: &Bucket,
    path: &Path,
    target: Target,
    settings: &Settings,
    progress: impl FnMut(Progress),
) -> Result<Restore, Error> {
    restore_as(None, bucket, path, target, settings, progress).await
}

/// Restores the newest moment into an empty directory, as a standby of the primary at this address.
/// The standby gets no epoch of its own, and continues with what the primary has after that moment.
pub async fn restore_standby(
    bucket: &Bucket,
    path: &Path,
    primary: &str,
    settings: &Settings,
    progress: impl FnMut(Progress),
) -> Result<Restore, Error> {
    restore_as(
        Some(primary),
        bucket,
        path,
        Target::Newest,
        settings,
        progress,
    )
    .await
}

async fn restore_as(
    primary: Option<&str>,
    bucket: &Bucket,
    path: &Path,
    target: Target,
    settings: &Settings,
    mut progress: impl FnMut(Progress),
) -> Result<Restore, Error> {
    let (mut directory, mut pruned) = (None, Vec::new());
    loop {
        let Some((manifest, _)) = bucket.manifest().await? else {
            let url = bucket.url().into();
            return Err(Error::Missing { url });
        };
        let plan = plan(&manifest, target).map_err(|error| after_pruning(&pruned, error))?;
        refuse_before_the_store(bucket, &manifest, &plan).await?;
        let directory = match &directory {
            Some(directory) => directory,
            None => directory.insert(DataDirectory::open_to_restore(path)?),
        };
        let anew = || begin(&manifest, &plan, directory, settings, primary);
        let attempted = attempt(bucket, &manifest, &plan, anew, &mut progress);
        match attempted.await? {
            Attempt::Done(restore) => return Ok(Restore { pruned, ..*restore }),
            Attempt::Pruned(error) if pruned.len() < ANEW_MAX => pruned.push(error.to_string()),
            Attempt::Pruned(error) => return Err(after_pruning(&pruned, error)),
        }
    }
}

/// Refuses a moment from which the archive has nothing because it is before its beginning: the store
/// would be empty, which it was not, or it did not exist.
async fn refuse_before_the_store(
    bucket: &Bucket,
    manifest: &Manifest,
    plan: &Plan,
) -> Result<(), Error> {
    let Some(first) = plan.stretches.first() else {
        return Ok(());
    };
    // 0 stands for the moment when the store was made.
    let is_making = plan.limit.at == 0;
    if is_making || !plan.checkpoints.is_empty() || plan.limit.at >= first.began {
        return Ok(());
    }
    // The store may be older than the archive, which then has its earlier entries as well.
    let mut oldest = first.began;
    if let Some(first) = plan.stretches.iter().find(|it| it.begin != it.end) {
        let name = object::journal_name(first.writer, first.begin.next_sequence);
        let piece = bucket.get(&name).await;
        match piece.and_then(|bytes| object::decode_piece(&name, &bytes, manifest.store.0)) {
            Ok(piece) => {
                let first = piece.groups.first();
                oldest = first.map_or(oldest, |first| first.at.min(oldest));
            }
            // The restore finds out what that means.
            Err(error) if error.is_damage() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    if plan.limit.at >= oldest {
        return Ok(());
    }
    Err(Error::Unreachable(format!(
        "the archive cannot be restored to that moment: its oldest moment is {}",
        time_text(oldest)
    )))
}

/// Adds to an error that the restore began again because the archive was pruned.
fn after_pruning(pruned: &[String], error: Error) -> Error {
    match pruned.last() {
        None => error,
        Some(gone) => Error::Unreachable(format!(
            "the archive was pruned while it was read ({gone}), and then: {error}"
        )),
    }
}

/// Returns whether something that a manifest named was removed on purpose.
pub(crate) async fn was_pruned(bucket: &Bucket, manifest: &Manifest) -> Result<bool, Error> {
    let now = bucket.manifest().await?;
    Ok(now.is_some_and(|(now, _)| !now.keeps(manifest)))
}

async fn attempt(
    bucket: &Bucket,
    manifest: &Manifest,
    plan: &Plan,
    anew: impl Fn() -> Result<Restoration, Error>,
    progress: &mut impl FnMut(Progress),
) -> Result<Attempt, Error> {
    let mut damaged = Vec::new();
    let mut bases: Vec<Option<&Checkpoint>> = plan.checkpoints.iter().map(Some).collect();
    if plan.begins_empty {
        bases.push(None);
    }
    let mut begun = None;
    let count = bases.len();
    for (at, base) in bases.into_iter().enumerate() {
        let mut restoration = anew()?;
        let copied = match base {
            None => {
                restoration.begin_empty();
                Ok(())
            }
            Some(base) => copy_checkpoint(bucket, manifest, base, &mut restoration, progress).await,
        };
        match copied {
            Ok(()) => {
                begun = Some((restoration, base));
                break;
            }
            Err(error) if !error.is_damage() => return Err(error),
            Err(error) if was_pruned(bucket, manifest).await? => return Ok(Attempt::Pruned(error)),
            Err(error) if at + 1 == count => return Err(error),
            Err(error) => damaged.push(error.to_string()),
        }
    }
    let Some((mut restoration, base)) = begun else {
        return Err(Error::Unreachable(
            "nothing of the archive can be read".into(),
        ));
    };
    let copied = copy_journal(bucket, manifest, plan, base, &mut restoration, progress).await;
    match copied {
        Ok(()) => {}
        Err(error) if !error.is_damage() => return Err(error),
        Err(error) if was_pruned(bucket, manifest).await? => return Ok(Attempt::Pruned(error)),
        Err(error) => return Err(up_to_here(&error, manifest, plan, &restoration)),
    }
    progress(Progress::Checking);
    let restored = restoration.finish()?;
    let end = restored.end;
    let last = plan.stretches.last().map(|stretch| stretch.end);
    let archived = last.unwrap_or_default();
    let after = archived.next_sequence.saturating_sub(end.next_sequence);
    Ok(Attempt::Done(Box::new(Restore {
        restored,
        position: Position {
            store: manifest.store.0,
            epoch: epoch_of(epochs_of(plan), end.next_sequence - 1),
            sequence: end.next_sequence - 1,
        },
        reached: time_text(end.at),
        entries_after: after,
        last_after: (after > 0).then(|| time_text(archived.at)),
        later_runs: plan.later_runs,
        damaged,
        pruned: Vec::new(),
    })))
}

/// Returns the epoch that gave an entry its position.
pub(crate) fn epoch_of(epochs: &[(u32, u64)], sequence: u64) -> u32 {
    let began = |epoch: &&(u32, u64)| epoch.1 <= sequence;
    let of = epochs.iter().rev().find(began).or(epochs.first());
    of.map_or(1, |epoch| epoch.0)
}

/// Returns the store's epochs from the last stretch.
fn epochs_of(plan: &Plan) -> &[(u32, u64)] {
    let last = plan.stretches.last();
    last.map_or(&[], |stretch| &stretch.epochs)
}

fn begin(
    manifest: &Manifest,
    plan: &Plan,
    directory: &DataDirectory,
    settings: &Settings,
    primary: Option<&str>,
) -> Result<Restoration, Error> {
    let epochs = plan.stretches.last().map(Stretch::epochs);
    let store = StoreHeader {
        identity: manifest.store.0,
        secret: manifest.secret.0,
        epochs: epochs.unwrap_or_default(),
        role: Role::Primary,
        member: widgets_engine::NO_MEMBER,
    };
    let directory = directory.clone();
    Ok(match primary {
        Some(primary) => Restoration::begin_standby(directory, settings, store, primary.into())?,
        None => Restoration::begin(directory, settings, store, manifest.epoch_max())?,
    })
}

async fn copy_checkpoint(
    bucket: &Bucket,
    manifest: &Manifest,
    checkpoint: &Checkpoint,
    restoration: &mut Restoration,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    let (store, writer) = (manifest.store.0, checkpoint.writer);
    let first = checkpoint.begin.next_sequence;
    restoration.begin_checkpoint(first)?;
    let parts = (0..checkpoint.parts).map(|part| {
        let bucket = bucket.clone();
        // Fetches run on the runtime's other threads while this one writes.
        tokio::spawn(async move {
            let name = object::part_name(writer, first, part);
            let bytes = bucket.get(&name).await?;
            let raw = object::decode_part(&name, &bytes, store, writer, first, part)?;
            Ok::<_, Error>((raw, bytes.len()))
        })
    });
    let mut parts = stream::iter(parts).buffered(AHEAD);
    let (mut fetched, mut raw_bytes) = (0, 0);
    while let Some(part) = parts.next().await {
        let (raw, length) = part.map_err(|error| Error::Source(error.to_string()))??;
        restoration.append_checkpoint(&raw)?;
        fetched += length as u64;
        raw_bytes += raw.len() as u64;
        progress(Progress::Checkpoint(fetched, checkpoint.bytes));
    }
    if raw_bytes != checkpoint.raw_bytes {
        return Err(Error::Damaged {
            object: object::checkpoint_prefix(writer, first),
            defect: format!(
                "its parts have {raw_bytes} bytes, the manifest says {}",
                checkpoint.raw_bytes
            ),
        });
    }
    restoration.end_checkpoint()?;
    if restoration.end() != JournalEnd::from(checkpoint.begin) {
        return Err(Error::Damaged {
            object: object::checkpoint_prefix(writer, first),
            defect: "it begins elsewhere than the manifest says".into(),
        });
    }
    Ok(())
}

/// Returns the names of the objects of a stretch with entries from `first` on and before `end`, in
/// order.
pub(crate) async fn pieces_of(
    bucket: &Bucket,
    stretch: &Stretch,
    from: u64,
    first: u64,
    end: u64,
) -> Result<Vec<String>, Error> {
    let prefix = object::journal_prefix(stretch.writer);
    // A listing begins after the given name.
    let after = from.max(stretch.begin.next_sequence).saturating_sub(1);
    let after = object::journal_name(stretch.writer, after);
    let listed = bucket.list(&prefix, Some(&after)).await?;
    let begins: Vec<u64> = listed
        .iter()
        .filter_map(|(name, _)| u64::from_str_radix(name.rsplit('/').next()?, 16).ok())
        .filter(|&begin| begin < stretch.end.next_sequence)
        .collect();
    let ends = begins.iter().skip(1).copied();
    let ends = ends.chain([stretch.end.next_sequence]);
    Ok(begins
        .iter()
        .zip(ends)
        .filter(|&(&begin, next)| next > first && begin < end)
        .map(|(&begin, _)| object::journal_name(stretch.writer, begin))
        .collect())
}

async fn copy_journal(
    bucket: &Bucket,
    manifest: &Manifest,
    plan: &Plan,
    base: Option<&Checkpoint>,
    restoration: &mut Restoration,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    let store = manifest.store.0;
    let first = restoration.end().next_sequence;
    let last = plan.stretches.last().map_or(0, |it| it.end.next_sequence);
    let end = last.min(plan.limit.next_sequence);
    // A checkpoint alone may already be the wanted moment.
    let mut is_over = first >= plan.limit.next_sequence;
    for stretch in &plan.stretches {
        let begin = stretch.begin.next_sequence;
        if is_over || stretch.end.next_sequence <= first || begin >= end {
            continue;
        }
        let hint = base.filter(|base| base.writer == stretch.writer);
        let from = hint.and_then(|base| base.from);
        let from = from.map_or(0, |from| from.next_sequence);
        let names = pieces_of(bucket, stretch, from, first, end).await?;
        let pieces = names.into_iter().map(|name| {
            let bucket = bucket.clone();
            tokio::spawn(async move {
                let bytes = bucket.get(&name).await?;
                object::decode_piece(&name, &bytes, store).map(|piece| (name, piece))
            })
        });
        let mut pieces = stream::iter(pieces).buffered(AHEAD);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Error::Source(error.to_string()))?;
            let (name, piece) = piece?;
            is_over = apply(&name, &piece, stretch, plan, restoration)?;
            let done = restoration.end().next_sequence - first;
            progress(Progress::Journal(done, end.saturating_sub(first)));
            if is_over {
                break;
            }
        }
        if !is_over && restoration.end() != JournalEnd::from(stretch.end) {
            return Err(Error::Damaged {
                object: object::journal_name(stretch.writer, restoration.end().next_sequence),
                defect: "it is not there".into(),
            });
        }
    }
    Ok(())
}

/// Adds the wanted groups of an object. Returns whether the moment is reached.
fn apply(
    name: &str,
    piece: &Piece,
    stretch: &Stretch,
    plan: &Plan,
    restoration: &mut Restoration,
) -> Result<bool, Error> {
    let damaged = |defect: &str| Error::Damaged {
        object: name.into(),
        defect: defect.into(),
    };
    let is_its_own = object::journal_name(piece.writer, piece.begin.next_sequence) == name;
    if !is_its_own || piece.writer != stretch.writer {
        return Err(damaged("it is another object than its name says"));
    }
    if piece.end.next_sequence > stretch.end.next_sequence {
        return Err(damaged("it has more than the manifest says"));
    }
    for group in &piece.groups {
        let reached = restoration.end();
        if group.next_sequence() <= reached.next_sequence {
            continue;
        }
        if group.first_sequence > reached.next_sequence {
            return Err(Error::Damaged {
                object: object::journal_name(stretch.writer, reached.next_sequence),
                defect: "it is not there".into(),
            });
        }
        if group.first_sequence != reached.next_sequence || group.chain != reached.chain {
            return Err(damaged(&format!(
                "entry {} does not follow from what is before it, which ends with entry {}",
                group.first_sequence,
                reached.next_sequence - 1
            )));
        }
        match plan.limit.part_of(group) {
            None => {
                if planted!(GroupTooFar) {
                    restoration.group(group)?;
                }
                return Ok(true);
            }
            Some(part) => restoration.group(&part)?,
        }
    }
    Ok(restoration.end().next_sequence >= plan.limit.next_sequence)
}

/// Builds the error for an unreadable object of the journal, and says what can be restored without
/// it.
fn up_to_here(error: &Error, manifest: &Manifest, plan: &Plan, restoration: &Restoration) -> Error {
    let end = restoration.end();
    let sequence = end.next_sequence.saturating_sub(1);
    if sequence == 0 {
        return Error::Damaged {
            object: "the archive".into(),
            defect: format!("{error}. There is nothing before it"),
        };
    }
    let position = Position {
        store: manifest.store.0,
        epoch: epoch_of(epochs_of(plan), sequence),
        sequence,
    };
    Error::Damaged {
        object: "the archive".into(),
        defect: format!(
            "{error}. Everything before it, up to {}, can be restored with --position {position}",
            time_text(end.at)
        ),
    }
}
