//! Askers, between whom shared resources are divided: a caller with a name, or else an address.

use crate::{auth::Sender, proxies};
use ring::digest::{SHA256, digest};
use std::net::IpAddr;
use widgets_registry::query::Asker;

/// Returns the asker of this sender, or of this address if the sender has no name. A token without
/// a subject does not identify an asker, because its holder gets a new token now and then. The
/// result is the same in every process, because keys are stored with it.
pub(crate) fn asker(sender: &Sender, client: IpAddr) -> Asker {
    let named = sender.author.is_some();
    let identity = sender.identity.digest().filter(|_| named);
    let digest = identity.unwrap_or_else(|| {
        let text = proxies::network_of(client).to_string();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        bytes
    });
    Asker(digest.first_chunk().copied().map_or(0, u64::from_be_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Access, Identity};
    use widgets_registry::Author;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn named(name: &str, identity: Identity) -> Sender {
        Sender {
            author: Author::new(name),
            identity,
            ..Sender::anonymous(Access::NOTHING)
        }
    }

    #[test]
    fn a_named_caller_is_identified_by_issuer_and_name_not_address() {
        let (here, there) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let a = named("a", Identity::subject(None, "a"));
        assert_eq!(asker(&a, here), asker(&a, there));
        for other in [
            named("b", Identity::subject(None, "b")),
            named("a", Identity::subject(Some("i"), "a")),
            named("a", Identity::certificate(Some("a"))),
            Sender::anonymous(Access::NOTHING),
        ] {
            assert_ne!(asker(&a, here), asker(&other, here), "{other:?}");
        }
        assert_eq!(asker(&a, here), Asker(ASKER_A), "it is persisted");
    }

    /// The first bytes of the identity.
    const ASKER_A: u64 = 0x7437_997f_ff57_82ab;

    #[test]
    fn a_caller_without_a_name_is_identified_by_its_network() {
        let nobody = Sender::anonymous(Access::NOTHING);
        // A token without a subject, and a newer one.
        let [token, newer] = [b"t", b"u"].map(|token| named("", Identity::token(token)));
        let asker = |sender, address| asker(sender, ip(address));
        assert_eq!(asker(&nobody, "192.0.2.1"), asker(&token, "192.0.2.1"));
        assert_eq!(asker(&newer, "192.0.2.1"), asker(&token, "192.0.2.1"));
        assert_ne!(asker(&nobody, "192.0.2.1"), asker(&nobody, "192.0.2.2"));
        // The same customer.
        assert_eq!(
            asker(&nobody, "2001:db8:0:1::1"),
            asker(&nobody, "2001:db8:0:2::1")
        );
        assert_ne!(
            asker(&nobody, "2001:db8:0:1::1"),
            asker(&nobody, "2001:db8:1:1::1")
        );
    }
}
