//! The choice of the store that is measured, and the service on it.

use crate::{
    peer::{Peer, generate},
    postgres::Server,
};
use std::{
    error::Error,
    path::{Path, PathBuf},
};

/// Which store is measured.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// Measure the PostgreSQL store, on a server that the run starts, instead of the embedded store.
    #[arg(long)]
    postgres: bool,
}

/// A store with the data of a run.
pub(crate) struct Store {
    directory: PathBuf,
    server: Option<Server>,
    processor: Option<usize>,
}

impl Choice {
    /// The embedded store.
    pub(crate) const EMBEDDED: Self = Self { postgres: false };

    /// Returns the store's name in a report.
    pub(crate) const fn name(&self) -> &'static str {
        if self.postgres {
            "PostgreSQL store"
        } else {
            "Embedded store"
        }
    }

    pub(crate) const fn is_postgres(&self) -> bool {
        self.postgres
    }

    /// Returns the part of a file's name that distinguishes the reports of the two stores.
    pub(crate) const fn suffix(&self) -> &'static str {
        if self.postgres { "-postgres" } else { "" }
    }

    /// Prepares a folder for data in `directory`, and starts PostgreSQL if needed. The service and the
    /// database may be bound to one CPU.
    pub(crate) fn open(
        &self,
        directory: &Path,
        processor: Option<usize>,
    ) -> Result<Store, Box<dyn Error>> {
        let server = if self.postgres {
            Some(Server::start(&directory.join("postgres"), processor)?)
        } else {
            None
        };
        Ok(Store {
            directory: directory.to_owned(),
            server,
            processor,
        })
    }
}

impl Store {
    /// Starts the service on a new dataset of this many widgets with half as many associations. Deletes
    /// the dataset of an earlier call with the same number.
    pub(crate) fn serve(&self, widgets: u64) -> Result<Peer, Box<dyn Error>> {
        if let Some(server) = &self.server {
            return Peer::postgres(&server.database(widgets)?.store(), self.processor);
        }
        let data_dir = self.directory.join(format!("widgets-{widgets}"));
        generate(&data_dir, widgets)?;
        Peer::embedded(&data_dir, self.processor)
    }
}
