//! The disk: the few things that the engine asks of a file system, behind a trait so that tests can
//! fail each of them.

use crate::OpenError;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// A directory of files. Names are plain file names.
///
/// What is written is durable after [`DiskFile::sync`]; what is created, renamed or removed is durable
/// after [`Disk::sync_directory`]. Nothing more is assumed: see `docs/file-format.md`.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file, open for reading and writing. An error if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data` at `offset`.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Takes up to so many bytes from the end of the file; says how many are left.
    fn shorten(&self, bytes: u64) -> io::Result<u64>;
    /// Makes every write so far durable. After an error it is unknown which are, and trying again
    /// says nothing: the kernel may have dropped the pages.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until `buffer` is full or the file ends; says how much there was.
pub(crate) fn read_full_at(
    file: &impl DiskFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A directory of the operating system, locked for one process.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Held open for its lock: one engine for a directory.
    _lock: std::sync::Arc<File>,
}

/// The file whose lock guards the directory. Its content means nothing.
const LOCK_FILE: &str = "lock";

impl DataDirectory {
    /// Opens the directory, making it where it is missing.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let what = format!("opening the data directory {}", path.display());
        match Self::lock(path).map_err(OpenError::io(what))? {
            Some(directory) => Ok(directory),
            None => Err(OpenError::Locked),
        }
    }

    /// `Ok(None)` if another process has it.
    fn lock(path: &Path) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The directory itself must survive a power cut.
        if let Some(parent) = path.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Some(Self {
            path: path.into(),
            _lock: lock.into(),
        }))
    }
}

impl Disk for DataDirectory {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, data, offset)
    }

    fn shorten(&self, bytes: u64) -> io::Result<u64> {
        let left = self.metadata()?.len().saturating_sub(bytes);
        self.set_len(left)?;
        Ok(left)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync also writes the length where it changed, and nothing else that we need.
        self.sync_data()
    }
}
