//! A disk in memory that promises no more than `docs/file-format.md` assumes of a real one.
//!
//! Every step that changes something is counted, and can be made to fail or to be the last one.

use crate::{Disk, DiskFile};
use std::{
    collections::BTreeMap,
    io, mem,
    sync::{Arc, Mutex, MutexGuard},
};

/// Unsynced writes are lost or kept in pieces of this many bytes.
const SECTOR_BYTES: usize = 512;

/// A generator of pseudo-random numbers, which are the same for the same seed (`SplitMix64`).
#[derive(Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).expect("below a usize")
    }
}

/// What a power cut keeps of the unsynced changes.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// No sector and no name.
    Nothing,
    /// Every sector and every name.
    Everything,
    /// Some sectors and names, chosen independently by this seed.
    Some(u64),
}

impl Kept {
    /// Returns a function that decides for each sector and each name whether it is kept.
    fn chooser(self) -> impl FnMut() -> bool {
        let mut chance = Chance(match self {
            Self::Some(seed) => seed,
            _ => 0,
        });
        move || match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some(_) => chance.number().is_multiple_of(2),
        }
    }
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct TestDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The changes of names since the directory was synced.
    name_changes: Vec<NameChange>,
    steps: usize,
    read_bytes_max: u64,
    faults: Faults,
}

#[derive(Clone, Default)]
struct Content {
    written: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

#[derive(Clone)]
enum Unsynced {
    Write(usize, Vec<u8>),
    /// The file was shortened to this many bytes.
    Shortened(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Gone(String),
    Renamed(String, String, usize),
}

/// What goes wrong. Steps are counted from 0.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// From this step on, everything fails. The write of this step may have taken effect
    /// nevertheless.
    pub crash_at: Option<usize>,
    /// This step fails without effect.
    pub fail_at: Option<usize>,
    /// Every creation of a file and every write that makes a file longer fails.
    pub is_full: bool,
    /// Every sync of a file fails.
    pub fail_sync: bool,
}

/// The result of a step.
enum Step {
    Done,
    /// It takes effect, but is reported as failed.
    DoneUnseen,
    Failed,
}

/// A file on the disk.
pub struct TestFile {
    disk: TestDisk,
    file: usize,
}

impl TestDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics with the lock")
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// Returns the largest number of bytes that any read asked for.
    #[must_use]
    pub fn read_bytes_max(&self) -> u64 {
        self.inner().read_bytes_max
    }

    /// Returns how many steps there were.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.inner().steps
    }

    /// Returns the disk as the next process finds it without a power cut: everything written is
    /// readable, whether or not it was synced.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let inner = self.inner();
        Self(Arc::new(Mutex::new(Inner {
            files: inner.files.clone(),
            names: inner.names.clone(),
            durable_names: inner.durable_names.clone(),
            name_changes: inner.name_changes.clone(),
            ..Inner::default()
        })))
    }

    /// Returns the disk as the next process finds it after a power cut.
    #[must_use]
    pub fn after_power_cut(&self, kept: Kept) -> Self {
        let inner = self.inner();
        let mut is_kept = kept.chooser();
        let mut names = inner.durable_names.clone();
        for change in inner.name_changes.iter().filter(|_| is_kept()) {
            change.apply(&mut names);
        }
        let files = inner.files.iter().enumerate().map(|(number, file)| {
            if !names.values().any(|&named| named == number) {
                return Content::default();
            }
            let mut durable = file.durable.clone();
            for change in &file.unsynced {
                change.apply(&mut durable, &mut is_kept);
            }
            Content {
                written: durable.clone(),
                durable,
                unsynced: Vec::new(),
            }
        });
        Self(Arc::new(Mutex::new(Inner {
            files: files.collect(),
            durable_names: names.clone(),
            names,
            ..Inner::default()
        })))
    }

    /// Returns the names of the files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.inner().names.keys().cloned().collect()
    }

    /// Changes the content of a file without the engine's knowledge.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let file = inner.names[name];
        let content = &mut inner.files[file];
        change(&mut content.written);
        content.durable = content.written.clone();
        content.unsynced.clear();
    }

    /// Returns the content of a file.
    #[must_use]
    pub fn content(&self, name: &str) -> Vec<u8> {
        let inner = self.inner();
        inner.files[inner.names[name]].written.clone()
    }

    /// Adds a file without the engine's knowledge.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut inner = self.inner();
        let file = inner.files.len();
        inner.files.push(Content {
            written: content.clone(),
            durable: content,
            unsynced: Vec::new(),
        });
        inner.names.insert(name.into(), file);
        inner.durable_names.insert(name.into(), file);
    }

    /// Removes a file without the engine's knowledge.
    pub fn lose(&self, name: &str) {
        let mut inner = self.inner();
        inner.names.remove(name);
        inner.durable_names.remove(name);
    }
}

impl Inner {
    fn step(&mut self) -> Step {
        let step = self.steps;
        self.steps += 1;
        match self.faults.crash_at {
            Some(last) if step == last => return Step::DoneUnseen,
            Some(last) if step > last => return Step::Failed,
            _ => {}
        }
        if self.faults.fail_at == Some(step) {
            return Step::Failed;
        }
        Step::Done
    }

    fn change_names(&mut self, change: NameChange) -> io::Result<()> {
        let step = self.step();
        if !matches!(step, Step::Failed) {
            change.apply(&mut self.names);
            self.name_changes.push(change);
        }
        step.outcome()
    }
}

impl Step {
    fn outcome(self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::DoneUnseen | Self::Failed => Err(io::Error::other("the test fails this step")),
        }
    }
}

impl Unsynced {
    /// Makes the change durable, in those sectors for which `is_kept` returns true.
    fn apply(&self, durable: &mut Vec<u8>, is_kept: &mut impl FnMut() -> bool) {
        match self {
            Self::Write(offset, data) => {
                // Sectors are aligned on the disk, wherever a write begins.
                let mut start = 0;
                while start < data.len() {
                    let at = offset + start;
                    let end = (start + SECTOR_BYTES - at % SECTOR_BYTES).min(data.len());
                    if is_kept() {
                        write(durable, at, &data[start..end]);
                    }
                    start = end;
                }
            }
            Self::Shortened(length) => {
                if is_kept() {
                    durable.truncate(*length);
                }
            }
        }
    }
}

impl TestFile {
    /// Returns the length of the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.disk.inner().files[self.file].written.len() as u64
    }

    /// Simulates a failed sync: the kernel writes some sectors, and forgets that the others were
    /// not written. They stay readable, and no later sync writes them.
    pub fn sync_partly(&self, kept: Kept) {
        let mut inner = self.disk.inner();
        let file = &mut inner.files[self.file];
        let mut is_kept = kept.chooser();
        for change in mem::take(&mut file.unsynced) {
            change.apply(&mut file.durable, &mut is_kept);
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Gone(name) => {
                names.remove(name);
            }
            Self::Renamed(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    // Faster than `resize` in a build without optimisation.
    let missing = (offset + data.len()).saturating_sub(file.len());
    file.extend_from_slice(&vec![0; missing]);
    file[offset..offset + data.len()].copy_from_slice(data);
}

impl Disk for TestDisk {
    type File = TestFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<TestFile> {
        let mut inner = self.inner();
        assert!(!inner.names.contains_key(name), "{name} is there already");
        if inner.faults.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = inner.files.len();
        inner.files.push(Content::default());
        inner.change_names(NameChange::Set(name.into(), file))?;
        drop(inner);
        Ok(TestFile {
            disk: self.clone(),
            file,
        })
    }

    fn open(&self, name: &str) -> io::Result<TestFile> {
        let file = self.inner().names.get(name).copied();
        Ok(TestFile {
            disk: self.clone(),
            file: file.ok_or(io::ErrorKind::NotFound)?,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        let file = inner
            .names
            .get(from)
            .copied()
            .ok_or(io::ErrorKind::NotFound)?;
        inner.change_names(NameChange::Renamed(from.into(), to.into(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_names(NameChange::Gone(name.into()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut inner = self.inner();
        let step = inner.step();
        if matches!(step, Step::Done) {
            inner.durable_names = inner.names.clone();
            inner.name_changes.clear();
        }
        step.outcome()
    }
}

impl DiskFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        inner.read_bytes_max = inner.read_bytes_max.max(buffer.len() as u64);
        let offset = usize::try_from(offset).expect("small files");
        let rest = inner.files[self.file]
            .written
            .get(offset..)
            .unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let offset = usize::try_from(offset).expect("small files");
        let is_longer = offset + data.len() > inner.files[self.file].written.len();
        if inner.faults.is_full && is_longer {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let step = inner.step();
        if !matches!(step, Step::Failed) {
            let file = &mut inner.files[self.file];
            write(&mut file.written, offset, data);
            file.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        }
        step.outcome()
    }

    fn shorten(&self, bytes: u64) -> io::Result<u64> {
        let mut inner = self.disk.inner();
        let step = inner.step();
        let file = &mut inner.files[self.file];
        let bytes = usize::try_from(bytes).expect("small files");
        let left = file.written.len().saturating_sub(bytes);
        if !matches!(step, Step::Failed) {
            file.written.truncate(left);
            file.unsynced.push(Unsynced::Shortened(left));
        }
        step.outcome().map(|()| left as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        if inner.faults.fail_sync {
            return Err(io::Error::other("the test fails every sync"));
        }
        let step = inner.step();
        let file = &mut inner.files[self.file];
        match step {
            Step::Done => {
                for change in mem::take(&mut file.unsynced) {
                    change.apply(&mut file.durable, &mut || true);
                }
            }
            // Only a power cut shows what is there.
            Step::DoneUnseen => {}
            // As on Linux: what could not be written stays readable, and no later sync tries again.
            Step::Failed => file.unsynced.clear(),
        }
        step.outcome()
    }
}
