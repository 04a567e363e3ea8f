//! Idempotency keys as the database stores them: a digest of the key and its caller, and a digest
//! of the request, followed by the asker that the key counts against.
//!
//! These values are persistent and the same in every process, so what is hashed, and in which
//! order, must never change.

use ring::digest::{self, SHA256};
use widgets_registry::{Author, Command, IdempotencyKey, query::Asker};

/// How many bytes of a SHA-256 are kept. Nobody can find two texts that agree in them.
const DIGEST_BYTES: usize = 16;

/// Returns the digest of a key together with its caller, because a key belongs to its caller.
pub(crate) fn key_digest(author: Option<&Author>, key: &IdempotencyKey) -> Vec<u8> {
    digest(&key.digested(author))
}

/// Returns the digest of an operation with its arguments, followed by its asker. The digest alone
/// decides whether two requests are the same.
pub(crate) fn kept_with(command: &Command, asker: Asker) -> Vec<u8> {
    let mut bytes = digest(&command.digested());
    bytes.extend(asker.0.to_be_bytes());
    bytes
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&SHA256, bytes);
    digest.as_ref().iter().copied().take(DIGEST_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use widgets_registry::{Pair, Port, SerialNumber};

    fn key(text: &str) -> IdempotencyKey {
        IdempotencyKey::new(text).expect("a key")
    }

    #[test]
    fn digests_differ_by_caller_key_and_request_and_are_stable() {
        let (ann, key_1) = (Author::new("ann"), key("1"));
        let digest = key_digest(ann.as_ref(), &key_1);
        assert_eq!(digest.len(), DIGEST_BYTES);
        assert_ne!(digest, key_digest(None, &key_1));
        assert_ne!(digest, key_digest(ann.as_ref(), &key("2")));
        // The same bytes in total, divided differently.
        assert_ne!(digest, key_digest(Author::new("an").as_ref(), &key("n1")));
        let name = |text| SerialNumber::new("widget_sn", text).expect("a serial number");
        let pair = Pair::new(name("E"), name("F"), Port::P).expect("two");
        let kept = |command: &Command| kept_with(command, Asker(7));
        let associate = kept(&Command::AssociateWidgets(pair.clone()));
        assert_ne!(associate, kept(&Command::RemoveAssociation(pair)));
        let remove = kept(&Command::RemoveWidget {
            serial_number: name("E"),
        });
        assert_eq!(remove[DIGEST_BYTES..], 7_u64.to_be_bytes());
        let first = remove.first_chunk().copied().unwrap_or_default();
        let number = u128::from_be_bytes(first);
        assert_eq!(number, 0x49bd_ae33_6d75_bf1c_c718_f03d_97da_72bf);
    }
}
