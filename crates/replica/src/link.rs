//! One request of a standby to its primary, and the frames of the response.
//!
//! If nothing arrives on a connection for [`SILENCE_MAX`], the standby gives it up: a primary sends
//! its end every second. Certificates and the token are read for each connection, so that new ones
//! take effect.

use crate::{
    Doing, Error, Incoming, Outside,
    wire::{Decoder, Frame, MEDIA_TYPE},
};
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt as _, Empty, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming as Body,
    client::conn::http1,
    header::{self, HeaderValue},
    http::request::Builder,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use widgets_engine::ADDRESS_BYTES_MAX;

/// After this long without a byte, the primary counts as gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The timeout for connecting, and for the head of the response.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longer bodies of errors are discarded.
const ERROR_BYTES_MAX: usize = 64 << 10;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("widgets/", env!("CARGO_PKG_VERSION")));

/// The address of a primary: `http://` or `https://`, a host, and optionally a port and a path
/// prefix for every route.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Uri);

/// Why a text is no address of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no URL of HTTP, or it has no host.
    #[error("it must be a URL as in https://primary:3000")]
    Form,
    /// It names a user or a password, which messages would show.
    #[error("it must not hold a user or a password: use replication.token_file")]
    User,
    /// Its port is not valid.
    #[error("its port must be 1 to 65535")]
    Port,
    /// It has a query.
    #[error("it must not have a query: it is the address that every route follows")]
    Query,
    /// It is longer than a store remembers.
    #[error("it has {0} bytes, and a store remembers at most {ADDRESS_BYTES_MAX}")]
    Length(usize),
}

impl Address {
    /// Returns the address if it has the scheme `http` or `https`, a host without a user, a valid port
    /// or none, and no query, and is not longer than a store remembers.
    pub fn new(uri: Uri) -> Result<Self, AddressError> {
        let of_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().filter(|_| of_http);
        let authority = authority.ok_or(AddressError::Form)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::User);
        }
        // The library takes a port that is not valid for a missing one.
        let has_port = authority.as_str() != authority.host();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(AddressError::Port);
        }
        if uri.query().is_some() {
            return Err(AddressError::Query);
        }
        let address = Self(uri);
        match address.to_string().len() {
            0..=ADDRESS_BYTES_MAX => Ok(address),
            bytes => Err(AddressError::Length(bytes)),
        }
    }

    fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Returns the host; an IPv6 address without its brackets.
    fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    fn port(&self) -> u16 {
        self.0
            .port_u16()
            .unwrap_or(if self.is_secure() { 443 } else { 80 })
    }

    fn target(&self, rest: &str) -> String {
        let path = self.0.path().trim_end_matches('/');
        format!("{path}/replication{rest}")
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::new(text.parse().map_err(|_| AddressError::Form)?)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.trim_end_matches('/'))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a standby authenticates, and whom it trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// A file with a bearer token for a role that may administer the primary.
    pub token_file: Option<PathBuf>,
    /// A file with certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The files of a client certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A primary, and how to connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Its address.
    pub address: Address,
    /// The credentials to present there.
    pub credentials: Credentials,
}

impl Credentials {
    /// Reads every file, so that a start can report what is wrong with one: also that of a primary,
    /// which needs them once it becomes a standby.
    pub fn check(&self, primary: Option<&Address>) -> Result<(), Error> {
        self.authorization()?;
        let names_certificates = self.ca.is_some() || self.certificate.is_some();
        if names_certificates || primary.is_some_and(Address::is_secure) {
            self.connector()?;
        }
        Ok(())
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let failed =
            |why: String| Error::Credentials(format!("the token in {}: {why}", path.display()));
        let bytes = widgets_files::read_file(path).map_err(|error| failed(error.to_string()))?;
        let token = String::from_utf8_lossy(&bytes);
        let token = token.trim();
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = is_token.then(|| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let mut value = value.flatten().ok_or_else(|| {
            failed("it must be visible ASCII without spaces, and not empty".into())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn connector(&self) -> Result<TlsConnector, Error> {
        let failed = |error: widgets_tls::Error| Error::Credentials(error.to_string());
        let roots = match &self.ca {
            Some(path) => widgets_tls::roots(path),
            None => widgets_tls::system_roots(),
        };
        let roots = roots.map_err(failed)?;
        let config = match &self.certificate {
            None => widgets_tls::verified(roots),
            Some((certificate, key)) => widgets_tls::certified(roots, certificate, key),
        };
        let mut config = config.map_err(failed)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The body of a request.
type Sent = UnsyncBoxBody<Bytes, Infallible>;

fn nothing() -> Sent {
    Empty::new().boxed_unsync()
}

/// Returns an endless body that contains the newest report each time it changes.
fn reported(reports: watch::Receiver<u64>) -> Sent {
    let next = |mut reports: watch::Receiver<u64>| async move {
        reports.changed().await.ok()?;
        let bytes = reports.borrow_and_update().to_le_bytes();
        let piece = Bytes::copy_from_slice(&bytes);
        Some((Ok(hyper::body::Frame::data(piece)), reports))
    };
    StreamBody::new(unfold(reports, next)).boxed_unsync()
}

impl Primary {
    /// Asks for a stream, and sends `reports`, if given, as they change.
    pub(crate) async fn ask(
        &self,
        query: &str,
        reports: Option<watch::Receiver<u64>>,
    ) -> Result<Box<dyn Incoming>, Error> {
        let target = self.address.target(&format!("?{query}"));
        let (request, body) = match reports {
            None => (Request::get(target), nothing()),
            Some(reports) => (Request::post(target), reported(reports)),
        };
        let request = request.header(header::ACCEPT, MEDIA_TYPE);
        let (driver, response) = self.answer(request, body).await?;
        let is_ours = response.headers().get(header::CONTENT_TYPE)
            == Some(&HeaderValue::from_static(MEDIA_TYPE));
        if !is_ours {
            return Err(Error::Answered {
                status: StatusCode::OK.as_u16(),
                why: format!("not {MEDIA_TYPE}: is this the address of a service of this version?"),
            });
        }
        let body = response.into_body();
        Ok(Box::new(Answer {
            _driver: driver,
            body,
        }))
    }

    /// Sends a request: `call` is one segment below `/replication`, with its query.
    pub(crate) async fn tell(&self, call: &str) -> Result<(), Error> {
        let request = Request::post(self.address.target(&format!("/{call}")));
        self.answer(request, nothing()).await?;
        Ok(())
    }

    /// Sends a request and returns the response if it is a success.
    async fn answer(
        &self,
        request: Builder,
        body: Sent,
    ) -> Result<(JoinSet<()>, Response<Body>), Error> {
        let asked = timeout(CONNECT_TIME_MAX, self.connect(request, body));
        let late = |_| {
            let seconds = CONNECT_TIME_MAX.as_secs();
            Error::Unreachable(format!("there was no answer within {seconds} s"))
        };
        let (driver, response) = asked.await.map_err(late)??;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok((driver, response));
        }
        let body = Limited::new(response.into_body(), ERROR_BYTES_MAX);
        let body = timeout(CONNECT_TIME_MAX, body.collect()).await;
        let body = body.ok().and_then(Result::ok);
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        Err(Error::Answered {
            status: status.as_u16(),
            why: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    async fn connect(
        &self,
        request: Builder,
        body: Sent,
    ) -> Result<(JoinSet<()>, Response<Body>), Error> {
        let address = &self.address;
        let stream = TcpStream::connect((address.host(), address.port())).await;
        let stream = stream.map_err(|error| Error::Unreachable(error.to_string()))?;
        // Each group is waited for, so it must be sent without delay.
        drop(stream.set_nodelay(true));
        if !address.is_secure() {
            return self.send(stream, request, body).await;
        }
        let connector = self.credentials.connector()?;
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|error| Error::Credentials(format!("{address}: {error}")))?;
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| {
            let why = widgets_tls::text(&error);
            Error::Unreachable(format!("TLS failed: {why}"))
        })?;
        self.send(stream, request, body).await
    }

    async fn send<I>(
        &self,
        stream: I,
        request: Builder,
        body: Sent,
    ) -> Result<(JoinSet<()>, Response<Body>), Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| Error::Unreachable(widgets_tls::causes(&error));
        let authority = self.address.0.authority().map_or("", |it| it.as_str());
        let mut request = request
            .header(header::HOST, authority)
            .header(header::USER_AGENT, USER_AGENT)
            .body(body)
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        if let Some(authorization) = self.credentials.authorization()? {
            let headers = request.headers_mut();
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Dropping the set ends the connection.
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((driver, response))
    }
}

/// A primary's response over HTTP.
struct Answer {
    _driver: JoinSet<()>,
    body: Body,
}

impl Incoming for Answer {
    fn next(&mut self) -> Doing<'_, Result<Bytes, Error>> {
        Box::pin(async {
            loop {
                let piece = self.body.frame().await;
                let piece = piece.ok_or_else(|| Error::Ended("it was closed".into()))?;
                let piece = piece.map_err(|error| Error::Ended(widgets_tls::causes(&error)))?;
                if let Ok(data) = piece.into_data() {
                    return Ok(data);
                }
            }
        })
    }
}

/// The frames of a response as they arrive.
pub(crate) struct Frames {
    outside: Arc<dyn Outside>,
    incoming: Box<dyn Incoming>,
    decoder: Decoder,
}

impl Frames {
    /// Asks a primary for a stream whose groups have at most `group_bytes_max` bytes.
    pub(crate) async fn ask(
        outside: &Arc<dyn Outside>,
        primary: &Primary,
        query: &str,
        reports: Option<watch::Receiver<u64>>,
        group_bytes_max: u64,
    ) -> Result<Self, Error> {
        let incoming = outside.ask(primary, query, reports).await?;
        Ok(Self {
            outside: outside.clone(),
            incoming,
            decoder: Decoder::new(group_bytes_max),
        })
    }

    /// Returns the next frame.
    pub(crate) async fn next(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.decoder.next().map_err(Error::Wire)? {
                return Ok(frame);
            }
            let silence = self.outside.clock().timer(SILENCE_MAX);
            let piece = tokio::select! {
                biased;
                piece = self.incoming.next() => piece?,
                () = silence => {
                    let seconds = SILENCE_MAX.as_secs();
                    return Err(Error::Ended(format!("nothing came for {seconds} s")));
                }
            };
            self.decoder.push(&piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_a_regular_file_only() {
        let credentials = Credentials {
            token_file: Some("/dev/zero".into()),
            ..Credentials::default()
        };
        let error = credentials.check(None).expect_err("it never ends");
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn addresses_are_checked_for_scheme_user_port_query_and_length() {
        let of_length = |bytes: usize| format!("http://primary/{}", "a".repeat(bytes - 15));
        for (text, outcome) in [
            ("https://primary:3000", Ok(())),
            ("http://primary/prefix/", Ok(())),
            (&of_length(ADDRESS_BYTES_MAX), Ok(())),
            (&of_length(1025), Err(AddressError::Length(1025))),
            (&of_length(15_000), Err(AddressError::Length(15_000))),
            ("http://primary/?a=b", Err(AddressError::Query)),
            ("ftp://primary", Err(AddressError::Form)),
            ("primary:3000", Err(AddressError::Form)),
            ("http://[::1]:3000", Ok(())),
            ("http://me:secret@primary", Err(AddressError::User)),
            ("https://me@primary:3000", Err(AddressError::User)),
            ("http://me:secret@primary:0", Err(AddressError::User)),
            ("http://primary:0", Err(AddressError::Port)),
            ("http://primary:65536/prefix", Err(AddressError::Port)),
            ("https://primary:", Err(AddressError::Port)),
            ("https://primary:80abc", Err(AddressError::Port)),
            ("", Err(AddressError::Form)),
        ] {
            let address = text.parse::<Address>();
            assert_eq!(address.map(|_| ()), outcome, "{text}");
        }
        let told = AddressError::Length(1025).to_string();
        assert!(told.contains("1025") && told.contains("1024"), "{told}");
    }
}
