//! Notifies systemd of the service's state through the `sd_notify` protocol: that it has started,
//! that it is stopping, and, if there is a watchdog, that it still answers.
//!
//! Each notification is a datagram to the socket in `NOTIFY_SOCKET`; without that variable nothing
//! is sent. The watchdog is notified only after a request to the service's own address was
//! answered, because systemd should restart a process that runs but does not answer. The content of
//! the answer does not matter, so a full disk, too many connections or an unreachable database
//! cause no restart.

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

/// Notifies the process that started the service. Clones share the socket.
#[derive(Clone)]
pub(crate) struct Notifier {
    socket: Option<Arc<(net::UnixDatagram, net::SocketAddr)>>,
    /// How long the service may be silent before it counts as dead.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` from the environment. An unusable
    /// socket is logged: the service works without it.
    pub(crate) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let socket = open(&name).inspect_err(|error| {
                let name = name.display();
                tracing::warn!(%name, %error, "NOTIFY_SOCKET cannot be used: systemd is not \
                notified of the start");
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

    /// Notifies that the service answers at this address from now on. Must be called on a runtime.
    pub(crate) fn ready(&self, address: SocketAddr) {
        self.tell(&format!("READY=1\nSTATUS=Listens on {address}"));
        if let (Some(_), Some(watchdog)) = (&self.socket, self.watchdog) {
            tokio::spawn(self.clone().watch(reachable(address), watchdog));
        }
    }

    /// Notifies that the service finishes the requests that it has accepted, and then ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Answers what it has accepted");
    }

    /// Notifies the watchdog four times per period that the service answers, as long as it does.
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
                        tracing::error!(%address, %error, "the service does not answer its own \
                        check: the watchdog is not notified");
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
                tracing::warn!(%error, what, "systemd could not be notified");
            }
        }
    }
}

/// Opens a socket and returns it with its destination: a path, or a name in the abstract namespace
/// after `@`.
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
    // A service manager that does not read must not block a worker's thread.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Checks that the service answers anything at all. Even a service that requires TLS answers a
/// plain request.
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
    fn path_and_abstract_sockets_are_notified() {
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
    async fn a_silent_or_refused_connection_counts_as_no_answer() {
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
