//! h2: several lanes share one connection, with one stream for each request.

use super::{Failure, Request, Response, Target, within};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, header};
use std::{cell::RefCell, rc::Rc, time::Duration};
use tokio::{sync::Mutex, task::spawn_local, time::timeout};

/// A lane over h2.
pub(crate) struct Http2 {
    connection: Rc<Connection>,
    body: Vec<u8>,
}

/// What the lanes of one connection share.
struct Connection {
    target: RefCell<Rc<Target>>,
    /// Held while connecting, so that one lane connects for all.
    connecting: Mutex<()>,
    /// How often there was a connection, and how to send requests while there is one.
    sender: RefCell<(u64, Option<SendRequest<Bytes>>)>,
}

impl Http2 {
    pub(crate) fn lanes(target: Rc<Target>, streams: usize) -> Vec<Self> {
        let connection = Rc::new(Connection {
            target: RefCell::new(target),
            connecting: Mutex::new(()),
            sender: RefCell::new((0, None)),
        });
        (0..streams)
            .map(|_| Self {
                connection: connection.clone(),
                body: Vec::new(),
            })
            .collect()
    }

    pub(crate) fn target(&self) -> Rc<Target> {
        self.connection.target.borrow().clone()
    }

    /// Sends all further requests of the connection's lanes to this target.
    pub(crate) fn move_to(&self, target: &Rc<Target>) {
        let before = self.connection.target.replace(target.clone());
        if !Rc::ptr_eq(&before, target) {
            // Requests in flight finish where they were sent.
            self.connection.sender.borrow_mut().1 = None;
        }
    }

    pub(crate) async fn connect(&mut self, limit: Duration) -> Result<bool, String> {
        if self.connection.sender.borrow().1.is_some() {
            return Ok(false);
        }
        // The limit includes the time for which another lane of the connection tries.
        within(limit, &self.target(), self.open()).await
    }

    /// Opens the connection, unless another lane has done so meanwhile.
    async fn open(&self) -> Result<bool, String> {
        let connection = &self.connection;
        let _guard = connection.connecting.lock().await;
        if connection.sender.borrow().1.is_some() {
            return Ok(false);
        }
        let target = self.target();
        let stream = target.connect().await?;
        let failed = |error: h2::Error| format!("h2 with {}: {error}", target.origin());
        let (sender, driver) = h2::client::handshake(stream).await.map_err(failed)?;
        if !Rc::ptr_eq(&target, &self.target()) {
            return Err(format!("{} is not the primary any more", target.origin()));
        }
        let count = {
            let mut place = connection.sender.borrow_mut();
            place.0 += 1;
            place.1 = Some(sender);
            place.0
        };
        let shared = Rc::downgrade(connection);
        spawn_local(async move {
            // However it ends, the lanes learn of it from their requests.
            drop(driver.await);
            if let Some(connection) = shared.upgrade() {
                connection.forget(count);
            }
        });
        Ok(count > 1)
    }

    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        limit: Duration,
    ) -> Result<Response<'_>, Failure> {
        let (count, sender) = self.connection.sender.borrow().clone();
        let Some(sender) = sender else {
            return Err(Failure::unsent("there is no connection"));
        };
        let exchange = self.connection.exchange(sender, request, &mut self.body);
        let outcome = match timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::timeout(limit)),
        };
        match outcome {
            Ok(status) => Ok(Response {
                status,
                body: &self.body,
            }),
            Err(failure) => {
                if !failure.timeout {
                    self.connection.forget(count);
                }
                Err(failure)
            }
        }
    }
}

impl Connection {
    /// Forgets a connection that is no longer usable, unless it has been replaced already.
    fn forget(&self, count: u64) {
        let mut place = self.sender.borrow_mut();
        if place.0 == count {
            place.1 = None;
        }
    }

    async fn exchange(
        &self,
        sender: SendRequest<Bytes>,
        request: &Request,
        into: &mut Vec<u8>,
    ) -> Result<u16, Failure> {
        let target = self.target.borrow().clone();
        let uri = format!("{}{}{}", target.origin(), target.path(), request.path);
        let mut builder = http::Request::builder().uri(uri);
        if let Some(token) = target.token() {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        builder = match &request.body {
            Some(_) => builder
                .method(Method::POST)
                .header(header::CONTENT_TYPE, "application/json"),
            None => builder.method(Method::GET),
        };
        if request.body.is_some() && !request.key.is_empty() {
            builder = builder.header("idempotency-key", format!("\"{}\"", request.key));
        }
        let head = builder.body(()).map_err(Failure::unsent)?;
        let mut sender = sender.ready().await.map_err(Failure::unsent)?;
        let end = request.body.is_none();
        let (answer, mut stream) = sender.send_request(head, end).map_err(Failure::unsent)?;
        if let Some(body) = &request.body {
            let bytes = Bytes::copy_from_slice(body);
            stream.send_data(bytes, true).map_err(Failure::lost)?;
        }
        let (parts, mut body) = answer.await.map_err(lost)?.into_parts();
        into.clear();
        while let Some(data) = body.data().await {
            let data = data.map_err(lost)?;
            into.extend_from_slice(&data);
            // This fails only if the connection is gone, which the next read reports.
            drop(body.flow_control().release_capacity(data.len()));
        }
        Ok(parts.status.as_u16())
    }
}

/// If a server refuses a stream, it guarantees that it did not process the request (RFC 9113,
/// section 8.7).
fn lost(error: h2::Error) -> Failure {
    if error.reason() == Some(h2::Reason::REFUSED_STREAM) {
        Failure::unsent(error)
    } else {
        Failure::lost(error)
    }
}
