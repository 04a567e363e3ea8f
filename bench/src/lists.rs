//! `widgets-bench lists`: how long lists take, alone and beside writes, and how much they slow the
//! writes.

use crate::{
    load::{Dataset, Figures, Run, Workload, median},
    peer::{Peer, now},
    report::{Output, Table, number, say},
    store,
};
use hdrhistogram::Histogram;
use std::{
    error::Error,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many widgets the store holds, with half as many associations.
    #[arg(long, default_value_t = 10_000_000)]
    widgets: u64,
    /// How many lists of each kind are requested, one after the other, without writes.
    #[arg(long, default_value_t = 2_000)]
    requests: u64,
    /// How many rounds there are, each with writes alone and the same writes beside lists.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=ROUNDS_MAX))]
    rounds: u8,
    /// How long a turn of a round takes, in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How many writes a second there are while pages are measured.
    #[arg(long, default_value_t = 30_000.0)]
    rate: f64,
    /// How many pages a second are requested beside them.
    #[arg(long, default_value_t = 200)]
    pages: u32,
    /// How many connections the writer has.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[command(flatten)]
    store: store::Choice,
    #[command(flatten)]
    output: Output,
}

/// A kind of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Keyset,
    Free,
    Count,
    Scan,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Keyset => "page of 100 behind any serial number",
            Self::Free => "page of 100 with a free R slot behind any",
            Self::Count => "exact count of all",
            Self::Scan => "`name=like.*x*`, counted: a look at every widget",
        }
    }

    /// Returns the path and the additional header lines of a list that begins after this widget of the
    /// dataset.
    fn request(self, behind: u64) -> (String, &'static str) {
        let counted = "prefer: count=exact\r\n";
        match self {
            Self::Keyset => (
                format!("/widgets?serial_number=gt.W{behind:010}&limit=100"),
                "",
            ),
            Self::Free => {
                let free = "%5B%7B%22port%22:%22R%22,%22peer%22:null%7D%5D";
                let path =
                    format!("/widgets?serial_number=gt.W{behind:010}&slots=cs.{free}&limit=100");
                (path, "")
            }
            Self::Count => ("/widgets?limit=1".into(), counted),
            Self::Scan => ("/widgets?name=like.*x*&limit=100".into(), counted),
        }
    }
}

/// One connection with one request at a time.
struct Reader {
    stream: BufReader<TcpStream>,
    host: String,
    widgets: u64,
    turn: u64,
}

impl Reader {
    fn new(peer: &Peer, widgets: u64) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(peer.address())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_mins(2)))?;
        Ok(Self {
            stream: BufReader::new(stream),
            host: peer.address().to_owned(),
            widgets,
            turn: 0,
        })
    }

    /// Requests another list of this kind, anywhere in the dataset. Returns how long it took, and its
    /// status.
    fn ask(&mut self, kind: Kind) -> Result<(Duration, u16), Box<dyn Error>> {
        self.turn = self.turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (path, header) = kind.request(self.turn % self.widgets);
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n{header}\r\n", self.host);
        let asked = now();
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(format!("{path}: the connection ended").into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().unwrap_or_default().parse()?;
            } else if let Some(value) = text.strip_prefix("content-length: ") {
                length = value.parse()?;
            } else if text.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((asked.elapsed(), status))
    }
}

/// The times that lists took.
struct Lists {
    times: Histogram<u64>,
    failed: u64,
}

impl Lists {
    fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            times: Histogram::new_with_bounds(1, 600_000_000, 3)?,
            failed: 0,
        })
    }

    fn take(&mut self, (time, status): (Duration, u16)) {
        if (200..300).contains(&status) {
            self.times.saturating_record(time.as_micros() as u64);
        } else {
            self.failed += 1;
        }
    }

    fn milliseconds(&self, quantile: f64) -> f64 {
        if self.times.is_empty() {
            return f64::NAN;
        }
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let directory = arguments.output.directory()?;
    let store = arguments.store.open(&directory, None)?;
    let peer = store.serve(arguments.widgets)?;
    let resident = peer.resident_mib()?;
    let mut table = Table::new(&[
        "list",
        "beside writes/s",
        "lists",
        "p50 ms",
        "p99 ms",
        "longest ms",
        "failed",
        "writes/s, of those alone",
        "writes' p99 ms",
        "alone",
        "difference, least to most",
    ]);
    let mut reader = Reader::new(&peer, arguments.widgets)?;
    for kind in [Kind::Keyset, Kind::Free, Kind::Count, Kind::Scan] {
        // PostgreSQL counts row by row.
        let looks_at_all =
            kind == Kind::Scan || kind == Kind::Count && arguments.store.is_postgres();
        let requests = if looks_at_all { 5 } else { arguments.requests };
        let mut lists = Lists::new()?;
        for _ in 0..requests {
            lists.take(reader.ask(kind)?);
        }
        say(&format!(
            "{}: p99 {} ms",
            kind.as_str(),
            number(lists.milliseconds(0.99))
        ))?;
        table.row(row(kind, None, &lists));
    }
    let mut writes = Writes {
        peer: &peer,
        directory: &directory,
        arguments,
        part: 0,
    };
    for kind in [Kind::Keyset, Kind::Free] {
        let (rounds, lists) = writes.rounds(Some(arguments.rate), kind)?;
        table.row(row(kind, Some(&rounds), &lists));
    }
    let highest = writes.alone(None)?.served_per_second;
    for rate in [Some(highest / 2.0), None] {
        let (rounds, lists) = writes.rounds(rate, Kind::Scan)?;
        table.row(row(Kind::Scan, Some(&rounds), &lists));
    }
    let method = format!(
        "{}, {} widgets, half as many associations, {} MiB resident at the beginning, started in {} s. Lists by \
         one connection: one after the other, beside writes {} pages a second, scans one after the other. \
         Writes: additions by {} connections in {} rounds, each of {} s alone and {} s beside the lists. Medians of \
         the rounds; ratios and differences are those of a round. The highest rate is that of a closed loop, \
         {}/s.",
        arguments.store.name(),
        number(arguments.widgets as f64),
        number(resident),
        number(peer.started_in.as_secs_f64()),
        arguments.pages,
        arguments.connections,
        arguments.rounds,
        arguments.seconds,
        arguments.seconds,
        number(highest),
    );
    let name = format!("lists{}", arguments.store.suffix());
    table.write(&directory, &name, &method, &[])
}

fn row(kind: Kind, rounds: Option<&Rounds>, lists: &Lists) -> [String; 11] {
    let of_writes = |figure: &dyn Fn(&Rounds) -> String| rounds.map_or_else(String::new, figure);
    [
        kind.as_str().to_owned(),
        of_writes(&|rounds| number(median(rounds.each(|_, beside| beside.served_per_second)))),
        number(lists.times.len() as f64),
        number(lists.milliseconds(0.5)),
        number(lists.milliseconds(0.99)),
        number(lists.milliseconds(1.0)),
        lists.failed.to_string(),
        of_writes(&|rounds| {
            let ratios =
                rounds.each(|alone, beside| beside.served_per_second / alone.served_per_second);
            number(median(ratios))
        }),
        of_writes(&|rounds| number(median(rounds.each(|_, beside| beside.latency.p99)))),
        of_writes(&|rounds| number(median(rounds.each(|alone, _| alone.latency.p99)))),
        of_writes(&Rounds::difference),
    ]
}

/// Writes alone and the same writes beside lists, in alternating turns.
struct Rounds(Vec<(Figures, Figures)>);

impl Rounds {
    /// Returns a figure of each round, from that of the writes alone and that of those beside lists.
    fn each(&self, figure: impl Fn(&Figures, &Figures) -> f64) -> impl Iterator<Item = f64> {
        self.0
            .iter()
            .map(move |(alone, beside)| figure(alone, beside))
    }

    /// Describes by how many milliseconds the lists raised the 99th percentile: the median of the
    /// rounds, the least and the most.
    fn difference(&self) -> String {
        let each = || self.each(|alone, beside| beside.latency.p99 - alone.latency.p99);
        let (least, most) = (each().reduce(f64::min), each().reduce(f64::max));
        format!(
            "{}, {} to {}",
            number(median(each())),
            number(least.unwrap_or(f64::NAN)),
            number(most.unwrap_or(f64::NAN))
        )
    }
}

/// The load of writes.
struct Writes<'a> {
    peer: &'a Peer,
    directory: &'a Path,
    arguments: &'a Arguments,
    part: usize,
}

/// The highest number of rounds.
const ROUNDS_MAX: i64 = 20;

/// How many parts the dataset has: one for each turn of writes, which are two in a round of each of
/// the four lists beside writes, and one for the highest rate.
const PARTS: usize = 8 * ROUNDS_MAX as usize + 1;

impl Writes<'_> {
    fn alone(&mut self, rate: Option<f64>) -> Result<Figures, Box<dyn Error>> {
        self.part += 1;
        let duration = Duration::from_secs(self.arguments.seconds);
        let run = Run {
            dataset: Some(Dataset {
                widgets: self.arguments.widgets,
                part: self.part,
                parts: PARTS,
            }),
            // The report shows how many requests were turned away, so these are no failure.
            overload: true,
            ..Run::closed(Workload::Adds, self.arguments.connections, duration)
        };
        rate.map_or(run, |rate| run.at(rate))
            .on(self.peer, self.directory)
    }

    /// Runs the writes alone and beside lists, and each round in the opposite order of the round
    /// before.
    fn rounds(&mut self, rate: Option<f64>, kind: Kind) -> Result<(Rounds, Lists), Box<dyn Error>> {
        let (mut rounds, mut lists) = (Rounds(Vec::new()), Lists::new()?);
        for round in 0..self.arguments.rounds {
            let (alone, beside) = if round.is_multiple_of(2) {
                let alone = self.alone(rate)?;
                (alone, self.beside(rate, kind, &mut lists)?)
            } else {
                let beside = self.beside(rate, kind, &mut lists)?;
                (self.alone(rate)?, beside)
            };
            say(&format!(
                "{}, {}/s beside: {} ms; writes {} ms, alone {} ms",
                kind.as_str(),
                number(beside.served_per_second),
                number(lists.milliseconds(0.99)),
                number(beside.latency.p99),
                number(alone.latency.p99),
            ))?;
            rounds.0.push((alone, beside));
        }
        Ok((rounds, lists))
    }

    /// Runs the writes beside lists.
    fn beside(
        &mut self,
        rate: Option<f64>,
        kind: Kind,
        lists: &mut Lists,
    ) -> Result<Figures, Box<dyn Error>> {
        let mut reader = Reader::new(self.peer, self.arguments.widgets)?;
        let (pages, seconds) = (self.arguments.pages, self.arguments.seconds);
        thread::scope(|scope| {
            let read = scope.spawn(move || {
                let read = read_beside(&mut reader, kind, pages, seconds, lists);
                read.map_err(|error| error.to_string())
            });
            let beside = self.alone(rate);
            read.join().map_err(|_| "the reader's thread ended")??;
            beside
        })
    }
}

/// Requests lists while the writer writes: pages when they are due, other lists one after the other.
fn read_beside(
    reader: &mut Reader,
    kind: Kind,
    pages: u32,
    seconds: u64,
    lists: &mut Lists,
) -> Result<(), Box<dyn Error>> {
    let interval = Duration::from_secs(1) / pages.max(1);
    // Leave the writer time to connect and to warm up.
    let began = now() + Duration::from_millis(1_200);
    let end = began + Duration::from_secs(seconds);
    wait_until(began);
    let mut due = began;
    while now() < end {
        if kind != Kind::Scan {
            wait_until(due);
            due += interval;
        }
        lists.take(reader.ask(kind)?);
    }
    Ok(())
}

fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(now()));
}
