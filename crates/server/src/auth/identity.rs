//! The identity of a caller, to which its idempotency keys belong.
//!
//! Two callers may share a readable name: one from a token and one from a certificate, or the same
//! name from two issuers. So an identity includes where its name comes from.

mod ecdsa;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{Context, SHA256};
use widgets_registry::IdempotencyKey;

/// The identity of a caller: a digest of everything that distinguishes it from others. `None` for
/// anonymous callers, whose keys are kept as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(Option<[u8; 32]>);

impl Identity {
    /// Returns the identity of all callers without credentials.
    pub(crate) const fn anonymous() -> Self {
        Self(None)
    }

    /// Returns the identity of a token's subject, with or without an issuer.
    pub(crate) fn subject(issuer: Option<&str>, subject: &str) -> Self {
        match issuer {
            Some(issuer) => Self::named(&[b"issuer", issuer.as_bytes(), subject.as_bytes()]),
            None => Self::named(&[b"subject", subject.as_bytes()]),
        }
    }

    /// Returns the identity of a token without a subject, which is a caller by itself. The holder
    /// of a token can write its signature in other ways: with or without padding, and an ECDSA
    /// signature in two forms. All of them have the same identity.
    pub(crate) fn token(token: &[u8]) -> Self {
        let padding = token.iter().rev().take_while(|&&byte| byte == b'=');
        let token = &token[..token.len() - padding.count()];
        match ecdsa::lesser(token) {
            Some(lesser) => Self::named(&[b"token", &lesser]),
            None => Self::named(&[b"token", token]),
        }
    }

    /// Returns the identity of a client certificate's subject. All certificates without one have
    /// the same identity.
    pub(crate) fn certificate(subject: Option<&str>) -> Self {
        match subject {
            Some(subject) => Self::named(&[b"certificate", subject.as_bytes()]),
            None => Self::named(&[b"certificate"]),
        }
    }

    fn named(parts: &[&[u8]]) -> Self {
        Self(Some(digest(parts)))
    }

    /// Returns what distinguishes the caller from all others, or `None` for anonymous callers.
    pub(crate) const fn digest(self) -> Option<[u8; 32]> {
        self.0
    }

    /// Returns the key under which a store keeps it, which no other caller has. Stores keep such
    /// keys, so the hashed content never changes.
    pub(crate) fn own(self, key: &IdempotencyKey) -> Option<IdempotencyKey> {
        match self.0 {
            None => Some(key.clone()),
            Some(caller) => {
                let own = digest(&[&caller, key.as_bytes()]);
                IdempotencyKey::new(&URL_SAFE_NO_PAD.encode(own))
            }
        }
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    for part in parts {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_padding_does_not_change_the_identity_of_a_token() {
        let plain = Identity::token(b"e30.e30.YQ");
        assert_eq!(Identity::token(b"e30.e30.YQ="), plain);
        assert_eq!(Identity::token(b"e30.e30.YQ=="), plain);
        // In the signed part, another byte makes another token.
        assert_ne!(Identity::token(b"e30.e30=.YQ"), plain);
    }

    #[test]
    fn both_forms_of_an_ecdsa_signature_give_the_same_identity() {
        // {"alg":"ES256"}, with s = 1 and with s = the order minus 1.
        let token = |s: &[u8]| {
            let signature = [&[7; 32][..], s].concat();
            let signature = URL_SAFE_NO_PAD.encode(signature);
            format!("eyJhbGciOiJFUzI1NiJ9.e30.{signature}").into_bytes()
        };
        let mut one = [0; 32];
        one[31] = 1;
        let mut other = [0xff; 32];
        other[4..8].fill(0);
        other[16..].copy_from_slice(&[
            0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
            0x25, 0x50,
        ]);
        assert_eq!(
            Identity::token(&token(&one)),
            Identity::token(&token(&other))
        );
        other[31] -= 1;
        assert_ne!(
            Identity::token(&token(&one)),
            Identity::token(&token(&other))
        );
    }

    #[test]
    fn different_callers_never_share_an_idempotency_key() {
        let callers = [
            Identity::anonymous(),
            Identity::subject(None, "CN=x"),
            Identity::subject(Some("a"), "CN=x"),
            Identity::subject(Some("b"), "CN=x"),
            Identity::subject(Some("aC"), "N=x"),
            Identity::subject(Some(""), "CN=x"),
            Identity::token(b"CN=x"),
            Identity::token(b"CN=y"),
            Identity::certificate(Some("CN=x")),
            Identity::certificate(Some("")),
            Identity::certificate(None),
        ];
        let mut keys: Vec<_> = ["k", "l"]
            .into_iter()
            .filter_map(IdempotencyKey::new)
            .flat_map(|key| callers.map(|caller| caller.own(&key).expect("a key")))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 2 * callers.len());
        let key = IdempotencyKey::new("k").expect("a key");
        let again = Identity::subject(Some("a"), "CN=x").own(&key);
        assert_eq!(again, callers[2].own(&key));
    }
}
