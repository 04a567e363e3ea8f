//! Decides whether a store may write to an archive and where it continues, and takes the archive
//! over.

use crate::{
    Bucket, Error, Manifest,
    bucket::{Replaced, Version},
    object,
};
use widgets_engine::{JournalEnd, Source, SourceError};

/// Replaces the manifest that was read with one that names this writer.
pub(super) async fn take_over(
    bucket: &Bucket,
    manifest: &Manifest,
    before: Option<&Version>,
) -> Result<Version, Error> {
    if let Replaced::Done(version) = bucket.replace(manifest, before).await? {
        return Ok(version);
    }
    match bucket.manifest().await? {
        // This is our own manifest, and the answer to our write was lost.
        Some((found, version)) if found.holder == manifest.holder => Ok(version),
        Some((found, _)) => Err(Error::Bucket {
            what: "taking over the archive".into(),
            failure: crate::error::Failure::Unavailable,
            why: format!("writer {} took it at the same time", found.writer),
        }),
        None => Err(Error::Damaged {
            object: object::MANIFEST.into(),
            defect: "it has gone".into(),
        }),
    }
}

/// Checks whether this store may write to the archive.
pub(super) fn check_owner(manifest: &Manifest, source: &Source) -> Result<(), Error> {
    let store = source.store();
    if manifest.store.0 != store.identity {
        return Err(Error::OtherStore {
            found: manifest.store.0,
            ours: store.identity,
        });
    }
    let ours = store
        .epochs
        .last()
        .map_or((1, 1), |epoch| (epoch.number, epoch.first_sequence));
    let Some(last) = manifest.stretches.last() else {
        return Ok(());
    };
    let found = last.epoch();
    if (ours.0 < manifest.epoch_max() || ours.0 == found.0 && ours != found)
        && !planted!(EpochIgnored)
    {
        return Err(Error::LeftBehind {
            found: found.0,
            ours: ours.0,
        });
    }
    let end = source.end().next_sequence;
    // In a new epoch, fewer entries are expected: a restore went back to an earlier moment.
    if ours == found && end < last.end.next_sequence {
        return Err(Error::Ahead {
            found: last.end.next_sequence - 1,
            ours: end - 1,
        });
    }
    Ok(())
}

/// Checks whether a backup may write to the archive: only of the store that wrote to it last. A new
/// epoch means that the directory was restored, and the store that it was restored from may still
/// run. Whoever starts a service on it decides that it takes over; whoever makes a backup does not.
pub(super) fn check_last_writer(manifest: &Manifest, source: &Source) -> Result<(), Error> {
    let store = source.store();
    if manifest.store.0 == store.identity
        && let Some(last) = manifest.stretches.last()
    {
        let ours = store.epochs.last();
        let ours = ours.map_or((1, 1), |epoch| (epoch.number, epoch.first_sequence));
        if ours != last.epoch() {
            return Err(Error::OtherCopy {
                writer: manifest.writer,
                found: (last.epoch().0, last.end.next_sequence.saturating_sub(1)),
                ours: (ours.0, source.end().next_sequence.saturating_sub(1)),
            });
        }
    }
    check_owner(manifest, source)
}

/// Returns where to continue: at the end of the archive if the journal still has what follows, and
/// otherwise where the replay of the journal begins. Also returns whether that leaves a gap.
pub(super) fn begin(manifest: &Manifest, source: &Source) -> Result<(JournalEnd, bool), Error> {
    let end = source.end();
    if let Some(last) = manifest.stretches.last() {
        let archived = JournalEnd::from(last.end);
        let next = archived.next_sequence;
        let chain = if next == end.next_sequence {
            Some(end.chain)
        } else {
            match source.read(next, 1) {
                Ok(groups) => groups
                    .first()
                    .filter(|group| group.first_sequence == next)
                    .map(|group| group.chain),
                Err(SourceError::Gone { .. }) => None,
                Err(error @ SourceError::Io(_)) => return Err(Error::Source(error.to_string())),
            }
        };
        if chain == Some(archived.chain) || chain.is_some() && planted!(ChainUnchecked) {
            return Ok((archived, false));
        }
        let store = source.store();
        let epoch = store.epochs.last();
        let is_same = epoch.is_some_and(|it| (it.number, it.first_sequence) == last.epoch());
        if chain.is_some() && is_same {
            return Err(Error::OtherHistory { from: next });
        }
    }
    let reading = |error: std::io::Error| Error::Source(format!("reading the checkpoint: {error}"));
    let held = source.hold_checkpoint().map_err(reading)?;
    let begin = match held {
        Some(held) => held.begin,
        None => JournalEnd {
            next_sequence: 1,
            at: 0,
            chain: 0,
        },
    };
    // In a new epoch the end of the archive belongs to another history, so this compares positions
    // only.
    let is_gap = manifest
        .stretches
        .last()
        .is_some_and(|last| last.end.next_sequence < begin.next_sequence);
    Ok((begin, is_gap))
}
