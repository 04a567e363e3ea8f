//! Verifies an archive: reads every object that counts, and checks that the contents lead from
//! where the manifest says to where it says.

use crate::{
    Bucket, Checkpoint, Error, Manifest, Stretch,
    error::Failure,
    object,
    restore::{pieces_of, was_pruned},
};
use futures_util::{StreamExt as _, stream};
use widgets_engine::JournalEnd;

/// How many objects are fetched at a time.
const AHEAD: usize = 8;

/// After this many missing parts of a checkpoint in a row, the check stops: a manifest may name
/// 2^32 parts.
const MISSING_MAX: u32 = 64;

/// Something that is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object's name.
    pub object: String,
    /// What is wrong with it.
    pub defect: String,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many objects were read.
    pub objects: u64,
    /// The total size of those objects in bytes.
    pub bytes: u64,
    /// The problems. An archive without any can be restored to every moment that it lists.
    pub problems: Vec<Problem>,
}

/// How many times the verification begins again because the archive is pruned meanwhile.
const ANEW_MAX: usize = 4;

/// Reads every object in an archive that counts. `progress` gets the number of objects read, and of
/// all objects.
///
/// An object that is gone because the archive was pruned meanwhile is no problem: the verification
/// then begins again.
pub async fn verify(
    bucket: &Bucket,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Manifest, Report), Error> {
    let mut attempt = 0;
    loop {
        let (manifest, report) = verify_once(bucket, &mut progress).await?;
        if report.problems.is_empty()
            || attempt == ANEW_MAX
            || !was_pruned(bucket, &manifest).await?
        {
            return Ok((manifest, report));
        }
        attempt += 1;
    }
}

async fn verify_once(
    bucket: &Bucket,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(Manifest, Report), Error> {
    let Some((manifest, _)) = bucket.manifest().await? else {
        let url = bucket.url().into();
        return Err(Error::Missing { url });
    };
    let mut names = Vec::new();
    for stretch in &manifest.stretches {
        let begin = stretch.begin.next_sequence;
        names.push(pieces_of(bucket, stretch, 0, begin, u64::MAX).await?);
    }
    let parts = manifest.checkpoints.iter().map(|it| u64::from(it.parts));
    let total = names.iter().map(|names| names.len() as u64).sum::<u64>() + parts.sum::<u64>();
    let mut report = Report::default();
    let mut told = |report: &Report| progress(report.objects, total);
    for (stretch, names) in manifest.stretches.iter().zip(names) {
        verify_stretch(bucket, &manifest, stretch, names, &mut report, &mut told).await?;
    }
    for checkpoint in &manifest.checkpoints {
        verify_checkpoint(bucket, &manifest, checkpoint, &mut report, &mut told).await?;
    }
    Ok((manifest, report))
}

impl Report {
    fn note(&mut self, object: &str, defect: impl Into<String>) {
        self.problems.push(Problem {
            object: object.into(),
            defect: defect.into(),
        });
    }

    /// Records an error that is the object's fault as a problem; returns any other error.
    fn take(&mut self, name: &str, error: Error) -> Result<(), Error> {
        match error {
            Error::Damaged { object, defect } => self.note(&object, defect),
            error if error.is_damage() => self.note(name, "it is not there"),
            error => return Err(error),
        }
        Ok(())
    }
}

async fn verify_stretch(
    bucket: &Bucket,
    manifest: &Manifest,
    stretch: &Stretch,
    names: Vec<String>,
    report: &mut Report,
    told: &mut impl FnMut(&Report),
) -> Result<(), Error> {
    let store = manifest.store.0;
    let pieces = names.into_iter().map(|name| {
        let bucket = bucket.clone();
        tokio::spawn(async move {
            let piece = async {
                let bytes = bucket.get(&name).await?;
                let piece = object::decode_piece(&name, &bytes, store)?;
                Ok::<_, Error>((piece, bytes.len()))
            };
            (piece.await, name.clone())
        })
    });
    let mut pieces = stream::iter(pieces).buffered(AHEAD);
    let mut reached = JournalEnd::from(stretch.begin);
    while let Some(piece) = pieces.next().await {
        let (piece, name) = piece.map_err(|error| Error::Source(error.to_string()))?;
        report.objects += 1;
        told(report);
        let (piece, length) = match piece {
            Ok(read) => read,
            Err(error) => {
                report.take(&name, error)?;
                continue;
            }
        };
        report.bytes += length as u64;
        if object::journal_name(piece.writer, piece.begin.next_sequence) != name {
            report.note(&name, "it is another object than its name says");
        }
        let is_missing = piece.begin.next_sequence > reached.next_sequence;
        if is_missing {
            note_missing(report, stretch, reached, piece.begin.next_sequence);
        }
        let follows = (piece.begin.next_sequence, piece.begin.chain)
            == (reached.next_sequence, reached.chain);
        if !follows && !is_missing && !planted!(ChainUnchecked) {
            report.note(
                &name,
                format!(
                    "entry {} does not follow from what is before it, which ends with entry {}",
                    piece.begin.next_sequence,
                    reached.next_sequence - 1
                ),
            );
        }
        reached = piece.end;
    }
    if (reached.next_sequence, reached.chain) != (stretch.end.next_sequence, stretch.end.chain.0) {
        note_missing(report, stretch, reached, stretch.end.next_sequence);
    }
    Ok(())
}

/// Records that an object of the journal is missing, unless it was already recorded as unreadable.
fn note_missing(report: &mut Report, stretch: &Stretch, reached: JournalEnd, next_sequence: u64) {
    if reached.next_sequence >= next_sequence {
        let defect = format!(
            "its groups lead to entry {}, and not to what the manifest says",
            reached.next_sequence - 1
        );
        report.note(&object::journal_prefix(stretch.writer), defect);
        return;
    }
    let name = object::journal_name(stretch.writer, reached.next_sequence);
    if report.problems.iter().any(|problem| problem.object == name) {
        return;
    }
    report.note(
        &name,
        format!(
            "it is not there: entries {} to {} are missing",
            reached.next_sequence,
            next_sequence - 1
        ),
    );
}

async fn verify_checkpoint(
    bucket: &Bucket,
    manifest: &Manifest,
    checkpoint: &Checkpoint,
    report: &mut Report,
    told: &mut impl FnMut(&Report),
) -> Result<(), Error> {
    let (store, writer) = (manifest.store.0, checkpoint.writer);
    let first = checkpoint.begin.next_sequence;
    let parts = (0..checkpoint.parts).map(|part| {
        let bucket = bucket.clone();
        tokio::spawn(async move {
            let name = object::part_name(writer, first, part);
            let raw = async {
                let bytes = bucket.get(&name).await?;
                let raw = object::decode_part(&name, &bytes, store, writer, first, part)?;
                Ok::<_, Error>((raw.len(), bytes.len()))
            };
            (raw.await, name)
        })
    });
    let mut parts = stream::iter(parts).buffered(AHEAD);
    let (mut raw_bytes, mut missing, problems) = (0, 0, report.problems.len());
    while let Some(part) = parts.next().await {
        let (part, name) = part.map_err(|error| Error::Source(error.to_string()))?;
        report.objects += 1;
        told(report);
        let mut is_missing = false;
        match part {
            Ok((raw, length)) => {
                raw_bytes += raw as u64;
                report.bytes += length as u64;
            }
            Err(error) => {
                is_missing = matches!(
                    error,
                    Error::Bucket {
                        failure: Failure::Missing,
                        ..
                    }
                );
                report.take(&name, error)?;
            }
        }
        missing = if is_missing { missing + 1 } else { 0 };
        if missing == MISSING_MAX {
            let defect = format!(
                "{MISSING_MAX} parts up to here are not there, the manifest says {}: what comes after is not looked for",
                checkpoint.parts
            );
            report.note(&name, defect);
            break;
        }
    }
    if report.problems.len() == problems && raw_bytes != checkpoint.raw_bytes {
        report.note(
            &object::checkpoint_prefix(writer, first),
            format!(
                "its parts have {raw_bytes} bytes, the manifest says {}",
                checkpoint.raw_bytes
            ),
        );
    }
    let runs = manifest.runs();
    if !runs
        .iter()
        .any(|run| manifest.checkpoints_of(run).any(|it| it == checkpoint))
    {
        report.note(
            &object::checkpoint_prefix(writer, first),
            "the journal that it needs is not in the archive",
        );
    }
    Ok(())
}
