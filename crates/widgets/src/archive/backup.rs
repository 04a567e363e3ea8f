//! `widgets backup`: copies a running service's store to a directory, or a stopped directory to an
//! archive.

use super::{bytes_text, explained, progress::Shown, wait};
use crate::{
    Misuse, Outcome,
    ask::{self, Credentials},
    stores,
};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use widgets_archive::{ArchiveUrl, Arrival, Bucket, Retries, back_up, time_text};
use widgets_clock::SystemClock;
use widgets_engine::{DataDirectory, Engine, NoStore, Settings};
use widgets_load::quantity;
use widgets_pacing::{Mode, Pacing};

/// Takes a backup of a running service into an empty directory, or copies a stopped data directory to an archive.
///
/// With an http:// or https:// URL it asks a running service, with a role in `auth.admin_roles`, for everything that was
/// acknowledged before, and writes it into the directory that --to names: verified, ready to be served, in a new epoch.
/// The service keeps running meanwhile, and needs no archive. After an interruption no service starts on the directory;
/// run the same command again to start over. With the URL of an archive it copies the directory that --data-dir names,
/// which no service may be running on, with a checkpoint of it.
#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The URL of the service, `http://…` or `https://…`, or of the archive: `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or
    /// `file:///FOLDER`.
    #[arg(
        value_name = "URL",
        env = "WIDGETS_ARCHIVE_URL",
        hide_env_values = true,
        value_parser = place
    )]
    url: Where,
    /// For a service: the directory to write, which must be empty or not exist yet.
    #[arg(long, value_name = "DIRECTORY")]
    to: Option<PathBuf>,
    /// For an archive: the data directory to copy.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    credentials: Credentials,
    /// How long the service may take to begin its response.
    #[arg(long, default_value = "10s", value_parser = quantity::time, help_heading = "Connection")]
    timeout: Duration,
}

/// What the URL names.
#[derive(Clone, Debug)]
enum Where {
    Service(String),
    Archive(ArchiveUrl),
}

fn place(text: &str) -> Result<Where, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Where::Service(text.into()));
    }
    let archive = text.parse::<ArchiveUrl>();
    archive.map(Where::Archive).map_err(|error| {
        format!("it is not the URL of a service (http://, https://), and as an archive: {error}")
    })
}

impl Backup {
    pub(crate) fn run(self) -> Outcome {
        match (self.url, self.to, self.data_dir) {
            (Where::Service(url), Some(to), None) => {
                of_service(url, &to, self.credentials, self.timeout)
            }
            (Where::Archive(url), None, Some(directory)) => of_directory(&url, &directory),
            (Where::Service(_), ..) => Err(Misuse(
                "a backup of a running service goes into an empty directory: name it with --to, \
                 and do not give --data-dir"
                    .into(),
            )
            .into()),
            (Where::Archive(_), ..) => Err(Misuse(
                "an archive takes a data directory that no service is running on: name it with \
                 --data-dir, and do not give --to. A running service needs an http:// or https:// \
                 URL"
                .into(),
            )
            .into()),
        }
    }
}

fn of_service(url: String, to: &Path, credentials: Credentials, timeout: Duration) -> Outcome {
    // First, so that the service does nothing for a directory that is not empty.
    let arrival = Arrival::open(to).map_err(|error| explained(to, &error))?;
    let asked = credentials.client(url, timeout);
    let stream = match asked.and_then(|client| client.backup()) {
        Ok(stream) => stream,
        Err(error) => return ask::exit(Err(error.into())),
    };
    let mut bar = Shown::new();
    let taken = arrival.take(stream, &Settings::default(), |progress| {
        bar.progress(progress);
    });
    let took = bar.finish();
    let arrived = taken.map_err(|error| explained(to, &error))?;
    let counts = arrived.restored.counts;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "took {} widgets and {} associations ({}) into {} in {:.1} s",
        counts.widgets,
        counts.associations,
        bytes_text(arrived.bytes),
        to.display(),
        took.as_secs_f64()
    )?;
    writeln!(
        out,
        "up to {} (position {})",
        arrived.reached, arrived.position
    )?;
    writeln!(
        out,
        "it is verified, and will continue in epoch {}: start a service with --data-dir {}",
        arrived.restored.epoch,
        to.display()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn of_directory(url: &ArchiveUrl, path: &Path) -> Outcome {
    let bucket = Bucket::open(url, Retries::Bucket)?;
    let settings = Settings {
        held_bytes_max: u64::MAX,
        ..Settings::default()
    };
    let explained = |error| stores::explained(path, &error);
    let directory = DataDirectory::open(path, NoStore::Refuse).map_err(explained)?;
    let clock = Arc::new(SystemClock::new());
    let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
    let engine = Engine::open_in(directory, &settings, pacing).map_err(explained)?;
    let copied = wait(back_up(bucket, engine.source(), clock))??;
    writeln!(
        io::stdout(),
        "{} is in the archive up to {}",
        path.display(),
        time_text(copied.usable_at)
    )?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_url_names_a_service_or_an_archive() {
        for text in ["http://127.0.0.1:3000", "https://widgets.example/registry"] {
            assert!(matches!(place(text), Ok(Where::Service(url)) if url == text));
        }
        for text in ["s3://bucket/a", "file:///var/archive"] {
            assert!(matches!(place(text), Ok(Where::Archive(url)) if url.to_string() == text));
        }
        for text in ["", "127.0.0.1:3000", "ftp://host/a"] {
            let error = place(text).expect_err(text);
            assert!(error.contains("not the URL of a service"), "{error}");
        }
    }
}
