//! `widgets watch`: shows the changes as they happen, or since a time.

use super::{EXIT_CODES, Failure, Service, exit, table::shown};
use crate::Outcome;
use std::{
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd as _,
    process, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{io::Interest, net::unix::pipe, runtime};
use widgets_client::{Change, ChangesAfter, Client, Error};

/// How long the service is asked to wait for a change.
const WAIT: Duration = Duration::from_secs(20);

/// The pause before an unreachable service is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// A service that was asked to wait for a change, and answers at once that there is none, is asked
/// again after this.
const EMPTY: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Watch {
    /// Show only the changes of this widget.
    #[arg(long, value_name = "SERIAL_NUMBER")]
    widget: Option<String>,
    /// Show only this operation. May be repeated.
    #[arg(long, value_name = "OPERATION", value_parser = ["add_widget", "remove_widget", "associate_widgets", "remove_association"])]
    operation: Vec<String>,
    /// Where to begin: at a time (`2026-11-27T11:00:00Z`), some time ago (`24h`), at the `oldest`
    /// change that is kept, or after a position from earlier output. By default, from now on.
    #[arg(long, value_name = "TIME|POSITION", value_parser = since)]
    since: Option<Since>,
    /// Exit once every change up to now has been shown.
    #[arg(long)]
    no_follow: bool,
    /// Print JSON Lines: one change per line, as in the response of the service.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Since {
    /// A time in the service's format, so that the order of the texts is the order of the times.
    Time(String),
    /// This long before the command began.
    Ago(Duration),
    Oldest,
    Position(String),
}

fn since(text: &str) -> Result<Since, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text == "oldest" {
        return Ok(Since::Oldest);
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Since::Ago(ago));
    }
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(Since::Time(written(time)));
    }
    // Only the service knows which positions exist. All of them consist of hexadecimal digits and
    // dashes.
    let is_position = text.contains('-')
        && text
            .chars()
            .all(|character| character == '-' || character.is_ascii_hexdigit());
    if is_position {
        return Ok(Since::Position(text.into()));
    }
    Err(
        "it must be a time such as 2026-11-27T11:00:00Z (UTC), an age such as 24h, `oldest`, or a \
         position from earlier output"
            .into(),
    )
}

/// Returns the time this long ago, or `None` if it is before 1970: such times cannot be written, and
/// every change is later.
fn earlier(now: SystemTime, ago: Duration) -> Option<SystemTime> {
    now.checked_sub(ago).filter(|time| *time >= UNIX_EPOCH)
}

fn written(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

impl Watch {
    pub(crate) fn run(self) -> Outcome {
        exit(self.print())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "so long ago is counted from the clock on the wall of whoever asks, and what waits is a process"
    )]
    fn print(self) -> Result<(), Failure> {
        let client = self.service.client()?;
        let (after, from) = match self.since {
            None => (ChangesAfter::Now, None),
            Some(Since::Oldest) => (ChangesAfter::Oldest, None),
            Some(Since::Position(position)) => (ChangesAfter::Position(position), None),
            Some(Since::Time(time)) => (ChangesAfter::Oldest, Some(time)),
            Some(Since::Ago(ago)) => {
                let time = earlier(SystemTime::now(), ago);
                (ChangesAfter::Oldest, time.map(written))
            }
        };
        // A page after the newest change at present may have newer ones already, so an empty page
        // need never come.
        let end = if self.no_follow {
            newest(&client)?
        } else {
            None
        };
        if !self.no_follow {
            exit_with_reader()?;
        }
        let mut changes = client.changes(after, self.widget.as_deref(), &self.operation);
        let mut out = io::stdout().lock();
        let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        // If the first attempt fails, the address is more likely wrong than the service restarting.
        let (mut reached, mut told) = (false, false);
        loop {
            // The first answer shows that the service is there, so nothing else is waited for.
            let wait = if self.no_follow || !reached {
                Duration::ZERO
            } else {
                WAIT
            };
            let asked = Instant::now();
            let before = changes.after().clone();
            let page = match changes.next_page(wait) {
                Ok(page) => page,
                Err(error @ (Error::Unreachable { .. } | Error::Unavailable(_)))
                    if reached && !self.no_follow =>
                {
                    if !told {
                        writeln!(io::stderr(), "{}; trying again", shown(&error.to_string()))?;
                    }
                    told = true;
                    thread::sleep(RETRY);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            (reached, told) = (true, false);
            let nothing = page.is_empty();
            // If a page leads nowhere, nothing is left to read, whatever the positions are.
            let is_end =
                changes.position() >= end.as_deref() || nothing && *changes.after() == before;
            for (change, json) in page {
                let is_early = from.as_ref().is_some_and(|from| change.at < *from);
                let is_late = end.as_ref().is_some_and(|end| change.position > *end);
                if is_early || is_late {
                    continue;
                }
                if self.json {
                    writeln!(out, "{}", json.get())?;
                } else {
                    line(&mut out, &change, colours)?;
                }
            }
            out.flush()?;
            if self.no_follow && is_end {
                return Ok(());
            }
            if nothing && !wait.is_zero() {
                thread::sleep(EMPTY.saturating_sub(asked.elapsed()));
            }
        }
    }
}

/// Ends the process once nobody reads standard output any more, as `tail -f` does. Until the next
/// change there is nothing to write, so no write would fail.
fn exit_with_reader() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let out = io::stdout().as_fd().try_clone_to_owned()?;
    let wait = move || {
        let gone = runtime.block_on(async {
            // Unchecked, because the check makes writes return before they are done. Nothing is
            // written here.
            let out = pipe::Sender::from_owned_fd_unchecked(out)?;
            while !out.ready(Interest::ERROR).await?.is_error() {}
            io::Result::Ok(())
        });
        // A file has no reader, and cannot be waited for.
        if gone.is_ok() {
            process::exit(0);
        }
    };
    let waiting = thread::Builder::new().name("reader".into()).spawn(wait);
    waiting.map(drop)
}

/// Returns the position after the newest change at present.
fn newest(client: &Client) -> Result<Option<String>, Error> {
    let mut changes = client.changes(ChangesAfter::Now, None, &[]);
    changes.next_page(Duration::ZERO)?;
    Ok(changes.position().map(str::to_owned))
}

/// Writes one change for people: when, who, what.
fn line(out: &mut impl Write, change: &Change, colours: bool) -> io::Result<()> {
    let colour = match (&*change.operation, colours) {
        (_, false) => "",
        ("add_widget", _) => "\x1b[32m",
        ("remove_widget", _) => "\x1b[31m",
        ("associate_widgets", _) => "\x1b[36m",
        _ => "\x1b[33m",
    };
    let end = if colours { "\x1b[0m" } else { "" };
    writeln!(
        out,
        "{}  {:<12}  {colour}{:<18}{end}  {}",
        shown(&change.at),
        shown(change.by.as_deref().unwrap_or("-")),
        shown(&change.operation),
        subject(change)
    )
}

/// Describes what an operation was applied to.
fn subject(change: &Change) -> String {
    let text = |text: &Option<String>| shown(text.as_deref().unwrap_or_default()).into_owned();
    if change.widget1_sn.is_some() {
        let slot = |slot: Option<u8>| slot.map_or_else(String::new, |slot| format!(":{slot}"));
        return format!(
            "{}{} ={}= {}{}",
            text(&change.widget1_sn),
            slot(change.slot1),
            text(&change.port),
            text(&change.widget2_sn),
            slot(change.slot2)
        );
    }
    let mut words = vec![text(&change.widget_sn)];
    words.extend(
        change
            .widget_name
            .as_ref()
            .map(|name| format!("\"{}\"", shown(name))),
    );
    words.extend(
        change
            .slots
            .iter()
            .flatten()
            .map(|port| shown(port).into_owned()),
    );
    let freed = change.freed.iter().flatten();
    let freed: Vec<_> = freed
        .map(|freed| format!("{}:{}", shown(&freed.widget_sn), freed.slot))
        .collect();
    if !freed.is_empty() {
        words.push(format!("(freed {})", freed.join(", ")));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Since, earlier, line, since, written};
    use std::time::{Duration, UNIX_EPOCH};
    use widgets_client::Change;

    #[test]
    fn since_is_a_time_a_duration_or_a_position() {
        for (text, meant) in [
            ("24h", Since::Ago(Duration::from_hours(24))),
            ("oldest", Since::Oldest),
            (
                "2026-11-27T11:00:00Z",
                Since::Time("2026-11-27T11:00:00.000000Z".into()),
            ),
            (
                "2026-11-27 11:00:00",
                Since::Time("2026-11-27T11:00:00.000000Z".into()),
            ),
            ("6f1c-41", Since::Position("6f1c-41".into())),
        ] {
            assert_eq!(since(text), Ok(meant), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-11-27T11:00:00+01:00",
            "11:00",
            "latest",
        ] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_age_that_reaches_back_before_1970_means_every_change() {
        let now = UNIX_EPOCH + Duration::from_hours(500_000);
        let time = earlier(now, Duration::from_hours(500_000)).expect("a time");
        assert_eq!(written(time), "1970-01-01T00:00:00.000000Z");
        for hours in [500_001, 1_000_000, u64::MAX / 3600] {
            assert_eq!(earlier(now, Duration::from_hours(hours)), None);
        }
    }

    #[test]
    fn a_change_is_formatted_as_one_line() {
        for (json, shown) in [
            (
                r#"{"position":"p","at":"T","by":"alice","operation":"associate_widgets",
                    "widget1_sn":"E","slot1":2,"widget2_sn":"F","slot2":1,"port":"R"}"#,
                "T  alice         associate_widgets   E:2 =R= F:1\n",
            ),
            (
                r#"{"position":"p","at":"T","by":null,"operation":"add_widget",
                    "widget_sn":"E","widget_name":"pump\u001b","slots":["P","R"]}"#,
                "T  -             add_widget          E \"pump\\u{1b}\" P R\n",
            ),
            (
                r#"{"position":"p","at":"T","by":null,"operation":"remove_widget",
                    "widget_sn":"E","freed":[{"widget_sn":"F","slot":1}]}"#,
                "T  -             remove_widget       E (freed F:1)\n",
            ),
        ] {
            let change: Change = serde_json::from_str(json).expect("a change");
            let mut text = Vec::new();
            line(&mut text, &change, false).expect("written");
            assert_eq!(String::from_utf8(text).expect("text"), shown);
        }
    }
}
