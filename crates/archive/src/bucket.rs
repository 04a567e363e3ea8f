//! The bucket: the few requests that the archive sends to an object store, each with a timeout, and
//! the meaning of their failures. No message shows a credential.

mod address;
mod client;
mod failed;
mod listing;
mod lock;
mod names;

pub use address::{ArchiveUrl, UrlError};

use crate::{
    Error,
    error::Failure,
    manifest::{self, Manifest},
    object,
};
use bytes::Bytes;
use client::Connector;
use failed::{Tried, redacted};
use futures_util::TryStreamExt as _;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, PutResult,
    RetryConfig, UpdateVersion, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};
use std::{fmt, fs, io::ErrorKind, path::PathBuf, sync::Arc, time::Duration};
use widgets_clock::Clock;

/// The timeout of one request. A slow bucket counts as an unreachable one.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a command's request is retried if the bucket is overloaded or cannot be reached.
const RETRY_TIME_MAX: Duration = Duration::from_secs(10);

/// The maximum number of attempts. `RETRY_TIME_MAX` ends them first.
const RETRIES_MAX: usize = 100;

/// The longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Google accepts one write per second to the same name, and refuses earlier ones (429). The margin
/// is for a prune that runs at the same time.
const GOOGLE_REPLACE_PAUSE: Duration = Duration::from_millis(1500);

/// Who retries a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// The caller, which also reports the failure: an archiver.
    Asker,
    /// The bucket, for some seconds: otherwise a command would fail in the middle of thousands of
    /// objects.
    Bucket,
}

impl Retries {
    fn config(self) -> RetryConfig {
        let retries = RetryConfig::default();
        match self {
            Self::Asker => RetryConfig {
                max_retries: 0,
                ..retries
            },
            Self::Bucket => RetryConfig {
                backoff: BackoffConfig {
                    max_backoff: RETRY_PAUSE_MAX,
                    ..retries.backoff
                },
                max_retries: RETRIES_MAX,
                retry_timeout: RETRY_TIME_MAX,
            },
        }
    }
}

/// An archive's bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder, if the archive is in one. A folder has no conditional writes; a lock and a
    /// comparison replace them.
    folder: Option<PathBuf>,
    /// The minimum time between two replacements of the manifest.
    replace_pause: Duration,
}

/// The version of a manifest that was read, for replacing exactly that one.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    update: UpdateVersion,
    /// The content, which a folder compares.
    bytes: Bytes,
}

/// The defect of a pipe, a device or a folder in place of a file. Opening a pipe would wait for its
/// other end.
const NO_FILE: &str = "it is not a regular file, such as a pipe or a directory";

/// Why an object could not be read.
enum Unread {
    /// The request failed.
    Tried(Tried),
    /// The object is not as it was written.
    Damaged(Error),
}

impl From<Unread> for Error {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Tried(tried) => tried.into(),
            Unread::Damaged(error) => error,
        }
    }
}

/// Reports whether something other than a regular file is there. If it cannot be inspected, or not in
/// time, reading it gives the error.
async fn is_odd(path: PathBuf) -> bool {
    let found = tokio::task::spawn_blocking(move || fs::metadata(path));
    let found = tokio::time::timeout(REQUEST_TIME_MAX, found).await;
    matches!(found, Ok(Ok(Ok(found))) if !found.is_file())
}

/// Returns the error that the bucket at an address cannot be opened.
fn unopened(url: &ArchiveUrl, error: &dyn fmt::Display) -> Error {
    Error::Bucket {
        what: format!("opening {url}"),
        failure: Failure::Unavailable,
        why: redacted(&error.to_string()),
    }
}

/// The outcome of a conditional write.
pub(crate) enum Replaced {
    Done(Version),
    /// Someone else was faster, or it was our own write whose answer was lost.
    Changed,
}

impl Bucket {
    /// Opens the bucket at an address to write an archive to it. Creates a missing folder.
    pub fn open_to_write(url: &ArchiveUrl, retries: Retries) -> Result<Self, Error> {
        if url.0.scheme() == "file"
            && let Ok(folder) = url.0.to_file_path()
        {
            fs::create_dir_all(&folder).map_err(|error| unopened(url, &error))?;
        }
        Self::open(url, retries)
    }

    /// Opens the bucket at an address without sending a request. Credentials come from the
    /// environment, under the same names that the provider's own programs use.
    pub fn open(url: &ArchiveUrl, retries: Retries) -> Result<Self, Error> {
        let text = url.to_string();
        let failed = |error: &dyn fmt::Display| unopened(url, error);
        if url.0.scheme() == "file" {
            let folder = url
                .0
                .to_file_path()
                .map_err(|()| failed(&"it is not a path"))?;
            if matches!(fs::metadata(&folder), Err(error) if error.kind() == ErrorKind::NotFound) {
                return Err(Error::Missing { url: text });
            }
            let store = LocalFileSystem::new_with_prefix(&folder)
                .map_err(|error| failed(&error))?
                .with_fsync(true);
            return Ok(Self {
                url: text.clone(),
                store: Arc::new(store),
                prefix: Path::default(),
                folder: Some(folder),
                replace_pause: Duration::ZERO,
            });
        }
        let tls = widgets_tls::system_roots().and_then(widgets_tls::verified);
        let tls = match tls {
            Ok(tls) => tls,
            // A server on this machine may well speak plain HTTP.
            Err(widgets_tls::Error::System) => {
                widgets_tls::verified(rustls::RootCertStore::empty())
                    .map_err(|error| failed(&error))?
            }
            Err(error) => return Err(failed(&error)),
        };
        let connector = Connector(tls);
        let retry = retries.config();
        let store: Arc<dyn ObjectStore> = match url.0.scheme() {
            "s3" => Arc::new(
                AmazonS3Builder::from_env()
                    .with_url(url.0.as_str())
                    .with_retry(retry)
                    .with_http_connector(connector)
                    .build()
                    .map_err(|error| failed(&error))?,
            ),
            "gs" => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_url(url.0.as_str())
                    .with_retry(retry)
                    .with_http_connector(connector)
                    .build()
                    .map_err(|error| failed(&error))?,
            ),
            _ => Arc::new(
                MicrosoftAzureBuilder::from_env()
                    .with_url(url.0.as_str())
                    .with_retry(retry)
                    .with_http_connector(connector)
                    .build()
                    .map_err(|error| failed(&error))?,
            ),
        };
        let prefix = Path::parse(url.0.path().trim_matches('/')).map_err(|error| failed(&error))?;
        Ok(Self {
            url: text.clone(),
            store,
            prefix,
            folder: None,
            replace_pause: match url.0.scheme() {
                "gs" => GOOGLE_REPLACE_PAUSE,
                _ => Duration::ZERO,
            },
        })
    }

    /// Creates a bucket on any object store.
    #[cfg(test)]
    pub(crate) fn on(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            url: "memory".into(),
            store,
            prefix: Path::default(),
            folder: None,
            replace_pause: Duration::ZERO,
        }
    }

    /// Makes this the bucket of an archive in a folder.
    #[cfg(test)]
    pub(crate) fn in_folder(self, folder: &std::path::Path) -> Self {
        Self {
            folder: Some(folder.into()),
            ..self
        }
    }

    /// Returns the address, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the minimum time between two replacements of the manifest.
    pub(crate) fn replace_pause(&self) -> Duration {
        self.replace_pause
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    async fn within<T>(
        what: impl Fn() -> String,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Tried> {
        match tokio::time::timeout(REQUEST_TIME_MAX, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Tried {
                error: Some(error),
                what: what(),
            }),
            Err(_) => Err(Tried {
                error: None,
                what: what(),
            }),
        }
    }

    /// Writes an object that is never overwritten. If an object with exactly these bytes exists
    /// already, it is our own, and the answer to the write was lost.
    pub(crate) async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let path = self.path(name);
        let put = self.store.put_opts(
            &path,
            PutPayload::from_bytes(bytes.clone()),
            PutMode::Create.into(),
        );
        let Err(tried) = Self::within(|| format!("writing {name}"), put).await else {
            return Ok(());
        };
        if !tried.is_conflict() {
            return Err(tried.into());
        }
        if planted!(LateAnswerForgotten) {
            return Err(tried.into());
        }
        if self.get(name).await? == bytes {
            return Ok(());
        }
        Err(Error::Damaged {
            object: name.into(),
            defect: "it already exists with other contents".into(),
        })
    }

    /// Returns the bytes of an object.
    pub(crate) async fn get(&self, name: &str) -> Result<Bytes, Error> {
        let read = self
            .read(name, &format!("reading {name}"), object::BYTES_MAX)
            .await;
        Ok(read?.1)
    }

    /// Reads an object of at most `bytes_max` bytes: the server, or whoever writes to the folder,
    /// could claim any length and send without end.
    async fn read(
        &self,
        name: &str,
        what: &str,
        bytes_max: u64,
    ) -> Result<(UpdateVersion, Bytes), Unread> {
        let damaged = |defect: String| {
            Unread::Damaged(Error::Damaged {
                object: name.into(),
                defect,
            })
        };
        if let Some(folder) = &self.folder
            && is_odd(folder.join(name)).await
        {
            return Err(damaged(NO_FILE.into()));
        }
        let path = self.path(name);
        let get = async {
            let answer = self.store.get(&path).await?;
            let update = UpdateVersion {
                e_tag: answer.meta.e_tag.clone(),
                version: answer.meta.version.clone(),
            };
            let size = answer.meta.size;
            if size > bytes_max {
                return Ok((update, Err(size)));
            }
            if self.folder.is_some() {
                return Ok((update, Ok(answer.bytes().await?)));
            }
            // The claimed length is not trusted, so no buffer of that length is allocated.
            let mut bytes = Vec::new();
            let mut pieces = answer.into_stream();
            while let Some(piece) = pieces.try_next().await? {
                let read = (bytes.len() + piece.len()) as u64;
                if read > bytes_max {
                    return Ok((update, Err(read)));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok((update, Ok(Bytes::from(bytes))))
        };
        match Self::within(|| what.into(), get).await {
            Ok((update, Ok(bytes))) => Ok((update, bytes)),
            Ok((_, Err(size))) => Err(damaged(format!(
                "it has {size} bytes, and at most {bytes_max} are read"
            ))),
            Err(tried) => Err(Unread::Tried(tried)),
        }
    }

    /// Removes an object, which may be gone already.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        let delete = self.store.delete(&path);
        match Self::within(|| format!("removing {name}"), delete).await {
            Err(tried) if !tried.is_missing() => Err(tried.into()),
            _ => Ok(()),
        }
    }

    /// Lists the names and lengths of the objects under a prefix, in order; only those after
    /// `after`, if it is given.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<(String, u64)>, Error> {
        let (under, own) = (self.path(prefix), self.prefix.as_ref().len());
        let listing = match after {
            Some(after) => self.store.list_with_offset(Some(&under), &self.path(after)),
            None => self.store.list(Some(&under)),
        };
        // The library continues after an invalid name in a folder, but not in a bucket, where
        // `names.rs` removes such names.
        let skips_invalid = self.folder.is_some();
        let objects = listing::whole(listing, REQUEST_TIME_MAX, listing::NAMES_MAX, skips_invalid);
        let objects = objects.await.map_err(|why| why.at(prefix))?;
        let name = |object: object_store::ObjectMeta| {
            let name = object.location.as_ref()[own..].trim_start_matches('/');
            (name.to_owned(), object.size)
        };
        let mut names: Vec<_> = objects.into_iter().map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the manifest, if there is an archive.
    pub(crate) async fn manifest(&self) -> Result<Option<(Manifest, Version)>, Error> {
        match self.read_manifest().await {
            Ok((update, bytes)) => {
                let manifest = Manifest::decode(&bytes)?;
                Ok(Some((manifest, Version { update, bytes })))
            }
            Err(Unread::Tried(tried)) if tried.is_missing() && !tried.says_no_bucket() => Ok(None),
            Err(unread) => Err(unread.into()),
        }
    }

    async fn read_manifest(&self) -> Result<(UpdateVersion, Bytes), Unread> {
        let what = "reading the manifest";
        self.read(object::MANIFEST, what, manifest::BYTES_MAX as u64)
            .await
    }

    /// Replaces the manifest if it is still the one that was read, or creates it if there was none.
    pub(crate) async fn replace(
        &self,
        manifest: &Manifest,
        before: Option<&Version>,
    ) -> Result<Replaced, Error> {
        let bytes = Bytes::from(manifest.encode());
        if let Some(folder) = &self.folder {
            return self.replace_in_folder(folder, bytes, before).await;
        }
        let mode = before.map_or(PutMode::Create, |before| {
            PutMode::Update(before.update.clone())
        });
        self.put_manifest(bytes, mode).await
    }

    async fn put_manifest(&self, bytes: Bytes, mode: PutMode) -> Result<Replaced, Error> {
        let path = self.path(object::MANIFEST);
        let options = PutOptions::from(mode);
        let put = self
            .store
            .put_opts(&path, PutPayload::from_bytes(bytes.clone()), options);
        Self::replaced(bytes, put).await
    }

    /// Returns what became of a write of the manifest.
    async fn replaced(
        bytes: Bytes,
        put: impl Future<Output = object_store::Result<PutResult>>,
    ) -> Result<Replaced, Error> {
        match Self::within(|| "writing the manifest".into(), put).await {
            Ok(put) => Ok(Replaced::Done(Version {
                update: UpdateVersion {
                    e_tag: put.e_tag,
                    version: put.version,
                },
                bytes,
            })),
            Err(tried) if tried.is_conflict() => Ok(Replaced::Changed),
            Err(tried) => Err(tried.into()),
        }
    }

    async fn replace_in_folder(
        &self,
        folder: &std::path::Path,
        bytes: Bytes,
        before: Option<&Version>,
    ) -> Result<Replaced, Error> {
        // The lock ends with the process, however that ends.
        let lock = lock::lock(folder, REQUEST_TIME_MAX).await?;
        let now = match self.read_manifest().await {
            Ok((_, now)) => Some(now),
            Err(Unread::Tried(tried)) if tried.is_missing() => None,
            Err(unread) => return Err(unread.into()),
        };
        if now.as_ref() != before.map(|before| &before.bytes) {
            return Ok(Replaced::Changed);
        }
        let (store, path) = (self.store.clone(), self.path(object::MANIFEST));
        let payload = PutPayload::from_bytes(bytes.clone());
        // A write that is given up goes on, in a thread of the library. Until it ends, nobody else
        // may replace the manifest, so the write owns the lock.
        let put = tokio::spawn(async move {
            let mode = PutMode::Overwrite.into();
            let put = store.put_opts(&path, payload, mode).await;
            drop(lock);
            put
        });
        let put = async { put.await.unwrap_or_else(|source| Err(source.into())) };
        Self::replaced(bytes, put).await
    }

    /// Checks that the bucket enforces conditional writes: tries to create the manifest, which
    /// exists, and to replace a version that does not exist. Both attempts write what is there
    /// already.
    pub(crate) async fn check_conditions(
        &self,
        version: &Version,
        clock: &dyn Clock,
    ) -> Result<(), Error> {
        if self.folder.is_some() {
            return Ok(());
        }
        let stale = UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".into()),
            version: Some("1".into()),
        };
        for mode in [PutMode::Create, PutMode::Update(stale)] {
            if self.replace_pause > Duration::ZERO {
                clock.timer(self.replace_pause).await;
            }
            match self.put_manifest(version.bytes.clone(), mode).await {
                Ok(Replaced::Done(_)) => return Err(Error::Unconditional),
                Ok(Replaced::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
