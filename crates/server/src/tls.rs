//! TLS: certificates, how they are reloaded, and who must present one.
//!
//! Private keys never leave this process. A client learns whether its own certificate was accepted,
//! and nothing else. A client's certificate counts only while it and its authority are valid
//! (`clients.rs`): where clients may present one, sessions are not resumed, and open connections
//! are checked again. TLS 1.3 and 1.2 come from rustls with ring. Early data is off, because it
//! could be replayed.

mod clients;

use crate::Watch;
use clients::Clients;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject as _},
    server::{NoServerSessionStorage, danger::ClientCertVerifier as _},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use widgets_files::read_file;

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A client without a certificate is refused during the handshake.
    Required,
    /// A client need not present a certificate, but one that it presents must be valid.
    Optional,
}

/// The files with the certificates and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The service's certificate, followed by those of the intermediate authorities. PEM.
    pub certificate: PathBuf,
    /// The certificate's private key. PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// The authorities whose certificates clients may present, in PEM, and whether clients must
    /// present one.
    pub clients: Option<(PathBuf, ClientCertificates)>,
}

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is unreadable, or contains none of what it should.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The certificate and the key do not match.
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

/// The certificates in use. Shared by all workers; new connections use the ones loaded last.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    watch: Mutex<Watch>,
    current: RwLock<Current>,
    /// Announces each reload.
    reloads: watch::Sender<()>,
    proofs_checked_every: Duration,
}

/// The current certificates.
#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// Decides whether a client's certificate is valid. `None` if clients cannot present one.
    verifier: Option<Arc<Clients>>,
}

/// How often the certificate of a connected client is checked again.
const PROOFS_CHECKED_EVERY: Duration = Duration::from_mins(1);

impl Tls {
    /// Loads the certificates.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        paths.extend(files.clients.iter().map(|(path, _)| path.clone()));
        // Created before the files are read, so that a later change to them is noticed.
        let watch = Mutex::new(Watch::new(paths));
        let current = RwLock::new(Current::load(&files)?);
        let tls = Self {
            files,
            watch,
            current,
            reloads: watch::Sender::new(()),
            proofs_checked_every: PROOFS_CHECKED_EVERY,
        };
        tls.look();
        Ok(tls)
    }

    /// Returns the same with another interval between checks of connected clients' certificates. By
    /// default they are checked every minute, and also after every reload.
    #[must_use]
    pub fn with_proofs_checked_every(self, proofs_checked_every: Duration) -> Self {
        Self {
            proofs_checked_every,
            ..self
        }
    }

    /// Reloads the certificates if a file has changed since the last time, or unconditionally if
    /// `forced`. Returns whether it did. If the new ones are unusable, the old ones stay in use, and
    /// each later call tries again. It returns the error only if that or a file has changed, or if
    /// `forced`. Logs authorities that have expired meanwhile.
    ///
    /// Reads files, so it must not run on a thread that serves requests.
    pub fn reload(&self, forced: bool) -> Result<bool, TlsError> {
        let loaded = {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.load(forced, || Current::load(&self.files))
        };
        let outcome = match loaded {
            None => Ok(false),
            Some(Err(error)) => Err(error),
            Some(Ok(loaded)) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
                self.reloads.send_replace(());
                Ok(true)
            }
        };
        self.look();
        outcome
    }

    /// Logs authorities that have expired since the last time. Only those in use: others are loaded
    /// again and again while their key is unusable.
    fn look(&self) {
        if let Some(clients) = self.current().verifier {
            clients.look(UnixTime::now());
        }
    }

    /// Returns an acceptor that uses the current certificates.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current().config.into()
    }

    /// Returns a receiver that is notified of every reload from now on.
    pub(crate) fn reloads(&self) -> watch::Receiver<()> {
        self.reloads.subscribe()
    }

    fn current(&self) -> Current {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Reports whether a client that presents this chain would be admitted now.
    fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some(verifier), Some((own, others))) = (self.current().verifier, chain.split_first())
        else {
            return false;
        };
        let now = UnixTime::now();
        verifier.verify_client_cert(own, others, now).is_ok()
    }
}

/// The certificate that a client presented, which was valid at that time.
pub(crate) struct Proof {
    /// The client's own certificate comes first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) tls: Arc<Tls>,
    /// Subscribed before the certificate was checked.
    pub(crate) reloads: watch::Receiver<()>,
}

impl Proof {
    /// Waits until the certificate is no longer accepted: it has expired, or the authorities have
    /// changed.
    pub(crate) async fn until_refused(mut self) {
        while {
            let changed = self.reloads.changed();
            // Either way it is time to check again.
            drop(tokio::time::timeout(self.tls.proofs_checked_every, changed).await);
            self.tls.accepts(&self.chain)
        } {}
    }
}

impl Current {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = match &files.clients {
            None => None,
            Some((path, wanted)) => {
                let clients = Clients::load(path, *wanted, provider.clone())?;
                Some(Arc::new(clients))
            }
        };
        let config = Arc::new(config(files, provider, verifier.clone())?);
        Ok(Self { config, verifier })
    }
}

fn config(
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<Clients>>,
) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.certificate)?;
    let text = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| unreadable(&files.key, &error, "private key"))?;
    let broken = |source| TlsError::Pair {
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(broken)?;
    let resumes = verifier.is_none();
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(broken)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if resumes {
        // A returning client resumes its session without another signature. The keys of the tickets
        // are discarded with this configuration.
        config.ticketer = ring::Ticketer::new().map_err(broken)?;
    } else {
        // A session would be resumed without checking its certificate, even if that has expired
        // meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// Returns all certificates in a file; there must be at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| unreadable(path, &error, "certificate");
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(unreadable(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_file(path).map_err(|error| unreadable(path, &pem::Error::Io(error), ""))
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
