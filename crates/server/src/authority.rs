//! The host and port of a URL, of `Host` and of `Origin` (RFC 3986, 3.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host, with its port if one is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) port: Option<u16>,
}

/// A host, by name or by address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

/// Compares names without regard to case.
impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(other)) => one.eq_ignore_ascii_case(other),
            (Self::Address(one), Self::Address(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

impl<'a> Authority<'a> {
    /// Parses a host that is not empty, with an optional port. A user is not allowed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (host, rest) = if let Some(bracketed) = text.strip_prefix('[') {
            let (address, rest) = bracketed.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (Host::Address(address.into()), rest)
        } else {
            let end = bytes.iter().position(|&byte| byte == b':');
            let (name, rest) = text.split_at(end.unwrap_or(text.len()));
            (host(name)?, rest)
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            // An empty port means the scheme's default (RFC 3986, 3.2.3).
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        Some(Self { host, port })
    }
}

/// The bytes that a registered name can have (RFC 3986, 3.2.2). A table, because every request has
/// one.
const IN_NAMES: [bool; 256] = {
    let mut allowed = [false; 256];
    let bytes = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%";
    let mut index = 0;
    while index < bytes.len() {
        allowed[bytes[index] as usize] = true;
        index += 1;
    }
    allowed
};

fn host(name: &str) -> Option<Host<'_>> {
    let first = name.bytes().next()?;
    if !name.bytes().all(|byte| IN_NAMES[usize::from(byte)]) {
        return None;
    }
    if first.is_ascii_digit()
        && let Ok(address) = name.parse::<Ipv4Addr>()
    {
        return Some(Host::Address(address.into()));
    }
    Some(Host::Name(name))
}

impl Host<'_> {
    /// Reports whether it always is this machine (RFC 6761, 6.3), whatever a name server says.
    pub(crate) fn is_loopback(self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let last = name.rsplit('.').next();
                last.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_parsed() {
        let name = |name, port| Some((Host::Name(name), port));
        let address = |text: &str, port| {
            let address = text.parse().expect("an address");
            Some((Host::Address(address), port))
        };
        for (text, expected) in [
            ("example.org", name("EXAMPLE.org", None)),
            ("example.org:80", name("example.org", Some(80))),
            ("example.org:", name("example.org", None)),
            ("a,b", name("a,b", None)),
            ("127.0.0.1:3000", address("127.0.0.1", Some(3000))),
            ("[::1]", address("::1", None)),
            ("[::1]:65535", address("::1", Some(65535))),
            ("", None),
            (":80", None),
            ("a:65536", None),
            ("a:+1", None),
            ("a:1:2", None),
            ("a b", None),
            ("user@a", None),
            ("a/b", None),
            ("é", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[a]", None),
        ] {
            let parsed = Authority::parse(text.as_bytes());
            let parsed = parsed.map(|Authority { host, port }| (host, port));
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert_eq!(Authority::parse(b"\xff"), None);
    }

    #[test]
    fn loopback_names_and_addresses_are_recognised() {
        for (text, loopback) in [
            ("localhost", true),
            ("LocalHost.:3000", true),
            ("app.localhost", true),
            ("127.0.0.1", true),
            ("127.8.9.10:80", true),
            ("[::1]:3000", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org", false),
            ("notlocalhost", false),
            ("example.org", false),
            ("0.0.0.0", false),
            ("192.168.0.1", false),
            ("[::]", false),
        ] {
            let authority = Authority::parse(text.as_bytes()).expect(text);
            assert_eq!(authority.host.is_loopback(), loopback, "{text}");
        }
    }
}
