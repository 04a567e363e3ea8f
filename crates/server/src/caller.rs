//! Who is at the other end of a connection.

use std::net::{IpAddr, Ipv4Addr};

/// The other end of a connection, as the connection itself shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its address.
    pub address: IpAddr,
    /// It has a client certificate, which was verified.
    pub certified: bool,
}

impl Caller {
    /// Someone on this machine.
    pub const LOCAL: Self = Self {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        certified: false,
    };
}
