//! The disk of one machine: in memory, with failures and crashes as the world decides.

use std::{
    io, panic,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use widgets_engine::{
    Disk, DiskFile,
    simulation::{Chance, Kept, TestDisk, TestFile},
};

/// The payload of the panic that unwinds a process when it crashes.
pub(super) struct Crash;

/// A simulated disk. Clones share it.
#[derive(Clone)]
pub(super) struct SimulatedDisk(Arc<Mutex<Inner>>);

struct Inner {
    disk: TestDisk,
    chance: Chance,
    /// The process crashes after this many further steps.
    crash_after: Option<usize>,
    /// How many of 1,024 steps fail.
    failing: usize,
    failures: u64,
    /// A planted bug: syncs of the journal have no effect.
    is_deaf: bool,
}

pub(super) struct SimulatedFile {
    disk: SimulatedDisk,
    file: TestFile,
    is_journal: bool,
}

/// The outcome of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Done,
    Failed,
    Crashed,
}

impl Course {
    fn outcome(self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Failed => Err(io::Error::other("simulated failure of the disk")),
            Self::Crashed => panic::resume_unwind(Box::new(Crash)),
        }
    }
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64, is_deaf: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            disk: TestDisk::default(),
            chance: Chance(seed),
            crash_after: None,
            failing: 0,
            failures: 0,
            is_deaf,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> TestDisk {
        self.lock().disk.clone()
    }

    /// Sets how often a step fails from now on, and after how many steps the process crashes.
    pub(super) fn arm(&self, failing: usize, crash_after: Option<usize>) {
        let mut inner = self.lock();
        inner.failing = failing;
        inner.crash_after = crash_after;
    }

    pub(super) fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Ends the process. Without power, what was not synced is lost.
    pub(super) fn end_process(&self, has_power: bool) {
        let mut inner = self.lock();
        inner.crash_after = None;
        inner.failing = 0;
        inner.disk = if has_power {
            inner.disk.after_kill()
        } else {
            let kept = match inner.chance.below(4) {
                0 => Kept::Nothing,
                1 => Kept::Everything,
                _ => Kept::Some(inner.chance.number()),
            };
            inner.disk.after_power_cut(kept)
        };
    }

    /// Empties the directory, as an operator does.
    pub(super) fn wipe(&self) {
        self.lock().disk = TestDisk::default();
    }

    /// Returns whether there is a complete store.
    pub(super) fn has_store(&self) -> bool {
        let names = self.disk().names();
        let has = |name: &str| names.iter().any(|it| it == name);
        has("store") && !has("restore_unfinished")
    }

    fn course(&self) -> Course {
        let mut inner = self.lock();
        if let Some(steps) = &mut inner.crash_after {
            if *steps == 0 {
                return Course::Crashed;
            }
            *steps -= 1;
        }
        let failing = inner.failing;
        if failing > 0 && inner.chance.below(1024) < failing {
            inner.failures += 1;
            return Course::Failed;
        }
        Course::Done
    }

    fn below(&self, end: usize) -> usize {
        self.lock().chance.below(end)
    }

    fn change<T>(&self, change: impl FnOnce(&TestDisk) -> io::Result<T>) -> io::Result<T> {
        let course = self.course();
        let takes_effect = match course {
            Course::Done => true,
            Course::Crashed => self.below(2) == 0,
            Course::Failed => false,
        };
        let changed = takes_effect.then(|| change(&self.disk()));
        course.outcome()?;
        changed.unwrap_or_else(|| Err(io::ErrorKind::Other.into()))
    }

    fn file(&self, name: &str, file: TestFile) -> SimulatedFile {
        SimulatedFile {
            disk: self.clone(),
            file,
            is_journal: name.starts_with("journal-"),
        }
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk().list()
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let file = self.change(|disk| disk.create(name))?;
        Ok(self.file(name, file))
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        Ok(self.file(name, self.disk().open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|disk| disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|disk| disk.remove(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.change(Disk::sync_directory)
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let course = self.disk.course();
        let written = match course {
            Course::Done => data.len(),
            _ => self.disk.below(data.len() + 1),
        };
        if written > 0 {
            self.file.write_all_at(&data[..written], offset)?;
        }
        course.outcome()
    }

    fn shorten(&self, bytes: u64) -> io::Result<u64> {
        let course = self.disk.course();
        let left = match course {
            Course::Done => self.file.shorten(bytes)?,
            _ => 0,
        };
        course.outcome().map(|()| left)
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_journal && self.disk.lock().is_deaf {
            return Ok(());
        }
        let course = self.disk.course();
        match course {
            Course::Done => self.file.sync()?,
            Course::Failed => {
                let seed = self.disk.lock().chance.number();
                self.file.sync_partly(Kept::Some(seed));
            }
            Course::Crashed => {}
        }
        course.outcome()
    }
}
