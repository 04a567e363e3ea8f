//! The address that the service listens on. It is bound before anything else is opened or created,
//! and listened on once the store is open.

use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be accepted. Thousands may arrive at once, for instance after a
/// restart, and a connection that finds no place tries again only after a second. Linux limits this
/// to `net.core.somaxconn`, which has the same value by default.
const BACKLOG: u32 = 4096;

/// An address that the process has bound. Nobody can connect to it yet.
pub(crate) struct Bound {
    socket: TcpSocket,
    address: SocketAddr,
}

impl Bound {
    pub(crate) fn new(address: SocketAddr) -> Result<Self, String> {
        let bind = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // A restart need not wait for connections of the previous process in TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        let socket = bind().map_err(|error| explain(address, &error))?;
        Ok(Self { socket, address })
    }

    /// Begins to accept connections. With `SO_REUSEADDR`, two processes can bind the same address
    /// while neither listens on it; the second one is refused here.
    pub(crate) fn listen(self) -> Result<TcpListener, String> {
        let Self { socket, address } = self;
        let listener = socket.listen(BACKLOG);
        listener.map_err(|error| explain(address, &error))
    }
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    let what = format!("cannot listen on {address}: {error}");
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{what}: another program is listening there. Stop it, or give another port with \
             --listen, 0 for any"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "{what}: this machine does not have that \
        address"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{what}: ports below 1024 are for privileged users")
        }
        _ => what,
    }
}
