//! What stores digest to recognise a retry: a key with its owner, and a request with its arguments.
//!
//! Digests of these bytes are persisted, so neither the bytes nor their order may ever change.

use crate::{Author, Command, IdempotencyKey};

impl IdempotencyKey {
    /// Returns bytes that identify the key together with its caller, because each caller has its
    /// own keys.
    #[must_use]
    pub fn digested(&self, author: Option<&Author>) -> Vec<u8> {
        bytes(0, &[author.map_or("", |author| author), self])
    }
}

impl Command {
    /// Returns bytes that identify the operation together with its arguments.
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

/// Includes the lengths, so that no two lists of texts give the same bytes.
fn bytes(kind: u8, parts: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}
