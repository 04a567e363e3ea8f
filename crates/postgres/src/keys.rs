//! Idempotency keys as the database has them: digests of a key with whose it is, and of what it is used
//! for, after which stands whose share it counts against.
//!
//! Persisted by their values, and the same in every process: what is hashed, and in which order, never
//! changes.

use ring::digest::{self, SHA256};
use widgets_registry::{Author, Command, IdempotencyKey, query::Asker};

/// So much of a SHA-256 is kept: nobody finds two texts that agree in it.
const DIGEST_BYTES: usize = 16;

/// A key belongs to its caller.
pub(crate) fn key_digest(author: Option<&Author>, key: &IdempotencyKey) -> Vec<u8> {
    digest(&key.digested(author))
}

/// An operation with its arguments, and who asks for it. Which is the same request, the first bytes say alone.
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
    fn digests_tell_callers_keys_and_requests_apart_and_never_change() {
        let (ann, key_1) = (Author::new("ann"), key("1"));
        let digest = key_digest(ann.as_ref(), &key_1);
        assert_eq!(digest.len(), DIGEST_BYTES);
        assert_ne!(digest, key_digest(None, &key_1));
        assert_ne!(digest, key_digest(ann.as_ref(), &key("2")));
        // The same bytes in a row, cut elsewhere.
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
