//! What only primaries do, and what standbys are sent.

use super::{Answer, AnswerBody, Api, Wanted, reads::check_reads_beside};
use crate::{
    auth::{Access, Object, Permission, Sender},
    error::{Error, Malformed},
    pieces::{Pieces, time_left},
    replication::{self, Asked, Taker, Tell},
    responses::{of_type, options},
};
use hyper::{Method, Response, header::HeaderValue, http::request::Parts};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::sync::mpsc;
use widgets_registry::{Fault, Rejection, Store};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// How long an operation waits for a primary at most, because its sender waits as well.
const AWAITING_TIME_MAX: Duration = Duration::from_secs(5);

/// How many operations may wait for a primary.
const AWAITING_MAX: usize = 10_000;

/// Counts an operation that waits, until this is dropped.
struct Awaiting<'a>(&'a AtomicUsize);

impl<'a> Awaiting<'a> {
    fn new(count: &'a AtomicUsize) -> Result<Self, Error> {
        let awaiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= AWAITING_MAX {
            let limit = format!("{AWAITING_MAX} operations wait for that");
            return Err(Error::HandingOver(limit));
        }
        Ok(awaiting)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn handing_over() -> Error {
    Error::HandingOver("it takes no operations at the moment".into())
}

impl<S: Store> Api<S> {
    /// Reports whether this store takes operations.
    pub(super) fn is_primary(&self) -> bool {
        self.taker() == Taker::This
    }

    fn taker(&self) -> Taker {
        self.replication
            .as_ref()
            .map_or(Taker::This, |it| it.taker())
    }

    /// Returns an error unless this store is the primary.
    fn check_primary(&self) -> Result<(), Error> {
        match self.taker() {
            Taker::This => Ok(()),
            Taker::Primary(primary) => Err(Error::Standby(primary)),
            Taker::Nobody => Err(handing_over()),
        }
    }

    /// Waits while one store hands over to another, instead of sending the operation back and forth
    /// between them. A standby refuses it.
    pub(super) async fn wait_for_primary(&self) -> Result<(), Error> {
        if let (Taker::Nobody, Some(replication)) = (self.taker(), &self.replication) {
            let _awaiting = Awaiting::new(&self.shared.awaiting)?;
            let mut stopping = self.shared.subscribers.stopping();
            tokio::select! {
                biased;
                () = replication.settled() => {}
                _ = stopping.wait_for(|&stopping| stopping) => {}
                () = self.shared.clock.timer(AWAITING_TIME_MAX) => {}
            }
        }
        self.check_primary()
    }

    /// Returns the answer to an operation that the store rejected. If it was admitted just before
    /// the store began to hand over, it is referred to the store that takes operations next.
    pub(super) async fn turned_away(&self, rejection: Rejection) -> Error {
        let is_unapplied = matches!(rejection, Rejection::Fault(Fault::Unavailable { .. }));
        if !is_unapplied || self.is_primary() {
            return rejection.into();
        }
        match Box::pin(self.wait_for_primary()).await {
            // This store remains the primary, so the client must send the operation again.
            Ok(()) => handing_over(),
            Err(error) => error,
        }
    }

    /// Reports whether the store does what its role promises, and is the primary if the probe looks
    /// for that.
    pub(super) fn ready_in_role(&self, asks_for_primary: bool) -> Result<(), Error> {
        if asks_for_primary {
            self.check_primary()?;
        }
        let ready = self.replication.as_ref().map_or(Ok(()), |it| it.ready());
        ready.map_err(|reason| Fault::Unavailable { reason }.into())
    }

    pub(super) fn read_replication(&self, sender: &Sender, head: &Parts) -> Result<Wanted, Error> {
        // A standby reports what it has in a body that continues as long as the answer.
        let reports = head.method == Method::POST;
        if !reports && let Some(answer) = check_reads_beside(head, "OPTIONS,GET,HEAD,POST")? {
            return Ok(Wanted::Answer(answer));
        }
        let access = sender.access;
        access.require(Permission::Admin, Object::Replication)?;
        let Some(replication) = &self.replication else {
            return Err(Malformed::Path { details: None }.into());
        };
        replication::check_media_type(head, replication.media_type())?;
        let query = head.uri.query().unwrap_or_default();
        let (reported, reports_of) = mpsc::channel(1);
        Ok(Wanted::Replication(Box::new(Asked {
            replication: replication.clone(),
            query: query.into(),
            reports: reports_of,
            ends: sender.ends,
            reported: reports.then_some(reported),
        })))
    }

    /// Tells the store about its role.
    pub(super) async fn tell(&self, what: Tell, access: Access, head: &Parts) -> Answer {
        match head.method {
            Method::POST => {}
            Method::OPTIONS => return Ok(options("OPTIONS,POST")),
            _ => {
                let (given, allowed) = (head.method.clone(), "OPTIONS,POST");
                return Err(Malformed::Method { given, allowed }.into());
            }
        }
        access.require(Permission::Admin, Object::Replication)?;
        let Some(replication) = &self.replication else {
            return Err(Malformed::Path { details: None }.into());
        };
        let query = head.uri.query().unwrap_or_default();
        let told = replication.tell(what, query).await?;
        Ok(of_type(JSON, told.into()))
    }

    /// Sends the store to a standby.
    pub(super) async fn replicate(&self, asked: Asked) -> Result<Response<AnswerBody>, Error> {
        let stopping = self.shared.subscribers.stopping();
        let replication = asked.replication;
        let pieces = replication.send(&asked.query, asked.reports, stopping);
        let pieces = pieces.await?;
        let left = asked.ends.map(|ends| time_left(ends, &*self.shared.clock));
        let stream = Pieces::until(pieces, left);
        let mut response = Response::new(AnswerBody::Right(stream));
        let (name, value) = replication::content_type(replication.media_type());
        response.headers_mut().insert(name, value);
        Ok(response)
    }
}
