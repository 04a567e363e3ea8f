//! The settings of the store.

use crate::{Nodes, OpenError};
use std::time::Duration;

/// The settings of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many connections apply operations, and so how many batches are in flight at once.
    /// Default 2.
    pub connections: usize,
    /// How many connections answer lookups. Default 1.
    pub lookup_connections: usize,
    /// How many connections answer lists, and so how many lists run at once. Default 4.
    pub list_connections: usize,
    /// How the workers of a distributed registry are reached. Default: at the addresses in its
    /// catalogs.
    pub nodes: Nodes,
    /// The maximum number of operations in a batch. Default 256.
    pub batch_operations_max: usize,
    /// The maximum number of waiting requests. Default 2,048.
    pub queue_operations_max: usize,
    /// The maximum total size of the waiting requests' texts, in bytes. Default 4 MiB.
    pub queue_bytes_max: usize,
    /// How long a request may wait until its batch is sent, or sent again after a conflict, in
    /// milliseconds. Default 5,000.
    pub queue_wait_ms_max: u64,
    /// The timeout for establishing a connection, in milliseconds. Default 2,000.
    pub connect_timeout_ms: u64,
    /// How long a batch may take in the database before it is cancelled, in milliseconds.
    /// Default 5,000.
    pub statement_timeout_ms: u64,
    /// How long changes are kept, in hours. Default 72.
    pub changes_retention_hours: u32,
    /// The maximum total size of the changes that are kept, in bytes. Default 4 GiB.
    pub changes_retention_bytes: u64,
    /// How long idempotency keys are kept, in hours. Default 24.
    pub idempotency_retention_hours: u32,
    /// The maximum number of idempotency keys that are kept. Default 1,000,000.
    pub idempotency_keys_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 2,
            lookup_connections: 1,
            list_connections: 4,
            nodes: Nodes::default(),
            batch_operations_max: 256,
            queue_operations_max: 2048,
            queue_bytes_max: 4 << 20,
            queue_wait_ms_max: 5000,
            connect_timeout_ms: 2000,
            statement_timeout_ms: 5000,
            changes_retention_hours: 72,
            changes_retention_bytes: 4 << 30,
            idempotency_retention_hours: 24,
            idempotency_keys_max: 1_000_000,
        }
    }
}

impl Settings {
    /// Checks that each setting is within its range.
    pub fn check(&self) -> Result<(), OpenError> {
        let check = |setting, given: u64, least: u64, most: u64| {
            if (least..=most).contains(&given) {
                return Ok(());
            }
            Err(OpenError::Setting {
                setting,
                limit: format!("{least} to {most}"),
                given,
            })
        };
        let minutes = 10 * 60 * 1000;
        check("connections", self.connections as u64, 1, 64)?;
        check("lookup_connections", self.lookup_connections as u64, 1, 64)?;
        check("list_connections", self.list_connections as u64, 1, 64)?;
        check(
            "batch_operations_max",
            self.batch_operations_max as u64,
            1,
            4096,
        )?;
        check(
            "queue_operations_max",
            self.queue_operations_max as u64,
            1,
            65_536,
        )?;
        check(
            "queue_bytes_max",
            self.queue_bytes_max as u64,
            4096,
            1 << 32,
        )?;
        check("queue_wait_ms_max", self.queue_wait_ms_max, 1, minutes)?;
        check("connect_timeout_ms", self.connect_timeout_ms, 1, minutes)?;
        check(
            "statement_timeout_ms",
            self.statement_timeout_ms,
            1,
            minutes,
        )
    }

    pub(crate) const fn queue_wait_max(&self) -> Duration {
        Duration::from_millis(self.queue_wait_ms_max)
    }

    pub(crate) const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) const fn statement_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms)
    }
}
