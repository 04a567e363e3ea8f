//! The bucket: the few things that are asked of an object store, each within a time, and what its failures
//! mean. Nothing here shows a credential.

use crate::{Error, error::Failure, manifest::Manifest, object};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
    UpdateVersion,
    aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder,
    client::{HttpClient, HttpConnector},
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    path::Path,
};
use std::{fmt, fs, path::PathBuf, str::FromStr, sync::Arc, time::Duration};
use url::Url;

/// How long one request may take. A slow bucket is one that is away.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// How long making a connection may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The file whose lock guards the manifest in a folder.
const LOCK: &str = "manifest.lock";

/// Where an archive is: a bucket with a prefix, or a folder.
#[derive(Clone, PartialEq, Eq)]
pub struct ArchiveUrl(Url);

/// Why a text is no address of an archive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

impl FromStr for ArchiveUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |why: &str| Err(UrlError(why.into()));
        let Ok(url) = Url::parse(text) else {
            return refuse("it is no URL");
        };
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if has_credentials || url.query().is_some() || url.fragment().is_some() {
            return refuse(
                "it has more than a bucket and a prefix: credentials come by the provider's own variables",
            );
        }
        match (url.scheme(), url.host_str()) {
            ("file", None) if url.path().len() > 1 => Ok(Self(url)),
            ("file", _) => refuse("a folder is named file:///absolute/path"),
            ("s3" | "gs" | "az", Some(_)) => Ok(Self(url)),
            ("s3" | "gs" | "az", None) => refuse("it names no bucket"),
            _ => refuse("its scheme is none of s3, gs, az and file"),
        }
    }
}

impl fmt::Display for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An archive's bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// A folder has no conditional writes: a lock and a comparison stand for them.
    folder: Option<PathBuf>,
}

/// A manifest as it was read, to be replaced.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    update: UpdateVersion,
    /// In a folder.
    bytes: Bytes,
}

/// What became of a conditional write.
pub(crate) enum Replaced {
    Done(Version),
    /// Somebody else was faster, or it was our own write whose answer was lost.
    Changed,
}

/// Connects with the cryptography and the authorities of all our clients.
#[derive(Debug)]
struct Connector(rustls::ClientConfig);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.clone())
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(REQUEST_TIME_MAX)
            .build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "archive",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(client))
    }
}

impl Bucket {
    /// The bucket at an address. Nothing is asked of it yet. Credentials come from the environment, as the
    /// provider's own programs take them.
    pub fn open(url: &ArchiveUrl) -> Result<Self, Error> {
        let text = url.to_string();
        let failed = |error: &dyn fmt::Display| Error::Bucket {
            what: format!("opening {text}"),
            failure: Failure::Unavailable,
            why: redacted(&error.to_string()),
        };
        if url.0.scheme() == "file" {
            let folder = url
                .0
                .to_file_path()
                .map_err(|()| failed(&"it is no path"))?;
            fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
            let store = LocalFileSystem::new_with_prefix(&folder)
                .map_err(|error| failed(&error))?
                .with_fsync(true);
            return Ok(Self {
                url: text.clone(),
                store: Arc::new(store),
                prefix: Path::default(),
                folder: Some(folder),
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
        // Trying again is the archiver's, which tells it.
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
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
        })
    }

    /// Any object store.
    #[cfg(test)]
    pub(crate) fn on(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            url: "memory".into(),
            store,
            prefix: Path::default(),
            folder: None,
        }
    }

    /// Its address, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
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

    /// Writes an object that is never overwritten. One that is there with just these bytes is our own, whose
    /// answer was lost.
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
            defect: "it is there already, with something else in it".into(),
        })
    }

    /// The bytes of an object.
    pub(crate) async fn get(&self, name: &str) -> Result<Bytes, Error> {
        let path = self.path(name);
        let get = async { self.store.get(&path).await?.bytes().await };
        Self::within(|| format!("reading {name}"), get)
            .await
            .map_err(Error::from)
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

    /// The names and lengths of the objects under a prefix, in order; those after `after` alone, if that is
    /// given.
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
        let name = |object: object_store::ObjectMeta| {
            let name = object.location.as_ref()[own..].trim_start_matches('/');
            (name.to_owned(), object.size)
        };
        // A long list is many requests, each of which has its own time.
        let listed: Result<Vec<_>, _> = listing.map_ok(name).try_collect().await;
        let mut names = listed.map_err(|error| {
            Error::from(Tried {
                error: Some(error),
                what: format!("listing {prefix}"),
            })
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// The manifest, if there is an archive.
    pub(crate) async fn manifest(&self) -> Result<Option<(Manifest, Version)>, Error> {
        let path = self.path(object::MANIFEST);
        let get = async {
            let answer = self.store.get(&path).await?;
            let update = UpdateVersion {
                e_tag: answer.meta.e_tag.clone(),
                version: answer.meta.version.clone(),
            };
            Ok((update, answer.bytes().await?))
        };
        match Self::within(|| "reading the manifest".into(), get).await {
            Ok((update, bytes)) => {
                let manifest = Manifest::decode(&bytes)?;
                Ok(Some((manifest, Version { update, bytes })))
            }
            Err(tried) if tried.is_missing() && !tried.says_no_bucket() => Ok(None),
            Err(tried) => Err(tried.into()),
        }
    }

    /// Replaces the manifest, if it is the one that was read, or makes it, if there was none.
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
        let io = |error: std::io::Error| Error::Bucket {
            what: "locking the manifest".into(),
            failure: Failure::Unavailable,
            why: error.to_string(),
        };
        // It ends with the process, whatever becomes of that.
        let path = folder.join(LOCK);
        let lock = tokio::task::spawn_blocking(move || {
            let lock = fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            lock.lock()?;
            Ok(lock)
        });
        let lock = lock
            .await
            .map_err(|error| io(std::io::Error::other(error)))?
            .map_err(io)?;
        let path = self.path(object::MANIFEST);
        let now = async { self.store.get(&path).await?.bytes().await };
        let now = match Self::within(|| "reading the manifest".into(), now).await {
            Ok(now) => Some(now),
            Err(tried) if tried.is_missing() => None,
            Err(tried) => return Err(tried.into()),
        };
        if now.as_ref() != before.map(|before| &before.bytes) {
            return Ok(Replaced::Changed);
        }
        let replaced = self.put_manifest(bytes, PutMode::Overwrite).await;
        drop(lock);
        replaced
    }

    /// Makes sure that the bucket refuses what it must refuse: it is asked to make the manifest that is there,
    /// and to replace one that is not, in both cases by what is there anyway.
    pub(crate) async fn check_conditions(&self, version: &Version) -> Result<(), Error> {
        if self.folder.is_some() {
            return Ok(());
        }
        let stale = UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".into()),
            version: Some("1".into()),
        };
        for mode in [PutMode::Create, PutMode::Update(stale)] {
            match self.put_manifest(version.bytes.clone(), mode).await {
                Ok(Replaced::Done(_)) => return Err(Error::Unconditional),
                Ok(Replaced::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A request that failed.
struct Tried {
    /// `None`: it took too long.
    error: Option<object_store::Error>,
    what: String,
}

impl Tried {
    fn is_conflict(&self) -> bool {
        use object_store::Error::{AlreadyExists, Precondition};
        matches!(self.error, Some(AlreadyExists { .. } | Precondition { .. }))
    }

    fn is_missing(&self) -> bool {
        matches!(self.error, Some(object_store::Error::NotFound { .. }))
    }

    /// A bucket that is not there is no empty one.
    fn says_no_bucket(&self) -> bool {
        let text = self.error.as_ref().map(ToString::to_string);
        text.is_some_and(|text| text.contains("NoSuchBucket") || text.contains("ContainerNotFound"))
    }
}

impl From<Tried> for Error {
    fn from(tried: Tried) -> Self {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let failure = match &tried.error {
            Some(PermissionDenied { .. } | Unauthenticated { .. }) => Failure::Refused,
            Some(NotFound { .. }) => Failure::Missing,
            _ => Failure::Unavailable,
        };
        let why = match &tried.error {
            Some(error) => redacted(&chain_of(error)),
            None => format!("no answer in {} s", REQUEST_TIME_MAX.as_secs()),
        };
        Self::Bucket {
            what: tried.what,
            failure,
            why,
        }
    }
}

/// An error with its causes, as far as it does not tell them itself.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(each) = cause {
        let more = each.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = each.source();
    }
    text
}

/// A text without the queries of URLs, which may have signatures in them, and not longer than a line or two.
fn redacted(text: &str) -> String {
    let mut shown = String::new();
    let mut is_query = false;
    for each in text.chars() {
        if each == '?' {
            shown.push_str("?…");
            is_query = true;
        }
        if each.is_whitespace() || ")\"'>".contains(each) {
            is_query = false;
        }
        if !is_query {
            shown.push(if each.is_control() { ' ' } else { each });
        }
        if shown.len() > 500 {
            shown.push('…');
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_bucket_or_a_folder_and_nothing_secret() {
        for text in [
            "s3://b",
            "s3://b/a/b",
            "gs://b/x",
            "az://c/x",
            "file:///var/archive",
        ] {
            let url: ArchiveUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), text);
        }
        for text in [
            "",
            "b",
            "/var/archive",
            "http://b/x",
            "s3://",
            "file://host/x",
            "file:///",
            "s3://key:secret@b/x",
            "az://c/x?sig=abc",
            "s3://b/x#y",
        ] {
            let error = text.parse::<ArchiveUrl>().expect_err(text);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_a_bucket_says_is_shown_without_signatures() {
        let said =
            "error sending request for url (https://a.example/c/x?sv=1&sig=TOPSECRET): timed out";
        let shown = "error sending request for url (https://a.example/c/x?…): timed out";
        assert_eq!(redacted(said), shown);
    }
}
