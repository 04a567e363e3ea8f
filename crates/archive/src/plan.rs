//! Plans a restore: which checkpoint, which stretches of the journal, and where to stop.

use crate::{Checkpoint, Error, Manifest, Stretch};
use std::time::{Duration, UNIX_EPOCH};
use widgets_engine::LoggedGroup;
use widgets_registry::Position;

/// The moment to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The newest moment.
    Newest,
    /// Everything that was committed up to this time, in microseconds since 1970.
    At(u64),
    /// Everything up to this position in the feed of changes.
    Position(Position),
}

/// What to read, in order.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The checkpoints that are suitable, the best first; empty if the journal must be read from
    /// the store's beginning.
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) begins_empty: bool,
    /// The stretches, one after the other without gaps.
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) limit: Limit,
    /// How many later runs the archive has, each after a gap or a restore to an earlier moment.
    pub(crate) later_runs: usize,
}

/// Where a restore stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// No group that was committed after this time is restored.
    pub(crate) at: u64,
    /// No entry from this one on is restored.
    pub(crate) next_sequence: u64,
}

impl Limit {
    const NONE: Self = Self {
        at: u64::MAX,
        next_sequence: u64::MAX,
    };

    /// Returns the part of a group that is within the limit.
    pub(crate) fn part_of<'a>(
        &self,
        group: &'a LoggedGroup,
    ) -> Option<std::borrow::Cow<'a, LoggedGroup>> {
        use std::borrow::Cow;
        if group.at > self.at || group.first_sequence >= self.next_sequence {
            return None;
        }
        if group.next_sequence() <= self.next_sequence {
            return Some(Cow::Borrowed(group));
        }
        group.cut(self.next_sequence).map(Cow::Owned)
    }
}

/// Formats a time as people and `--at` write it. Nothing is committed at 0; it stands for the
/// moment before the first operation, when the store was created.
#[must_use]
pub fn time_text(microseconds: u64) -> String {
    if microseconds == 0 {
        return "when the store was made".into();
    }
    let time = UNIX_EPOCH + Duration::from_micros(microseconds);
    // Times before the year 10000; a damaged manifest may contain anything.
    let is_known = microseconds < 253_402_300_800_000_000;
    if is_known {
        humantime::format_rfc3339_micros(time).to_string()
    } else {
        format!("{microseconds} µs after 1970")
    }
}

/// Plans how to restore a moment from an archive.
pub(crate) fn plan(manifest: &Manifest, target: Target) -> Result<Plan, Error> {
    let runs = manifest.runs();
    let has_base = |run: &std::ops::Range<usize>| {
        manifest.begins_empty(run) || manifest.checkpoints_of(run).next().is_some()
    };
    let nothing = || Error::Unreachable("the archive has nothing that can be restored yet".into());
    let chosen = match target {
        Target::Newest => runs.iter().rposition(has_base).ok_or_else(nothing)?,
        Target::At(at) => {
            let began = |run: &std::ops::Range<usize>| manifest.stretches[run.start].began <= at;
            let run = runs.iter().rposition(began);
            // For a moment before every run began, the first run knows what came before it.
            run.or((!runs.is_empty()).then_some(0))
                .ok_or_else(nothing)?
        }
        Target::Position(position) => {
            let has = |run: &std::ops::Range<usize>| {
                let mut stretches = manifest.stretches[run.clone()].iter();
                stretches.any(|stretch| contains(stretch, position))
            };
            if position.store != manifest.store.0 {
                return Err(Error::Unreachable(format!(
                    "the position {position} is of the store {:016x}, the archive of {:016x}",
                    position.store, manifest.store.0
                )));
            }
            runs.iter().rposition(has).ok_or_else(|| {
                Error::Unreachable(format!(
                    "the archive does not have the position {position}: `widgets archive list` shows what it has"
                ))
            })?
        }
    };
    let run = &runs[chosen];
    let limit = match target {
        Target::Newest => Limit::NONE,
        Target::At(at) => Limit { at, ..Limit::NONE },
        Target::Position(position) => Limit {
            next_sequence: position.sequence + 1,
            ..Limit::NONE
        },
    };
    let is_usable = |checkpoint: &&Checkpoint| {
        checkpoint.usable_at <= limit.at && checkpoint.next_sequence <= limit.next_sequence
    };
    let checkpoints: Vec<_> = manifest
        .checkpoints_of(run)
        .rev()
        .filter(is_usable)
        .cloned()
        .collect();
    let begins_empty = manifest.begins_empty(run);
    if checkpoints.is_empty() && !begins_empty {
        let first = manifest.checkpoints_of(run).next();
        let oldest = first.map_or_else(
            || "it has no checkpoint there yet".into(),
            |first| format!("its oldest moment there is {}", time_text(first.usable_at)),
        );
        return Err(Error::Unreachable(format!(
            "the archive cannot be restored to that moment: {oldest}"
        )));
    }
    Ok(Plan {
        checkpoints,
        begins_empty,
        stretches: manifest.stretches[run.clone()].to_vec(),
        limit,
        later_runs: runs.len() - 1 - chosen,
    })
}

/// Returns whether a stretch contains the entry at a position.
fn contains(stretch: &Stretch, position: Position) -> bool {
    let range = stretch.begin.next_sequence..stretch.end.next_sequence;
    let epochs = stretch.epochs.iter().rev();
    let epoch = epochs
        .clone()
        .find(|(_, first)| *first <= position.sequence)
        .or(stretch.epochs.first());
    range.contains(&position.sequence) && epoch.is_some_and(|(number, _)| *number == position.epoch)
}
