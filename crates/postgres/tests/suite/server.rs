//! A PostgreSQL server for one test, with its data in a temporary folder and on a free port. It is
//! removed when it is dropped, even if the test fails.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// A running server. Its administrator is `postgres`, without a password.
pub(crate) struct Server {
    pub(crate) directory: Arc<Directory>,
    pub(crate) port: u16,
    settings: Vec<String>,
    process: Option<Child>,
    /// The data that it was copied from. It is removed with the last server that uses it.
    template: Option<Arc<Directory>>,
}

/// Returns the path of a program of the newest PostgreSQL on the system.
pub(crate) fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path))
        })
        .collect();
    versions.sort();
    let Some((_, path)) = versions.pop() else {
        panic!("PostgreSQL is missing: on Debian, apt-get install postgresql");
    };
    path.join("bin").join(name)
}

/// Returns a command for a program of PostgreSQL. PostgreSQL refuses to run as root, so root
/// becomes `postgres`. The program stops when the test's thread ends, however it ends.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=QUIT", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).stdout == b"0\n"
}

/// Runs a command to its end and checks that it succeeds.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Signals a process and its children, and returns the children. Some of them may have ended in the
/// meantime.
fn signal(pid: u32, name: &str) -> String {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let mut kill = Command::new("kill");
    kill.arg(name).arg(pid.to_string());
    kill.args(children.split_whitespace()).stderr(Stdio::null());
    drop(kill.status());
    children
}

/// Returns a port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A folder that is removed when this is dropped.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("widgets-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("readable by all");
        Self(path).owned()
    }

    /// Gives everything in it to the user that servers run as.
    pub(crate) fn owned(self) -> Self {
        if is_root() {
            run(Command::new("chown")
                .args(["-R", "postgres:postgres"])
                .arg(&self.0));
        }
        self
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Returns a data directory made by initdb. That takes a second of CPU time, so it is made once for
/// all servers that run at the same time, and copied.
fn template() -> Arc<Directory> {
    static LATEST: Mutex<Weak<Directory>> = Mutex::new(Weak::new());
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = latest.upgrade() {
        return template;
    }
    let template = Arc::new(Directory::new());
    run(command(&binary("initdb"))
        .arg("-D")
        .arg(template.0.join("data"))
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
        // Small files, because they are copied for each server.
        .args(["--locale=C.UTF-8", "--no-sync", "--wal-segsize=1"]));
    *latest = Arc::downgrade(&template);
    template
}

impl Server {
    /// Starts a server with these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_of(template(), settings)
    }

    /// Starts a server on a copy of the data in this folder, which is kept while there is a copy.
    pub(crate) fn start_of(template: Arc<Directory>, settings: &[&str]) -> Self {
        let mut server = Self::start_on(settings, |data| {
            let from = template.0.join("data");
            run(Command::new("cp").arg("--archive").arg(from).arg(data));
        });
        server.template = Some(template);
        server
    }

    /// Starts a server on data that `make` writes to this folder.
    pub(crate) fn start_on(settings: &[&str], make: impl FnOnce(&Path)) -> Self {
        let directory = Arc::new(Directory::new());
        make(&directory.0.join("data"));
        let mut server = Self {
            directory,
            port: free_port(),
            settings: settings.iter().map(|&setting| setting.into()).collect(),
            process: None,
            template: None,
        };
        // Another process may have taken the port in the meantime.
        while !server.begin() {
            let log = server.log();
            assert!(log.contains("Address already in use"), "{log}");
            drop(fs::remove_file(server.directory.0.join("log")));
            server.port = free_port();
        }
        server
    }

    /// Starts it again after [`Self::stop`].
    pub(crate) fn resume(&mut self) {
        assert!(self.begin(), "it does not start:\n{}", self.log());
    }

    /// Starts it. Returns true once it accepts connections, or false if it has ended.
    fn begin(&mut self) -> bool {
        assert!(self.process.is_none(), "it runs");
        let mut postgres = command(&binary("postgres"));
        postgres
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(&self.directory.0)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-c", "max_connections=50", "-c", "shared_buffers=64MB"])
            .args(["-c", "max_wal_size=1GB"]);
        for setting in &self.settings {
            postgres.args(["-c", setting]);
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.0.join("log"))
            .expect("a log");
        let mut process = postgres
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a server");
        // Not by connecting to its port, where another server may answer.
        let pid_file = self.data().join("postmaster.pid");
        let pid = process.id().to_string();
        for _ in 0..12_000 {
            let lines = fs::read_to_string(&pid_file).unwrap_or_default();
            let mut lines = lines.lines();
            if lines.next() == Some(&pid) && lines.nth(6).map(str::trim) == Some("ready") {
                self.process = Some(process);
                return true;
            }
            if process.try_wait().expect("a process").is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
        panic!("it does not start within two minutes:\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.0.join("log")).unwrap_or_default()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.0.join("data")
    }

    /// Stops it as `pg_ctl stop -m MODE` does, or with `kill -9` of all its processes (`kill`), and
    /// waits.
    pub(crate) fn stop(&mut self, mode: &str) {
        if mode == "kill" {
            self.kill();
            return;
        }
        run(command(&binary("pg_ctl"))
            .args(["stop", "-s", "-w", "-m", mode, "-D"])
            .arg(self.data()));
        if let Some(mut process) = self.process.take() {
            process.wait().expect("its end");
        }
    }

    fn kill(&mut self) {
        let children = self.signal("-KILL");
        let Some(mut process) = self.process.take() else {
            return;
        };
        process.wait().expect("its end");
        for child in children.split_whitespace() {
            while Path::new("/proc").join(child).exists() {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Sends a signal to all its processes and returns its children. `-STOP` simulates a machine
    /// that no longer answers.
    pub(crate) fn signal(&self, name: &str) -> String {
        let process = self.process.as_ref();
        process.map_or_else(String::new, |process| signal(process.id(), name))
    }

    /// Returns the process ids of the server's children that serve clients.
    pub(crate) fn backends(&self) -> Vec<u32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid \
                   <> pg_backend_pid()";
        let pids = self.psql("postgres", sql);
        pids.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Runs SQL as the administrator and returns the output, unaligned.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let output = run(self.psql_command(database).args(["-c", sql]));
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }

    pub(crate) fn psql_command(&self, database: &str) -> Command {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-U", "postgres", "-d", database]);
        psql
    }

    /// Creates an empty database and returns its URL for this role.
    pub(crate) fn database(&self, name: &str, role: &str) -> String {
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name, role)
    }

    pub(crate) fn url(&self, database: &str, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGQUIT ends it at once, with its children.
            let pid = process.id().to_string();
            drop(Command::new("kill").args(["-QUIT", &pid]).status());
            signal(process.id(), "-CONT");
            drop(process.wait());
        }
    }
}
