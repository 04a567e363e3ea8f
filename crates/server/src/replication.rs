//! Replication over HTTP: `GET /replication` sends the store to a standby, and a standby refers
//! clients with operations to its primary.
//!
//! Only the implementation of [`Replication`] knows the contents of the stream.

use crate::{
    error::{Error, Malformed},
    negotiation,
};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Bytes},
    header::{self, HeaderValue},
    http::request::Parts,
};
use std::{pin::Pin, sync::Arc};
use tokio::sync::{mpsc, watch};
use widgets_registry::{Fault, Reason};

/// What is sent to a standby, piece by piece.
pub type Sending = Pin<Box<dyn Future<Output = Result<mpsc::Receiver<Bytes>, Unsent>> + Send>>;

/// Which store takes operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taker {
    /// This store.
    This,
    /// The primary at this address, which this store follows.
    Primary(Arc<str>),
    /// No store for a moment: a primary hands over to a standby.
    Nobody,
}

/// A future that completes when a store takes operations.
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a store is copied to or from other machines.
pub trait Replication: Send + Sync + 'static {
    /// Returns which store takes operations at present.
    fn taker(&self) -> Taker;

    /// Waits until a store takes operations.
    fn settled(&self) -> Settled;

    /// Reports whether a store that should follow does. `Err` says why it does not.
    fn ready(&self) -> Result<(), Reason>;

    /// Returns the media type of the stream.
    fn media_type(&self) -> &'static str;

    /// Returns what a standby requests with this query, until it hangs up or `stopping` ends it.
    /// `reports` is the body of the standby's request as it arrives, in which the standby reports
    /// what it has.
    fn send(
        &self,
        query: &str,
        reports: mpsc::Receiver<Bytes>,
        stopping: watch::Receiver<bool>,
    ) -> Sending;

    /// Tells the store about its role, with the request's query.
    fn tell(&self, what: Tell, query: &str) -> Told;
}

/// The answer to a message about the store's role: a JSON object.
pub type Told = Pin<Box<dyn Future<Output = Result<String, Unsent>> + Send>>;

/// A message to a store about its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// The store is to become the primary.
    Promote,
    /// The store was replaced as the primary.
    Replaced,
    /// The store is to stop being the primary once a standby has everything.
    HandOver,
    /// A standby has everything and is to become the primary.
    HandedOver,
    /// Asks which store must have an operation before its caller is answered, and may change it.
    Holder,
}

/// Why nothing is sent to a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The query is not one that a standby sends. The text says what it must be.
    Malformed(String),
    /// This store cannot continue from where the standby ends. The text says why.
    Elsewhere(String),
    /// There are as many standbys as allowed. The text names the limit.
    Busy(String),
    /// The store cannot be read. The text says why.
    Unavailable(String),
    /// The roles are unchanged. The text says why.
    NotChanged(String),
    /// Which store is the primary is unknown. The text says what to check.
    Unknown(String),
    /// The rules do not allow it. The first text is for everyone, the second gives the details.
    Refused(&'static str, String),
}

impl From<Unsent> for Error {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Malformed(must) => Malformed::ReplicationQuery(must).into(),
            Unsent::Elsewhere(why) => Self::HistoryElsewhere(why),
            Unsent::Busy(limit) => Fault::Busy {
                limit,
                retry_after_seconds: 1,
            }
            .into(),
            Unsent::Refused(public, details) => Fault::Unavailable {
                reason: Reason::new(public, details),
            }
            .into(),
            Unsent::Unavailable(details) => Fault::Unavailable {
                reason: Reason::new("the journal cannot be read", details),
            }
            .into(),
            Unsent::NotChanged(why) => Self::RolesUnchanged(why),
            Unsent::Unknown(what) => Self::RolesUnknown(what),
        }
    }
}

/// What a standby requests.
pub(crate) struct Asked {
    pub(crate) replication: Arc<dyn Replication>,
    pub(crate) query: Box<str>,
    pub(crate) reports: mpsc::Receiver<Bytes>,
    /// The second, counted from 1970, from which its token is no longer valid. `None` if it has
    /// none that expires.
    pub(crate) ends: Option<i64>,
    /// Receives the request's body. `None` if it has none to be read.
    pub(crate) reported: Option<mpsc::Sender<Bytes>>,
}

/// Forwards a standby's reports until there are no more or nobody wants them.
pub(crate) async fn report<B>(mut body: B, reported: mpsc::Sender<Bytes>)
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let data = match body.frame().await {
            Some(Ok(frame)) => frame.into_data(),
            Some(Err(_)) | None => return,
        };
        if let Ok(data) = data
            && reported.send(data).await.is_err()
        {
            return;
        }
    }
}

/// Reports whether a probe looks for the primary: `?role=primary` is for clients that must reach
/// the store that takes operations. Any other parameter is refused: a load balancer that spells
/// this one wrongly would send operations to a standby.
pub(crate) fn asks_for_primary(head: &Parts) -> Result<bool, Malformed> {
    let query = head.uri.query().unwrap_or_default();
    let mut asks = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "role" || value != "primary" {
            return Err(unknown_parameter(&name, &value));
        }
        asks = true;
    }
    Ok(asks)
}

/// Returns the error for anything else than the one role that can be looked for.
pub(crate) fn unknown_parameter(name: &str, value: &str) -> Malformed {
    let must = match name {
        "role" => "it can be primary",
        _ => "it is unknown: the only parameter is role",
    };
    Malformed::ParameterValue {
        name: name.into(),
        value: value.into(),
        must: must.into(),
    }
}

/// Refuses a client that does not accept this media type.
pub(crate) fn check_media_type(head: &Parts, media_type: &'static str) -> Result<(), Error> {
    negotiation::media_type(&head.headers, &[media_type])?;
    Ok(())
}

/// Returns the header with the stream's media type.
pub(crate) fn content_type(media_type: &'static str) -> (header::HeaderName, HeaderValue) {
    (header::CONTENT_TYPE, HeaderValue::from_static(media_type))
}

impl Error {
    /// Returns the texts of the answer to an operation that is sent to a standby: message, details,
    /// hint.
    pub(crate) fn standby_texts(primary: &str) -> (String, Option<String>, Option<String>) {
        let message = "this is a standby, which takes no operations";
        let hint = "Send it to the primary, which details names";
        (message.into(), Some(primary.into()), Some(hint.into()))
    }
}
