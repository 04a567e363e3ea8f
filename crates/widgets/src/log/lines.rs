//! Lines on their way to a stream whose reader may be slow or absent: a full pipe takes nothing
//! more, and its writer blocks.
//!
//! So a single thread writes to the stream, and all others pass their lines to it. The lines wait
//! here, in order and up to a limit in bytes. A line for which there is no room is left out and
//! counted, and the log reports the number once lines are taken again.

use prometheus::IntCounter;
use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// The maximum number of waiting bytes: a second of the busiest log of requests.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// How many bytes are written at a time, unless one line is longer. A pipe takes this many at once,
/// so lines of other processes in the same pipe do not mix with these.
const WRITE_BYTES_MAX: usize = 4096;

/// How much memory the thread keeps after a burst.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Passes lines to the thread that writes them to a stream.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    came: Condvar,
    written: Condvar,
    bytes_max: usize,
    left_out: IntCounter,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The number of bytes that wait or are being written.
    bytes: usize,
    /// How many lines were left out and not reported yet.
    left_out: u64,
    /// Whether the limit is off because the process is about to end.
    is_last: bool,
}

impl Lines {
    /// Starts to write to this stream. `tell` is called with the number of lines that were left
    /// out, once there is room again.
    pub(super) fn start(
        name: &str,
        stream: impl Write + Send + 'static,
        left_out: IntCounter,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        Self::bounded(name, stream, WAITING_BYTES_MAX, left_out, tell)
    }

    fn bounded(
        name: &str,
        stream: impl Write + Send + 'static,
        bytes_max: usize,
        left_out: IntCounter,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            came: Condvar::new(),
            written: Condvar::new(),
            bytes_max,
            left_out,
        });
        let of_thread = shared.clone();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || of_thread.write_to(stream, tell))?;
        Ok(Self(shared))
    }

    /// Takes a line, or leaves it out. Never waits.
    pub(super) fn push(&self, line: &[u8]) {
        let Shared {
            bytes_max,
            left_out,
            came,
            ..
        } = &*self.0;
        let mut state = self.0.lock();
        if state.bytes + line.len() > *bytes_max && !state.is_last {
            state.left_out += 1;
            left_out.inc();
            return;
        }
        state.bytes += line.len();
        state.waiting.extend_from_slice(line);
        drop(state);
        came.notify_one();
    }

    /// Waits until every line is written, but not longer than this. Returns whether every line is
    /// written.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        let (state, written) = (self.0.lock(), &self.0.written);
        let waited = written.wait_timeout_while(state, longest, |state| state.bytes > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.bytes == 0
    }

    /// Lifts the limit: little more is written before the process ends.
    pub(super) fn take_last(&self) {
        self.0.lock().is_last = true;
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write_to(&self, mut stream: impl Write, tell: impl Fn(u64)) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() {
                let came = self.came.wait(state);
                state = came.unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batch, &mut state.waiting);
            drop(state);
            // Report once for all lines that waited together, or a slow reader would get a report
            // with every other line.
            let mut tells = true;
            for piece in pieces(&batch) {
                let is_written = stream
                    .write_all(piece)
                    .and_then(|()| stream.flush())
                    .is_ok();
                let mut state = self.lock();
                state.bytes -= piece.len();
                let is_empty = state.bytes == 0;
                let mut left_out = 0;
                if !is_written {
                    let lines = count(piece);
                    state.left_out += lines;
                    self.left_out.inc_by(lines);
                } else if tells && state.left_out > 0 {
                    left_out = std::mem::take(&mut state.left_out);
                    tells = false;
                }
                drop(state);
                if left_out > 0 {
                    tell(left_out);
                }
                if is_empty {
                    self.written.notify_all();
                }
            }
            batch.clear();
            batch.shrink_to(KEPT_BYTES_MAX);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits the batch into pieces of whole lines, each as large as one write allows.
fn pieces(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let within = &lines[..lines.len().min(WRITE_BYTES_MAX)];
        let end = within.iter().rposition(|byte| *byte == b'\n');
        let end = end.or_else(|| lines.iter().position(|byte| *byte == b'\n'));
        let (piece, rest) = lines.split_at(end.map_or(lines.len(), |end| end + 1));
        lines = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn count(lines: &[u8]) -> u64 {
    lines.split_inclusive(|byte| *byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Without this, a test whose thread is stuck would never end.
    const PATIENCE: Duration = Duration::from_mins(1);

    /// Writes at its reader's pace: each write waits for permission, and then passes on what it
    /// wrote.
    struct Pipe {
        leave: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The reader has left.
            self.leave
                .recv()
                .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
            drop(self.written.send(String::from_utf8_lossy(bytes).into()));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Reader {
        lines: Lines,
        leave: Sender<io::Result<()>>,
        written: Receiver<String>,
        told: Receiver<u64>,
        left_out: IntCounter,
    }

    impl Reader {
        fn new(bytes_max: usize) -> Self {
            let (leave, of_writer) = channel();
            let (writes, written) = channel();
            let (tells, told) = channel();
            let left_out = IntCounter::new("left_out", "-").expect("a metric");
            let pipe = Pipe {
                leave: of_writer,
                written: writes,
            };
            let tell = move |count| tells.send(count).expect("a test");
            let lines = Lines::bounded("lines", pipe, bytes_max, left_out.clone(), tell);
            Self {
                lines: lines.expect("a thread"),
                leave,
                written,
                told,
                left_out,
            }
        }

        fn push(&self, lines: impl IntoIterator<Item = u64>) {
            for line in lines {
                self.lines.push(format!("{line:04}\n").as_bytes());
            }
        }

        /// Lets the next write happen and returns what it wrote.
        fn reads(&self) -> String {
            self.leave.send(Ok(())).expect("a writer");
            self.written.recv_timeout(PATIENCE).expect("written")
        }
    }

    #[test]
    fn an_unread_stream_blocks_no_caller_and_omitted_lines_are_reported() {
        let reader = Reader::new(50);
        reader.push(0..1000);
        assert_eq!(reader.left_out.get(), 990, "ten lines of five bytes wait");
        assert!(reader.told.try_recv().is_err(), "there is nobody to tell");
        let mut read = String::new();
        while read.len() < 50 {
            read += &reader.reads();
        }
        let lines: Vec<u64> = read.lines().filter_map(|line| line.parse().ok()).collect();
        assert!(lines.iter().copied().eq(0..10), "the first lines, in order");
        assert_eq!(reader.told.recv_timeout(PATIENCE), Ok(990), "told once");
        for line in ["1000\n", "1001\n"] {
            reader.lines.push(line.as_bytes());
            assert_eq!(reader.reads(), line);
        }
        assert!(reader.told.try_recv().is_err(), "and not again");
    }

    #[test]
    fn lines_lost_to_write_errors_are_counted_and_reported_later() {
        let reader = Reader::new(1000);
        for _ in 0..3 {
            reader
                .leave
                .send(Err(io::ErrorKind::StorageFull.into()))
                .expect("a writer");
            reader.push(0..1);
            assert!(reader.lines.wait(PATIENCE));
        }
        assert_eq!(reader.left_out.get(), 3);
        assert!(reader.told.try_recv().is_err(), "there is no room to tell");
        reader.push(7..8);
        assert_eq!(reader.reads(), "0007\n");
        assert_eq!(reader.told.recv_timeout(PATIENCE), Ok(3));
    }

    #[test]
    fn the_last_lines_are_exempt_from_the_limit_and_waiting_times_out() {
        let reader = Reader::new(5);
        reader.push(0..2);
        assert!(!reader.lines.wait(Duration::from_millis(1)));
        reader.lines.take_last();
        reader.push(2..4);
        let mut read = String::new();
        while read.len() < 15 {
            read += &reader.reads();
        }
        assert_eq!(read, "0000\n0002\n0003\n");
        assert!(reader.lines.wait(PATIENCE));
        assert_eq!(reader.left_out.get(), 1);
    }

    #[test]
    fn lines_are_written_whole_and_grouped_up_to_4096_bytes() {
        let line = |length: usize| [&*vec![b'x'; length - 1], b"\n"].concat();
        let lines = [line(4000), line(96), line(1), line(5000), line(10)];
        let lengths: Vec<_> = pieces(&lines.concat()).map(<[u8]>::len).collect();
        assert_eq!(lengths, [4096, 1, 5000, 10]);
        let without_end: Vec<_> = pieces(b"a\nb").collect();
        assert_eq!(without_end, [&b"a\n"[..], b"b"]);
        assert_eq!(pieces(b"").count(), 0);
    }
}
