//! The disk: the few operations that the engine needs from a file system, behind a trait so that
//! tests can make each of them fail.

use crate::{OpenError, files};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A directory of files. Names are plain file names.
///
/// What is written is durable after [`DiskFile::sync`]; what is created, renamed or removed is
/// durable after [`Disk::sync_directory`]. Nothing more is assumed: see `docs/file-format.md`.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Returns the names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file, open for reading and writing. Fails if the name exists.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading only.
    fn open_to_read(&self, name: &str) -> io::Result<Self::File> {
        self.open(name)
    }
    /// Renames a file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes at `offset`. Returns 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data` at `offset`.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Removes up to `bytes` bytes from the end of the file. Returns how many are left.
    fn shorten(&self, bytes: u64) -> io::Result<u64>;
    /// Makes all earlier writes durable. After an error it is unknown which are, and a second
    /// attempt proves nothing, because the kernel may have dropped the pages.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until `buffer` is full or the file ends. Returns how many bytes were read.
pub(crate) fn read_full_at(
    file: &(impl DiskFile + ?Sized),
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

/// What to do if there is no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStore {
    /// Create one, and the directory if it is missing.
    Make,
    /// Refuse, without creating or changing anything.
    Refuse,
}

/// A directory of the operating system, locked for one process.
///
/// What is created in it is accessible only to its owner: directories have mode 0700 and files
/// 0600.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    path: PathBuf,
    is_new: bool,
    /// What opening it created: the directory and those above it, the innermost first.
    made: Vec<PathBuf>,
    /// Held open for its lock, so that a directory has only one engine.
    _lock: std::sync::Arc<File>,
}

/// The file whose lock guards the directory. Its content means nothing.
const LOCK_FILE: &str = "lock";

/// A directory that new file systems contain, which belongs to nobody.
const LOST_AND_FOUND: &str = "lost+found";

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The bits of a mode that give access to others than the owner.
const NOT_THE_OWNERS: u32 = 0o077;

impl DataDirectory {
    /// Opens the directory of a store, or creates a store if `no_store` allows it.
    ///
    /// A directory that has files and no store belongs to somebody else, or its file system is not
    /// mounted: it is always refused.
    pub fn open(path: &Path, no_store: NoStore) -> Result<Self, OpenError> {
        Self::open_if(path, no_store == NoStore::Make, &|path| {
            check(path, no_store)
        })
    }

    /// Opens an empty directory to restore a store into, or creates it. A directory that an earlier
    /// restore did not finish counts as empty.
    pub fn open_to_restore(path: &Path) -> Result<Self, OpenError> {
        Self::open_if(path, true, &check_empty)
    }

    /// Marks a directory that [`Self::open_to_restore`] opened, durably: from now on every start
    /// refuses it, until a restore into it is complete.
    pub fn mark_unfinished(&self) -> Result<(), OpenError> {
        let mark = || {
            if !self.list()?.iter().any(|name| name == files::RESTORING) {
                self.create(files::RESTORING)?.sync()?;
            }
            self.sync_directory()
        };
        mark().map_err(OpenError::io("beginning to restore"))
    }

    /// Removes the directory, into which nothing was restored, if opening it created it, and the
    /// directories above it that opening it created. Otherwise it keeps its mark.
    pub fn remove_if_made(self) {
        if self.made.first() != Some(&self.path) {
            return;
        }
        // While the lock is held, nobody else uses the directory.
        let removed = self.remove(files::RESTORING);
        let removed = removed.and_then(|()| self.remove(LOCK_FILE));
        // A directory that is not empty has come into use, and stays.
        let mut made = self.made.iter();
        while removed.is_ok() && made.next().is_some_and(|each| fs::remove_dir(each).is_ok()) {}
    }

    fn open_if(
        path: &Path,
        may_make: bool,
        check: &dyn Fn(&Path) -> Result<bool, OpenError>,
    ) -> Result<Self, OpenError> {
        let in_path = |what: &str| format!("{what} {}", path.display());
        let mut made = Vec::new();
        // Before anything is created in it.
        let there = match check(path) {
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if !may_make {
                    return Err(OpenError::NoStore {
                        directory: path.into(),
                        is_there: false,
                    });
                }
                made = make(path)?;
                false
            }
            Err(error) => return Err(error),
            Ok(_) => true,
        };
        let lock_path = path.join(LOCK_FILE);
        let opening = || OpenError::io(format!("opening {}", lock_path.display()));
        match regular(&lock_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(opening()(error)),
            _ => {}
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(opening())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked),
            Err(TryLockError::Error(error)) => {
                return Err(OpenError::io(in_path("locking"))(error));
            }
        }
        sync_name(path, there)?;
        // Checked again, because another process may have created a store between the first check
        // and the lock.
        let is_new = check(path)?;
        Ok(Self {
            path: path.into(),
            is_new,
            made,
            _lock: lock.into(),
        })
    }

    /// Reports whether there was no store in it before.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Describes what others than the owner may do with the directory or its files. Returns `None`
    /// if that is nothing.
    pub fn exposure(&self) -> io::Result<Option<String>> {
        let mode = |path: &Path| Ok::<u32, io::Error>(fs::metadata(path)?.mode() & 0o7777);
        let directory = mode(&self.path)?;
        if directory & NOT_THE_OWNERS != 0 {
            let path = self.path.display();
            return Ok(Some(format!(
                "the data directory {path} has mode {directory:04o}: users other than its owner \
                 can access it"
            )));
        }
        // Nobody else can reach the files until the directory is opened to others or copied.
        for name in self
            .list()?
            .into_iter()
            .filter(|name| files::is_store(name))
        {
            let path = self.path.join(name);
            let file = mode(&path)?;
            if file & NOT_THE_OWNERS != 0 {
                let path = path.display();
                return Ok(Some(format!(
                    "{path} has mode {file:04o}: users other than its owner can access its copies"
                )));
            }
        }
        Ok(None)
    }
}

/// Checks that a path is a regular file. Opening a pipe would block until its other end is opened.
fn regular(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::other(format!(
        "{path} is not a regular file, such as a pipe or a directory"
    )))
}

/// Returns the names of everything in a directory except what every directory may have. Fails if
/// the directory cannot be read.
fn names(path: &Path) -> Result<Vec<OsString>, OpenError> {
    let failed = || OpenError::io(format!("reading the data directory {}", path.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        if ![LOCK_FILE, LOST_AND_FOUND]
            .iter()
            .any(|known| name == *known)
        {
            names.push(name);
        }
    }
    // Sorted, so that the order is always the same.
    names.sort_unstable();
    Ok(names)
}

/// Checks that the directory is empty, or has only what an unfinished restore left.
fn check_empty(path: &Path) -> Result<bool, OpenError> {
    let names = names(path)?;
    let was_restoring = names.iter().any(|name| name == files::RESTORING);
    let left = |name: &OsString| {
        let is_ours = |name: &str| {
            name == files::RESTORING || files::is_store(name) || files::is_unfinished(name)
        };
        was_restoring && name.to_str().is_some_and(is_ours)
    };
    match names.into_iter().find(|name| !left(name)) {
        None => Ok(true),
        Some(example) => Err(OpenError::NotEmpty {
            directory: path.into(),
            example: example.to_string_lossy().into_owned(),
        }),
    }
}

/// Reports whether the directory has no store yet. Fails if that is not allowed, or if the
/// directory belongs to somebody else.
fn check(path: &Path, no_store: NoStore) -> Result<bool, OpenError> {
    let names = names(path)?;
    if names.iter().any(|name| name == files::RESTORING) {
        let directory = path.into();
        return Err(OpenError::Restoring { directory });
    }
    let is = |kind: fn(&str) -> bool| move |name: &OsString| name.to_str().is_some_and(kind);
    if names.iter().any(is(files::is_store)) {
        return Ok(false);
    }
    let is_unfinished = is(files::is_unfinished);
    let others: Vec<_> = names.iter().filter(|name| !is_unfinished(name)).collect();
    if let Some(example) = others.first() {
        return Err(OpenError::Foreign {
            directory: path.into(),
            files: others.len(),
            example: example.to_string_lossy().into_owned(),
        });
    }
    if no_store == NoStore::Refuse {
        return Err(OpenError::NoStore {
            directory: path.into(),
            is_there: true,
        });
    }
    Ok(true)
}

/// Creates a directory and all missing directories above it, durably. Returns what it created, the
/// innermost first.
fn make(path: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let made = || OpenError::io(format!("making the data directory {}", path.display()));
    let missing: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    if let Some(above) = missing.first() {
        fs::create_dir_all(above).map_err(made())?;
    }
    let made_directory = DirBuilder::new().mode(DIRECTORY_MODE).create(path);
    let own = match made_directory {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => None,
        outcome => outcome.map_err(made()).map(|()| Some(path))?,
    };
    for above in &missing {
        sync_name(above, false)?;
    }
    let all = own.into_iter().chain(missing);
    Ok(all.map(Path::to_path_buf).collect())
}

/// Makes the directory's own name durable, so that it survives a power cut. A name that existed
/// before is most likely durable already, so a failure to sync it is only logged; for example, the
/// folder above may allow passing through but not reading.
fn sync_name(path: &Path, was_there: bool) -> Result<(), OpenError> {
    let failed = OpenError::io(format!("finding the folder of {}", path.display()));
    let absolute = path.canonicalize().map_err(failed)?;
    let Some(above) = absolute.parent() else {
        return Ok(());
    };
    match File::open(above).and_then(|above| above.sync_all()) {
        Ok(()) => Ok(()),
        Err(error) if was_there => {
            let folder = above.display();
            tracing::warn!(
                %error,
                "the folder {folder} cannot be synced: the name of the data directory may not \
                 survive a power cut"
            );
            Ok(())
        }
        Err(source) => Err(OpenError::Io {
            what: format!(
                "syncing the folder {}, in which {} was made",
                above.display(),
                path.display()
            ),
            source,
        }),
    }
}

impl Disk for DataDirectory {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
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
            .mode(FILE_MODE)
            .open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        regular(&path)?;
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn open_to_read(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        regular(&path)?;
        File::open(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
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
        // fdatasync also writes the length if it changed, and nothing more is needed.
        self.sync_data()
    }
}
