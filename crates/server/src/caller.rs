//! The other end of a connection.

use crate::auth;
use std::net::{IpAddr, Ipv4Addr};
use widgets_registry::Author;
use x509_cert::{Certificate, der::Decode as _};

/// The other end of a connection, as the connection itself shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its address.
    pub address: IpAddr,
    /// Whether it has a client certificate, which was verified.
    pub certified: bool,
    /// The subject of that certificate, if it has one.
    pub subject: Option<Author>,
}

impl Caller {
    /// A caller on this machine.
    pub const LOCAL: Self = Self::without_certificate(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// Returns a caller at this address without a certificate.
    #[must_use]
    pub const fn without_certificate(address: IpAddr) -> Self {
        Self {
            address,
            certified: false,
            subject: None,
        }
    }

    /// Returns a caller at this address with this certificate, which was verified.
    #[must_use]
    pub fn with_certificate(address: IpAddr, certificate: &[u8]) -> Self {
        // As text (RFC 4514), such as `CN=alice,O=Example`.
        let certificate = Certificate::from_der(certificate).ok();
        let subject = certificate.map(|it| it.tbs_certificate.subject.to_string());
        Self {
            address,
            certified: true,
            subject: subject.and_then(|subject| auth::author(&subject)),
        }
    }
}
