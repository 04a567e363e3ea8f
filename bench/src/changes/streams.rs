//! Subscribers that cost the machine as little as possible.

use super::{milliseconds_since, now};
use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

/// After this long without a byte, the stream counts as read to its end.
const SILENCE: Duration = Duration::from_millis(1500);

/// Requests all future changes as JSON Lines.
fn ask(address: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    write!(
        stream,
        "GET /changes?after=now HTTP/1.1\r\nhost: {address}\r\naccept: application/x-ndjson\r\n\r\n"
    )?;
    Ok(stream)
}

/// What a subscriber received.
pub(super) struct Told {
    pub(super) changes: f64,
    /// The time from the commit of a change to its reading, in milliseconds: for the last change here,
    /// and the highest in `behind_most`.
    pub(super) behind_at_end: f64,
    pub(super) behind_most: f64,
}

/// One subscriber that reads as fast as it can.
pub(super) struct Subscriber {
    stream: TcpStream,
    thread: JoinHandle<Told>,
}

impl Subscriber {
    pub(super) fn start(address: &str) -> Result<Self, Box<dyn Error>> {
        let stream = ask(address)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut reading = stream.try_clone()?;
        let thread = thread::spawn(move || read(&mut reading));
        Ok(Self { stream, thread })
    }

    /// Ends the subscription after a silence, and returns what the subscriber received.
    pub(super) fn finish(self) -> Result<Told, Box<dyn Error>> {
        // By then the subscriber has read everything, or it lags behind, which the result shows.
        thread::sleep(SILENCE);
        let ended = self.stream.shutdown(Shutdown::Both);
        let told = self
            .thread
            .join()
            .map_err(|_| "the subscriber's thread ended")?;
        ended?;
        if told.changes < 1.0 {
            return Err("the subscriber was told nothing".into());
        }
        Ok(told)
    }
}

fn read(stream: &mut TcpStream) -> Told {
    let (mut changes, mut most, mut last) = (0, f64::NAN, f64::NAN);
    let mut piece = vec![0; 256 << 10];
    let begun = now();
    loop {
        let read = match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            // Before the load begins, there is nothing to read.
            Err(error)
                if error.kind() == std::io::ErrorKind::WouldBlock
                    && begun.elapsed() < Duration::from_hours(1) =>
            {
                continue;
            }
            Err(_) => break,
        };
        let text = piece.get(..read).unwrap_or_default();
        changes += text
            .windows(10)
            .filter(|bytes| bytes == b"\"position\"")
            .count();
        if let Some(behind) = behind(text) {
            last = behind;
            most = behind.max(most);
        }
    }
    Told {
        changes: changes as f64,
        behind_at_end: last,
        behind_most: most,
    }
}

/// Returns the age of the last change in this piece of a stream. Finding only the last one costs less
/// than parsing all of them.
fn behind(text: &[u8]) -> Option<f64> {
    const AT: &[u8] = b"\"at\":\"";
    let tail = text.get(text.len().saturating_sub(2048)..)?;
    let place = tail.windows(AT.len()).rposition(|bytes| bytes == AT)?;
    let at = tail.get(place + AT.len()..)?;
    let at = at.get(..at.iter().position(|&byte| byte == b'"')?)?;
    milliseconds_since(std::str::from_utf8(at).ok()?)
}

/// Subscribers that are connected and have nothing to read.
pub(super) struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens the streams. When this returns, each has received the head of its answer.
    pub(super) fn open(address: &str, count: u32) -> Result<Self, Box<dyn Error>> {
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut stream = ask(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut head = [0; 12];
            stream.read_exact(&mut head)?;
            if &head != b"HTTP/1.1 200" {
                return Err(format!("{:?} is no stream", String::from_utf8_lossy(&head)).into());
            }
            streams.push(stream);
        }
        Ok(Self(streams))
    }

    pub(super) fn close(self) {
        drop(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn the_age_of_the_last_change_is_read_from_its_time() {
        let text = b"{\"position\":\"p\",\"at\":\"1970-01-01T00:00:00.000000Z\",\"by\":null}\n{\"position\":\"q\",\"a";
        assert!(behind(text).is_some_and(|milliseconds| milliseconds > 1e9));
        assert_eq!(behind(b"{\"position\""), None);
    }
}
