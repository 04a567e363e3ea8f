//! Measures what the embedded store promises about size and time:
//!
//!     cargo run --release -p widgets-engine --example measure -- fill 10000000 /some/directory
//!     cargo run --release -p widgets-engine --example measure -- restart /some/directory
//!     cargo run --release -p widgets-engine --example measure -- checkpoint 5 /some/directory
//!     cargo run --release -p widgets-engine --example measure -- order 5 /some/directory
//!
//! `fill` makes a store of that many widgets, half of whose slots are taken, and prints its memory
//! and the checkpoint's time. `restart` prints the time to the first answer. `checkpoint` compares
//! the latency of mixed operations without and with a checkpoint being written, in the given number
//! of rounds. `order` compares the CPU time of an addition without and with the orders of lists, in
//! the given number of rounds, and leaves the store unchanged.

use std::{env, error::Error, fs, io::Write as _, path::Path, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use widgets_clock::{Clock as _, SystemClock};
use widgets_engine::{Bulk, Client, DataDirectory, Engine, NoStore, Settings};
use widgets_registry::{
    Ask as _, Command, Kinds as _, Lookup, Name, Pair, Port, Ports, SerialNumber,
};

/// How many operations are under way at a time.
const TASKS: u64 = 64;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let clock = Arc::new(SystemClock::new());
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["fill", widgets, directory] => fill(&clock, widgets.parse()?, directory.as_ref()),
        ["restart", directory] => restart(&clock, directory.as_ref()),
        ["checkpoint", rounds, directory] => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(checkpoint(&clock, rounds.parse()?, directory.as_ref()))
        }
        ["order", rounds, directory] => order(rounds.parse()?, directory.as_ref()),
        _ => Err(
            "usage: measure fill WIDGETS DIRECTORY | restart DIRECTORY | \
                  checkpoint ROUNDS DIRECTORY | order ROUNDS DIRECTORY"
                .into(),
        ),
    }
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Returns a line of `/proc/self/status`, in MiB: `VmRSS` is the resident memory now, `VmHWM` its
/// peak.
fn memory_mib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let digits = line.map(|line| {
        line.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    });
    digits
        .and_then(|digits| digits.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

fn serial_number(number: u64) -> Result<SerialNumber, Box<dyn Error>> {
    Ok(SerialNumber::new(
        "serial_number",
        format!("SN{number:08x}"),
    )?)
}

fn add(number: u64) -> Result<Command, Box<dyn Error>> {
    Ok(Command::AddWidget {
        serial_number: serial_number(number)?,
        name: Name::new("name", format!("widget {number:09x}"))?,
        ports: Ports::new(&[Port::P, Port::Q])?,
    })
}

fn associate(one: u64, other: u64) -> Result<Command, Box<dyn Error>> {
    let pair = Pair::new(serial_number(one)?, serial_number(other)?, Port::P)?;
    Ok(Command::AssociateWidgets(pair))
}

/// Fills a store. Each widget has a serial number of 10 bytes, a name of 16 and two slots, one of
/// which is taken.
fn fill(clock: &SystemClock, widgets: u64, directory: &Path) -> Outcome {
    let empty_mib = memory_mib("VmRSS:");
    let directory = DataDirectory::open(directory, NoStore::Make)?;
    let mut bulk = Bulk::open(directory, &Settings::default())?;
    for number in 0..widgets {
        bulk.apply(&add(number)?)?;
        if number % 2 == 1 {
            bulk.apply(&associate(number - 1, number)?)?;
        }
    }
    let filled = clock.now();
    let full_mib = memory_mib("VmRSS:");
    bulk.commit()?;
    say(&format!(
        "{widgets} widgets in {filled:.1?}, committed in {:.1?}; {full_mib} MiB resident, {} bytes \
         a widget, of which 26 are its text",
        clock.now().saturating_sub(filled),
        ((full_mib - empty_mib) << 20) / widgets,
    ));
    Ok(())
}

fn restart(clock: &SystemClock, directory: &Path) -> Outcome {
    let engine = Engine::open(directory, &Settings::default())?;
    let opened = clock.now();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let widget = runtime.block_on(engine.client().ask(Lookup(serial_number(0)?)))?;
    say(&format!(
        "opened after {opened:.2?}, answered after {:.2?} ({}); {} MiB resident, {} MiB at most",
        clock.now(),
        widget.map_or("no widget", |_| "a widget"),
        memory_mib("VmRSS:"),
        memory_mib("VmHWM:"),
    ));
    Ok(())
}

/// How many additions are timed together.
const ADDITIONS: u64 = 200_000;

/// Serial numbers as 256 clients that count up would choose them, or anywhere.
#[derive(Clone, Copy)]
enum Where {
    Counted,
    Anywhere,
}

/// Returns the CPU time of this thread, in nanoseconds.
fn processor_time() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = status.split(' ').next().unwrap_or_default();
    Ok(first.parse()?)
}

fn order(rounds: u64, directory: &Path) -> Outcome {
    let directory = DataDirectory::open(directory, NoStore::Refuse)?;
    let mut bulk = Bulk::open(directory, &Settings::default())?;
    for (what, place) in [("counted", Where::Counted), ("anywhere", Where::Anywhere)] {
        for round in 0..rounds {
            let mut nanoseconds = [0; 2];
            for (is_kept, each) in [false, true].into_iter().zip(&mut nanoseconds) {
                let additions = additions(place, round * 2 + u64::from(is_kept))?;
                bulk.keep_order(is_kept);
                let begin = processor_time()?;
                for addition in &additions {
                    bulk.apply(addition)?;
                }
                *each = (processor_time()? - begin) / ADDITIONS;
            }
            let [without, with] = nanoseconds;
            say(&format!(
                "{what}: {without} ns an addition, {with} with the orders of lists"
            ));
        }
    }
    Ok(())
}

/// Returns additions of widgets with one of sixteen names. No two series share a serial number.
fn additions(place: Where, series: u64) -> Result<Vec<Command>, Box<dyn Error>> {
    (0..ADDITIONS)
        .map(|number| {
            // Spread evenly, and in no order.
            let spread = (number + series * ADDITIONS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let serial_number = match place {
                Where::Counted => format!("{series}-{}-{}", spread >> 56, number),
                Where::Anywhere => format!("SN{:08x}-{series}-{number}", spread >> 40),
            };
            Ok(Command::AddWidget {
                serial_number: SerialNumber::new("serial_number", serial_number)?,
                name: Name::new("name", format!("widget {}", spread >> 32 & 15))?,
                ports: Ports::new(&[Port::P, Port::Q])?,
            })
        })
        .collect()
}

async fn checkpoint(clock: &Arc<SystemClock>, rounds: u32, directory: &Path) -> Outcome {
    let settings = Settings {
        // Only the checkpoints that are requested.
        checkpoint_journal_bytes: u64::MAX,
        ..Settings::default()
    };
    let engine = Arc::new(Engine::open(directory, &settings)?);
    say(&format!("{} MiB resident", memory_mib("VmRSS:")));
    // Beyond every widget that `fill` made, and different in each run.
    let mut first = u64::try_from(clock.now().as_nanos())? << 8;
    for _ in 0..rounds {
        let without = |elapsed| elapsed > Duration::from_secs(3);
        let without = load(clock, &engine.client(), &mut first, without).await?;
        report("without", &without);
        let checkpointed = engine.clone();
        let writing = tokio::task::spawn_blocking(move || checkpointed.checkpoint());
        let began = clock.now();
        let with = load(clock, &engine.client(), &mut first, |_| {
            writing.is_finished()
        })
        .await?;
        let duration = clock.now().saturating_sub(began);
        writing.await??;
        report("with   ", &with);
        say(&format!(
            "the checkpoint took {duration:.1?}; {} MiB at most",
            memory_mib("VmHWM:")
        ));
    }
    Ok(())
}

/// Runs mixed operations until `is_over` returns true. Returns the latency of each.
async fn load(
    clock: &Arc<SystemClock>,
    client: &Client,
    first: &mut u64,
    is_over: impl Fn(Duration) -> bool,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let client = client.on_current_runtime();
    let began = clock.now();
    let mut latencies = Vec::new();
    while !is_over(clock.now().saturating_sub(began)) {
        // Each task runs a hundred times four operations, so that all tasks are busy.
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (clock, client, first) = (clock.clone(), client.clone(), *first + task * 1000);
            tasks.spawn(async move {
                let mut latencies = Vec::with_capacity(400);
                for number in (first..first + 200).step_by(2) {
                    for command in operations(number) {
                        let began = clock.now();
                        let accepted = client.submit(command).await.is_ok();
                        latencies.push((clock.now().saturating_sub(began), accepted));
                    }
                }
                latencies
            });
        }
        *first += TASKS * 1000;
        for (latency, accepted) in tasks.join_all().await.into_iter().flatten() {
            if !accepted {
                return Err("an operation was refused".into());
            }
            latencies.push(latency);
        }
    }
    Ok(latencies)
}

/// Returns operations that add two widgets, associate them, and remove one of them.
fn operations(number: u64) -> Vec<Command> {
    let made = [add(number), add(number + 1), associate(number, number + 1)];
    let gone = serial_number(number).map(|serial_number| Command::RemoveWidget { serial_number });
    made.into_iter().chain([gone]).flatten().collect()
}

fn report(name: &str, latencies: &[Duration]) {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = |thousandths: usize| sorted[(sorted.len() - 1) * thousandths / 1000];
    say(&format!(
        "{name} a checkpoint: {} operations, p50 {:.2?}, p99 {:.2?}, p99.9 {:.2?}, worst {:.2?}",
        sorted.len(),
        at(500),
        at(990),
        at(999),
        at(1000),
    ));
}
