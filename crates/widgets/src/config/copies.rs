//! The settings of the store's copies: its archive and its standbys.

use super::keys::{Configuration, Replication};
use super::url::HttpUrl;
use super::values::{Acknowledge, StoreKind};
use widgets_replica::{Credentials, Primary};

impl Replication {
    /// Returns the primary to follow, if there is one.
    pub(crate) fn primary(&self) -> Option<Primary> {
        let address = self.follow.as_ref()?.address().ok()?;
        let credentials = self.credentials();
        Some(Primary {
            address,
            credentials,
        })
    }

    /// Reads the files that the section names.
    pub(crate) fn check_files(&self) -> Result<(), String> {
        let primary = self.primary().map(|primary| primary.address);
        let checked = self.credentials().check(primary.as_ref());
        checked.map_err(|error| format!("[replication]: {error}"))
    }

    /// Returns how long an answer waits for a standby, if it does.
    pub(crate) fn waits_ms(&self) -> Option<u64> {
        (self.acknowledge == Acknowledge::Standby).then_some(self.standby_timeout_ms)
    }

    /// Returns the credentials for the primary, and which certificates to trust.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials {
            token_file: self.token_file.clone(),
            ca: self.ca.clone(),
            certificate: self.certificate.clone().zip(self.key.clone()),
        }
    }
}

impl Configuration {
    /// Returns what is wrong with these settings although every value is valid in itself.
    pub(super) fn check_copies(&self) -> Vec<String> {
        let Self {
            store,
            archive,
            replication,
            ..
        } = self;
        let mut problems = Vec::new();
        let mut check = |wrong: bool, problem: &str| {
            if wrong {
                problems.push(problem.to_owned());
            }
        };
        let is_embedded = matches!(store.url, StoreKind::Embedded);
        let follows = replication.follow.is_some();
        check(
            archive.url.is_some() && !is_embedded,
            "archive.url is for the embedded store: PostgreSQL has its own backups \
             (docs/operations.md)",
        );
        check(
            replication.certificate.is_some() != replication.key.is_some(),
            "replication.certificate and replication.key must be given together",
        );
        if let Some(Err(error)) = replication.follow.as_ref().map(HttpUrl::address) {
            check(true, &format!("replication.follow: {error}"));
        }
        check(
            follows && !is_embedded,
            "replication.follow is for the embedded store: PostgreSQL has standbys of its own (docs/postgres.md)",
        );
        check(
            replication.acknowledge == Acknowledge::Standby && !is_embedded,
            "replication.acknowledge is for the embedded store: PostgreSQL has synchronous_commit (docs/postgres.md)",
        );
        problems
    }
}
