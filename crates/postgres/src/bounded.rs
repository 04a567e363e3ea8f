//! The stream of a connection, which fails if its server sends more than a PostgreSQL server does.
//!
//! The library buffers a message until it is complete, whatever length the message claims, and keeps
//! all notices that arrive before the server is ready. A false server could use any amount of memory.
//! So the stream reads the type and the length of each message as it passes.
//!
//! The library lets others provide a stream only for TLS. So each TCP host is configured for TLS
//! without negotiation (`sslnegotiation=direct`), and what the library takes for TLS is this stream,
//! which negotiates by itself, as `sslmode` says. PostgreSQL has no TLS on Unix sockets, which lead to
//! no strangers: they remain the library's.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_postgres::{
    Config, Socket,
    config::{Host, SslMode, SslNegotiation},
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The longest message that is accepted. Ours have a few MiB at most.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// All that a server may send before it is ready: some kilobytes are usual.
const BEGINNING_BYTES_MAX: usize = 1 << 20;

/// A client's request for TLS (`SSLRequest` in PostgreSQL's documentation).
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The server's answer if it has TLS.
const TLS_FOLLOWS: u8 = b'S';

type MakeTls = MakeRustlsConnect;
type Tls = <MakeTls as MakeTlsConnect<Socket>>::Stream;

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    Never,
    IfOffered,
    Always,
    /// Always, and without asking the server first (`sslnegotiation=direct`).
    AtOnce,
}

impl Encryption {
    /// Returns what the configuration wants, or what is wrong with it.
    pub(crate) fn of(config: &Config) -> Result<Self, &'static str> {
        match (config.get_ssl_mode(), config.get_ssl_negotiation()) {
            (SslMode::Disable, _) => Ok(Self::Never),
            (SslMode::Require, SslNegotiation::Direct) => Ok(Self::AtOnce),
            (_, SslNegotiation::Direct) => {
                Err("has sslnegotiation=direct, which needs sslmode=require or verify-full")
            }
            (SslMode::Require, _) => Ok(Self::Always),
            _ => Ok(Self::IfOffered),
        }
    }
}

/// Makes the library use our stream for the host of this configuration, unless it is a Unix socket.
pub(crate) fn bound(host: &mut Config) {
    if let (None, Some(address)) = (host.get_hosts().first(), host.get_hostaddrs().first()) {
        // TLS needs a name.
        host.host(address.to_string());
    }
    if let Some(Host::Tcp(_)) = host.get_hosts().first() {
        host.ssl_mode(SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
    }
}

/// Makes the streams of connections.
#[derive(Clone)]
pub(crate) struct Bounded {
    tls: MakeTls,
    encryption: Encryption,
}

impl Bounded {
    pub(crate) fn new(tls: rustls::ClientConfig, encryption: Encryption) -> Self {
        Self {
            tls: MakeTls::new(tls),
            encryption,
        }
    }
}

impl MakeTlsConnect<Socket> for Bounded {
    type Stream = Stream;
    type TlsConnect = Connect;
    type Error = <MakeTls as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, name: &str) -> Result<Connect, Self::Error> {
        Ok(Connect {
            tls: MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, name)?,
            encryption: self.encryption,
        })
    }
}

/// Makes the stream of one connection.
pub(crate) struct Connect {
    tls: <MakeTls as MakeTlsConnect<Socket>>::TlsConnect,
    encryption: Encryption,
}

impl TlsConnect<Socket> for Connect {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, mut socket: Socket) -> Self::Future {
        Box::pin(async move {
            let is_encrypted = match self.encryption {
                Encryption::Never => false,
                Encryption::AtOnce => true,
                Encryption::IfOffered | Encryption::Always => {
                    socket.write_all(&TLS_REQUEST).await?;
                    socket.read_u8().await? == TLS_FOLLOWS
                }
            };
            let inner = if is_encrypted {
                Inner::Encrypted(Box::new(self.tls.connect(socket).await?))
            } else if self.encryption == Encryption::Always {
                return Err(io::Error::other("server does not support TLS"));
            } else {
                Inner::Plain(socket)
            };
            Ok(Stream {
                inner,
                limits: Limits::default(),
            })
        })
    }
}

/// A stream whose server's messages are bounded.
pub(crate) struct Stream {
    inner: Inner,
    limits: Limits,
}

enum Inner {
    Plain(Socket),
    Encrypted(Box<Tls>),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Stream {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match &mut self.get_mut().inner {
            Inner::Plain(socket) => Pin::new(socket),
            Inner::Encrypted(tls) => Pin::new(&mut **tls),
        }
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.inner {
            Inner::Plain(_) => ChannelBinding::none(),
            Inner::Encrypted(tls) => tls.channel_binding(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.as_mut().inner().poll_read(context, buffer))?;
        Poll::Ready(self.limits.take(&buffer.filled()[before..]))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(context)
    }
}

/// Follows the messages of a server.
#[derive(Default)]
struct Limits {
    /// The type of the message that begins, and its length, as far as they have arrived.
    head: [u8; 5],
    head_bytes: usize,
    /// The bytes of the message that are still to come.
    rest: usize,
    is_ready: bool,
    /// The bytes that arrived before the server was ready.
    beginning: usize,
}

impl Limits {
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if !self.is_ready {
            self.beginning += bytes.len();
            if self.beginning > BEGINNING_BYTES_MAX {
                return Err(io::Error::other(format!(
                    "the server sent more than {BEGINNING_BYTES_MAX} bytes before it was ready"
                )));
            }
        }
        loop {
            let passed = self.rest.min(bytes.len());
            self.rest -= passed;
            bytes = &bytes[passed..];
            if bytes.is_empty() {
                return Ok(());
            }
            let new = (self.head.len() - self.head_bytes).min(bytes.len());
            let known = self.head_bytes + new;
            self.head[self.head_bytes..known].copy_from_slice(&bytes[..new]);
            bytes = &bytes[new..];
            self.head_bytes = known % self.head.len();
            if self.head_bytes > 0 {
                return Ok(());
            }
            let [kind, length @ ..] = self.head;
            let length = u32::from_be_bytes(length) as usize;
            if length > MESSAGE_BYTES_MAX {
                return Err(io::Error::other(format!(
                    "the server sends a message of {length} bytes, and at most {MESSAGE_BYTES_MAX} are accepted"
                )));
            }
            // The length counts itself.
            self.rest = length.saturating_sub(4);
            self.is_ready |= kind == b'Z';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;
    use std::time::Duration;
    use tokio::net::TcpListener;

    /// Encodes the beginning of a message of this length.
    fn head(kind: u8, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).expect("a length");
        [&[kind], length.to_be_bytes().as_slice()].concat()
    }

    fn message(kind: u8, content: &[u8]) -> Vec<u8> {
        [&head(kind, content.len() + 4), content].concat()
    }

    #[test]
    fn message_limits_apply_however_the_bytes_are_split() {
        let sent = [
            message(b'R', &[0; 4]),
            message(b'Z', b"I"),
            message(b'D', &[7; 300]),
            head(b'D', MESSAGE_BYTES_MAX),
        ]
        .concat();
        let too_long = head(b'D', MESSAGE_BYTES_MAX + 1);
        for step in [1, 2, 3, 7, 4096, usize::MAX] {
            let mut limits = Limits::default();
            for piece in sent.chunks(step) {
                limits.take(piece).expect("it is a server's");
            }
            assert_eq!(limits.rest, MESSAGE_BYTES_MAX - 4);
            let mut limits = Limits::default();
            let taken = too_long.chunks(step).try_for_each(|each| limits.take(each));
            let told = taken.expect_err("it is too long").to_string();
            assert!(told.contains("67108865 bytes"), "{told}");
        }
    }

    /// Returns the address of a server that sends this to each client, the last part again and again.
    async fn false_server(has_request: bool, sends: Vec<u8>, repeats: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.expect("a client");
                if has_request {
                    let mut request = [0; 8];
                    client.read_exact(&mut request).await.expect("a request");
                    assert_eq!(request, TLS_REQUEST);
                    client.write_all(b"N").await.expect("an answer");
                }
                client.read_u8().await.expect("a greeting");
                drop(client.write_all(&sends).await);
                // Until the client hangs up.
                while client.write_all(&repeats).await.is_ok() {}
            }
        });
        address.to_string()
    }

    #[tokio::test]
    async fn oversized_and_endless_server_messages_are_refused() {
        let notice = message(b'N', &[b'S'; 4000]);
        let welcome = message(b'R', &[0; 4]);
        let ready = [&welcome[..], &message(b'Z', b"I")].concat();
        let endless = vec![0; 64 << 10];
        for (sends, repeats, told) in [
            (welcome.clone(), notice, "before it was ready"),
            (head(b'R', 1 << 31), endless.clone(), "2147483648 bytes"),
            (
                [ready, head(b'T', 1 << 30)].concat(),
                endless,
                "1073741824 bytes",
            ),
        ] {
            for (mode, has_request) in [("disable", false), ("prefer", true)] {
                let server = false_server(has_request, sends.clone(), repeats.clone());
                let url = format!("postgres://ann@{}/registry?sslmode={mode}", server.await);
                let target = Target::parse(&url).expect("a URL");
                let connected = target.connect(Duration::from_mins(1)).await;
                let error = connected.map(|_| ()).expect_err("it is false").to_string();
                assert!(error.contains(told), "{mode}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_server_without_tls_is_refused_if_tls_is_required() {
        let server = false_server(true, Vec::new(), vec![0]).await;
        let url = format!("postgres://ann@{server}/registry?sslmode=require");
        let target = Target::parse(&url).expect("a URL");
        let connected = target.connect(Duration::from_mins(1)).await;
        let error = connected.map(|_| ()).expect_err("no TLS").to_string();
        assert!(error.contains("server does not support TLS"), "{error}");
    }
}
