//! Deadlines, endings and data that arrives early, over pipes.

use super::*;
use crate::connections::{answers::Unread, metrics::ConnectionMetrics, places::Seat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

const DEADLINES: Deadlines = Deadlines {
    idle: Duration::from_mins(1),
    request: Duration::from_secs(10),
    answer: Duration::from_secs(30),
};

fn idle_stream<S>(stream: S) -> IdleStream<S> {
    let seat = Seat::new(Arc::default());
    drop(seat.busy());
    with_seat(stream, seat)
}

/// Returns a stream, and a guard that marks an answer without an end as under way.
fn streaming<S>(stream: S) -> (IdleStream<S>, impl Sized) {
    let stream = idle_stream(stream);
    let (pieces, body) = tokio::sync::mpsc::channel(1);
    let answer = hyper::Response::new(crate::pieces::Pieces::new(body));

    let bounded = stream
        .answers
        .bound(answer, false, |_| unreachable!("it has no length"));
    (stream, (bounded, pieces))
}

fn with_seat<S>(stream: S, seat: Arc<Seat>) -> IdleStream<S> {
    let answers = Answers::new(Unread::new(1 << 20, ConnectionMetrics::default()), seat);
    IdleStream::new(stream, DEADLINES, answers, Arc::default())
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_any_request_is_cut_at_the_request_timeout() {
    let (_peer, stream) = duplex(16);
    let mut stream = with_seat(stream, Seat::new(Arc::default()));
    let start = Instant::now();
    let error = stream.read_exact(&mut [0]).await.expect_err("cut");
    assert!(error.to_string().contains("request_timeout"), "{error}");
    let seconds = start.elapsed().as_secs();
    assert!((10..=20).contains(&seconds), "{seconds}");
}

/// Sends a byte every `pause`. Returns for how many seconds the other side tolerates it, and why no
/// longer.
async fn trickle(pause: Duration, answer: bool) -> (u64, String) {
    let (mut peer, stream) = duplex(16);
    let mut stream = idle_stream(stream);
    let start = Instant::now();
    tokio::spawn(async move {
        while peer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    for _ in 0..1000 {
        if let Err(error) = stream.read_exact(&mut [0]).await {
            return (start.elapsed().as_secs(), error.to_string());
        }
        if answer {
            stream.write_all(b"y").await.expect("the peer has room");
        }
    }
    (start.elapsed().as_secs(), "nothing".into())
}

#[tokio::test(start_paused = true)]
async fn a_slowly_arriving_request_is_cut_at_the_request_timeout() {
    let (seconds, error) = trickle(Duration::from_secs(1), false).await;
    assert!((10..=20).contains(&seconds), "{seconds}");
    assert!(error.contains("request_timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_cut_at_the_idle_timeout() {
    let (_peer, stream) = duplex(16);
    let mut stream = idle_stream(stream);
    let start = Instant::now();
    let error = stream.read_exact(&mut [0]).await.expect_err("cut");
    assert!(error.to_string().contains("idle_timeout"), "{error}");
    let seconds = start.elapsed().as_secs();
    assert!((60..=120).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_at_the_idle_timeout() {
    let (_peer, stream) = duplex(16);
    let mut stream = idle_stream(stream);
    let error = stream.write_all(&[0; 17]).await.expect_err("cut");
    assert!(error.to_string().contains("idle_timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_but_steady_connection_is_not_cut() {
    let (peer, mut stream) = duplex(16);
    let mut peer = peer;
    tokio::spawn(async move {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            peer.write_all(b"x").await.expect("not cut");
            peer.read_exact(&mut [0]).await.expect("answered");
        }
    });
    let mut stream = idle_stream(&mut stream);
    for _ in 0..20 {
        stream.read_exact(&mut [0]).await.expect("not cut");
        stream.write_all(b"y").await.expect("not cut");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_still_sending_when_its_connection_closes_gets_its_response() {
    let (mut peer, stream) = duplex(16);
    let mut stream = idle_stream(stream);
    let client = tokio::spawn(async move {
        // The peer sends its whole request before it looks for an answer.
        peer.write_all(&[b'x'; 1000]).await.expect("it is read");
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.expect("whole");
        answer
    });
    stream.read_exact(&mut [0]).await.expect("the first byte");
    stream.write_all(b"no").await.expect("there is room");
    stream.shutdown().await.expect("in order");
    assert_eq!(client.await.expect("no panic"), "no");
}

#[tokio::test(start_paused = true)]
async fn reading_after_the_close_is_limited_in_time_and_bytes() {
    let (mut peer, stream) = duplex(16);
    let mut stream = idle_stream(stream);
    let start = Instant::now();
    let trickling = tokio::spawn(async move {
        while peer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    stream.shutdown().await.expect("in order");
    assert_eq!(start.elapsed(), LINGER_MAX);
    drop(stream);
    trickling.await.expect("it has ended");

    let (mut peer, stream) = duplex(LINGER_PIECE_BYTES);
    let mut stream = idle_stream(stream);
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while peer.write_all(&[b'x'; 1 << 10]).await.is_ok() {
            sent += 1 << 10;
        }
        sent
    });
    stream.shutdown().await.expect("in order");
    drop(stream);
    let sent = flood.await.expect("no panic");
    assert!(sent < 2 * LINGER_BYTES_MAX, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn closing_is_immediate_if_the_client_ended_or_the_service_stops() {
    let (peer, stream) = duplex(16);
    let mut stream = idle_stream(stream);
    drop(peer);
    assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
    let (_peer, stopped) = duplex(16);
    let mut stopped = idle_stream(stopped);
    stopped.stopping.store(true, Ordering::Relaxed);
    let start = Instant::now();
    stream.shutdown().await.expect("in order");
    stopped.shutdown().await.expect("in order");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// A peer that sends a lot at once does not make others wait until all of it is read.
#[tokio::test]
async fn a_connection_flooded_with_data_lets_other_tasks_run() {
    let (mut peer, stream) = duplex(1 << 20);
    peer.write_all(&vec![b'x'; 1 << 20]).await.expect("room");
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = read.clone();
    let flood = tokio::spawn(async move {
        let (mut stream, mut piece) = (idle_stream(stream), [0; 4096]);
        while counted.load(Ordering::Relaxed) < 1 << 20 {
            let bytes = stream.read(&mut piece).await.expect("there is more");
            counted.fetch_add(bytes, Ordering::Relaxed);
        }
    });
    let seen = tokio::spawn(async move { read.load(Ordering::Relaxed) });
    let seen = seen.await.expect("no panic");
    assert!((1..=16 << 10).contains(&seen), "{seen}");
    flood.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_from_a_stream_is_detected() {
    let (mut peer, stream) = duplex(64);
    let (mut stream, answer) = streaming(stream);
    stream.flush().await.expect("it is there");
    // Before it closes, TLS sends a last message like this.
    peer.write_all(b"the end").await.expect("there is room");
    stream.flush().await.expect("it is there");
    let told = tokio::spawn(async move {
        let mut looked = Pin::new(&mut stream);
        let error = std::future::poll_fn(|context| match looked.as_mut().poll_flush(context) {
            // Arriving data wakes the task.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(error),
        });
        (error.await.kind(), stream)
    });
    tokio::task::yield_now().await;
    drop(peer);
    let told = tokio::time::timeout(Duration::from_mins(1), told).await;
    let (kind, mut stream) = told.expect("it was noticed").expect("no panic");
    assert_eq!(kind, io::ErrorKind::ConnectionAborted);
    drop(answer);
    let mut kept = String::new();
    stream.read_to_string(&mut kept).await.expect("the end");
    assert_eq!(kept, "the end");
}

#[tokio::test]
async fn data_received_during_a_stream_is_buffered_up_to_a_limit() {
    let (mut peer, stream) = duplex(4 * AHEAD_BYTES_MAX);
    let (mut stream, answer) = streaming(stream);
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(3 * AHEAD_BYTES_MAX).collect();
    peer.write_all(&sent).await.expect("there is room");
    stream.flush().await.expect("it is there");
    assert_eq!(stream.ahead.len(), AHEAD_BYTES_MAX);
    drop((peer, answer));
    stream.flush().await.expect("nobody looks any more");
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.expect("the end");
    assert_eq!(read, sent);
}

/// A request that has begun is answered even if the client has shut down its sending side.
#[tokio::test]
async fn a_finite_response_is_not_aborted_when_the_client_stops_sending() {
    let (peer, stream) = duplex(64);
    let mut stream = idle_stream(stream);
    let answer = hyper::Response::new(http_body_util::Full::<hyper::body::Bytes>::from(
        "an answer",
    ));
    let answer = stream
        .answers
        .bound(answer, false, |_| unreachable!("it is short"));
    drop(peer);
    stream.flush().await.expect("nobody looks");
    drop(answer);
}

/// If requests were read meanwhile, all their answers would be kept in memory.
#[tokio::test(start_paused = true)]
async fn requests_are_not_read_while_the_client_reads_no_responses() {
    let (mut peer, stream) = duplex(16);
    let (mut reader, mut writer) = tokio::io::split(idle_stream(stream));
    let writing = tokio::spawn(async move {
        writer.write_all(&[b'y'; 100]).await.expect("in the end");
        writer
    });
    peer.write_all(b"x").await.expect("there is room");
    // Lets the spawned task begin.
    tokio::task::yield_now().await;
    let early = tokio::time::timeout(Duration::from_secs(5), reader.read(&mut [0])).await;
    early.expect_err("its answers come first");
    peer.read_exact(&mut [0; 100]).await.expect("the answers");
    assert_eq!(reader.read(&mut [0]).await.expect("now"), 1);
    drop(writing.await.expect("no panic"));
}
