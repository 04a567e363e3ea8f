//! What stores keep digests of, to know a retry again: a key with whose it is, and a request with its arguments.
//!
//! Digests of these bytes are persisted: neither the bytes nor their order ever change.

use crate::{Author, Command, IdempotencyKey};

impl IdempotencyKey {
    /// A key belongs to its caller: the bytes that tell both from all others.
    #[must_use]
    pub fn digested(&self, author: Option<&Author>) -> Vec<u8> {
        bytes(0, &[author.map_or("", |author| author), self])
    }
}

impl Command {
    /// The bytes that tell an operation with its arguments from all others.
    #[must_use]
    pub fn digested(&self) -> Vec<u8> {
        match self {
            Self::AddWidget {
                serial_number,
                name,
                ports,
            } => {
                let ports: String = ports.iter().map(|(_, port)| port.as_str()).collect();
                bytes(1, &[serial_number, name, &ports])
            }
            Self::RemoveWidget { serial_number } => bytes(2, &[serial_number]),
            Self::AssociateWidgets(pair) => {
                bytes(3, &[pair.widget1(), pair.widget2(), pair.port().as_str()])
            }
            Self::RemoveAssociation(pair) => {
                bytes(4, &[pair.widget1(), pair.widget2(), pair.port().as_str()])
            }
        }
    }
}

/// With their lengths, so that no two lists of texts are the same bytes.
fn bytes(kind: u8, parts: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}
