//! Pruning: removes what no kept moment needs.
//!
//! The manifest stops naming an object before the object is removed. So a crash leaves objects that
//! no longer count, which the next prune removes. A restore that began earlier finds an object
//! gone, and begins again with what is kept. Pruning never touches what the present writer has
//! begun to write and not yet recorded.

use crate::{Bucket, Checkpoint, Error, Manifest, Stretch, bucket::Replaced};
use futures_util::{StreamExt as _, stream};

/// How many objects are removed at a time.
const AT_ONCE: usize = 16;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The number of checkpoints.
    pub checkpoints: usize,
    /// The number of objects, including those that did not count.
    pub objects: u64,
    /// The oldest moment that can be restored now, in microseconds since 1970; `None` means from
    /// the beginning.
    pub oldest: Option<u64>,
}

/// Removes what no moment from `keep_from` on needs, in microseconds since 1970. If `is_rehearsal`,
/// only reports what would be removed.
pub async fn prune(
    bucket: &Bucket,
    keep_from: u64,
    is_rehearsal: bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    let manifest = loop {
        let Some((found, version)) = bucket.manifest().await? else {
            let url = bucket.url().into();
            return Err(Error::Missing { url });
        };
        let mut next = found.clone();
        let keep = keep(&mut next, keep_from);
        pruned.checkpoints = found.checkpoints.len() - next.checkpoints.len();
        pruned.oldest = keep;
        if is_rehearsal
            || (&next.stretches, &next.checkpoints) == (&found.stretches, &found.checkpoints)
        {
            break next;
        }
        if planted!(PrunedBeforeManifest) {
            remove(bucket, &next, &mut progress, false).await?;
        }
        next.revision += 1;
        // If the writer was faster, read the manifest again: what it wrote counts.
        if let Replaced::Done(_) = bucket.replace(&next, Some(&version)).await? {
            break next;
        }
    };
    pruned.objects = remove(bucket, &manifest, &mut progress, is_rehearsal).await?;
    Ok(pruned)
}

/// Removes from the manifest what no moment from `keep_from` on needs, and returns the oldest
/// moment left.
fn keep(manifest: &mut Manifest, keep_from: u64) -> Option<u64> {
    // The newest checkpoint that is usable at that moment is the base for restoring it.
    let is_before = |checkpoint: &&Checkpoint| checkpoint.usable_at <= keep_from;
    let mut bases = manifest.checkpoints.iter().rev().filter(is_before);
    let base = if planted!(PrunedTooMuch) {
        manifest
            .checkpoints
            .iter()
            .find(|it| it.usable_at > keep_from)
            .cloned()
    } else {
        bases.next().cloned()
    };
    let base = base?;
    let first = base.begin.next_sequence;
    let has_base = |stretch: &Stretch| {
        stretch.writer <= base.writer
            && stretch.begin.next_sequence <= first
            // A stretch that has just begun at the base contains nothing yet.
            && (first < stretch.end.next_sequence || stretch.writer == base.writer)
    };
    let at = manifest.stretches.iter().rposition(has_base)?;
    manifest.stretches.drain(..at);
    if let Some(from) = base.from
        && let Some(stretch) = manifest.stretches.first_mut()
        && stretch.writer == base.writer
        && stretch.begin.next_sequence < from.next_sequence
    {
        stretch.begin = from;
    }
    manifest.checkpoints.retain(|it| {
        it.writer > base.writer || it.writer == base.writer && it.begin.next_sequence >= first
    });
    Some(base.usable_at)
}

/// Removes the objects that the manifest does not name and never will.
async fn remove(
    bucket: &Bucket,
    manifest: &Manifest,
    progress: &mut impl FnMut(u64, u64),
    is_rehearsal: bool,
) -> Result<u64, Error> {
    let mut needless = Vec::new();
    for (name, _) in bucket.list("journal", None).await? {
        if is_needless_piece(&name, manifest) {
            needless.push(name);
        }
    }
    for (name, _) in bucket.list("checkpoint", None).await? {
        if is_needless_part(&name, manifest) {
            needless.push(name);
        }
    }
    let total = needless.len() as u64;
    if is_rehearsal {
        return Ok(total);
    }
    let mut removals =
        stream::iter(needless.iter().map(|name| bucket.delete(name))).buffer_unordered(AT_ONCE);
    let mut done = 0;
    while let Some(removed) = removals.next().await {
        removed?;
        done += 1;
        progress(done, total);
    }
    Ok(total)
}

/// Returns the writer and the first sequence number in a name.
fn numbers(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.split('/').skip(1);
    let writer = u32::from_str_radix(parts.next()?, 16).ok()?;
    let first = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some((writer, first))
}

fn is_needless_piece(name: &str, manifest: &Manifest) -> bool {
    let Some((writer, first)) = numbers(name) else {
        return false;
    };
    let stretch = manifest.stretches.iter().find(|it| it.writer == writer);
    match stretch {
        // The object is before a stretch that was cut at its front, or was never recorded by a
        // writer that has ended.
        Some(stretch) => {
            let is_over = writer < manifest.writer;
            first < stretch.begin.next_sequence || is_over && first >= stretch.end.next_sequence
        }
        None => writer < manifest.writer,
    }
}

fn is_needless_part(name: &str, manifest: &Manifest) -> bool {
    let Some((writer, first)) = numbers(name) else {
        return false;
    };
    let is_counted = manifest
        .checkpoints
        .iter()
        .any(|it| (it.writer, it.begin.next_sequence) == (writer, first));
    let newest = manifest
        .checkpoints
        .iter()
        .filter(|it| it.writer == writer)
        .map(|it| it.begin.next_sequence)
        .max();
    // The present writer may be copying a newer checkpoint.
    let may_come = writer == manifest.writer && newest.is_none_or(|newest| first > newest);
    !is_counted && !may_come
}
