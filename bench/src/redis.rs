//! `widgets-bench redis`: compares the service with Redis, which runs the same rules as scripts, both of
//! them durable, and with a route that does nothing.

use crate::{
    load::median,
    peer::Peer,
    plot::{self, Series},
    report::{Output, Table, number, say},
    wire::{Ask, Drive, Driven, Protocol, Work, command, once},
};
use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many connections the client has; each number is measured.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,32,64,256,1024")]
    connections: Vec<usize>,
    /// How many turns each peer has.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after half a second of warm-up.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Measure all four operations instead of only adds.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: Output,
}

const SCRIPTS: [&str; 4] = [
    include_str!("../redis/add_widget.lua"),
    include_str!("../redis/remove_widget.lua"),
    include_str!("../redis/associate_widgets.lua"),
    include_str!("../redis/remove_association.lua"),
];

/// A Redis server of this run. Dropping this stops it.
struct Redis {
    address: String,
    protocol: Protocol,
    process: Child,
}

impl Redis {
    /// Starts Redis so that every answer is durable, otherwise with its defaults. Redis does not rewrite
    /// its file during the run. The service does write checkpoints, so Redis is spared that work.
    fn start(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let directory = directory.join("redis");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        // The port was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let options = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
            "--auto-aof-rewrite-percentage",
            "0",
            "--daemonize",
            "no",
        ];
        let process = Command::new("redis-server")
            .args(options)
            .arg("--dir")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server: {error}: apt install redis-server"))?;
        let mut redis = Self {
            address: format!("127.0.0.1:{port}"),
            protocol: Protocol::Redis(Default::default()),
            process,
        };
        let mut stream = redis.connect()?;
        let mut digests = Vec::new();
        for script in SCRIPTS {
            stream.write_all(&command(["SCRIPT", "LOAD", script].into_iter()))?;
            // `$40`, the digest, and both line endings.
            let mut answer = [0; 47];
            stream.read_exact(&mut answer)?;
            digests.push(String::from_utf8(answer[5..45].to_vec())?);
        }
        let digests: Result<[String; 4], _> = digests.try_into();
        redis.protocol = Protocol::Redis(digests.map_err(|_| "four scripts have four digests")?);
        Ok(redis)
    }

    /// Waits until Redis listens, and returns a connection.
    fn connect(&mut self) -> Result<TcpStream, Box<dyn Error>> {
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(&self.address) {
                return Ok(stream);
            }
            if let Some(status) = self.process.try_wait()? {
                return Err(format!("redis-server ended before it listened: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("redis-server does not listen".into())
    }

    fn version() -> Result<String, Box<dyn Error>> {
        let output = Command::new("redis-server").arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .split_whitespace()
            .find_map(|word| word.strip_prefix("v="));
        Ok(version.unwrap_or("unknown").to_owned())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Checks that all peers give the right answers to a history that uses every rule of the four operations.
fn check_alike(peers: &[(&str, &Protocol)]) -> Result<(), Box<dyn Error>> {
    let [a, b, c] = ["check-a", "check-b", "check-c"].map(String::from);
    let history = [
        (Ask::Add(a.clone()), None),
        (Ask::Add(a.clone()), Some("23505")),
        (Ask::Associate(a.clone(), b.clone()), Some("WG001")),
        (Ask::Add(b.clone()), None),
        (Ask::Part(a.clone(), b.clone()), Some("WG004")),
        (Ask::Associate(a.clone(), b.clone()), None),
        (Ask::Associate(b.clone(), a.clone()), Some("WG003")),
        (Ask::Add(c.clone()), None),
        (Ask::Associate(a.clone(), c.clone()), Some("WG002")),
        (Ask::Remove(a.clone()), None),
        (Ask::Remove(a), Some("WG001")),
        (Ask::Associate(b.clone(), c.clone()), None),
        (Ask::Part(c.clone(), b.clone()), None),
        (Ask::Remove(b), None),
        (Ask::Remove(c), None),
    ];
    for (ask, expected) in history {
        for (address, protocol) in peers {
            let said = once(address, protocol, &ask)?.err();
            if said.as_deref() != expected {
                return Err(format!("{address} said {said:?} to {ask:?}, not {expected:?}").into());
            }
        }
    }
    Ok(())
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let data_dir = directory.join("beside-redis");
    if data_dir.exists() {
        std::fs::remove_dir_all(&data_dir)?;
    }
    let (service, nothing) = (Peer::embedded(&data_dir, None)?, Peer::do_nothing(None)?);
    let redis = Redis::start(&directory)?;
    check_alike(&[
        (service.address(), &Protocol::Http),
        (&redis.address, &redis.protocol),
    ])?;
    let work = if arguments.all { Work::All } else { Work::Adds };
    let peers = [
        ("widgets", service.address(), &Protocol::Http),
        ("Redis", &redis.address, &redis.protocol),
        ("do nothing", nothing.address(), &Protocol::Http),
    ];
    let mut measured = Vec::new();
    let mut costs = Table::new(&[
        "connections",
        "HTTP, us",
        "owner, us",
        "HTTP of do nothing, us",
        "operations a commit",
        "a commit, ms",
        "of the time",
    ]);
    for &connections in &arguments.connections {
        let mut rounds: [Vec<Driven>; 3] = Default::default();
        let mut taken = [const { Vec::new() }; 6];
        for round in 0..arguments.rounds {
            let before = Spent::by(&service, &nothing)?;
            for (driven, (_, address, protocol)) in rounds.iter_mut().zip(&peers) {
                let drive = Drive {
                    address,
                    protocol,
                    work,
                    connections,
                    duration: Duration::from_secs(arguments.seconds),
                    prefix: format!("{connections}-{round}"),
                };
                driven.push(drive.run()?);
            }
            let spent = Spent::by(&service, &nothing)?;
            let (driven, nothing) = (&rounds[0][round], &rounds[2][round]);
            let seconds = driven.operations as f64 / driven.per_second;
            for (each, of) in taken
                .iter_mut()
                .zip(spent.since(&before, driven, nothing, seconds))
            {
                each.push(of);
            }
        }
        let cells = taken.into_iter().map(|each| number(median(each)));
        costs.row(std::iter::once(connections.to_string()).chain(cells));
        let rate = |peer: usize| median(rounds[peer].iter().map(|each| each.per_second));
        say(&format!(
            "{connections} connections: {}/s, Redis {}/s, do nothing {}/s",
            number(rate(0)),
            number(rate(1)),
            number(rate(2))
        ))?;
        measured.push((connections, rounds));
    }
    let name = if arguments.all { "redis-all" } else { "redis" };
    draw(&directory, name, &measured)?;
    write(arguments, &directory, name, &measured)?;
    let method = "Processor time of the service's threads for an operation, and its commits, in the same \
                  rounds: medians.";
    costs.write(&directory, &format!("{name}-costs"), method, &[])
}

/// The CPU time and the commits up to one moment.
struct Spent {
    http: f64,
    owner: f64,
    http_of_nothing: f64,
    commits: f64,
    commit_seconds: f64,
}

impl Spent {
    fn by(service: &Peer, nothing: &Peer) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            http: service.thread_micros("http")?,
            owner: service.thread_micros("owner")?,
            http_of_nothing: nothing.thread_micros("http")?,
            commits: service.metric("widgets_commit_duration_seconds_count")?,
            commit_seconds: service.metric("widgets_commit_duration_seconds_sum")?,
        })
    }

    /// Returns the figures in the order of the table: CPU time per operation, and the commits in a run of
    /// this many seconds.
    fn since(&self, before: &Self, service: &Driven, nothing: &Driven, seconds: f64) -> [f64; 6] {
        let (operations, nothings) = (service.operations as f64, nothing.operations as f64);
        let commits = self.commits - before.commits;
        let commit_seconds = self.commit_seconds - before.commit_seconds;
        [
            (self.http - before.http) / operations,
            (self.owner - before.owner) / operations,
            (self.http_of_nothing - before.http_of_nothing) / nothings,
            operations / commits,
            commit_seconds / commits * 1e3,
            commit_seconds / seconds,
        ]
    }
}

type Measured = [(usize, [Vec<Driven>; 3])];

fn middle(rounds: &[Driven], pick: fn(&Driven) -> f64) -> f64 {
    median(rounds.iter().map(pick))
}

fn draw(directory: &Path, name: &str, measured: &Measured) -> Result<(), Box<dyn Error>> {
    let series = ["widgets", "Redis", "do nothing"].into_iter().enumerate();
    let series = series.map(|(peer, name)| Series {
        name,
        points: measured
            .iter()
            .map(|(connections, rounds)| {
                let rate = middle(&rounds[peer], |each| each.per_second);
                (*connections as u64, rate)
            })
            .collect(),
    });
    let path = directory.join(format!("{name}.svg"));
    let title = "Operations a second, by connections";
    plot::bars(&path, title, "", &series.collect::<Vec<_>>())
}

fn write(
    arguments: &Arguments,
    directory: &Path,
    name: &str,
    measured: &Measured,
) -> Result<(), Box<dyn Error>> {
    let mut table = Table::new(&[
        "connections",
        "widgets /s",
        "Redis /s",
        "to Redis",
        "to do nothing",
        "p50 ms",
        "Redis p50",
        "p99 ms",
        "Redis p99",
    ]);
    for (connections, [service, redis, nothing]) in measured {
        let ratio = |other: &[Driven]| {
            let pairs = service.iter().zip(other);
            median(pairs.map(|(one, other)| one.per_second / other.per_second))
        };
        let rate = |each: &Driven| each.per_second;
        let figures = [
            middle(service, rate),
            middle(redis, rate),
            ratio(redis),
            ratio(nothing),
            middle(service, |each| each.p50_ms),
            middle(redis, |each| each.p50_ms),
            middle(service, |each| each.p99_ms),
            middle(redis, |each| each.p99_ms),
        ];
        let cells = std::iter::once(connections.to_string()).chain(figures.map(number));
        table.row(cells);
    }
    let what = if arguments.all {
        "two adds, an association, its removal and two removals, one after the other"
    } else {
        "adds"
    };
    let method = format!(
        "Closed loop, {what}; one client for all, one thread; Redis {} with appendfsync always, the \
         rules as Lua scripts (bench/redis). Medians of {} rounds of {} s in which the peers take \
         turns; ratios are medians of each round's.",
        Redis::version()?,
        arguments.rounds,
        arguments.seconds,
    );
    table.write(directory, name, &method, &[])
}
