//! Copies of the store on other machines, as far as HTTP goes: `GET /replication` sends the store to a standby,
//! and a standby sends those who bring operations to its primary.
//!
//! What passes over the stream is known to whoever implements [`Replication`] alone.

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

/// What is sent to a standby: pieces as they come.
pub type Sending = Pin<Box<dyn Future<Output = Result<mpsc::Receiver<Bytes>, Unsent>> + Send>>;

/// Who takes operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taker {
    /// This store.
    This,
    /// The primary at this address, which this store follows.
    Primary(Arc<str>),
    /// Nobody for a moment: one hands over to the other.
    Nobody,
}

/// Something that comes.
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a store is copied to other machines, or from one.
pub trait Replication: Send + Sync + 'static {
    /// Who takes operations at present.
    fn taker(&self) -> Taker;

    /// Waits until somebody takes them.
    fn settled(&self) -> Settled;

    /// Whether it follows, where it is to; `Err` says why it does not.
    fn ready(&self) -> Result<(), Reason>;

    /// The media type of what is sent.
    fn media_type(&self) -> &'static str;

    /// What a standby asks for by this query, until it hangs up or `stopping` says so. `reports` is the body of its request
    /// as it comes, in which it says what it has.
    fn send(
        &self,
        query: &str,
        reports: mpsc::Receiver<Bytes>,
        stopping: watch::Receiver<bool>,
    ) -> Sending;

    /// Tells the store of its role, with the request's query.
    fn tell(&self, what: Tell, query: &str) -> Told;
}

/// What is answered to whoever tells a store of its role: a JSON object.
pub type Told = Pin<Box<dyn Future<Output = Result<String, Unsent>> + Send>>;

/// What a store is told of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It is to become the primary.
    Promote,
    /// It was replaced as the primary.
    Replaced,
    /// It is to stop as the primary, until a standby has everything.
    HandOver,
    /// A standby has everything, and is to be the primary.
    HandedOver,
    /// Who must have an operation before its caller is told; it may be to change.
    Holder,
}

/// Why nothing is sent to a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The query is none that a standby sends: what it must be.
    Malformed(String),
    /// This store cannot go on where the standby ends: why.
    Elsewhere(String),
    /// There are as many as there may be: the limit.
    Busy(String),
    /// The store cannot be read: why.
    Unavailable(String),
    /// The roles are as before: why.
    NotChanged(String),
    /// Which store is the primary is not known: what to look at.
    Unknown(String),
    /// The rules do not allow it: what anybody may read of that, and what is behind it.
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

/// What a standby asks for.
pub(crate) struct Asked {
    pub(crate) replication: Arc<dyn Replication>,
    pub(crate) query: Box<str>,
    pub(crate) reports: mpsc::Receiver<Bytes>,
    /// The first second since 1970 in which its token is not valid any more, if it has one that ends.
    pub(crate) ends: Option<i64>,
    /// Where its body is to go, if it has one that is to be read.
    pub(crate) reported: Option<mpsc::Sender<Bytes>>,
}

/// Hands over what a standby reports, until it reports no more or nobody wants it.
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

/// Whether a probe looks for the primary: `?role=primary` is for who must reach the one that takes operations.
pub(crate) fn asks_for_primary(head: &Parts) -> Result<bool, Malformed> {
    let query = head.uri.query().unwrap_or_default();
    let mut asks = false;
    for (_, role) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "role") {
        if role != "primary" {
            return Err(unknown_role(&role));
        }
        asks = true;
    }
    Ok(asks)
}

/// There is one role to look for.
pub(crate) fn unknown_role(role: &str) -> Malformed {
    Malformed::ParameterValue {
        name: "role".into(),
        value: role.into(),
        must: "it can be primary".into(),
    }
}

/// Refuses who would not understand what is sent.
pub(crate) fn check_media_type(head: &Parts, media_type: &'static str) -> Result<(), Error> {
    negotiation::media_type(&head.headers, &[media_type])?;
    Ok(())
}

/// The header that says what is sent.
pub(crate) fn content_type(media_type: &'static str) -> (header::HeaderName, HeaderValue) {
    (header::CONTENT_TYPE, HeaderValue::from_static(media_type))
}

impl Error {
    /// What is said to those who bring operations to a standby: code, message, details, hint.
    pub(crate) fn standby_texts(primary: &str) -> (String, Option<String>, Option<String>) {
        let message = "this is a standby, which takes no operations";
        let hint = "Send it to the primary, which details names";
        (message.into(), Some(primary.into()), Some(hint.into()))
    }
}
