//! The client: a lane's connection to the server, over HTTP/1.1 or h2, plain or TLS.
//!
//! Built for load: a request is prepared in memory and written with one system call, and its answer
//! is parsed in place. `docs/decisions/0006-lean-load-client.md` has the figures behind that.

mod http1;
mod http2;
mod target;

pub(crate) use http1::Http1;
pub(crate) use http2::Http2;
pub(crate) use target::Target;
pub use target::{Protocol, TargetSettings};

use serde::Deserialize;
use std::{borrow::Cow, rc::Rc, time::Duration};
use tokio::time::timeout;

/// The parts of a request that differ between requests.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// The path below the target's, with a leading slash.
    pub(crate) path: String,
    /// The body of a POST; `None` for a GET.
    pub(crate) body: Option<Vec<u8>>,
    /// The idempotency key of a POST. Empty if there is none.
    pub(crate) key: String,
}

/// An answer. The lane keeps its body until the next exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// The members of an error on which callers branch.
#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    details: Option<Cow<'a, str>>,
}

impl<'a> Response<'a> {
    /// Returns the code in an error's body, if it has the service's format.
    pub(crate) fn code(&self) -> Option<Cow<'a, str>> {
        let body: ErrorBody<'a> = serde_json::from_slice(self.body).ok()?;
        Some(body.code)
    }

    /// Returns the address of the primary, if this is a standby's answer to an operation.
    pub(crate) fn primary(&self) -> Option<Cow<'a, str>> {
        if self.status != 503 {
            return None;
        }
        let body: ErrorBody<'a> = serde_json::from_slice(self.body).ok()?;
        body.details.filter(|_| body.code == "WG507")
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whether the server cannot have seen the request.
    pub(crate) unsent: bool,
    /// Whether the timeout passed.
    pub(crate) timeout: bool,
    pub(crate) cause: String,
}

impl Failure {
    pub(crate) fn unsent(cause: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self {
            unsent: true,
            timeout: false,
            cause: cause.into().to_string(),
        }
    }

    fn lost(cause: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self {
            unsent: false,
            timeout: false,
            cause: cause.into().to_string(),
        }
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        Self {
            unsent: false,
            timeout: true,
            cause: format!("no answer within {after:?}"),
        }
    }
}

/// A lane's way to the server. It connects when needed.
pub(crate) enum Channel {
    Http1(Box<Http1>),
    Http2(Http2),
}

impl Channel {
    /// Ensures that there is a connection, which may take as long as `limit`. Returns whether it had
    /// to be opened in place of an earlier one. The error says why there is none.
    pub(crate) async fn connect(&mut self, limit: Duration) -> Result<bool, String> {
        match self {
            Self::Http1(http1) => http1.connect(limit).await,
            Self::Http2(http2) => http2.connect(limit).await,
        }
    }

    /// Returns where requests are sent.
    pub(crate) fn target(&self) -> Rc<Target> {
        match self {
            Self::Http1(http1) => http1.target().clone(),
            Self::Http2(http2) => http2.target(),
        }
    }

    /// Sends all further requests to this target.
    pub(crate) fn move_to(&mut self, target: Rc<Target>) {
        match self {
            Self::Http1(http1) => http1.move_to(target),
            Self::Http2(http2) => http2.move_to(&target),
        }
    }

    /// Sends a request and waits for its answer until the timeout.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response<'_>, Failure> {
        match self {
            Self::Http1(http1) => http1.exchange(request, timeout).await,
            Self::Http2(http2) => http2.exchange(request, timeout).await,
        }
    }
}

/// Gives up an attempt to connect after `limit`. The system would wait for minutes, and TLS with a
/// stopped server would wait for ever.
async fn within<T>(
    limit: Duration,
    target: &Target,
    connecting: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let connected = timeout(limit, connecting).await;
    connected.unwrap_or_else(|_| {
        let origin = target.origin();
        Err(format!(
            "connecting to {origin}: no connection within {limit:?}"
        ))
    })
}

/// Returns the lanes of one connection: one over HTTP/1.1, `streams` over h2.
pub(crate) fn channels(target: &Rc<Target>, streams: usize) -> Vec<Channel> {
    match target.protocol() {
        Protocol::Http1 => vec![Channel::Http1(Box::new(Http1::new(target.clone())))],
        Protocol::Http2 => {
            let lanes = Http2::lanes(target.clone(), streams);
            lanes.into_iter().map(Channel::Http2).collect()
        }
    }
}
