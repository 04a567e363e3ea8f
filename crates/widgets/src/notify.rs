//! Tells systemd how the service is, by the protocol of `sd_notify`: that it has started, that it stops,
//! and, where a watchdog is set, that it still answers.
//!
//! A datagram to the socket that `NOTIFY_SOCKET` names, and nothing where it names none. The watchdog is
//! told only after a connection was made to the service's own address and something was answered on it:
//! a process that lives and does not answer is one that systemd should restart. What is answered does
//! not matter, so that a full disk, too many connections or a database that is away restart nothing.

use crate::health::reachable;
use std::{
    env,
    ffi::OsStr,
    io,
    net::SocketAddr,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net},
    },
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Whoever started the service and wants to hear of it. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Notifier {
    socket: Option<Arc<(net::UnixDatagram, net::SocketAddr)>>,
    /// How long the service may say nothing before it is taken for dead.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. A socket that cannot be
    /// used is logged: the service is well without it.
    pub(crate) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let socket = open(&name).inspect_err(|error| {
                let name = name.display();
                tracing::warn!(%name, %error, "NOTIFY_SOCKET cannot be used: nobody is told of the start");
            });
            socket.ok()
        });
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| micros > 0 && for_us);
        Self {
            socket: socket.map(Arc::new),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// It answers from now on, on this address. Must be called on a runtime.
    pub(crate) fn ready(&self, address: SocketAddr) {
        self.tell(&format!("READY=1\nSTATUS=Listens on {address}"));
        if let (Some(_), Some(watchdog)) = (&self.socket, self.watchdog) {
            tokio::spawn(self.clone().watch(reachable(address), watchdog));
        }
    }

    /// It answers what it has accepted, and ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Answers what it has accepted");
    }

    /// Says four times in each period that the service answers, as long as it does.
    async fn watch(self, address: SocketAddr, period: Duration) {
        let mut ticks = tokio::time::interval(period / 4);
        let mut answered = true;
        loop {
            ticks.tick().await;
            match answers(address, period / 2).await {
                Ok(()) => {
                    self.tell("WATCHDOG=1");
                    answered = true;
                }
                Err(error) => {
                    if answered {
                        tracing::error!(%address, %error, "the service does not answer itself: the watchdog is not told");
                    }
                    answered = false;
                }
            }
        }
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket {
            let (socket, address) = &**socket;
            if let Err(error) = socket.send_to_addr(what.as_bytes(), address) {
                tracing::warn!(%error, what, "systemd could not be told");
            }
        }
    }
}

/// A socket to send from, and where to: a path, or a name in the abstract namespace after `@`.
fn open(name: &OsStr) -> io::Result<(net::UnixDatagram, net::SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => net::SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => net::SocketAddr::from_pathname(name)?,
        _ => {
            let wanted = "it must begin with / or @";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, wanted));
        }
    };
    let socket = net::UnixDatagram::unbound()?;
    // A manager that reads nothing shall not stop a worker's thread.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Whether anything is answered: to a plain request also a service that wants TLS says something.
async fn answers(address: SocketAddr, patience: Duration) -> io::Result<()> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.read_u8().await
    };
    timeout(patience, ask).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let name = format!("widgets-notify-{}", std::process::id());
        let abstract_address = net::SocketAddr::from_abstract_name(&name).expect("a name");
        for (listener, name) in [
            (
                net::UnixDatagram::bind(&path),
                path.clone().into_os_string(),
            ),
            (
                net::UnixDatagram::bind_addr(&abstract_address),
                format!("@{name}").into(),
            ),
        ] {
            let listener = listener.expect("bound");
            let socket = open(&name).expect("a socket");
            let notifier = Notifier {
                socket: Some(Arc::new(socket)),
                watchdog: None,
            };
            notifier.stopping();
            let mut told = [0; 100];
            let length = listener.recv(&mut told).expect("told");
            assert!(told[..length].starts_with(b"STOPPING=1\n"));
        }
        assert!(open(OsStr::new("vsock:2:1234")).is_err());
    }

    #[tokio::test]
    async fn whoever_accepts_and_says_nothing_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let silent = answers(address, Duration::from_millis(50)).await;
        assert_eq!(silent.expect_err("silence").kind(), io::ErrorKind::TimedOut);
        drop(listener);
        let nobody = answers(address, Duration::from_secs(5)).await;
        assert_eq!(
            nobody.expect_err("nobody").kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
