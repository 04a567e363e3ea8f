//! `widgets archive`, `restore`, `verify` and `backup`: the copies that survive the loss of the
//! disk.

mod backup;
mod drill;
mod keep;
mod list;
mod progress;
mod restore;
mod verify;

pub(crate) use backup::Backup;
pub(crate) use keep::{backups, start};
pub(crate) use restore::Restore;
pub(crate) use verify::VerifyStore;

use crate::Outcome;
use std::{error::Error, path::Path};
use widgets_archive::{ArchiveUrl, Bucket, Retries};

/// The URL of an archive.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Url {
    /// The URL of the archive: `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `file:///FOLDER`. Credentials come from
    /// the variables of the provider (`AWS_ACCESS_KEY_ID`, …; docs/operations.md).
    #[arg(
        value_name = "URL",
        env = "WIDGETS_ARCHIVE_URL",
        hide_env_values = true
    )]
    url: ArchiveUrl,
}

impl Url {
    fn open(&self) -> Result<Bucket, widgets_archive::Error> {
        Bucket::open(&self.url, Retries::Bucket)
    }
}

/// Lists, verifies and prunes an archive.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Shows which moments an archive can restore, and its checkpoints.
    List(list::List),
    /// Reads everything in an archive and checks that every moment it lists can be restored.
    ///
    /// Names each object that is damaged or missing, and exits with 1 if there is one.
    Verify(verify::Verify),
    /// Proves that an archive can be restored, by doing it: `widgets archive verify`, `widgets restore` of the newest moment
    /// into a directory, and `widgets verify` of that directory.
    ///
    /// Run it regularly, and delete the directory afterwards. Exits with 1 if one of the three fails.
    Drill(drill::Drill),
    /// Deletes the objects that no moment younger than --keep needs.
    ///
    /// The service keeps archiving meanwhile. Objects that a kept moment needs are never deleted, so a little more stays than
    /// you ask for: the checkpoint before the oldest kept moment.
    Prune(list::Prune),
}

pub(crate) fn run(command: Command) -> Outcome {
    let _log = crate::log::start_for_archive();
    match command {
        Command::List(arguments) => arguments.run(),
        Command::Verify(arguments) => arguments.run(),
        Command::Drill(arguments) => arguments.run(),
        Command::Prune(arguments) => arguments.run(),
    }
}

/// Waits for the result of work on an archive, on a runtime with threads for what is fetched ahead.
fn wait<T>(work: impl Future<Output = T>) -> Result<T, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}

/// Describes an error from filling a directory.
fn explained(directory: &Path, error: &widgets_archive::Error) -> String {
    match error {
        widgets_archive::Error::Store(error) => crate::stores::explained(directory, error),
        error => error.to_string(),
    }
}

/// Formats a number of bytes for people.
fn bytes_text(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Formats the entries from `first` up to, but not including, `next`, for people.
fn entries_text(first: u64, next: u64) -> String {
    match next.saturating_sub(first) {
        0 => "no entries".into(),
        1 => format!("entry {first}"),
        _ => format!("entries {first} to {}", next - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_entries_are_formatted_for_people() {
        assert_eq!(entries_text(1, 1), "no entries");
        assert_eq!(entries_text(2899, 2899), "no entries");
        assert_eq!(entries_text(3, 4), "entry 3");
        assert_eq!(entries_text(1, 4), "entries 1 to 3");
    }
}
