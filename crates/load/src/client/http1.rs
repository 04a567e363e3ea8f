//! HTTP/1.1: one request at a time on a connection that is kept alive.

use super::{Failure, Request, Response, Target, target::Stream, within};
use std::{
    future::poll_fn,
    io::Write as _,
    mem,
    ops::Range,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// The maximum size of an answer with its head. The longest widget has under 8 KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const HEADERS_MAX: usize = 64;
/// Larger than nearly every answer, so that one read takes all of it: the runtime then knows that
/// there is no more data and does not ask the system again.
const READ_BYTES: usize = 8 << 10;

/// A lane over HTTP/1.1.
pub(crate) struct Http1 {
    target: Rc<Target>,
    /// The headers of every request, each with its line ending.
    headers: Vec<u8>,
    stream: Option<Stream>,
    connected_before: bool,
    wire: Vec<u8>,
    answer: Answer,
    /// One timer for all requests of this lane, which is reset only when it fires.
    timer: Pin<Box<Sleep>>,
}

impl Http1 {
    pub(crate) fn new(target: Rc<Target>) -> Self {
        Self {
            headers: headers(&target),
            target,
            stream: None,
            connected_before: false,
            wire: Vec::with_capacity(1024),
            answer: Answer::default(),
            timer: Box::pin(sleep(Duration::ZERO)),
        }
    }

    pub(crate) const fn target(&self) -> &Rc<Target> {
        &self.target
    }

    /// Sends all further requests to this target.
    pub(crate) fn move_to(&mut self, target: Rc<Target>) {
        self.headers = headers(&target);
        self.target = target;
        self.stream = None;
    }

    pub(crate) async fn connect(&mut self, limit: Duration) -> Result<bool, String> {
        if let Some(stream) = &mut self.stream {
            if is_open(stream).await {
                return Ok(false);
            }
            self.stream = None;
        }
        self.stream = Some(within(limit, &self.target, self.target.connect()).await?);
        Ok(mem::replace(&mut self.connected_before, true))
    }

    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Response<'_>, Failure> {
        let Some(mut stream) = self.stream.take() else {
            return Err(Failure::unsent("there is no connection"));
        };
        self.wire.clear();
        write_request(&mut self.wire, self.target.path(), &self.headers, request);
        let deadline = deadline(timeout);
        let head = {
            let (wire, answer, timer) = (&self.wire, &mut self.answer, &mut self.timer);
            let mut exchange = pin!(async {
                stream.write_all(wire).await.map_err(Failure::lost)?;
                // Plain TCP has nothing to flush, so this costs nothing.
                stream.flush().await.map_err(Failure::lost)?;
                answer.read(&mut stream).await.map_err(Failure::lost)
            });
            poll_fn(|context| {
                if let Poll::Ready(outcome) = exchange.as_mut().poll(context) {
                    return Poll::Ready(outcome);
                }
                while timer.as_mut().poll(context).is_ready() {
                    if timer.deadline() >= deadline {
                        return Poll::Ready(Err(Failure::timeout(timeout)));
                    }
                    timer.as_mut().reset(deadline);
                }
                Poll::Pending
            })
            .await?
        };
        if head.keep_alive {
            self.stream = Some(stream);
        }
        Ok(Response {
            status: head.status,
            body: self.answer.body(&head),
        })
    }
}

/// Returns the headers of every request to this server, each with its line ending.
fn headers(target: &Target) -> Vec<u8> {
    let mut headers = format!("host: {}\r\n", target.authority());
    if let Some(token) = target.token() {
        headers.push_str("authorization: Bearer ");
        headers.push_str(token);
        headers.push_str("\r\n");
    }
    headers.into_bytes()
}

fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout
}

fn write_request(wire: &mut Vec<u8>, base: &str, headers: &[u8], request: &Request) {
    let method = if request.body.is_some() {
        "POST "
    } else {
        "GET "
    };
    for part in [method, base, &request.path, " HTTP/1.1\r\n"] {
        wire.extend_from_slice(part.as_bytes());
    }
    wire.extend_from_slice(headers);
    if let Some(body) = &request.body {
        wire.extend_from_slice(b"content-type: application/json\r\n");
        if !request.key.is_empty() {
            let _ = write!(wire, "idempotency-key: \"{}\"\r\n", request.key);
        }
        // Writing to a vector cannot fail.
        let _ = write!(wire, "content-length: {}\r\n\r\n", body.len());
        wire.extend_from_slice(body);
    } else {
        wire.extend_from_slice(b"\r\n");
    }
}

/// Reports whether nothing has arrived since the last answer, neither the end of the stream nor
/// unexpected bytes.
async fn is_open(stream: &mut Stream) -> bool {
    let mut byte = [0];
    poll_fn(|context| {
        let mut buffer = ReadBuf::new(&mut byte);
        let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
        Poll::Ready(read.is_pending())
    })
    .await
}

/// The bytes of one answer.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    /// The content of a chunked body.
    content: Vec<u8>,
}

/// The head of an answer, and where its body is.
struct Head {
    status: u16,
    keep_alive: bool,
    body: Body,
}

enum Body {
    /// This range of the answer's bytes.
    Plain(Range<usize>),
    /// The decoded content of chunks.
    Chunked,
}

/// How the end of the body is found.
enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
}

impl Answer {
    fn body(&self, head: &Head) -> &[u8] {
        match &head.body {
            Body::Plain(range) => self.bytes.get(range.clone()).unwrap_or_default(),
            Body::Chunked => &self.content,
        }
    }

    async fn read(&mut self, stream: &mut Stream) -> Result<Head, String> {
        self.bytes.clear();
        loop {
            self.fill(stream).await?;
            let Some((mut head, start, framing)) = parse_head(&self.bytes)? else {
                continue;
            };
            // An interim answer (1xx) precedes the real one.
            if (100..200).contains(&head.status) {
                self.bytes.drain(..start);
                if self.bytes.is_empty() {
                    continue;
                }
                return Err("bytes follow an interim answer".into());
            }
            match framing {
                Framing::Length(length) => {
                    let end = start.saturating_add(length);
                    if end > ANSWER_BYTES_MAX {
                        return Err(too_long());
                    }
                    while self.bytes.len() < end {
                        self.fill(stream).await?;
                    }
                    head.body = Body::Plain(start..end);
                    head.keep_alive &= self.bytes.len() == end;
                }
                Framing::Chunked => {
                    self.read_chunks(stream, start).await?;
                    head.body = Body::Chunked;
                }
                Framing::UntilClosed => {
                    while self.fill(stream).await.is_ok() {}
                    head.body = Body::Plain(start..self.bytes.len());
                    head.keep_alive = false;
                }
            }
            return Ok(head);
        }
    }

    async fn read_chunks(&mut self, stream: &mut Stream, start: usize) -> Result<(), String> {
        self.content.clear();
        let mut position = start;
        loop {
            let rest = self.bytes.get(position..).unwrap_or_default();
            let Ok(status) = httparse::parse_chunk_size(rest) else {
                return Err("a chunk's size cannot be read".into());
            };
            let httparse::Status::Complete((head, size)) = status else {
                self.fill(stream).await?;
                continue;
            };
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let (from, end) = (position + head, (position + head).saturating_add(size));
            if end > ANSWER_BYTES_MAX {
                return Err(too_long());
            }
            // After the chunk comes its line ending; after the last chunk, the end of the trailers,
            // of which there are none.
            while self.bytes.len() < end + 2 {
                self.fill(stream).await?;
            }
            if self.bytes.get(end..end + 2) != Some(b"\r\n") {
                return Err("a chunk does not end where its size says".into());
            }
            self.content
                .extend_from_slice(self.bytes.get(from..end).unwrap_or_default());
            if size == 0 {
                return Ok(());
            }
            position = end + 2;
        }
    }

    /// Reads more bytes.
    async fn fill(&mut self, stream: &mut Stream) -> Result<(), String> {
        if self.bytes.len() > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
        self.bytes.reserve(READ_BYTES);
        match stream.read_buf(&mut self.bytes).await {
            Ok(0) => Err("the server closed the connection before it answered".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("reading the answer: {error}")),
        }
    }
}

fn too_long() -> String {
    format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")
}

/// Parses the head and returns it with the position after it, or `None` while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize, Framing)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("the answer is not HTTP: {error}")),
    };
    let status = response.code.unwrap_or_default();
    let mut keep_alive = response.version == Some(1);
    let mut framing = Framing::UntilClosed;
    for header in response.headers {
        let says = |word: &str| {
            let value = str::from_utf8(header.value).unwrap_or_default();
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = str::from_utf8(header.value).ok();
            let length = length.and_then(|text| text.trim().parse().ok());
            let Some(length) = length else {
                return Err("the answer's Content-Length is not a number".into());
            };
            if !matches!(framing, Framing::Chunked) {
                framing = Framing::Length(length);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && says("chunked") {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = (keep_alive || says("keep-alive")) && !says("close");
        }
    }
    if matches!(status, 100..200 | 204 | 304) {
        framing = Framing::Length(0);
    }
    let head = Head {
        status,
        keep_alive,
        body: Body::Chunked,
    };
    Ok(Some((head, start, framing)))
}
