//! Peers: the processes that are compared.

use std::{
    error::Error,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A server of this run. It is stopped when this is dropped.
pub(crate) struct Peer {
    /// What it is called in the report.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) url: String,
    process: Child,
}

/// A program that was built together with this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    let path = path.display();
    Err(format!("{path} is missing: cargo build --release -p {name}").into())
}

impl Peer {
    /// The same routes over a store that does nothing.
    pub(crate) fn do_nothing() -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-null");
        Self::start("do nothing", command)
    }

    /// The service on the embedded store.
    pub(crate) fn embedded(data_dir: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(sibling("widgets")?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(data_dir);
        Self::start("embedded", command)
    }

    /// Waits until the process has printed where it listens.
    fn start(name: &'static str, mut command: Command) -> Result<Self, Box<dyn Error>> {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = process.stdout.take().ok_or("its output is piped")?;
        let mut lines = BufReader::new(output).lines();
        let url = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            Some(line.split_once("listens on ")?.1.trim().to_owned())
        });
        let Some(url) = url else {
            let status = process.wait()?;
            return Err(format!("{name} ended before it listened: {status}").into());
        };
        // Goes on reading, so that the process never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { name, url, process })
    }

    /// Its resident memory now, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<u64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.ok_or("no VmRSS in its status")?.trim().parse::<u64>()? / 1024)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its data is not needed any more, so it need not end in order.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
