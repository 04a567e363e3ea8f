//! Peers: the processes that are compared with each other.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    error::Error,
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server of this run. Dropping this stops it.
pub(crate) struct Peer {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) url: String,
    /// The time from its start to the line that says where it listens.
    pub(crate) started_in: Duration,
    process: Child,
}

/// Returns the path of a program that was built together with this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    let path = path.display();
    Err(format!("{path} is missing: cargo build --release -p {name}").into())
}

/// Returns a command that may use only this CPU.
pub(crate) fn pinned(program: &Path, processor: Option<usize>) -> Command {
    let Some(processor) = processor else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &processor.to_string()]);
    command.arg(program);
    command
}

/// Returns the present moment.
#[expect(
    clippy::disallowed_methods,
    reason = "what takes time here is other processes"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Makes a new dataset, because earlier measurements have changed the previous one.
pub(crate) fn generate(data_dir: &Path, widgets: u64) -> Result<(), Box<dyn Error>> {
    if data_dir.exists() {
        std::fs::remove_dir_all(data_dir)?;
    }
    let mut command = Command::new(sibling("widgets")?);
    command.args(["generate", "--widgets", &widgets.to_string(), "--data-dir"]);
    run(command.arg(data_dir))
}

/// Runs a command to its end. Fails if the command fails.
pub(crate) fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{errors}", output.status).into());
    }
    Ok(())
}

impl Peer {
    /// Starts the same routes over a store that does nothing, on one CPU if given.
    pub(crate) fn do_nothing(processor: Option<usize>) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(&std::env::current_exe()?, processor);
        command.arg("serve-null");
        Self::start("do nothing", command)
    }

    /// Starts the service on the embedded store, on one CPU if given.
    pub(crate) fn embedded(
        data_dir: &Path,
        processor: Option<usize>,
    ) -> Result<Self, Box<dyn Error>> {
        Self::service("embedded", "--data-dir", data_dir.as_os_str(), processor)
    }

    /// Starts the service of the given program on the embedded store.
    pub(crate) fn of_build(program: &Path, data_dir: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(data_dir);
        Self::start("embedded", command)
    }

    /// Starts the service on the embedded store, with this mode of pacing, in a control group.
    pub(crate) fn paced(
        data_dir: &Path,
        mode: &str,
        group: Option<&Path>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(sibling("widgets")?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--pacing", mode]);
        command.arg("--data-dir").arg(data_dir);
        if let Some(group) = group {
            // The shell joins the group before it becomes the service, so that the service is in the
            // group from its start.
            let join = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
            let mut shell = Command::new("sh");
            shell.args(["-c", join]).arg(group);
            shell.arg(command.get_program()).args(command.get_args());
            command = shell;
        }
        Self::start("embedded", command)
    }

    /// Starts the service on the PostgreSQL store, on one CPU if given.
    pub(crate) fn postgres(store: &str, processor: Option<usize>) -> Result<Self, Box<dyn Error>> {
        Self::service("PostgreSQL, grouped", "--store", store.as_ref(), processor)
    }

    fn service(
        name: &'static str,
        flag: &str,
        store: &OsStr,
        processor: Option<usize>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(&sibling("widgets")?, processor);
        command.args(["serve", "--listen", "127.0.0.1:0", flag]);
        command.arg(store);
        Self::start(name, command)
    }

    /// Starts the process and waits until it has printed where it listens.
    fn start(name: &'static str, mut command: Command) -> Result<Self, Box<dyn Error>> {
        let start = now();
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let output = process.stdout.take().ok_or("its output is piped")?;
        let mut lines = BufReader::new(output).lines();
        let url = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            Some(line.split_once("listens on ")?.1.trim().to_owned())
        });
        let Some(url) = url else {
            let status = process.wait()?;
            return Err(format!("{name} ended before it listened: {status}: {command:?}").into());
        };
        let started_in = start.elapsed();
        // Keep reading, so that the process never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            name,
            url,
            started_in,
            process,
        })
    }

    /// Returns its current resident memory, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.ok_or("no VmRSS in its status")?.trim().parse::<f64>()? / 1024.0)
    }

    /// Returns the CPU time that it has used so far, in seconds.
    pub(crate) fn processor_seconds(&self) -> Result<f64, Box<dyn Error>> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The second field, in parentheses, may contain any character. After it, user and system time
        // are the 12th and 13th fields (proc_pid_stat(5)).
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
    }

    /// Returns the CPU time, in microseconds, that its threads with this prefix in their names have used
    /// so far.
    pub(crate) fn thread_micros(&self, name: &str) -> Result<f64, Box<dyn Error>> {
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let path = thread?.path();
            // A thread that has ended meanwhile is not one of those that are asked for.
            let read = |file| std::fs::read_to_string(path.join(file)).unwrap_or_default();
            if read("comm").starts_with(name) {
                let first = read("schedstat").split(' ').next().map(str::parse::<u64>);
                nanoseconds += first.unwrap_or(Ok(0))?;
            }
        }
        Ok(nanoseconds as f64 / 1e3)
    }

    /// Returns where it listens, as `127.0.0.1:3000`.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Returns the body of the answer to `GET` of a path. Fails if the answer is an error.
    pub(crate) fn get(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let host = self.address();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
            _ => Err(format!("GET {path}: {answer}").into()),
        }
    }

    /// Returns the sum of a metric over all its labels. Fails if the peer does not have the metric.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, Box<dyn Error>> {
        let text = self.get("/metrics")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest.strip_prefix(' ').or_else(|| {
                let labels = rest.strip_prefix('{')?;
                Some(labels.rsplit_once("} ")?.1)
            })?;
            value.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// Shuts it down gracefully, with SIGTERM.
    pub(crate) fn end(mut self) -> Result<(), Box<dyn Error>> {
        let id = i32::try_from(self.process.id())?;
        let pid = Pid::from_raw(id).ok_or("a process has a number")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.process.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{} ended with {status}", self.name).into())
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its data is no longer needed, so it need not shut down gracefully.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
