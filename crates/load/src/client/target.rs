//! Where requests are sent, and how a connection is made.

use crate::redacted;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 with connections kept alive, one request at a time on each.
    Http1,
    /// h2: over TLS by ALPN, over plain TCP by prior knowledge.
    Http2,
}

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct TargetSettings {
    /// `http://` or `https://`, a host, and optionally a port and a path that precedes every route.
    pub url: String,
    /// The version of HTTP.
    pub protocol: Protocol,
    /// A bearer token that is sent with every request.
    pub token: Option<String>,
    /// Certificates in PEM format to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether to trust any certificate.
    pub insecure: bool,
}

/// A URL without a scheme is treated as one of HTTP: `localhost:3000`.
fn with_scheme(url: &str) -> String {
    if url.contains("://") {
        url.into()
    } else {
        format!("http://{url}")
    }
}

/// Selects which of a name's addresses the next connection uses: all in turn, over all workers.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Connects to the address at `first`, or to the ones after it if that fails.
async fn connect_to_any(addresses: &[SocketAddr], first: usize) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("the name has no address");
    let turned = addresses
        .iter()
        .cycle()
        .skip(first % addresses.len().max(1));
    for address in turned.take(addresses.len()) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The maximum number of primaries' addresses, named by standbys, that are kept ready.
const PRIMARIES_MAX: usize = 8;

/// A server that can be connected to.
pub(crate) struct Target {
    settings: TargetSettings,
    /// The primaries that standbys named to lanes of this target. The certificates of each are read
    /// only once.
    primaries: RefCell<Vec<Rc<Target>>>,
    host: String,
    port: u16,
    protocol: Protocol,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The scheme, `http` or `https`, with the authority.
    origin: String,
    /// The path that precedes every route: empty, or with a leading slash and without a trailing
    /// one.
    path: String,
    authority: String,
    token: Option<String>,
}

impl Target {
    /// Checks the settings and reads the certificates.
    pub(crate) fn new(settings: &TargetSettings) -> Result<Self, String> {
        let url = &with_scheme(&settings.url);
        let wrong = |why: &str| format!("the URL {:?} {why}", redacted(url));
        let uri: http::Uri = url
            .parse()
            .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("must begin with http:// or https://")),
        };
        if uri.query().is_some() {
            return Err(wrong("must not have a query"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("must not hold a password: use --token"));
        }
        // An IPv6 address has brackets in a URL, but nowhere else.
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = widgets_client::port(&uri)?.unwrap_or(if secure { 443 } else { 80 });
        if let Some(token) = &settings.token
            && !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err("the token must be visible ASCII without spaces".into());
        }
        let tls = if secure {
            let name = ServerName::try_from(host.clone())
                .map_err(|error| wrong(&format!("has no valid host: {error}")))?;
            Some((TlsConnector::from(Arc::new(tls(settings)?)), name))
        } else {
            None
        };
        let scheme = if secure { "https" } else { "http" };
        Ok(Self {
            settings: settings.clone(),
            primaries: RefCell::default(),
            host,
            port,
            protocol: settings.protocol,
            tls,
            origin: format!("{scheme}://{authority}"),
            path: uri.path().trim_end_matches('/').to_owned(),
            authority: authority.to_string(),
            token: settings.token.clone(),
        })
    }

    /// Returns a target for the address that a standby names as its primary, with the same
    /// settings. The error says why it must not be used.
    pub(crate) fn primary(&self, address: &str) -> Result<Rc<Self>, String> {
        let mut primaries = self.primaries.borrow_mut();
        if let Some(known) = primaries.iter().find(|it| it.settings.url == address) {
            return Ok(known.clone());
        }
        // Requests, and above all a token, must not become readable on the way.
        if self.tls.is_some() && !address.starts_with("https://") {
            return Err(format!("{:?} is not of https", redacted(address)));
        }
        let target = Rc::new(Self::new(&TargetSettings {
            url: address.into(),
            ..self.settings.clone()
        })?);
        if primaries.len() == PRIMARIES_MAX {
            primaries.remove(0);
        }
        primaries.push(target.clone());
        Ok(target)
    }

    pub(crate) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Returns the URL's path, which precedes every route's.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the host and port as a request names them.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) async fn connect(&self) -> Result<Stream, String> {
        let failed = |error: io::Error| format!("connecting to {}: {error}", self.origin);
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port));
        let addresses: Vec<SocketAddr> = addresses.await.map_err(failed)?.collect();
        let first = NEXT.fetch_add(1, Ordering::Relaxed);
        let tcp = connect_to_any(&addresses, first).await.map_err(failed)?;
        // Each request is a single write, so waiting for more gains nothing.
        tcp.set_nodelay(true).map_err(failed)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let tls = connector
            .connect(name.clone(), tcp)
            .await
            .map_err(|error| {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
                if let Some(rustls::Error::InvalidMessage(_)) = cause {
                    let origin = &self.origin;
                    return format!(
                        "the server at {origin} does not speak TLS: is it http:// instead of \
                         https://?"
                    );
                }
                let why = widgets_tls::text(&error);
                let is_distrust = why.starts_with("invalid peer certificate");
                let hint = if is_distrust {
                    " (--ca FILE trusts another authority, --insecure any certificate)"
                } else {
                    ""
                };
                format!("TLS with {}: {why}{hint}", self.origin)
            })?;
        let agreed = tls.get_ref().1.alpn_protocol();
        if self.protocol == Protocol::Http2 && agreed != Some(b"h2") {
            return Err(format!("{} does not offer h2 (ALPN)", self.origin));
        }
        Ok(Stream::Tls(Box::new(tls)))
    }
}

fn tls(settings: &TargetSettings) -> Result<ClientConfig, String> {
    let config = if settings.insecure {
        widgets_tls::unverified()
    } else {
        widgets_tls::verified(roots(settings)?)
    };
    let mut config = config.map_err(|error| error.to_string())?;
    config.alpn_protocols = match settings.protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}

fn roots(settings: &TargetSettings) -> Result<RootCertStore, String> {
    if let Some(path) = &settings.ca {
        return widgets_tls::roots(path).map_err(|error| error.to_string());
    }
    widgets_tls::system_roots().map_err(|error| format!("{error}: name some with --ca"))
}

/// The byte stream of a connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn target(url: &str) -> Target {
        let settings = TargetSettings {
            url: url.into(),
            protocol: Protocol::Http1,
            token: Some("t".into()),
            ca: None,
            insecure: url.starts_with("https"),
        };
        Target::new(&settings).unwrap()
    }

    #[test]
    fn primaries_named_by_a_standby_are_cached_and_never_downgrade_tls() {
        let plain = target("http://standby:1");
        let primary = plain.primary("http://primary:2/api/").unwrap();
        assert_eq!(
            (primary.origin(), primary.path()),
            ("http://primary:2", "/api")
        );
        assert_eq!(primary.token(), Some("t"));
        let again = plain.primary("http://primary:2/api/").unwrap();
        assert!(Rc::ptr_eq(&primary, &again));
        for number in 1..=2 * PRIMARIES_MAX {
            plain.primary(&format!("http://primary:{number}")).unwrap();
        }
        assert_eq!(plain.primaries.borrow().len(), PRIMARIES_MAX);
        let why = plain.primary("nowhere at all").err().unwrap();
        assert!(why.contains("cannot be read"), "{why}");
        for port in ["0", "99999", "80abc", ""] {
            let why = plain.primary(&format!("http://primary:{port}"));
            let why = why.err().unwrap();
            assert!(why.starts_with("the port must be 1 to 65535, "), "{why}");
        }
        let secure = target("https://standby:1");
        let why = secure.primary("http://primary:2").err().unwrap();
        assert_eq!(why, "\"http://primary:2\" is not of https");
        assert!(secure.primary("https://primary:2").is_ok());
    }

    #[tokio::test]
    async fn every_address_of_a_host_is_used_and_unreachable_ones_are_skipped() {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            listeners.push(listener);
        }
        let peer = async |first| {
            let stream = connect_to_any(&addresses, first).await;
            stream.map(|stream| stream.peer_addr().unwrap())
        };
        for first in 0..6 {
            assert_eq!(peer(first).await.unwrap(), addresses[first % 3]);
        }
        drop(listeners.remove(1));
        assert_eq!(peer(1).await.unwrap(), addresses[2]);
        drop(listeners);
        assert!(peer(0).await.is_err());
        assert!(connect_to_any(&[], 5).await.is_err());
    }
}
