//! `widgets-bench changes`: what the feed of changes and idempotency keys cost in throughput, CPU time
//! and memory.

mod streams;

use crate::{
    load::{Run, Turn, Workload, median},
    peer::{Peer, now},
    postgres::Server,
    report::{Output, Table, number, say},
    store::Choice,
};
use std::{error::Error, path::Path, time::Duration};
use streams::{Idle, Subscriber};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What is measured.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "subscriber,idle,keys,keys-memory,postgres"
    )]
    parts: Vec<Part>,
    /// How many rounds there are, each with a turn without and a turn with.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many connections the load has.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// How many widgets the store holds at first.
    #[arg(long, default_value_t = 100_000)]
    widgets: u64,
    /// How many subscribers are connected and have nothing to read.
    #[arg(long, default_value_t = 1_000)]
    idle: u32,
    /// How many keys the service keeps.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[command(flatten)]
    output: Output,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One subscriber at the highest rate of additions: what it costs them, and how far it lags behind.
    Subscriber,
    /// The memory of subscribers that have nothing to read.
    Idle,
    /// What a key with every operation costs.
    Keys,
    /// The memory of keys.
    KeysMemory,
    /// What the feed costs on PostgreSQL, for the service's batches and for single calls.
    Postgres,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    for part in &arguments.parts {
        match part {
            Part::Subscriber => subscriber(arguments, &directory)?,
            Part::Idle => idle(arguments, &directory)?,
            Part::Keys => keys(arguments, &directory)?,
            Part::KeysMemory => keys_memory(arguments, &directory)?,
            Part::Postgres => postgres(arguments, &directory)?,
        }
    }
    Ok(())
}

/// Runs of the same load without and with the measured feature, alternately.
#[derive(Default)]
struct Turns {
    without: Vec<Turn>,
    with: Vec<Turn>,
}

impl Turns {
    fn say(&self, round: usize) -> Result<(), Box<dyn Error>> {
        let [without, with] = [&self.without, &self.with].map(|turns| {
            let last = turns.last();
            number(last.map_or(f64::NAN, |turn| turn.figures.served_per_second))
        });
        say(&format!(
            "round {round}: {without}/s without, {with}/s with"
        ))
    }

    /// Returns the median over the rounds of the ratio of with to without.
    fn ratio(&self, figure: impl Fn(&Turn) -> f64) -> f64 {
        let pairs = self.with.iter().zip(&self.without);
        median(pairs.map(|(with, without)| figure(with) / figure(without)))
    }

    /// Adds a row for the turns without and one for the turns with.
    fn rows(&self, table: &mut Table, names: [&str; 2]) {
        let rate = self.ratio(|turn| turn.figures.served_per_second);
        let micros = self.ratio(|turn| turn.micros);
        for (name, turns, rate, micros) in [
            (names[0], &self.without, 1.0, 1.0),
            (names[1], &self.with, rate, micros),
        ] {
            let middle = |figure: &dyn Fn(&Turn) -> f64| number(median(turns.iter().map(figure)));
            table.row([
                name.to_owned(),
                middle(&|turn| turn.figures.served_per_second),
                number(rate),
                middle(&|turn| turn.figures.latency.p50),
                middle(&|turn| turn.figures.latency.p99),
                middle(&|turn| turn.micros),
                number(micros),
            ]);
        }
    }
}

const HEADS: [&str; 7] = [
    "",
    "adds/s",
    "ratio",
    "p50 ms",
    "p99 ms",
    "service's processor µs",
    "ratio",
];

impl Arguments {
    fn load(&self) -> Run {
        let duration = Duration::from_secs(self.seconds);
        Run::closed(Workload::Adds, self.connections, duration)
    }

    fn method(&self, store: &str) -> String {
        format!(
            "{store} of {} widgets; add_widget, closed loop, {} connections, {} alternating rounds of {} s. \
             Medians; ratios are the middle of the rounds' own.",
            number(self.widgets as f64),
            self.connections,
            self.rounds,
            self.seconds,
        )
    }

    fn embedded(&self, directory: &Path) -> Result<Peer, Box<dyn Error>> {
        Choice::EMBEDDED.open(directory, None)?.serve(self.widgets)
    }
}

fn subscriber(arguments: &Arguments, directory: &Path) -> Result<(), Box<dyn Error>> {
    let peer = arguments.embedded(directory)?;
    let run = arguments.load();
    run.on(&peer, directory)?;
    let (mut turns, mut told) = (Turns::default(), Vec::new());
    for round in 1..=arguments.rounds {
        turns.without.push(Turn::of(&run, &peer, directory)?);
        let subscriber = Subscriber::start(peer.address())?;
        turns.with.push(Turn::of(&run, &peer, directory)?);
        told.push(subscriber.finish()?);
        turns.say(round)?;
    }
    let mut table = Table::new(&HEADS);
    turns.rows(&mut table, ["no subscriber", "one subscriber"]);
    let most = |figure: &dyn Fn(&streams::Told) -> f64| {
        told.iter().map(figure).fold(f64::NEG_INFINITY, f64::max)
    };
    let more = format!(
        "The subscriber read {} changes a round (NDJSON). From the commit to its reading: at the last change \
         {} ms, at any {} ms, both the most of all rounds.",
        number(median(told.iter().map(|told| told.changes))),
        number(most(&|told| told.behind_at_end)),
        number(most(&|told| told.behind_most)),
    );
    let method = arguments.method("Embedded store");
    table.write(directory, "changes-subscriber", &method, &[more])
}

fn idle(arguments: &Arguments, directory: &Path) -> Result<(), Box<dyn Error>> {
    let peer = arguments.embedded(directory)?;
    // Run load first, so that the memory which load needs is not counted as the subscribers'.
    arguments.load().on(&peer, directory)?;
    let before = peer.resident_mib()?;
    let idle = Idle::open(peer.address(), arguments.idle)?;
    // Long enough for a heartbeat to each subscriber: idle subscribers receive nothing more.
    std::thread::sleep(Duration::from_secs(16));
    let mib = peer.resident_mib()? - before;
    let open = peer.metric("widgets_changes_subscribers")?;
    idle.close();
    let mut table = Table::new(&["idle subscribers", "memory MiB", "KiB each"]);
    table.row([
        number(open),
        number(mib),
        number(mib * 1024.0 / f64::from(arguments.idle)),
    ]);
    let method = "Embedded store; what streams (NDJSON, HTTP/1.1, a connection each) with nothing to tell add to \
                  what was resident after load, 16 s and so one heartbeat later.";
    table.write(directory, "changes-idle", method, &[])
}

fn keys(arguments: &Arguments, directory: &Path) -> Result<(), Box<dyn Error>> {
    let peer = arguments.embedded(directory)?;
    let run = arguments.load();
    let keyed = Run { keys: true, ..run };
    run.on(&peer, directory)?;
    let mut turns = Turns::default();
    for round in 1..=arguments.rounds {
        turns.without.push(Turn::of(&run, &peer, directory)?);
        turns.with.push(Turn::of(&keyed, &peer, directory)?);
        turns.say(round)?;
    }
    let mut table = Table::new(&HEADS);
    turns.rows(&mut table, ["no keys", "a key with every operation"]);
    let method = arguments.method("Embedded store");
    table.write(directory, "changes-keys", &method, &[])
}

fn keys_memory(arguments: &Arguments, directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut resident = Vec::new();
    let mut kept = 0.0;
    for keys in [false, true] {
        // Each run starts a new service, so that the memory of the widgets is the same.
        let peer = arguments.embedded(directory)?;
        let before = peer.resident_mib()?;
        let run = Run {
            keys,
            warm_up: Duration::ZERO,
            duration: Duration::from_hours(1),
            requests: Some(arguments.keys),
            ..arguments.load()
        };
        run.on(&peer, directory)?;
        resident.push(peer.resident_mib()? - before);
        kept = peer.metric("widgets_idempotency_keys")?;
    }
    let [without, with] = resident.as_slice() else {
        return Err("two runs have two figures".into());
    };
    let mut table = Table::new(&["keys", "memory MiB", "bytes each"]);
    let mib = with - without;
    table.row([number(kept), number(mib), number(mib * 1_048_576.0 / kept)]);
    let method = format!(
        "Embedded store of {} widgets; what {} additions with a key each add to what is resident, less what as many \
         without add ({} MiB).",
        number(arguments.widgets as f64),
        number(arguments.keys as f64),
        number(*without),
    );
    table.write(directory, "changes-keys-memory", &method, &[])
}

fn postgres(arguments: &Arguments, directory: &Path) -> Result<(), Box<dyn Error>> {
    let server = Server::start(&directory.join("postgres"), None)?;
    let off = server.database(arguments.widgets)?;
    let on = server.database_with_changes(arguments.widgets)?;
    let run = arguments.load();
    let peers = [&off, &on].map(|database| Peer::postgres(&database.store(), None));
    let [without, with] = peers;
    let (without, with) = (without?, with?);
    let mut batches = Turns::default();
    for peer in [&without, &with] {
        run.on(peer, directory)?;
    }
    for round in 1..=arguments.rounds {
        batches.without.push(Turn::of(&run, &without, directory)?);
        batches.with.push(Turn::of(&run, &with, directory)?);
        batches.say(round)?;
    }
    drop((without, with));
    let duration = Duration::from_secs(arguments.seconds);
    let mut calls = Turns::default();
    for round in 0..=arguments.rounds {
        let turn = |figures| Turn {
            figures,
            micros: f64::NAN,
        };
        let [without, with] =
            [&off, &on].map(|database| database.adds(directory, round, duration, None));
        // The first round is a warm-up.
        if round > 0 {
            calls.without.push(turn(without?));
            calls.with.push(turn(with?));
            calls.say(round)?;
        }
    }
    let mut table = Table::new(&HEADS);
    batches.rows(
        &mut table,
        ["batches of the service", "the same, with the feed"],
    );
    calls.rows(
        &mut table,
        [
            "single calls (pgbench, 32 clients)",
            "the same, with the feed",
        ],
    );
    let method = arguments.method("PostgreSQL on this machine");
    table.write(directory, "changes-postgres", &method, &[])
}

/// Returns the milliseconds since a wall-clock time that another process wrote.
fn milliseconds_since(at: &str) -> Option<f64> {
    let at = humantime::parse_rfc3339(at).ok()?;
    let since = at.elapsed().unwrap_or_default();
    Some(since.as_secs_f64() * 1e3)
}
