//! Sends requests over HTTP and reads the responses.

use crate::{Error, Refusal};
use serde::de::DeserializeOwned;
use std::{io, time::Duration};
use ureq::{Body, Timeout, http::Response};

/// The maximum size of a response. The service's pages are bounded, so a larger one does not come
/// from it.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The shortest pause before another attempt. The service never asks for a shorter one, and no
/// other server may.
const RETRY_AFTER_SECONDS_MIN: u32 = 1;

/// One request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// The path with its query, escaped.
    pub(crate) target: &'a str,
    /// The body of a POST; `None` for other methods.
    pub(crate) body: Option<&'a str>,
    /// Whether only the headers of the response are wanted.
    pub(crate) head: bool,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// How long the service was asked to wait for something new.
    pub(crate) wait: Duration,
}

/// Returns whether the request may have reached the service, as far as the error shows.
fn may_have_been_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => {
            let unreached = matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
            );
            let no_tls = of_tls(error).is_some_and(|error| {
                speaks_no_tls(error) || matches!(error, rustls::Error::InvalidCertificate(_))
            });
            !(unreached || no_tls || is_lookup(error))
        }
        ureq::Error::Timeout(phase) => !matches!(phase, Timeout::Resolve | Timeout::Connect),
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_) => false,
        _ => true,
    }
}

/// Returns the TLS error, if it is one.
fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Returns whether the response to the first message of TLS was not TLS.
fn speaks_no_tls(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)
    )
}

/// Returns whether the host name has no address. The standard library gives no other sign of it.
fn is_lookup(error: &io::Error) -> bool {
    error
        .to_string()
        .starts_with("failed to lookup address information")
}

/// Describes what happened, in words for people.
fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::HostNotFound => "there is no such host".into(),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "nobody listens there (connection refused)".into()
        }
        ureq::Error::Io(error) if of_tls(error).is_some_and(speaks_no_tls) => NO_TLS.into(),
        ureq::Error::Rustls(error) if speaks_no_tls(error) => NO_TLS.into(),
        ureq::Error::Io(error) if is_lookup(error) => "there is no such host".into(),
        ureq::Error::Io(error) => widgets_tls::text(error),
        ureq::Error::Rustls(error) => widgets_tls::text(error),
        error => error.to_string(),
    }
}

const NO_TLS: &str = "what answers there does not speak TLS: is it http:// instead of https://?";

/// A response with any status.
#[derive(Debug)]
pub(crate) struct Answer {
    url: String,
    status: u16,
    pub(crate) text: String,
    response: Response<()>,
}

impl Answer {
    pub(crate) fn read(
        url: String,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<Self, Error> {
        let unreachable = |url: &str, error: ureq::Error| Error::Unreachable {
            url: url.into(),
            why: why(&error),
            sent: may_have_been_sent(&error),
        };
        let (parts, mut body) = sent.map_err(|error| unreachable(&url, error))?.into_parts();
        let text = body
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| unreachable(&url, error))?;
        Ok(Self {
            url,
            status: parts.status.as_u16(),
            text,
            response: Response::from_parts(parts, ()),
        })
    }

    /// Returns the response if it is a success, and otherwise the refusal as an error. The caller
    /// reads the body, which shows whether the service wrote it.
    pub(crate) fn success(self) -> Result<Self, Error> {
        if matches!(self.status, 200 | 204 | 206) {
            return Ok(self);
        }
        Err(self.refusal())
    }

    /// Succeeds if the response says that an operation was applied. It has no body, so only the
    /// status shows that the service wrote it: 200 is what any other server answers.
    pub(crate) fn applied(self) -> Result<(), Error> {
        match self.status {
            204 => Ok(()),
            status @ 200..=299 => Err(self.odd(&format!(
                "the status must be 204, it is {status}: is this the address of the service?"
            ))),
            _ => Err(self.refusal()),
        }
    }

    fn refusal(&self) -> Error {
        let mut refusal = Refusal::read(self.status, &self.text);
        // If 0 were accepted, the client could retry endlessly without a pause.
        refusal.retry_after_seconds = self
            .header("Retry-After")
            .and_then(|text| text.parse().ok())
            .map(|seconds: u32| seconds.max(RETRY_AFTER_SECONDS_MIN));
        match self.status {
            _ if refusal.code == "WG505" => Error::FateUnknown(refusal.to_string()),
            429 | 502 | 503 | 504 => Error::Unavailable(refusal),
            _ => Error::Refused(refusal),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.text).map_err(|error| self.odd(&error.to_string()))
    }

    pub(crate) fn odd(&self, why: &str) -> Error {
        Error::Odd {
            url: self.url.clone(),
            why: why.into(),
        }
    }
}
