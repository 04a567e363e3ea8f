//! `GET /backup`: pieces as they come, one backup at a time, and errors if there is none.

use super::{Willing, api, send};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::mpsc;
use widgets_server::{Api, Backup};

/// Gives what the test hands over, once; afterwards it is busy.
struct Given {
    pieces: Mutex<Option<mpsc::Receiver<Bytes>>>,
    asked: AtomicUsize,
}

impl Given {
    fn one(pieces: mpsc::Receiver<Bytes>) -> Arc<Self> {
        Arc::new(Self {
            pieces: Mutex::new(Some(pieces)),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Backup for Given {
    fn give(&self) -> io::Result<Option<mpsc::Receiver<Bytes>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.pieces.lock().expect("no panic").take())
    }
}

/// Gives nothing, to every caller.
pub(super) struct Empty;

impl Backup for Empty {
    fn give(&self) -> io::Result<Option<mpsc::Receiver<Bytes>>> {
        Ok(Some(mpsc::channel(1).1))
    }
}

struct Threadless;

impl Backup for Threadless {
    fn give(&self) -> io::Result<Option<mpsc::Receiver<Bytes>>> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn giving(backup: Arc<dyn Backup>) -> Api<Willing> {
    api(Willing).with_backup(backup)
}

#[tokio::test]
async fn a_backup_is_streamed_to_one_client_at_a_time() {
    let (sender, pieces) = mpsc::channel(1);
    let backup = Given::one(pieces);
    let api = giving(backup.clone());
    let head = send(&api, "HEAD", "/backup", &[], "").await;
    assert_eq!(
        head.header("content-type"),
        Some("application/octet-stream")
    );
    let options = send(&api, "OPTIONS", "/backup", &[], "").await;
    assert_eq!(options.header("allow"), Some("OPTIONS,GET,HEAD"));
    let post = send(&api, "POST", "/backup", &[], "").await;
    assert_eq!(post.outcome(), (405, "PGRST117"));
    assert_eq!(
        backup.asked.load(Ordering::Relaxed),
        0,
        "only GET begins a backup"
    );

    let request = Request::get("/backup").body(Full::<Bytes>::default());
    let answer = api.respond(request.expect("a request")).await;
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let mut body = answer.into_body();
    for piece in ["one", "two"] {
        sender.send(piece.into()).await.expect("it is read");
        let frame = body.frame().await.expect("no end").expect("infallible");
        assert_eq!(frame.into_data().expect("data"), piece);
    }
    let second = send(&api, "GET", "/backup", &[], "").await;
    assert_eq!(second.outcome(), (503, "WG503"));
    assert_eq!(second.header("retry-after"), Some("10"));
    assert!(
        second.body.contains("only one is possible"),
        "{}",
        second.body
    );
    drop(sender);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_client_that_disconnects_ends_the_backup() {
    let (sender, pieces) = mpsc::channel::<Bytes>(1);
    let api = giving(Given::one(pieces));
    let request = Request::get("/backup").body(Full::<Bytes>::default());
    let answer = api.respond(request.expect("a request")).await;
    drop(answer);
    // The backup ends without another piece.
    sender.closed().await;
}

#[tokio::test]
async fn unavailable_backups_are_refused_with_the_reason() {
    let none = send(&api(Willing), "GET", "/backup", &[], "").await;
    assert_eq!(none.outcome(), (501, "WG501"));
    assert!(none.body.contains("pg_dump"), "{}", none.body);
    let threadless = giving(Arc::new(Threadless));
    let busy = send(&threadless, "GET", "/backup", &[], "").await;
    assert_eq!(busy.outcome(), (503, "WG503"));
    assert!(busy.body.contains("a thread for a backup"), "{}", busy.body);
}
