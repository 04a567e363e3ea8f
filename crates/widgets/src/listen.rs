//! The address that the service listens on. Taken before anything else is opened or made, listened on
//! when the store is open.

use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, TcpSocket};

/// So many connections may wait to be accepted. Thousands may come at once, after a restart for
/// instance, and each that finds no place tries again only after a second. Linux allows no more than
/// `net.core.somaxconn`, by default as many.
const BACKLOG: u32 = 4096;

/// An address that is the process's own. Nobody can connect to it yet.
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
            // A restart need not wait for what the last process left in TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        let socket = bind().map_err(|error| explain(address, &error))?;
        Ok(Self { socket, address })
    }

    /// Lets connections come. With `SO_REUSEADDR` two processes can bind an address that neither
    /// listens on: the second one is refused here.
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
            "{what}: another program listens there. Stop it, or give another port by --listen, 0 \
             for any"
        ),
        io::ErrorKind::AddrNotAvailable => format!("{what}: it is no address of this machine"),
        io::ErrorKind::PermissionDenied => {
            format!("{what}: ports below 1024 are for privileged users")
        }
        _ => what,
    }
}
