//! How the service is reached: its address, whom we trust, who we are, and how long we wait.

use crate::{
    Error,
    answer::{Answer, Asked},
    primary::Known,
};
use rustls::crypto::ring;
use std::{path::PathBuf, sync::Arc, thread, time::Duration};
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

/// How to reach the service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://` or `https://`, a host, and perhaps a port and a path to put before every route.
    /// `http://` may be left out.
    pub url: String,
    /// A bearer token to send with every request.
    pub token: Option<String>,
    /// Certificates to trust instead of the system's, in PEM.
    pub ca: Option<PathBuf>,
    /// Trust any certificate.
    pub insecure: bool,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// So often a read is asked altogether, when the service cannot be reached or says "later".
const READ_ATTEMPTS: u32 = 4;

/// The longest wait between two attempts, whatever the service asks for.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// A way to ask one service. It keeps its connection for the next request.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) agent: Agent,
    /// Without a slash at its end.
    pub(crate) base: String,
    authorization: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) known: Known,
}

impl Client {
    /// Checks the settings and reads the certificates. It asks nothing yet.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let (base, secure) = base(&settings.url)?;
        if let Some(token) = &settings.token
            && (token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let why = "the token must be visible ASCII without spaces, and not empty";
            return Err(Error::Settings(why.into()));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("widgets/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(settings, secure)?)
            .build();
        Ok(Self {
            agent: config.new_agent(),
            base,
            authorization: settings
                .token
                .as_ref()
                .map(|token| format!("Bearer {token}")),
            timeout: settings.timeout,
            known: Known::default(),
        })
    }

    /// Asks for something that changes nothing, again where nobody answered or the answer is "later".
    pub(crate) fn read(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            let outcome = self.once(asked).and_then(Answer::success);
            let wait = match &outcome {
                Err(Error::Unreachable { .. }) => Duration::from_millis(250) * attempt,
                Err(Error::Unavailable(refusal)) => {
                    Duration::from_secs(refusal.retry_after_seconds.unwrap_or(1).into())
                }
                _ => return outcome,
            };
            if attempt == READ_ATTEMPTS {
                return outcome;
            }
            thread::sleep(wait.min(RETRY_WAIT_MAX));
            attempt += 1;
        }
    }

    /// Asks once, whatever comes of it.
    pub(crate) fn once(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        self.once_at(&self.base, asked)
    }

    /// Asks the service whose routes come after this once, whatever comes of it.
    pub(crate) fn once_at(&self, base: &str, asked: &Asked<'_>) -> Result<Answer, Error> {
        let url = format!("{base}{}", asked.target);
        let timeout = self.timeout + asked.wait;
        let sent = if let Some(body) = asked.body {
            let mut request = self
                .agent
                .post(&url)
                .config()
                .timeout_global(Some(timeout))
                .build()
                .header("Content-Type", "application/json");
            for (name, value) in asked.headers.iter().copied().chain(self.authorization()) {
                request = request.header(name, value);
            }
            request.send(body)
        } else {
            let mut request = if asked.head {
                self.agent.head(&url)
            } else {
                self.agent.get(&url)
            }
            .config()
            .timeout_global(Some(timeout))
            .build();
            for (name, value) in asked.headers.iter().copied().chain(self.authorization()) {
                request = request.header(name, value);
            }
            request.call()
        };
        Answer::read(url, sent)
    }

    /// The URL before every route, without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn authorization(&self) -> Option<(&str, &str)> {
        self.authorization
            .as_deref()
            .map(|value| ("Authorization", value))
    }
}

/// The URL before every route, without a slash at its end, and whether it is for TLS.
pub(crate) fn base(url: &str) -> Result<(String, bool), Error> {
    let wrong = |why: &str| Error::Settings(format!("the URL {url:?} {why}"));
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let uri: ureq::http::Uri = full
        .parse()
        .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("must begin with http:// or https://")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
    if authority.host().is_empty() {
        return Err(wrong("names no host"));
    }
    if authority.as_str().contains('@') {
        return Err(Error::Settings(
            "the URL must not hold a password: give a token in a file".into(),
        ));
    }
    if uri.query().is_some() {
        return Err(wrong("must not have a query"));
    }
    Ok((full.trim_end_matches('/').to_owned(), secure))
}

fn tls(settings: &Settings, secure: bool) -> Result<TlsConfig, Error> {
    let given = [
        ("--ca", settings.ca.is_some()),
        ("--insecure", settings.insecure),
    ];
    if let Some((flag, _)) = given.iter().find(|(_, given)| *given && !secure) {
        return Err(Error::Settings(format!(
            "{flag} needs a URL that begins with https://, {:?} was given",
            settings.url
        )));
    }
    let builder = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .disable_verification(settings.insecure);
    let trusted = match &settings.ca {
        // Nobody is trusted before a certificate has to be looked at.
        _ if settings.insecure || !secure => Ok(Vec::new()),
        Some(path) => widgets_tls::certificates(path),
        None => widgets_tls::system_certificates(),
    };
    let roots: Vec<Certificate<'static>> = trusted
        .map_err(|error| Error::Settings(error.to_string()))?
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    Ok(builder
        .root_certs(RootCerts::new_with_certs(&roots))
        .build())
}

#[cfg(test)]
mod tests {
    use super::base;

    #[test]
    fn a_url_may_leave_out_http_and_may_have_a_path() {
        for (given, base_url, secure) in [
            ("localhost:3000", "http://localhost:3000", false),
            ("http://h:1/", "http://h:1", false),
            ("https://h/api/", "https://h/api", true),
            ("[::1]:3000", "http://[::1]:3000", false),
        ] {
            let base = base(given).map_err(|error| error.to_string());
            assert_eq!(base, Ok((base_url.into(), secure)));
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_with_the_reason() {
        for (given, why) in [
            ("ftp://h", "must begin with http:// or https://"),
            ("http://h?x=1", "must not have a query"),
            ("http://me:secret@h", "must not hold a password"),
            ("http://", "cannot be read"),
        ] {
            let error = base(given).expect_err(given).to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
