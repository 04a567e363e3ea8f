//! The address of the client: the other end of the connection, or the one that a trusted proxy
//! names.
//!
//! For IPv6 a /64 is one client, because one machine may use all of it. IPv4 behind NAT64 counts as
//! IPv4.

use hyper::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The prefixes under which IPv6-only hosts reach IPv4 addresses (RFC 6052, RFC 8215). The last 32
/// bits are the IPv4 address.
const NAT64: [(Ipv6Addr, u8); 2] = [
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
];

/// Trusted proxies: the last address in `X-Forwarded-For` that is not one of them is the client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(pub(crate) Vec<IpNet>);

impl Proxies {
    /// Returns the client's address, behind any number of trusted proxies. What the first untrusted
    /// address says about others is not believed.
    pub(crate) fn client(&self, address: IpAddr, headers: &HeaderMap) -> IpAddr {
        let trusted = |address: &IpAddr| self.0.iter().any(|network| network.contains(address));
        let mut client = plain(address);
        if !trusted(&client) {
            return client;
        }
        // Each proxy appends the address that it was asked by, so the last one is the nearest.
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        for line in lines {
            for forwarded in line.as_bytes().rsplit(|&byte| byte == b',') {
                let Some(next) = forwarded_address(forwarded) else {
                    return client;
                };
                client = plain(next);
                if !trusted(&client) {
                    return client;
                }
            }
        }
        client
    }
}

/// Parses an address as proxies write it. Some append the port, and then IPv6 is in brackets.
fn forwarded_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(with_port) = text.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    let bracketed = text.strip_prefix('[')?.strip_suffix(']')?;
    bracketed.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Returns the address that identifies a client: for IPv6, its /64.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match plain(address) {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Returns the address that identifies a client for shares of long-lived data such as idempotency
/// keys: for IPv6, its /48. One customer may be given a whole /48, which has 65,536 /64s.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match plain(address) {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 80 << 80;
            IpAddr::V6(network.into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Returns the IPv4 address inside an IPv6 address, or the address itself.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(address) = address.to_canonical() else {
        return address.to_canonical();
    };
    let bits = u128::from(address);
    let is_within = |&(network, length): &(Ipv6Addr, u8)| {
        let host_bits = 128 - u32::from(length);
        bits >> host_bits == u128::from(network) >> host_bits
    };
    if NAT64.iter().any(is_within) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the last 32 bits are meant"
        )]
        let last = bits as u32;
        return IpAddr::V4(Ipv4Addr::from_bits(last));
    }
    IpAddr::V6(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn nat64_and_mapped_addresses_are_converted_to_ipv4() {
        for (address, is) in [
            ("64:ff9b::192.0.2.1", "192.0.2.1"),
            ("64:ff9b:1::192.0.2.1", "192.0.2.1"),
            ("64:ff9b:1:ffff::192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("64:ff9b:2::1", "64:ff9b:2::1"),
            ("64:ff9b:0:1::1", "64:ff9b:0:1::1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(plain(ip(address)), ip(is), "{address}");
        }
    }

    #[test]
    fn x_forwarded_for_is_used_only_from_trusted_proxies() {
        let proxies = ["127.0.0.1/32", "10.0.0.0/8"].map(|each| each.parse().expect("a network"));
        let proxies = Proxies(proxies.into());
        let client = |address: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().expect("a value"));
            }
            proxies.client(ip(address), &headers).to_string()
        };
        for (address, lines, expected) in [
            ("192.0.2.1", &["198.51.100.1"][..], "192.0.2.1"),
            ("127.0.0.1", &[][..], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // What the client itself wrote comes first.
            ("127.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1,10.1.2.3"], "198.51.100.1"),
            (
                "127.0.0.1",
                &["1.1.1.1", "198.51.100.1", "10.1.2.3"],
                "198.51.100.1",
            ),
            ("127.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1:5678"], "198.51.100.1"),
            ("127.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            (
                "127.0.0.1",
                &["1.1.1.1, [::ffff:198.51.100.1]:1, 10.1.2.3:80"],
                "198.51.100.1",
            ),
            ("64:ff9b::198.51.100.1", &[], "198.51.100.1"),
            ("127.0.0.1", &["[198.51.100.1]"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1:"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1:99999"], "127.0.0.1"),
            ("127.0.0.1", &["nonsense"], "127.0.0.1"),
            ("127.0.0.1", &["1.1.1.1, nonsense, 10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1", &[""], "127.0.0.1"),
        ] {
            assert_eq!(client(address, lines), expected, "{address} {lines:?}");
        }
    }
}
