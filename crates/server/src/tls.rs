//! TLS: certificates, their reloading, and who must show one.
//!
//! The keys stay in this process: a client learns whether its own certificate was accepted, and nothing
//! else. TLS 1.3 and 1.2 by rustls with ring; no early data, which could be replayed.

use crate::Watch;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio_rustls::TlsAcceptor;

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Who has none is refused during the handshake.
    Required,
    /// One that is shown must be right, none need be shown.
    Optional,
}

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The service's certificate, then those of the authorities between it and a root. PEM.
    pub certificate: PathBuf,
    /// The certificate's private key. PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// The authorities whose certificates clients may show, PEM, and whether they must.
    pub clients: Option<(PathBuf, ClientCertificates)>,
}

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has nothing of what it should.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The files do not fit together.
    #[error("{certificate} with {key}: {source}")]
    Pair {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The certificates in use. Shared by all workers; new connections use what was loaded last.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    watch: Mutex<Watch>,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Loads the certificates.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        paths.extend(files.clients.iter().map(|(path, _)| path.clone()));
        // Before they are read: what changes after that is seen as a change.
        let watch = Mutex::new(Watch::new(paths));
        let current = RwLock::new(Arc::new(config(&files)?));
        Ok(Self {
            files,
            watch,
            current,
        })
    }

    /// Loads the certificates anew if a file has changed since the last time, or in any case if
    /// `forced`. Says whether it did. Where they cannot be used the old ones stay.
    ///
    /// Reads files: not for a thread that serves requests.
    pub fn reload(&self, forced: bool) -> Result<bool, TlsError> {
        let changed = {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.changed()
        };
        if !changed && !forced {
            return Ok(false);
        }
        let config = Arc::new(config(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(true)
    }

    /// Accepts connections with the certificates of now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone().into()
    }
}

fn config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unreadable(&files.key, &error, "private key"))?;
    let broken = |source| TlsError::Pair {
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(broken)?;
    let builder = match &files.clients {
        None => builder.with_no_client_auth(),
        Some((path, certificates)) => {
            let verifier = verifier(path, *certificates, provider)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(broken)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Who comes back need not be signed for again. The tickets' keys end with this configuration.
    config.ticketer = ring::Ticketer::new().map_err(broken)?;
    Ok(config)
}

fn verifier(
    path: &Path,
    certificates_wanted: ClientCertificates,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let broken = |what: String| TlsError::File {
        path: path.display().to_string(),
        what,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| broken(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match certificates_wanted {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| broken(error.to_string()))
}

/// Every certificate of a file: at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| unreadable(path, &error, "certificate");
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(unreadable(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn unreadable(path: &Path, error: &pem::Error, wanted: &str) -> TlsError {
    let what = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("there is no {wanted} in it, PEM is expected"),
        error => format!("not PEM: {error}"),
    };
    let path = path.display().to_string();
    TlsError::File { path, what }
}
