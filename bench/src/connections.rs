//! `widgets-bench connections`: what many open and mostly idle connections cost.

use crate::{
    load::{Run, Workload, median},
    report::{Output, Table, number, say},
    store,
};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many connections are open and mostly idle.
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    /// How often each of them sends a request.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    period: Duration,
    /// How many rounds there are, each with a turn without and a turn with idle connections.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn is measured, in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many connections the load has.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// How many widgets the store holds.
    #[arg(long, default_value_t = 1_000_000)]
    widgets: u64,
    #[command(flatten)]
    store: store::Choice,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let store = arguments.store.open(&directory, None)?;
    let peer = store.serve(arguments.widgets)?;
    let duration = Duration::from_secs(arguments.seconds);
    let load = Run::closed(Workload::Adds, arguments.connections, duration);
    // The first run allocates the memory that load needs, so that it is not counted as theirs.
    load.on(&peer, &directory)?;
    let (mut without, mut with, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        without.push(load.on(&peer, &directory)?);
        let before = peer.resident_mib()?;
        let idle = Idle::open(peer.address(), arguments.idle, arguments.period)?;
        memory.push(peer.resident_mib()? - before);
        with.push(load.on(&peer, &directory)?);
        idle.close()?;
        let [alone, beside] = [&without, &with].map(|all| {
            let last = all.last().map_or(f64::NAN, |each| each.requests_per_second);
            number(last)
        });
        let mib = memory.last().map_or(String::new(), |&mib| number(mib));
        say(&format!(
            "round {round}: {alone}/s, {beside}/s beside them, {mib} MiB"
        ))?;
    }
    let mut table = Table::new(&[
        "idle connections",
        "requests/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "memory MiB",
    ]);
    let pairs = with.iter().zip(&without);
    let ratio =
        median(pairs.map(|(one, other)| one.requests_per_second / other.requests_per_second));
    // The first opening shows the cost; later ones reuse the memory of those before.
    let mib = memory.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for (idle, all, ratio, mib) in [
        (0, &without, 1.0, f64::NAN),
        (arguments.idle, &with, ratio, mib),
    ] {
        table.row([
            number(f64::from(idle)),
            number(median(all.iter().map(|each| each.requests_per_second))),
            number(ratio),
            number(median(all.iter().map(|each| each.latency.p50))),
            number(median(all.iter().map(|each| each.latency.p99))),
            number(mib),
        ]);
    }
    let method = format!(
        "{} of {} widgets; add_widget, closed loop, {} connections, {} alternating rounds of \
         {} s without and beside the idle ones, each of which asks for a widget once in {}. Medians; \
         memory is the most that opening them added to what was resident.",
        arguments.store.name(),
        number(arguments.widgets as f64),
        arguments.connections,
        arguments.rounds,
        arguments.seconds,
        humantime::format_duration(arguments.period),
    );
    let name = format!("connections{}", arguments.store.suffix());
    table.write(&directory, &name, &method, &[])
}

/// The idle connections, on a separate thread.
struct Idle {
    runtime: tokio::runtime::Runtime,
    tasks: JoinSet<Result<(), std::io::Error>>,
}

impl Idle {
    /// Opens all connections. When this returns, each has received an answer.
    fn open(address: &str, count: u32, period: Duration) -> Result<Self, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let question = format!("GET /widgets/nobody HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let question: Arc<str> = question.into();
        let mut tasks = JoinSet::new();
        let opened = runtime.block_on(async {
            let mut streams = Vec::new();
            for _ in 0..count {
                let mut stream = TcpStream::connect(address).await?;
                ask(&mut stream, &question).await?;
                streams.push(stream);
            }
            Ok::<_, std::io::Error>(streams)
        });
        let streams = opened.map_err(|error| {
            format!("{count} connections cannot be opened (is `ulimit -n` high enough?): {error}")
        })?;
        for (number, mut stream) in (0..count).zip(streams) {
            let question = question.clone();
            let task = async move {
                // Spread evenly over the period, like unrelated callers.
                sleep(period.mul_f64(f64::from(number) / f64::from(count))).await;
                loop {
                    ask(&mut stream, &question).await?;
                    sleep(period).await;
                }
            };
            tasks.spawn_on(task, runtime.handle());
        }
        Ok(Self { runtime, tasks })
    }

    /// Closes the connections. Fails if the service had closed one before.
    fn close(mut self) -> Result<(), Box<dyn Error>> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        Ok(())
    }
}

/// Sends one request, whose answer is a 404 of the service.
async fn ask(stream: &mut TcpStream, question: &str) -> std::io::Result<()> {
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    // The answer ends with the error's body, whose last member is the message.
    while !answer.ends_with(b"does not exist\"}") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
