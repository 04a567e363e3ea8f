//! `widgets backup`: a checkpoint in an archive now.

use super::{Url, wait};
use crate::{Outcome, stores};
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};
use widgets_archive::{back_up, time_text};
use widgets_clock::SystemClock;
use widgets_engine::{DataDirectory, Engine, NoStore, Settings};
use widgets_pacing::{Mode, Pacing};

/// Copies a data directory that no service runs on to an archive, whole, with a checkpoint of it.
#[derive(clap::Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    url: Url,
    /// The directory.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

impl Backup {
    pub(crate) fn run(self) -> Outcome {
        let bucket = self.url.open()?;
        let settings = Settings {
            held_bytes_max: u64::MAX,
            ..Settings::default()
        };
        let explained = |error| stores::explained(&self.data_dir, &error);
        let directory = DataDirectory::open(&self.data_dir, NoStore::Refuse).map_err(explained)?;
        let clock = Arc::new(SystemClock::new());
        let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
        let engine = Engine::open_in(directory, &settings, pacing).map_err(explained)?;
        let copied = wait(back_up(bucket, engine.source(), clock))??;
        writeln!(
            io::stdout(),
            "{} is in the archive up to {}",
            self.data_dir.display(),
            time_text(copied.usable_at)
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
