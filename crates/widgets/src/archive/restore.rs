//! `widgets restore`: restores a moment from an archive into an empty directory.

use super::{Url, progress::Shown, wait};
use crate::Outcome;
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::UNIX_EPOCH,
};
use widgets_archive::{Target, restore, restore_standby};
use widgets_engine::Settings;
use widgets_registry::Position;
use widgets_replica::{Address, AddressError};

/// Restores the embedded store from its archive into an empty directory.
///
/// Everything is verified: each object, that each group follows the one before it, and at the end the directory as a
/// start would read it. The command says which moment it reached and what the archive has after that. The restored store
/// has a new epoch, so subscribers at a position that was cut off are told so. After an interruption no service starts on
/// the directory; run the same command again to start over.
#[derive(clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    url: Url,
    /// The directory to restore into, which must be empty or not exist yet.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// Restore everything that was committed up to this time, such as 2026-11-27T11:02:03Z (UTC). The default is the newest
    /// moment.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "position")]
    at: Option<u64>,
    /// Restore everything up to this position of the changes, as /changes gives it.
    #[arg(long)]
    position: Option<Position>,
    /// Restore the newest moment as a standby of the primary at this URL. Once the service is started, it takes what came
    /// after that moment from the primary. Use this if the primary is far away, or if its archive, but no longer its journal,
    /// goes back to where a standby ended.
    #[arg(long, value_name = "URL", value_parser = primary, conflicts_with_all = ["at", "position"])]
    follow: Option<Address>,
}

fn primary(text: &str) -> Result<Address, String> {
    text.parse()
        .map_err(|error: AddressError| error.to_string())
}

fn time(text: &str) -> Result<u64, String> {
    // Without the `Z`, a local time could be meant, and another moment would be restored.
    let time = humantime::parse_rfc3339(text).map_err(|error| {
        format!("must be a time in UTC as in `2026-11-27T11:02:03Z`, `{text}` was given: {error}")
    })?;
    let since = time.duration_since(UNIX_EPOCH);
    // The archive uses 0 for the moment when the store was made.
    let since = since.ok().filter(|since| !since.is_zero());
    let since = since.ok_or("must be after the beginning of 1970")?;
    u64::try_from(since.as_micros()).map_err(|_| "is too late".to_owned())
}

impl Restore {
    /// Restores the newest moment.
    pub(super) fn newest(url: Url, data_dir: PathBuf) -> Self {
        Self {
            url,
            data_dir,
            at: None,
            position: None,
            follow: None,
        }
    }

    pub(crate) fn run(self) -> Outcome {
        let _log = crate::log::start_for_archive();
        let target = match (self.at, self.position) {
            (Some(at), _) => Target::At(at),
            (None, Some(position)) => Target::Position(position),
            (None, None) => Target::Newest,
        };
        let bucket = self.url.open()?;
        let mut bar = Shown::new();
        let settings = Settings::default();
        let told = |progress| bar.progress(progress);
        let primary = self.follow.as_ref().map(ToString::to_string);
        let restored = match &primary {
            Some(primary) => wait(restore_standby(
                &bucket,
                &self.data_dir,
                primary,
                &settings,
                told,
            )),
            None => wait(restore(&bucket, &self.data_dir, target, &settings, told)),
        }?;
        let took = bar.finish();
        let restored = restored.map_err(|error| super::explained(&self.data_dir, &error))?;
        let mut out = io::stdout().lock();
        for gone in &restored.pruned {
            // Standard error may be closed.
            drop(writeln!(
                io::stderr(),
                "warning: {gone}: the archive was pruned meanwhile, so the restore started over"
            ));
        }
        for damaged in &restored.damaged {
            drop(writeln!(
                io::stderr(),
                "warning: {damaged}. It was not needed"
            ));
        }
        let counts = restored.restored.counts;
        writeln!(
            out,
            "restored {} widgets and {} associations into {} in {:.1} s",
            counts.widgets,
            counts.associations,
            self.data_dir.display(),
            took.as_secs_f64()
        )?;
        writeln!(
            out,
            "up to {} (position {})",
            restored.reached, restored.position
        )?;
        match &restored.last_after {
            Some(last) => writeln!(
                out,
                "the archive has {} later entries, the last of {last}",
                restored.entries_after
            )?,
            None => writeln!(out, "the archive has nothing later in this history")?,
        }
        if restored.later_runs > 0 {
            writeln!(
                out,
                "the archive starts over after that: `widgets archive list` shows where"
            )?;
        }
        if let Some(primary) = primary {
            writeln!(
                out,
                "it is a standby of {primary}: start the service with --data-dir {}",
                self.data_dir.display()
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(
            out,
            "it continues in epoch {}: start the service with --data-dir {}",
            restored.restored.epoch,
            self.data_dir.display()
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_parsed_or_refused_with_an_explanation() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(time("1970-01-01T00:00:01.000002Z"), Ok(1_000_002));
        for wrong in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-28 18:00:00",
            "2026-11-28T18:00:00",
        ] {
            let error = time(wrong).expect_err(wrong);
            assert!(error.starts_with("must be a time"), "{error}");
        }
        let error = time("1970-01-01T00:00:00Z").expect_err("no moment of a store");
        assert!(error.contains("after the beginning of 1970"), "{error}");
    }
}
