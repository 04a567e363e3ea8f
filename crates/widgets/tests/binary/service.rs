//! A running `widgets serve`, and a directory for it. Both go with their test.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

pub(crate) use rustix::process::Signal;

/// A new directory. Removed with the test, unless that fails.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).expect("a new directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }
}

/// The binary, with nothing of this test's own environment that could set it.
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

/// A process that serves. Killed with the test.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it printed before it listened.
    pub(crate) printed: String,
    /// Kept open: a service that cannot print must not differ from one that can.
    _stdout: BufReader<ChildStdout>,
}

impl Service {
    /// Starts it in `directory` on a port of the system's choice and waits until it listens. What it
    /// logs goes to `log` there.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = Self::spawn(directory, arguments);
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
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join("log"));
        widgets(directory)
            .env("WIDGETS_LISTEN", "127.0.0.1:0")
            .arg("serve")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log.expect("a file to log to"))
            .spawn()
            .expect("the binary runs")
    }

    /// Everything that the services of this directory logged.
    pub(crate) fn log(directory: &Path) -> String {
        std::fs::read_to_string(directory.join("log")).expect("a log")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("the process is there");
    }

    /// `kill -9`, and until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("a process");
    }

    /// Waits until it ends by itself.
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
