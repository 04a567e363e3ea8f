//! Which store is measured, and the service over it.

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
    /// Measure the PostgreSQL store, on a server of the run's own, instead of the embedded one.
    #[arg(long)]
    postgres: bool,
}

/// Where the data of a run is.
pub(crate) struct Store {
    directory: PathBuf,
    server: Option<Server>,
    processor: Option<usize>,
}

impl Choice {
    /// The embedded one.
    pub(crate) const EMBEDDED: Self = Self { postgres: false };

    /// What it is called in a report.
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

    /// The part of a file's name that tells reports of one store from those of the other.
    pub(crate) const fn suffix(&self) -> &'static str {
        if self.postgres { "-postgres" } else { "" }
    }

    /// Makes room for data in `directory`, and starts what it needs. Service and database may be
    /// bound to one processor.
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
    /// The service over so many widgets with half as many associations. They are made anew: those of
    /// an earlier call for as many are gone.
    pub(crate) fn serve(&self, widgets: u64) -> Result<Peer, Box<dyn Error>> {
        if let Some(server) = &self.server {
            return Peer::postgres(&server.database(widgets)?.store(), self.processor);
        }
        let data_dir = self.directory.join(format!("widgets-{widgets}"));
        generate(&data_dir, widgets)?;
        Peer::embedded(&data_dir, self.processor)
    }
}
