//! A client that drives two protocols in the same way: a number of connections, each with one request
//! in flight, and one thread with epoll for all of them. It parses an answer only as far as it must to
//! know whether the answer is right.

use crate::peer::now;
use hdrhistogram::Histogram;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use std::{
    error::Error,
    fmt::Write as _,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A request to a store.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Add(String),
    Remove(String),
    Associate(String, String),
    Part(String, String),
}

/// The protocol of a peer.
#[derive(Clone)]
pub(crate) enum Protocol {
    /// The service's protocol.
    Http,
    /// Redis's protocol, with the digests of the four scripts in the order of [`Ask`].
    Redis([String; 4]),
}

/// The sequence of requests on each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Adds widgets.
    Adds,
    /// Adds two widgets, associates them, removes the association and removes the widgets.
    All,
}

const NAME: &str = "a widget of the comparison";
const PORTS: [&str; 2] = ["P", "R"];

impl Work {
    /// Returns the request with this number of a connection. `prefix` distinguishes connections and
    /// rounds.
    fn ask(self, prefix: &str, number: u64) -> Ask {
        if self == Self::Adds {
            return Ask::Add(format!("{prefix}-{number}"));
        }
        let (round, step) = (number / 6, number % 6);
        let (one, two) = (format!("{prefix}-{round}-1"), format!("{prefix}-{round}-2"));
        match step {
            0 => Ask::Add(one),
            1 => Ask::Add(two),
            2 => Ask::Associate(one, two),
            3 => Ask::Part(one, two),
            4 => Ask::Remove(one),
            _ => Ask::Remove(two),
        }
    }
}

impl Protocol {
    /// Returns the request's bytes.
    pub(crate) fn write(&self, ask: &Ask) -> Vec<u8> {
        match self {
            Self::Http => {
                let (operation, body) = match ask {
                    Ask::Add(sn) => (
                        "add_widget",
                        format!(
                            r#"{{"widget_sn":"{sn}","widget_name":"{NAME}","slots":["{}","{}"]}}"#,
                            PORTS[0], PORTS[1]
                        ),
                    ),
                    Ask::Remove(sn) => ("remove_widget", format!(r#"{{"widget_sn":"{sn}"}}"#)),
                    Ask::Associate(one, two) => ("associate_widgets", pair(one, two)),
                    Ask::Part(one, two) => ("remove_association", pair(one, two)),
                };
                let length = body.len();
                format!(
                    "POST /rpc/{operation} HTTP/1.1\r\nhost: localhost\r\n\
                     content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                )
                .into()
            }
            Self::Redis([add, remove, associate, part]) => {
                let (digest, keys, rest): (_, &[&String], &[&str]) = match ask {
                    Ask::Add(sn) => (add, &[sn], &[NAME, PORTS[0], PORTS[1]]),
                    Ask::Remove(sn) => (remove, &[sn], &[]),
                    Ask::Associate(one, two) => (associate, &[one, two], &PORTS[..1]),
                    Ask::Part(one, two) => (part, &[one, two], &PORTS[..1]),
                };
                let count = keys.len().to_string();
                let head = ["EVALSHA", digest, &count];
                let keys = keys.iter().map(|key| key.as_str());
                command(head.into_iter().chain(keys).chain(rest.iter().copied()))
            }
        }
    }

    /// Parses the answer at the beginning of these bytes. Returns its length and its result: nothing, or
    /// why the request was refused. Returns `None` while the answer is incomplete.
    pub(crate) fn read(&self, bytes: &[u8]) -> Option<(usize, Result<(), String>)> {
        let text = String::from_utf8_lossy(bytes);
        match self {
            Self::Http => {
                let (head, _) = text.split_once("\r\n\r\n")?;
                let whole = head.len() + 4;
                if head.starts_with("HTTP/1.1 204 ") {
                    return Some((whole, Ok(())));
                }
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    let is_length = name.eq_ignore_ascii_case("content-length");
                    is_length.then(|| value.trim().parse::<usize>().ok())?
                });
                let whole = whole + length.unwrap_or(0);
                let body = text.get(head.len() + 4..whole)?;
                let code = body
                    .split(r#""code":""#)
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                Some((whole, Err(code.unwrap_or(head).to_owned())))
            }
            Self::Redis(_) => {
                let (line, _) = text.split_once("\r\n")?;
                let said = match line.strip_prefix('-') {
                    None => Ok(()),
                    Some(error) => Err(error.trim_start_matches("ERR ").to_owned()),
                };
                Some((line.len() + 2, said))
            }
        }
    }
}

fn pair(one: &str, two: &str) -> String {
    let port = PORTS[0];
    format!(r#"{{"widget1_sn":"{one}","widget2_sn":"{two}","port":"{port}"}}"#)
}

/// Encodes a command for Redis.
pub(crate) fn command<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut text = String::new();
    let mut count = 0;
    for word in words {
        count += 1;
        // Writing to a string cannot fail.
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
    format!("*{count}\r\n{text}").into()
}

/// Sends one request and waits for its result.
pub(crate) fn once(
    address: &str,
    protocol: &Protocol,
    ask: &Ask,
) -> Result<Result<(), String>, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(&protocol.write(ask))?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(format!("{address} closed the connection at {ask:?}").into());
        }
        bytes.extend_from_slice(&piece[..count]);
        if let Some((_, said)) = protocol.read(&bytes) {
            return Ok(said);
        }
    }
}

/// A run against one peer.
pub(crate) struct Drive<'a> {
    pub(crate) address: &'a str,
    pub(crate) protocol: &'a Protocol,
    pub(crate) work: Work,
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    /// The prefix of all serial numbers of the run.
    pub(crate) prefix: String,
}

/// The results of a run.
#[derive(Clone, Copy)]
pub(crate) struct Driven {
    /// How many operations there were, including those of the warm-up.
    pub(crate) operations: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

struct Connection {
    stream: TcpStream,
    prefix: String,
    number: u64,
    sent: Instant,
    answer: Vec<u8>,
}

/// How long a run lasts before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

impl Drive<'_> {
    pub(crate) fn run(&self) -> Result<Driven, Box<dyn Error>> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(self.connections);
        for number in 0..self.connections {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                prefix: format!("{}-{number}", self.prefix),
                number: 0,
                sent: now(),
                answer: Vec::new(),
            });
        }
        // A precision of a thousandth is enough, because the times vary by more.
        let mut times = Histogram::<u64>::new(3)?;
        let mut operations = 0;
        let begin = now() + WARM_UP;
        let end = begin + self.duration;
        for connection in &mut connections {
            self.send(connection)?;
        }
        let mut events = Vec::with_capacity(1024);
        let patience = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        loop {
            events.clear();
            epoll::wait(&poll, spare_capacity(&mut events), Some(&patience))?;
            if events.is_empty() {
                return Err(format!("{} answers nothing", self.address).into());
            }
            for event in &events {
                let connection = &mut connections[usize::try_from(event.data.u64())?];
                if !self.receive(connection)? {
                    continue;
                }
                let answered = now();
                operations += 1;
                if answered >= end {
                    return Ok(Driven {
                        operations,
                        per_second: times.len() as f64 / self.duration.as_secs_f64(),
                        p50_ms: times.value_at_quantile(0.5) as f64 / 1e6,
                        p99_ms: times.value_at_quantile(0.99) as f64 / 1e6,
                    });
                }
                if answered >= begin {
                    let time = answered.duration_since(connection.sent).as_nanos();
                    times.record(u64::try_from(time)?)?;
                }
                self.send(connection)?;
            }
        }
    }

    fn send(&self, connection: &mut Connection) -> Result<(), Box<dyn Error>> {
        let ask = self.work.ask(&connection.prefix, connection.number);
        connection.number += 1;
        let request = self.protocol.write(&ask);
        connection.sent = now();
        // The request fits into the socket's buffer, which contains nothing else.
        connection.stream.write_all(&request)?;
        Ok(())
    }

    /// Reads what has arrived. Returns whether the answer is complete, and fails if it is wrong.
    fn receive(&self, connection: &mut Connection) -> Result<bool, Box<dyn Error>> {
        let mut piece = [0; 4096];
        match connection.stream.read(&mut piece) {
            Ok(0) => return Err(format!("{} closed a connection", self.address).into()),
            Ok(count) => connection.answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let Some((length, said)) = self.protocol.read(&connection.answer) else {
            return Ok(false);
        };
        if let Err(code) = said {
            return Err(format!("{} refused what is in order: {code}", self.address).into());
        }
        if length != connection.answer.len() {
            return Err(format!("{} says more than was asked", self.address).into());
        }
        connection.answer.clear();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_encoded_for_http_and_for_redis() {
        let ask = Work::All.ask("p", 8);
        assert!(matches!(&ask, Ask::Associate(one, two) if one == "p-1-1" && two == "p-1-2"));
        let http = String::from_utf8(Protocol::Http.write(&ask)).unwrap();
        assert!(
            http.starts_with("POST /rpc/associate_widgets HTTP/1.1\r\n"),
            "{http}"
        );
        assert!(http.ends_with(r#"{"widget1_sn":"p-1-1","widget2_sn":"p-1-2","port":"P"}"#));
        let redis = Protocol::Redis(["a", "b", "c", "d"].map(String::from));
        let redis = String::from_utf8(redis.write(&ask)).unwrap();
        let expected = "*6\r\n$7\r\nEVALSHA\r\n$1\r\nc\r\n$1\r\n2\r\n$5\r\np-1-1\r\n$5\r\np-1-2\r\n$1\r\nP\r\n";
        assert_eq!(redis, expected);
    }

    #[test]
    fn a_response_is_parsed_only_once_complete() {
        let http = Protocol::Http;
        let done = b"HTTP/1.1 204 No Content\r\nvary: Accept\r\n\r\n";
        assert_eq!(http.read(&done[..30]), None);
        assert_eq!(http.read(done), Some((done.len(), Ok(()))));
        let refused = b"HTTP/1.1 409 Conflict\r\nContent-Length: 16\r\n\r\n{\"code\":\"23505\"}";
        assert_eq!(http.read(&refused[..refused.len() - 1]), None);
        assert_eq!(
            http.read(refused),
            Some((refused.len(), Err("23505".into())))
        );
        let redis = Protocol::Redis(Default::default());
        assert_eq!(redis.read(b":1"), None);
        assert_eq!(redis.read(b":1\r\n"), Some((4, Ok(()))));
        assert_eq!(redis.read(b"-WG001\r\n"), Some((8, Err("WG001".into()))));
    }
}
