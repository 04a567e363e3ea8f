//! `HEAD` over HTTP/2.

use crate::*;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use widgets_registry::{ChangeFilter, Changes, Feed, FeedError, Position, Promised};

/// A store without widgets whose changes never come.
#[derive(Clone, Default)]
struct Quiet(Counting);

impl<R: widgets_registry::Request> Ask<R> for Quiet
where
    Counting: Ask<R>,
{
    fn ask(&self, request: R) -> impl Future<Output = Result<R::Answer, R::Error>> + Send {
        self.0.ask(request)
    }
}

impl Store for Quiet {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        Some(Arc::new(Nothing))
    }
}

struct Nothing;

const BEGINNING: Position = Position {
    store: 1,
    epoch: 1,
    sequence: 0,
};

impl Feed for Nothing {
    fn newest(&self) -> Promised<Result<Position, FeedError>> {
        self.oldest()
    }

    fn oldest(&self) -> Promised<Result<Position, FeedError>> {
        Box::pin(std::future::ready(Ok(BEGINNING)))
    }

    fn read(
        &self,
        next: Position,
        _: Arc<ChangeFilter>,
        _: usize,
    ) -> Promised<Result<Changes, FeedError>> {
        Box::pin(std::future::ready(Ok(Changes {
            events: Vec::new(),
            next,
            is_end: true,
        })))
    }

    fn reached(&self, _: Position) -> Promised<Result<(), FeedError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn changed(&self, _: Position) -> Promised<()> {
        Box::pin(std::future::pending())
    }
}

type Client = http2::SendRequest<Empty<Bytes>>;

async fn connect(server: &Server) -> Client {
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .expect("connected");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (client, connection) = handshake.expect("HTTP/2");
    // Ends with the client.
    tokio::spawn(connection);
    client
}

async fn ask(client: &mut Client, method: &str, path: &str) -> Response<Incoming> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://test{path}"))
        .header("accept", "text/event-stream, application/json")
        .body(Empty::new())
        .expect("a request");
    client.send_request(request).await.expect("an answer")
}

/// hyper leaves the content out only over HTTP/1.1.
#[tokio::test]
async fn head_over_http2_is_answered_without_content_but_with_its_length() {
    let server = Server::start(Quiet::default(), Limits::default());
    let mut client = connect(&server).await;
    for (path, status) in [
        ("/widgets", 200),
        ("/widgets?nope", 400),
        ("/widgets/E", 404),
        ("/nope", 404),
    ] {
        let got = ask(&mut client, "GET", path).await;
        let content = got.into_body().collect().await.expect("whole").to_bytes();
        let head = ask(&mut client, "HEAD", path).await;
        assert_eq!(head.status().as_u16(), status, "{path}");
        let length = head.headers().get("content-length").cloned();
        assert_eq!(length, Some(content.len().into()), "{path}");
        assert!(!content.is_empty(), "{path}");
        assert!(head.body().is_end_stream(), "{path}");
        let nothing = head.into_body().collect().await.expect("no data");
        assert!(nothing.to_bytes().is_empty(), "{path}");
    }
    drop(client);
    server.stop();
}

/// `GET` would go on without an end.
#[tokio::test]
async fn head_of_a_stream_of_changes_over_http2_ends() {
    let server = Server::start(Quiet::default(), Limits::default());
    let mut client = connect(&server).await;
    let head = ask(&mut client, "HEAD", "/changes?after=now").await;
    assert_eq!(head.status().as_u16(), 200);
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    assert_eq!(head.headers().get("content-length"), None);
    assert!(head.body().is_end_stream());
    drop(client);
    server.stop();
}
