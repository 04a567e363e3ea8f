//! Fetches one file over HTTP, with limits on time and size, and only from the given URL.
//!
//! Deliberately missing: redirects, which would let the response decide whom to trust; proxies;
//! caches; compression.

use crate::config::HttpUrl;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

/// A longer response is not a set of keys.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The maximum size of the head of a response.
const HEAD_BYTES_MAX: usize = 16 << 10;

const USER_AGENT: &str = concat!("widgets/", env!("CARGO_PKG_VERSION"));

/// A URL, and how to reach it.
pub(super) struct Source {
    url: HttpUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Source {
    /// Reads the certificates: those in `ca`, or else the system's.
    pub(super) fn new(url: HttpUrl, ca: Option<&Path>, timeout: Duration) -> Result<Self, String> {
        let tls = if url.is_secure() {
            let roots = match ca {
                Some(path) => {
                    widgets_tls::roots(path).map_err(|error| format!("auth.jwks_ca: {error}"))
                }
                None => widgets_tls::system_roots().map_err(|error| {
                    format!("auth.jwks_url: {error}: name some with auth.jwks_ca")
                }),
            };
            let mut config = widgets_tls::verified(roots?).map_err(|error| error.to_string())?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let name = ServerName::try_from(url.host().to_owned());
            let name = name.map_err(|error| format!("auth.jwks_url: {}: {error}", url.host()))?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(Self { url, tls, timeout })
    }

    pub(super) fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// Returns the content, if the response is 200 and arrives in time.
    pub(super) async fn fetch(&self) -> Result<String, String> {
        let answer = tokio::time::timeout(self.timeout, self.exchange()).await;
        let body = answer.map_err(|_| {
            let timeout = self.timeout.as_millis();
            format!("it took longer than auth.jwks_timeout_ms = {timeout}")
        })??;
        String::from_utf8(body.into()).map_err(|_| "the answer is not UTF-8".into())
    }

    async fn exchange(&self) -> Result<Bytes, String> {
        let stream = TcpStream::connect((self.url.host(), self.url.port())).await;
        let stream = stream.map_err(|error| format!("connecting failed: {error}"))?;
        match &self.tls {
            None => self.ask(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                let stream =
                    stream.map_err(|error| format!("TLS failed: {}", widgets_tls::text(&error)))?;
                self.ask(stream).await
            }
        }
    }

    async fn ask<I>(&self, stream: I) -> Result<Bytes, String>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken =
            |error: hyper::Error| format!("there was no answer: {}", widgets_tls::causes(&error));
        let request = Request::get(self.url.path_and_query())
            .header(header::HOST, self.url.authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with this call, also if it is cancelled.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        check_status(&response)?;
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect();
        let body = body.await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return format!("the answer has more than {BODY_BYTES_MAX} bytes");
            }
            format!("the answer broke off: {}", widgets_tls::causes(&*error))
        })?;
        Ok(body.to_bytes())
    }
}

fn check_status(response: &Response<Incoming>) -> Result<(), String> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    match response.headers().get(header::LOCATION) {
        Some(location) if status.is_redirection() => Err(format!(
            "the answer was {status} with a redirect to {location:?}, which is not followed: give \
             the URL of the keys themselves"
        )),
        _ => Err(format!("the answer was {status}")),
    }
}
