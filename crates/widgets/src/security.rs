//! Decides who gets in and which certificates are used, from the configuration, and reloads the
//! files.

use crate::{
    config::{Auth, Http},
    jwks::Jwks,
    metrics::Certificates,
};
use prometheus::Registry;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::signal::unix::Signal;
use widgets_files::read_file;
use widgets_server::{Authentication, BrowserSettings, KeySet, Tls, Watch};

/// How often the files are checked.
const PERIOD: Duration = Duration::from_secs(5);

/// Everything that decides who gets in.
pub(crate) struct Security {
    pub(crate) authentication: Arc<Authentication>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// Which web pages may send requests.
    pub(crate) browsers: BrowserSettings,
    /// The file with the keys that verify tokens.
    keys: Option<(PathBuf, Mutex<Watch>)>,
    /// The keys that are fetched, until the task that fetches them takes this.
    pub(crate) jwks: Option<Jwks>,
    certificates: Certificates,
}

impl Security {
    /// Reads every file that the configuration names. Fetches nothing yet.
    pub(crate) fn load(http: &Http, auth: &Auth) -> Result<Self, String> {
        let tls = match http.tls_files() {
            None => None,
            Some(files) => {
                let tls = Tls::load(files).map_err(|error| format!("http.tls: {error}"))?;
                Some(Arc::new(tls))
            }
        };
        // The watch begins before the file is read, so a change after that is noticed.
        let keys = auth.jwt_secret_file.clone();
        let keys = keys.map(|path| (path.clone(), Mutex::new(Watch::new(vec![path]))));
        let key_set = match (&auth.jwt_secret.0, &keys) {
            (Some(secret), _) => Some(auth_error("jwt_secret", KeySet::parse(secret))?),
            (None, Some((path, _))) => Some(read_keys(path)?),
            (None, None) => None,
        };
        let jwks = auth.jwks_url.clone().map(|url| Jwks::new(url, auth));
        let jwks = jwks.transpose()?;
        let authentication = match &jwks {
            Some(jwks) => jwks.authentication(),
            None if auth.is_on() => Authentication::new(auth.settings(), key_set).into(),
            None => Authentication::off().into(),
        };
        let certificates = Certificates::new([
            ("http.tls_certificate", http.tls_certificate.clone()),
            ("http.tls_client_ca", http.tls_client_ca.clone()),
            ("auth.jwks_ca", auth.jwks_ca.clone()),
        ]);
        Ok(Self {
            authentication,
            tls,
            browsers: auth.browsers(http),
            keys,
            jwks,
            certificates: certificates.map_err(|error| error.to_string())?,
        })
    }

    /// Registers the metrics of keys and certificates.
    pub(crate) fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()> {
        if let Some(jwks) = &self.jwks {
            jwks.register_metrics(registry)?;
        }
        self.certificates.register(registry)
    }

    /// Checks the files periodically and at every SIGHUP, and takes what is new. If a file is
    /// unusable, the previous content stays in use, and the file is tried again at each check. It
    /// is reported once for each change and each reason.
    pub(crate) async fn keep_fresh(self, mut hang_up: Signal) {
        let this = Arc::new(self);
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            let forced = tokio::select! {
                _ = ticks.tick() => false,
                _ = hang_up.recv() => true,
            };
            let this = this.clone();
            // A panic was reported already, and the next attempt may succeed.
            drop(tokio::task::spawn_blocking(move || this.refresh(forced)).await);
        }
    }

    fn refresh(&self, forced: bool) {
        if let Some(tls) = &self.tls {
            match tls.reload(forced) {
                Ok(true) => {
                    self.certificates.read();
                    tracing::info!("new certificates are in use");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the new certificates cannot be used: the previous \
                    ones stay in use");
                }
            }
        }
        if let Some((path, watch)) = &self.keys {
            let loaded = {
                let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
                watch.load(forced, || read_keys(path))
            };
            match loaded {
                None => {}
                Some(Ok(keys)) => {
                    tracing::info!(keys = keys.len(), "new keys for tokens are in use");
                    self.authentication.replace_keys(keys);
                }
                Some(Err(error)) => {
                    tracing::error!(
                        error,
                        "the new keys cannot be used: the previous ones stay in use"
                    );
                }
            }
        }
    }
}

/// Reads the keys in a file. It may end with a newline, which editors add.
fn read_keys(path: &Path) -> Result<KeySet, String> {
    let broken = |what: String| format!("auth.jwt_secret_file: {}: {what}", path.display());
    let bytes = read_file(path).map_err(|error| broken(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        broken(
            "it is not text: give a key as a JWK or a JWKS, a secret as text that is random".into(),
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let keys = KeySet::parse(text).map_err(|error| broken(error.to_string()))?;
    if keys.unusable() > 0 {
        let path = path.display();
        tracing::warn!(%path, unusable = keys.unusable(), "some keys cannot be used and are \
        ignored");
    }
    Ok(keys)
}

fn auth_error<T>(key: &str, result: Result<T, impl std::fmt::Display>) -> Result<T, String> {
    result.map_err(|error| format!("auth.{key}: {error}"))
}
