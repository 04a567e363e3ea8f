//! The disk of a simulated computer: the tests' disk in memory, with faults chosen by the seed.

use super::{
    tally::Tally,
    trace::{Event, Trace},
};
use crate::{
    Disk, DiskFile,
    files::UNFINISHED,
    format::GROUP_SALT_BYTES,
    planted::{Bug, is_planted},
    tests::disk::{Chance, Kept, TestDisk, TestFile},
};
use std::{
    io, panic,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const JOURNAL: &str = "journal-";
const CHECKPOINT: &str = "checkpoint-";

/// The payload of the panic that unwinds the process when it crashes: nothing happens after it.
pub(super) struct Crash;

/// How likely each fault is, out of 1,024 steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) failed_write: usize,
    pub(super) failed_sync: usize,
    /// The rate for creations, renames and removals, and syncs of the directory.
    pub(super) failed_name: usize,
    pub(super) failed_read: usize,
    /// The rate of reads that return less than was asked for or are interrupted, which is not an
    /// error.
    pub(super) short_read: usize,
}

/// What will go wrong, and what has.
pub(super) struct Plan {
    pub(super) chance: Chance,
    pub(super) rates: Rates,
    /// The process crashes at the step after this many more.
    pub(super) crash_after: Option<usize>,
    pub(super) is_full: bool,
    /// The failures since this was last set to 0.
    pub(super) failures: usize,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
}

/// A disk on which things go wrong. Clones share the disk.
#[derive(Clone)]
pub(super) struct SimulatedDisk {
    disk: TestDisk,
    plan: Arc<Mutex<Plan>>,
}

pub(super) struct SimulatedFile {
    name: String,
    file: TestFile,
    plan: Arc<Mutex<Plan>>,
}

/// A step that changes something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    Sync,
    Name,
}

/// The course of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Course {
    Done,
    Failed,
    Full,
    Crashed,
}

impl Plan {
    fn one_in_1024(&mut self, rate: usize) -> bool {
        rate > 0 && self.chance.below(1024) < rate
    }

    fn course(&mut self, step: Step) -> Course {
        if let Some(steps) = &mut self.crash_after {
            if *steps == 0 {
                return Course::Crashed;
            }
            *steps -= 1;
        }
        let (rate, counter) = match step {
            Step::Write => (self.rates.failed_write, &mut self.tally.failed_writes),
            Step::Sync => (self.rates.failed_sync, &mut self.tally.failed_syncs),
            Step::Name => (self.rates.failed_name, &mut self.tally.failed_names),
        };
        // Like `one_in_1024`, which cannot be called because the counter is borrowed.
        if rate > 0 && self.chance.below(1024) < rate {
            *counter += 1;
            self.failures += 1;
            return Course::Failed;
        }
        Course::Done
    }

    fn kept(&mut self) -> Kept {
        match self.chance.below(4) {
            0 => Kept::Nothing,
            1 => Kept::Everything,
            _ => Kept::Some(self.chance.number()),
        }
    }
}

impl Course {
    /// Returns the outcome for the caller. A crash has none.
    fn outcome(self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Failed => Err(io::Error::other("simulated failure of the disk")),
            Self::Full => Err(io::ErrorKind::StorageFull.into()),
            Self::Crashed => panic::resume_unwind(Box::new(Crash)),
        }
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedDisk {
    pub(super) fn new(plan: Plan) -> Self {
        let plan = Arc::new(Mutex::new(plan));
        let disk = TestDisk::default();
        Self { disk, plan }
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.plan)
    }

    /// Returns the disk in memory, for looking at it from outside.
    pub(super) fn inside(&self) -> &TestDisk {
        &self.disk
    }

    /// Returns the disk after the process was killed: everything written is readable.
    pub(super) fn after_kill(&self) -> Self {
        Self {
            disk: self.disk.after_kill(),
            plan: self.plan.clone(),
        }
    }

    /// Returns the disk after a power cut: each unsynced sector and name may be lost independently.
    pub(super) fn after_power_cut(&self) -> Self {
        let kept = self.plan().kept();
        Self {
            disk: self.disk.after_power_cut(kept),
            plan: self.plan.clone(),
        }
    }

    /// Creates, renames, removes, or syncs the directory.
    fn change<T>(
        &self,
        what: &'static str,
        name: &str,
        change: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut plan = self.plan();
        let needs_space = what == "create";
        let course = match plan.course(Step::Name) {
            Course::Done if needs_space && plan.is_full => {
                plan.tally.full += 1;
                plan.failures += 1;
                Course::Full
            }
            course => course,
        };
        let takes_effect = match course {
            Course::Done => true,
            Course::Crashed => plan.chance.below(2) == 0,
            Course::Failed | Course::Full => false,
        };
        plan.trace.note(&Event::Names { what, name, course });
        let is_finished = name.starts_with(CHECKPOINT) && !name.ends_with(UNFINISHED);
        if what == "rename" && takes_effect && is_finished {
            plan.tally.checkpoints += 1;
        }
        drop(plan);
        let changed = takes_effect.then(change);
        course.outcome()?;
        changed.unwrap_or_else(|| Err(io::ErrorKind::Other.into()))
    }

    fn file(&self, name: &str, file: TestFile) -> SimulatedFile {
        SimulatedFile {
            name: name.into(),
            file,
            plan: self.plan.clone(),
        }
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let file = self.change("create", name, || self.disk.create(name))?;
        Ok(self.file(name, file))
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change("rename", to, || self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change("remove", name, || self.disk.remove(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        if is_planted(Bug::DirectoryUnsynced) {
            return Ok(());
        }
        self.change("sync_directory", "", || self.disk.sync_directory())
    }
}

impl SimulatedFile {
    fn note(&self, plan: &mut Plan, what: &'static str, offset: u64, data: &[u8], course: Course) {
        let (name, bytes, checksum) = (&self.name, data.len(), crc32fast::hash(data));
        plan.trace.note(&Event::File {
            what,
            name,
            offset,
            bytes,
            checksum,
            course,
        });
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut plan = lock(&self.plan);
        let (failed, short) = (plan.rates.failed_read, plan.rates.short_read);
        let mut wanted = buffer.len();
        if plan.one_in_1024(failed) {
            plan.tally.failed_reads += 1;
            plan.failures += 1;
            self.note(&mut plan, "read", offset, &[], Course::Failed);
            return Course::Failed.outcome().map(|()| 0);
        }
        if plan.one_in_1024(short) {
            plan.tally.short_reads += 1;
            if plan.chance.below(2) == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // At least one byte, because 0 would mean the end of the file.
            let left = usize::try_from(self.file.length().saturating_sub(offset));
            let there = left.unwrap_or(wanted).min(wanted);
            wanted = there.min(1 + plan.chance.below(there + 1));
        }
        let read = self.file.read_at(&mut buffer[..wanted], offset)?;
        self.note(&mut plan, "read", offset, &buffer[..read], Course::Done);
        Ok(read)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.is_left_out(data, offset) {
            return Ok(());
        }
        let mut plan = lock(&self.plan);
        let is_longer = offset + data.len() as u64 > self.file.length();
        let course = match plan.course(Step::Write) {
            Course::Done if is_longer && plan.is_full => {
                plan.tally.full += 1;
                plan.failures += 1;
                Course::Full
            }
            course => course,
        };
        let written = match course {
            Course::Done => data.len(),
            // A part of the data, or nothing, or even all of it.
            _ => match plan.chance.below(4) {
                0 => 0,
                1 => data.len(),
                _ => plan.chance.below(data.len() + 1),
            },
        };
        self.note(&mut plan, "write", offset, &data[..written], course);
        drop(plan);
        if written > 0 {
            self.file.write_all_at(&data[..written], offset)?;
        }
        course.outcome()
    }

    fn shorten(&self, bytes: u64) -> io::Result<u64> {
        let mut plan = lock(&self.plan);
        let course = plan.course(Step::Write);
        let takes_effect = match course {
            Course::Crashed => plan.chance.below(2) == 0,
            _ => course == Course::Done,
        };
        self.note(&mut plan, "shorten", bytes, &[], course);
        drop(plan);
        let left = if takes_effect {
            self.file.shorten(bytes)?
        } else {
            0
        };
        course.outcome().map(|()| left)
    }

    fn sync(&self) -> io::Result<()> {
        let unheard = [
            (Bug::SyncSkipped, JOURNAL),
            (Bug::CheckpointUnsynced, CHECKPOINT),
        ];
        if unheard
            .iter()
            .any(|&(bug, kind)| is_planted(bug) && self.name.starts_with(kind))
        {
            return Ok(());
        }
        let synced = self.try_sync();
        if synced.is_err() && is_planted(Bug::SyncRetried) && self.name.starts_with(JOURNAL) {
            return self.try_sync();
        }
        synced
    }
}

impl SimulatedFile {
    /// Reports whether a planted bug omits this write.
    fn is_left_out(&self, data: &[u8], offset: u64) -> bool {
        let in_segment = self.name.starts_with(JOURNAL) && !self.name.ends_with(UNFINISHED);
        let erases = in_segment && data.iter().all(|&byte| byte == 0);
        let repeats = || {
            let mut there = vec![0; data.len()];
            in_segment && self.file.read_at(&mut there, offset).is_ok() && there == data
        };
        erases && data.len() == GROUP_SALT_BYTES && is_planted(Bug::FailedGroupKept)
            || erases && is_planted(Bug::TornTailKept)
            || is_planted(Bug::LastGroupTrusted) && repeats()
    }

    fn try_sync(&self) -> io::Result<()> {
        let mut plan = lock(&self.plan);
        let course = plan.course(Step::Sync);
        self.note(&mut plan, "sync", 0, &[], course);
        let kept = match course {
            Course::Done => Kept::Everything,
            _ => plan.kept(),
        };
        drop(plan);
        match course {
            Course::Done => self.file.sync()?,
            Course::Failed | Course::Full => self.file.sync_partly(kept),
            // The caller is not told. Either the sync was done, or the power cut decides as if it
            // had not begun.
            Course::Crashed => {
                if matches!(kept, Kept::Everything) {
                    self.file.sync()?;
                }
            }
        }
        course.outcome()
    }
}
