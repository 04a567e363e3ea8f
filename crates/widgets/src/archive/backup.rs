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
use widgets_client::Error;
use widgets_clock::{Clock, SystemClock};
use widgets_engine::{DataDirectory, Engine, NoStore, Settings};
use widgets_load::quantity;
use widgets_pacing::{Mode, Pacing};

/// Takes a backup of a running service into an empty directory, or copies a stopped data directory to an archive.
///
/// With an http:// or https:// URL it asks a running service, with a role in `auth.admin_roles`, for everything that was
/// acknowledged before, and writes it into the directory that --to names: verified, ready to be served, in a new epoch.
/// The service keeps running meanwhile, and needs no archive. After an interruption no service starts on the directory;
/// run the same command again to start over. With the URL of an archive it copies the directory that --data-dir names,
/// which no service may be running on, with a checkpoint of it. It refuses an archive to which another copy of the store
/// has written.
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
    let client = credentials.client(url, timeout);
    let asked = client.and_then(|client| once_free(&SystemClock::new(), || client.backup()));
    let stream = match asked {
        Ok(stream) => stream,
        Err(error) => {
            arrival.give_up();
            return ask::exit(Err(error.into()));
        }
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

/// How long to wait for the end of another backup. The service notices that the client of an
/// interrupted one has gone only when it sends the next piece, a few seconds later.
const BUSY_TIME_MAX: Duration = Duration::from_secs(15);
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Asks for a backup, again and again while the service is busy with another one, for some seconds.
fn once_free<T>(clock: &dyn Clock, mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let until = clock.now() + BUSY_TIME_MAX;
    loop {
        match ask() {
            Err(Error::Unavailable(refusal)) if refusal.code == "WG503" && clock.now() < until => {
                clock.sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn of_directory(url: &ArchiveUrl, path: &Path) -> Outcome {
    let settings = Settings::default().keeping_everything();
    let explained = |error| stores::explained(path, &error);
    let directory = DataDirectory::open(path, NoStore::Refuse).map_err(explained)?;
    let clock = Arc::new(SystemClock::new());
    let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
    let engine = Engine::open_in(directory, &settings, pacing).map_err(explained)?;
    // Only now, because nothing may be created for a directory that cannot be copied.
    let bucket = Bucket::open_to_write(url, Retries::Bucket)?;
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
    use std::sync::atomic::{AtomicU64, Ordering};
    use widgets_client::Refusal;
    use widgets_clock::Timer;
    use widgets_registry::{
        Applied, Ask as _, Attempt, Command, IdempotencyKey, Name, Ports, SerialNumber,
    };

    /// The operating system's clock, some hours ago.
    struct Ago {
        clock: SystemClock,
        hours: AtomicU64,
    }

    impl Clock for Ago {
        fn now(&self) -> Duration {
            self.clock.now()
        }

        fn unix_time(&self) -> Duration {
            let ago = Duration::from_hours(self.hours.load(Ordering::Relaxed));
            self.clock.unix_time().saturating_sub(ago)
        }

        fn sleep(&self, duration: Duration) {
            self.clock.sleep(duration);
        }

        fn park(&self, duration: Duration) {
            self.clock.park(duration);
        }

        fn timer(&self, duration: Duration) -> Timer {
            self.clock.timer(duration)
        }
    }

    fn add(serial_number: &str, key: Option<&str>) -> Attempt {
        Attempt {
            key: key.map(|key| IdempotencyKey::new(key).expect("a key")),
            ..Attempt::from(Command::AddWidget {
                serial_number: SerialNumber::new("widget_sn", serial_number).expect("valid"),
                name: Name::new("widget_name", "n").expect("valid"),
                ports: Ports::NONE,
            })
        }
    }

    #[test]
    fn a_backup_of_a_stopped_store_keeps_its_idempotency_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let of_service = Settings {
            idempotency_retention_hours: 168,
            ..Settings::default()
        };
        let clock = Arc::new(Ago {
            clock: SystemClock::new(),
            hours: 30.into(),
        });
        let open = || {
            let directory = DataDirectory::open(&data, NoStore::Make).expect("its directory");
            let random = Box::new(|| 7);
            let engine = Engine::open_on(directory, clock.clone(), random, &of_service);
            engine.expect("a store")
        };
        let ask = |engine: &Engine<_>, attempt| {
            let client = engine.client();
            let asked = wait(async move { client.ask(attempt).await });
            asked.expect("a runtime")
        };
        let engine = open();
        assert_eq!(ask(&engine, add("a", Some("k"))), Ok(Applied::Now));
        clock.hours.store(0, Ordering::Relaxed);
        assert_eq!(ask(&engine, add("b", None)), Ok(Applied::Now));
        drop(engine);
        let archive = format!("file://{}/archive", folder.path().display());
        let archive = archive.parse().expect("an archive");
        of_directory(&archive, &data).expect("backed up");
        assert_eq!(ask(&open(), add("a", Some("k"))), Ok(Applied::Before));
    }

    /// Sleeps without waiting.
    #[derive(Default)]
    struct Skipping(AtomicU64);

    impl Clock for Skipping {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn unix_time(&self) -> Duration {
            self.now()
        }

        fn sleep(&self, duration: Duration) {
            let millis = u64::try_from(duration.as_millis()).expect("short");
            self.0.fetch_add(millis, Ordering::Relaxed);
        }

        fn timer(&self, _: Duration) -> Timer {
            unreachable!("nothing here waits for a timer");
        }
    }

    #[test]
    fn a_backup_waits_some_seconds_for_the_end_of_another_one() {
        let refused = |status, code: &str| Refusal {
            status,
            code: code.into(),
            message: String::new(),
            details: None,
            hint: None,
            retry_after_seconds: Some(10),
        };
        let busy = || Error::Unavailable(refused(503, "WG503"));
        let mut left = 10;
        let taken = once_free(&Skipping::default(), || {
            left -= 1;
            if left == 0 { Ok("taken") } else { Err(busy()) }
        });
        assert_eq!(taken.ok(), Some("taken"));
        let taken = once_free(&Skipping::default(), || Err::<(), _>(busy()));
        assert!(matches!(taken, Err(Error::Unavailable(_))), "{taken:?}");
        let mut asked = 0;
        let taken = once_free(&Skipping::default(), || {
            asked += 1;
            Err::<(), _>(Error::Refused(refused(501, "WG501")))
        });
        assert!(matches!(taken, Err(Error::Refused(_))), "{taken:?}");
        assert_eq!(asked, 1);
    }

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
