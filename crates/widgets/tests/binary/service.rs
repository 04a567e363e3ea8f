//! A running `widgets serve`, and a directory for it. Both end with their test.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use tempfile::TempDir;

pub(crate) use rustix::process::Signal;

/// A new directory, which is removed with the test unless the test fails.
pub(crate) struct Directory(TempDir);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let prefix = format!("{name}-");
        let mut builder = tempfile::Builder::new();
        let directory = builder
            .prefix(&prefix)
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Self(directory.expect("a new directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
        }
    }
}

/// Builds a library (`shim.c`) that sits between the service and libc and makes its disk fail or
/// slow down, without the service knowing about it.
pub(crate) fn shim(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/binary/shim.c");
    let library = directory.join("shim.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]);
    let built = compiler.arg(&library).arg(source).arg("-ldl").status();
    assert!(built.expect("a C compiler").success());
    library
}

/// Returns a command for the binary, without any variable of this test's environment that could
/// configure it.
pub(crate) fn widgets(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_widgets"));
    command.current_dir(directory).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("WIDGETS_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Prepares this PostgreSQL database.
pub(crate) fn migrate(directory: &Path, url: &str) {
    let mut migrate = widgets(directory);
    let migrated = migrate.args(["migrate", "--store", url]).status();
    assert!(migrated.expect("the binary runs").success());
}

/// A serving process. It is killed with the test.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it printed before it listened.
    pub(crate) printed: String,
    /// Kept open, so that the service can print.
    _stdout: BufReader<ChildStdout>,
}

impl Service {
    /// Starts it in `directory` on a port that the system chooses, and waits until it listens. Its
    /// log goes to the file `log` there.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_with(directory, arguments, &[])
    }

    /// Like `start`, with these environment variables.
    pub(crate) fn start_with(
        directory: &Path,
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> Self {
        let mut child = Self::spawn_with(directory, arguments, variables);
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut printed = String::new();
        let address = loop {
            let start = printed.len();
            let read = stdout
                .read_line(&mut printed)
                .expect("the process prints text");
            if read == 0 {
                let status = child.wait().expect("a process");
                let log = Self::log(directory);
                panic!("it did not start, {status}: {printed}{log}");
            }
            if let Some(url) = printed[start..].trim().strip_prefix("widgets listens on ") {
                let (_, address) = url.split_once("://").expect("a URL");
                break address.parse().expect("an address");
            }
        };
        Self {
            child,
            address,
            printed,
            _stdout: stdout,
        }
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(directory: &Path, arguments: &[&str]) -> Child {
        Self::spawn_with(directory, arguments, &[])
    }

    pub(crate) fn spawn_with(
        directory: &Path,
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join("log"));
        widgets(directory)
            .env("WIDGETS_LISTEN", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .arg("serve")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log.expect("a file to log to"))
            .spawn()
            .expect("the binary runs")
    }

    /// Returns everything that the services in this directory logged.
    pub(crate) fn log(directory: &Path) -> String {
        std::fs::read_to_string(directory.join("log")).expect("a log")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("the process is there");
    }

    /// Kills it with `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("a process");
    }

    /// Waits until it ends on its own.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a process")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
