//! How to reach the service: its address, the certificates to trust, the credentials to send, and
//! the timeout.

use crate::{
    Error,
    answer::{Answer, Asked},
    primary::Known,
};
use rustls::crypto::ring;
use std::{path::PathBuf, sync::Arc, thread, time::Duration};
use ureq::{
    Agent,
    http::{Uri, uri::Authority},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// How to reach the service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://` or `https://`, a host, and optionally a port and a path prefix for every route.
    /// `http://` may be omitted.
    pub url: String,
    /// A bearer token to send with every request.
    pub token: Option<String>,
    /// A PEM file with the certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether to trust any certificate.
    pub insecure: bool,
    /// The timeout of one request.
    pub timeout: Duration,
}

/// The maximum number of attempts for a read, if the service cannot be reached or answers "later".
const READ_ATTEMPTS: u32 = 4;

/// With a shorter timeout, every request would be given up before it is sent.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The longest pause between two attempts, whatever the service asks for.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// A client of one service. It keeps its connection for the next request.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) agent: Agent,
    /// Without a trailing slash.
    pub(crate) base: String,
    authorization: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) known: Known,
}

impl Client {
    /// Checks the settings and reads the certificates. Sends nothing yet.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let (base, secure) = base(&settings.url)?;
        if let Some(token) = &settings.token
            && (token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let why = "the token must be visible ASCII without spaces, and not empty";
            return Err(Error::Settings(why.into()));
        }
        if settings.timeout < TIMEOUT_MIN {
            return Err(Error::Settings(format!(
                "the timeout must be at least {TIMEOUT_MIN:?}, {:?} was given",
                settings.timeout
            )));
        }
        // If the library gave up only when the whole time is over, it could not tell that nothing
        // was sent.
        let connecting = Some(settings.timeout / 2);
        let config = Agent::config_builder()
            .timeout_resolve(connecting)
            .timeout_connect(connecting)
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

    /// Sends a request that changes nothing, and repeats it if the service cannot be reached or
    /// answers "later".
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

    /// Sends a request once, whatever the outcome.
    pub(crate) fn once(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        self.once_at(&self.base, asked)
    }

    /// Sends a request once to the service with this base URL, whatever the outcome.
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

    /// Returns the base URL for every route, without a trailing slash.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn authorization(&self) -> Option<(&str, &str)> {
        self.authorization
            .as_deref()
            .map(|value| ("Authorization", value))
    }
}

/// Returns the base URL for every route, without a trailing slash, and whether it uses TLS.
pub(crate) fn base(url: &str) -> Result<(String, bool), Error> {
    let wrong = |why: &str| Error::Settings(format!("the URL {url:?} {why}"));
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let uri: Uri = full
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
    port(&uri).map_err(Error::Settings)?;
    if uri.query().is_some() {
        return Err(wrong("must not have a query"));
    }
    Ok((full.trim_end_matches('/').to_owned(), secure))
}

/// Returns the port that a URL names, if it names one.
///
/// The library takes a port that is not valid for a missing one. A request, with its token, would
/// then go to port 80 or 443.
pub fn port(url: &Uri) -> Result<Option<u16>, String> {
    let authority = url.authority().map_or("", Authority::as_str);
    let address = authority.rsplit('@').next().unwrap_or_default();
    let rest = address.strip_prefix(url.host().unwrap_or_default());
    let rest = rest.unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let digits = rest.strip_prefix(':');
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse::<u16>().ok());
    port.filter(|&port| port != 0).map(Some).ok_or_else(|| {
        let given = match rest.trim_start_matches(':') {
            "" => "none",
            given => given,
        };
        format!("the port must be 1 to 65535, {given} was given")
    })
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
        // No certificate will be checked, so none needs to be trusted.
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
    fn a_url_may_omit_the_scheme_and_include_a_path() {
        for (given, base_url, secure) in [
            ("localhost:3000", "http://localhost:3000", false),
            ("http://h:1/", "http://h:1", false),
            ("https://h/api/", "https://h/api", true),
            ("[::1]:3000", "http://[::1]:3000", false),
            ("https://[::1]", "https://[::1]", true),
            ("h:65535", "http://h:65535", false),
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
            ("http://h:0", "the port must be 1 to 65535, 0 was given"),
            ("h:300000", "the port must be 1 to 65535, 300000 was given"),
            ("https://h:65536/api", "65536 was given"),
            ("http://h:80abc", "80abc was given"),
            ("http://h:+80", "+80 was given"),
            ("http://h:", "none was given"),
            ("http://[::1]:99999", "99999 was given"),
            ("http://[::1]80", "80 was given"),
            ("http://me:secret@h:99999", "must not hold a password"),
        ] {
            let error = base(given).expect_err(given).to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
