//! A PostgreSQL server that the run starts, and `pgbench` with one call per operation.

use crate::{
    load::{Figures, Times},
    peer::{now, pinned, run, sibling},
};
use std::{
    error::Error,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// The report's name for one call per operation.
pub(crate) const ONE_CALL: &str = "PostgreSQL, one call each";

/// Where the settings differ from the defaults. Commits still wait for the disk.
const SETTINGS: [&str; 6] = [
    "shared_buffers=6GB",
    "max_wal_size=16GB",
    "checkpoint_timeout=30min",
    "wal_compression=lz4",
    "max_connections=64",
    "unix_socket_directories=",
];

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);

/// A running server with its data in a folder that nothing else uses. Dropping this stops it.
pub(crate) struct Server {
    port: u16,
    process: Child,
}

/// A database in it, prepared by `widgets migrate`.
pub(crate) struct Database<'a> {
    server: &'a Server,
    name: String,
}

/// Returns the path of a program of the newest PostgreSQL on the system.
fn binary(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse::<u32>().ok()?, path))
        })
        .max();
    let (_, path) = newest.ok_or(
        "PostgreSQL is missing: on Debian, apt-get install postgresql; or leave it out: --no-postgres",
    )?;
    Ok(path.join("bin").join(name))
}

/// Returns a command that runs as `postgres` if this process is root, because PostgreSQL refuses to run
/// as root. The command ends with this process.
fn command(program: &Path, processor: Option<usize>) -> Command {
    let mut command = pinned(Path::new("setpriv"), processor);
    if rustix::process::getuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=QUIT", "--"]).arg(program);
    command
}

impl Server {
    /// Starts a server with new data in this folder, on one CPU if given.
    pub(crate) fn start(
        directory: &Path,
        processor: Option<usize>,
    ) -> Result<Self, Box<dyn Error>> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory)?;
        if rustix::process::getuid().is_root() {
            run(Command::new("chown")
                .arg("postgres:postgres")
                .arg(directory))?;
        }
        let data = directory.join("data");
        run(command(&binary("initdb")?, None)
            .arg("-D")
            .arg(&data)
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ]))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut start = command(&binary("postgres")?, processor);
        start.arg("-D").arg(&data).args(["-h", "127.0.0.1"]);
        start.args(["-p", &port.to_string()]);
        for setting in SETTINGS {
            start.args(["-c", setting]);
        }
        let log = fs::File::create(directory.with_extension("log"))?;
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = start
            .spawn()
            .map_err(|error| format!("{start:?}: {error}"))?;
        let mut server = Self { port, process };
        let begun = now();
        while let Err(error) = server.sql("postgres", "SELECT 1") {
            if begun.elapsed() > START || server.process.try_wait()?.is_some() {
                let log = directory.with_extension("log");
                return Err(
                    format!("PostgreSQL does not start ({}): {error}", log.display()).into(),
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    fn sql(&self, database: &str, sql: &str) -> Result<(), Box<dyn Error>> {
        let mut psql = Command::new(binary("psql")?);
        psql.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        psql.args(["-p", &self.port.to_string(), "-d", database, "-c", sql]);
        run(&mut psql)
    }

    /// Makes a database of this many widgets, half of whose slots are associated. Replaces an earlier
    /// database of the same size.
    pub(crate) fn database(&self, widgets: u64) -> Result<Database<'_>, Box<dyn Error>> {
        self.made(format!("bench_{widgets}"), widgets, &[])
    }

    /// Does the same, with the feed of changes.
    pub(crate) fn database_with_changes(
        &self,
        widgets: u64,
    ) -> Result<Database<'_>, Box<dyn Error>> {
        let name = format!("bench_{widgets}_changes");
        self.made(name, widgets, &["--changes"])
    }

    fn made(
        &self,
        name: String,
        widgets: u64,
        migrate: &[&str],
    ) -> Result<Database<'_>, Box<dyn Error>> {
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        self.sql("postgres", &drop)?;
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        let database = Database { server: self, name };
        let program = sibling("widgets")?;
        run(Command::new(&program)
            .args(["migrate", "--store", &database.store()])
            .args(migrate))?;
        run(Command::new(&program)
            .args(["generate", "--widgets", &widgets.to_string()])
            .args(["--store", &database.store()]))?;
        // Write out what the loading left in memory, because that is not to be measured.
        self.sql(&database.name, "VACUUM (ANALYZE) widgets.widgets")?;
        self.sql(&database.name, "CHECKPOINT")?;
        Ok(database)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT: the server ends its children at once, without a clean shutdown.
        if let Ok(id) = i32::try_from(self.process.id())
            && let Some(pid) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        drop(self.process.wait());
    }
}

impl Database<'_> {
    /// Returns the URL for `--store`.
    pub(crate) fn store(&self) -> String {
        let (port, name) = (self.server.port, &self.name);
        format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable")
    }

    /// Adds widgets with one call each, from 32 clients, on one CPU if given.
    pub(crate) fn adds(
        &self,
        directory: &Path,
        round: usize,
        duration: Duration,
        processor: Option<usize>,
    ) -> Result<Figures, Box<dyn Error>> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/postgres/pgbench/add_widget.sql"
        );
        let logs = directory.join("pgbench-log");
        let written = || {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let logs = entries.filter(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().starts_with("pgbench-log.")
            });
            logs.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let mut pgbench = pinned(&binary("pgbench")?, processor);
        pgbench.args([
            "--no-vacuum",
            "--protocol=prepared",
            "--client=32",
            "--jobs=2",
        ]);
        pgbench.arg(format!("--time={}", duration.as_secs().max(1)));
        // Each round names different widgets.
        pgbench.arg(format!("--define=start={}", round as u64 * 20_000_000));
        pgbench.args(["--define=n=0", "--file", script, "--log"]);
        pgbench.arg(format!("--log-prefix={}", logs.display()));
        pgbench.args(["--host=127.0.0.1", "--username=postgres"]);
        pgbench
            .arg(format!("--port={}", self.server.port))
            .arg(&self.name);
        let output = pgbench.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| {
            let rest = line.strip_prefix("tps = ")?;
            rest.split(' ').next()?.parse::<f64>().ok()
        });
        let errors = String::from_utf8_lossy(&output.stderr);
        let (true, Some(rate)) = (output.status.success(), rate) else {
            return Err(format!("{pgbench:?}: {}\n{text}\n{errors}", output.status).into());
        };
        // Each line describes a call; the third field is its time in microseconds.
        let mut times = Vec::new();
        for path in written() {
            for line in fs::read_to_string(&path)?.lines() {
                let time = line
                    .split(' ')
                    .nth(2)
                    .and_then(|time| time.parse::<f64>().ok());
                times.extend(time.map(|us| us / 1e3));
            }
            fs::remove_file(path)?;
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            let place = place.min(times.len().saturating_sub(1));
            times.get(place).copied().unwrap_or(f64::NAN)
        };
        let latency = Times {
            mean: times.iter().sum::<f64>() / times.len() as f64,
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
        };
        Ok(Figures {
            requests_per_second: rate,
            served_per_second: rate,
            latency,
            service: latency,
            turned_away: Times::NONE,
            kinds: Vec::new(),
            failed: 0,
            client_processors: f64::NAN,
        })
    }
}
