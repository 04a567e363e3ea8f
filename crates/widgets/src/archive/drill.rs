//! `widgets archive drill`: proves that an archive can be restored by restoring it.

use super::{Restore, Url, VerifyStore, verify::Verify};
use crate::Outcome;
use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Args)]
pub(crate) struct Drill {
    #[command(flatten)]
    url: Url,
    /// The directory to restore into, which must be empty or not exist yet. It takes as much space as the store, and is
    /// not deleted.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

impl Drill {
    /// Runs the three commands that a person would run, in that order, until one fails.
    pub(super) fn run(self) -> Outcome {
        let Self { url, data_dir } = self;
        let verified = Verify::of(url.clone()).run()?;
        if verified != ExitCode::SUCCESS {
            return Ok(verified);
        }
        let restored = Restore::newest(url, data_dir.clone()).run()?;
        if restored != ExitCode::SUCCESS {
            return Ok(restored);
        }
        VerifyStore::of(data_dir).run()
    }
}
