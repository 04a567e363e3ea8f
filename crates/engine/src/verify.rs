//! Checking the whole of a stopped store without changing it: what a start reads, and what is kept
//! for readers of changes.

use crate::{
    Counts, DataDirectory, Disk, DiskFile, JournalEnd, NoStore, OpenError, Settings, files::Files,
    format::Entries, log::check_kept, recovery,
};
use std::{io, path::Path};
use widgets_clock::{Clock as _, SystemClock};

/// What an intact store contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How much it contains.
    pub counts: Counts,
    /// The first sequence number of its checkpoint, if it has one.
    pub checkpoint: Option<u64>,
    /// Where its journal ends.
    pub end: JournalEnd,
    /// The oldest entry that is kept.
    pub oldest: u64,
    /// The format version of its files.
    pub version: u32,
}

/// Reads everything in a data directory that no service uses.
pub fn verify(path: &Path, settings: &Settings) -> Result<Verified, OpenError> {
    let directory = DataDirectory::open(path, NoStore::Refuse)?;
    verify_on(directory, settings, recovery::threads())
}

/// Reads everything on any disk, on this many threads.
pub(crate) fn verify_on<D: Disk>(
    disk: D,
    settings: &Settings,
    threads: usize,
) -> Result<Verified, OpenError> {
    let disk = Unchanged(disk);
    let files = Files::list(&disk).map_err(OpenError::io("listing the data directory"))?;
    let store = files
        .has_store
        .then(|| recovery::read_store(&disk))
        .transpose()?;
    let settings = settings.clone().keeping_everything();
    let clock = SystemClock::new();
    let identity = store.map(|store| store.identity);
    let read = recovery::read(&disk, &files, identity, &settings, threads, || clock.now())?;
    let end = JournalEnd {
        next_sequence: read.end.next_sequence,
        at: read.end.at,
        chain: read.end.chain,
    };
    let segments: Vec<_> = read.segments.into_iter().collect();
    check_kept(&disk, &segments, end, |group| {
        let mut entries = Entries::new(&group.payload);
        (0..group.entries).all(|_| entries.read().is_ok()) && entries.is_empty()
    })?;
    Ok(Verified {
        counts: read.state.counts(),
        checkpoint: read.checkpoint.map(|written| written.first_sequence),
        end,
        oldest: segments
            .first()
            .map_or(end.next_sequence, |first| first.first_sequence),
        version: read.end.segment.header.version,
    })
}

/// A disk that is only read. Changes that a start would make are ignored.
#[derive(Clone)]
struct Unchanged<D>(D);

/// A file on it.
struct UnchangedFile<F>(F);

impl<D: Disk> Disk for Unchanged<D> {
    type File = UnchangedFile<D::File>;

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Self::File> {
        Err(io::Error::other(format!(
            "{name} is not made: the directory is only read"
        )))
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.0.open_to_read(name).map(UnchangedFile)
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: DiskFile> DiskFile for UnchangedFile<F> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn shorten(&self, _: u64) -> io::Result<u64> {
        Ok(0)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
