//! What a disk does to data at rest: bits flip, writes are lost or go to the wrong place, files
//! disappear. The engine must notice and name it, or it must not matter.
//!
//! One thing no journal can notice without a second copy: that its very last group is not what was
//! written, because a torn write looks the same. `docs/file-format.md` says what is assumed.

use crate::{
    files::{STORE, UNFINISHED},
    format::{self, DATA_OFFSET, SegmentHeader},
    tests::disk::{Chance, TestDisk},
};
use std::collections::BTreeMap;

const SECTOR_BYTES: usize = 512;

/// What was done to files since the last start.
#[derive(Default)]
pub(super) struct Damage {
    /// The original files.
    files: BTreeMap<String, Vec<u8>>,
    /// Whether a file is missing. A start may then name the file that would have to be there
    /// instead.
    is_lost: bool,
}

impl Damage {
    /// Reports whether there is a reason to name this file.
    pub(super) fn explains(&self, file: &str) -> bool {
        self.is_lost || self.files.contains_key(file)
    }

    /// Restores all files.
    pub(super) fn repair(&mut self, disk: &TestDisk) {
        for (name, content) in std::mem::take(&mut self.files) {
            disk.put(&name, content);
        }
        self.is_lost = false;
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn lose(&mut self, disk: &TestDisk, name: &str) {
        let content = disk.content(name);
        disk.lose(name);
        self.files.entry(name.to_owned()).or_insert(content);
        self.is_lost = true;
    }

    /// Damages one or two files, and returns what it did.
    pub(super) fn inflict(&mut self, disk: &TestDisk, chance: &mut Chance) -> Vec<String> {
        let mut done = Vec::new();
        let last = last_group(disk);
        for _ in 0..=chance.below(2) {
            let names = finished(disk);
            if names.is_empty() {
                break;
            }
            // There are few checkpoints, so they are chosen more often.
            let checkpoint = names.iter().find(|name| name.starts_with("checkpoint-"));
            let name = match checkpoint {
                Some(checkpoint) if chance.below(2) == 0 => checkpoint,
                _ => &names[chance.below(names.len())],
            };
            // Only what is before the last group.
            let is_last = last.as_ref().is_some_and(|(last, _)| last == name);
            let before = disk.content(name);
            let end = match &last {
                Some((_, offset)) if is_last => *offset,
                _ => before.len(),
            };
            if chance.below(8) == 0 {
                // The journal's end may not be lost alone, because the rest would be a valid
                // shorter journal. So the whole journal is lost.
                if is_last && names.iter().any(|name| name == STORE) {
                    let segments = names.iter().filter(|name| name.starts_with("journal-"));
                    segments.for_each(|name| self.lose(disk, name));
                    done.push("lost the journal".into());
                    break;
                }
                if !is_last && names.len() > 1 && last.is_some() {
                    self.lose(disk, name);
                    done.push(format!("lost {name}"));
                }
                continue;
            }
            let other = disk.content(&names[chance.below(names.len())]);
            let mut after = before.clone();
            let what = spoil(&mut after[..end], &other, chance);
            if after != before {
                disk.damage(name, |content| *content = after);
                self.files.entry(name.clone()).or_insert(before);
                done.push(format!("{what} in {name}"));
            }
        }
        done
    }
}

/// Damages one place in a file, and says how. `other` is the source of a misdirected write.
fn spoil(file: &mut [u8], other: &[u8], chance: &mut Chance) -> String {
    if file.is_empty() {
        return String::new();
    }
    let used = file.iter().rposition(|&byte| byte != 0).unwrap_or_default() + 1;
    // Mostly where the file is not empty: in the header or after it.
    let at = match chance.below(4) {
        0 => chance.below(file.len().min(48)),
        1 => chance.below(file.len()),
        _ => {
            let start = usize::try_from(DATA_OFFSET).map_or(0, |start| start.min(used - 1));
            start + chance.below(used - start)
        }
    };
    let sector =
        at / SECTOR_BYTES * SECTOR_BYTES..file.len().min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
    match chance.below(3) {
        0 => {
            file[at] ^= 1 << chance.below(8);
            format!("a flipped bit at {at}")
        }
        1 => {
            file[sector.clone()].fill(0);
            format!("a lost write at {sector:?}")
        }
        _ => {
            let sectors = other.len().div_ceil(SECTOR_BYTES).max(1);
            let from = chance.below(sectors) * SECTOR_BYTES;
            let data = other.get(from..).unwrap_or_default();
            let length = sector.len().min(data.len());
            file[sector.start..sector.start + length].copy_from_slice(&data[..length]);
            format!("a misdirected write at {sector:?}")
        }
    }
}

/// Returns the names of the files that are in use.
fn finished(disk: &TestDisk) -> Vec<String> {
    let names = disk.names().into_iter();
    names.filter(|name| !name.ends_with(UNFINISHED)).collect()
}

/// Returns the segment and the offset of the last readable group.
fn last_group(disk: &TestDisk) -> Option<(String, usize)> {
    let mut last = None;
    for name in finished(disk) {
        let content = disk.content(&name);
        let Ok(header) = SegmentHeader::decode(&content) else {
            continue;
        };
        let mut offset = usize::try_from(DATA_OFFSET).ok()?;
        while let Some(group) = content
            .get(offset..)
            .and_then(|rest| format::read_group(rest, &header))
        {
            last = Some((name.clone(), offset));
            offset += usize::try_from(group.bytes).ok()?;
        }
    }
    last
}
