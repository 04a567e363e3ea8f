//! Who asks, as far as shares go of what all have together: a caller by its name, others by their addresses.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};
use widgets_registry::query::Asker;

/// Tells those who ask from each other.
#[derive(Debug, Default)]
pub(crate) struct Askers {
    /// Nobody can find out who shares a number with whom.
    key: RandomState,
}

impl Askers {
    /// Whoever has this name, or else this address.
    pub(crate) fn of(&self, name: Option<&str>, address: IpAddr) -> Asker {
        Asker(match name {
            Some(name) => self.key.hash_one(name),
            None => self.key.hash_one(address),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_name_is_the_same_at_every_address() {
        let askers = Askers::default();
        let (here, there) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into());
        assert_eq!(askers.of(Some("a"), here), askers.of(Some("a"), there));
        assert_ne!(askers.of(Some("a"), here), askers.of(Some("b"), here));
        assert_ne!(askers.of(None, here), askers.of(None, there));
        assert_ne!(askers.of(None, here), askers.of(Some("127.0.0.1"), here));
    }
}
