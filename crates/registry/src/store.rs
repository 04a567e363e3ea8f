//! The seam between the service and whatever keeps its state: the whole request.

use crate::{
    Author, Command, Feed, IdempotencyKey, Refusal, SerialNumber, Widget,
    query::{Asker, List, Neighbourhood, NeighbourhoodQuery, Page},
};
use std::fmt;
use std::sync::Arc;

/// Something that a store is asked, as one type with its answer.
pub trait Request: Send + Sized + 'static {
    /// What it is answered.
    type Answer: Send + 'static;
    /// Why it may not be answered.
    type Error: From<Fault> + Send + 'static;

    /// How many bytes of text it carries: what a queue that is bounded in bytes counts.
    fn text_bytes(&self) -> usize;
}

/// An operation as somebody asks for it: it is applied, or it is said why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The operation.
    pub command: Command,
    /// Who asks, where that is known.
    pub author: Option<Author>,
    /// What makes it safe to ask again.
    pub key: Option<IdempotencyKey>,
    /// Whose share of the keys that are kept this one counts against. It tells no keys apart.
    pub asker: Asker,
}

/// Of nobody, and not to be asked again.
impl From<Command> for Attempt {
    fn from(command: Command) -> Self {
        Self {
            command,
            author: None,
            key: None,
            asker: Asker::default(),
        }
    }
}

/// When an operation was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// By this attempt.
    Now,
    /// By an earlier attempt with the same key.
    Before,
}

impl Request for Attempt {
    type Answer = Applied;
    type Error = Rejection;

    fn text_bytes(&self) -> usize {
        let author = self.author.as_deref().map_or(0, str::len);
        let key = self.key.as_deref().map_or(0, str::len);
        self.command.text_bytes() + author + key
    }
}

/// Asks for the widget of this serial number with its slots and their peers; `None` if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup(pub SerialNumber);

impl Request for Lookup {
    type Answer = Option<Widget>;
    type Error = Fault;

    fn text_bytes(&self) -> usize {
        self.0.len()
    }
}

/// Asks for rows that are all of one moment.
impl Request for List {
    type Answer = Page;
    type Error = Fault;

    fn text_bytes(&self) -> usize {
        self.filter.text_bytes()
    }
}

/// Asks for what is near a widget; `None` if there is none of this serial number.
impl Request for NeighbourhoodQuery {
    type Answer = Option<Neighbourhood>;
    type Error = Fault;

    fn text_bytes(&self) -> usize {
        self.serial_number.len()
    }
}

/// Whatever can be asked requests of this kind.
pub trait Ask<R: Request> {
    /// Answers a request. Dropping the future gives up the answer, not the request: an operation may
    /// still be applied.
    fn ask(&self, request: R) -> impl Future<Output = Result<R::Answer, R::Error>> + Send;
}

/// Every kind of request that the service asks a store. One that is new is added to both lines.
pub trait Kinds: Ask<Attempt> + Ask<Lookup> + Ask<List> + Ask<NeighbourhoodQuery> {
    /// Applies an operation of nobody that is not to be asked again.
    fn submit(&self, command: Command) -> impl Future<Output = Result<(), Rejection>> + Send {
        let asked = self.ask(Attempt::from(command));
        async move { asked.await.map(|_| ()) }
    }
}

impl<T: Ask<Attempt> + Ask<Lookup> + Ask<List> + Ask<NeighbourhoodQuery>> Kinds for T {}

/// A place that keeps widgets durably and applies one whole operation at a time.
///
/// Operations are strictly serialisable: an answer, acceptance or refusal, is given only when the
/// state that it rests on is durable, and every other request sees all operations that were answered
/// before it began.
pub trait Store: Kinds + Clone + Send + Sync + 'static {
    /// Whether operations can be applied now, for readiness probes: the fault that they would meet.
    fn ready(&self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Its changes, where it keeps them.
    fn feed(&self) -> Option<Arc<dyn Feed>> {
        None
    }

    /// Its machines, where its widgets are spread over several and it promises less than others for that.
    fn distributed(&self) -> Option<Distributed> {
        None
    }
}

/// A store that is spread over machines: a list or a neighbourhood is of one moment for each shard only, and there are no
/// changes to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distributed {
    /// How many machines have widgets.
    pub nodes: usize,
    /// Those of them that were away, or gave no answer in time, when something concerned them last.
    pub away: Vec<String>,
}

/// Why an operation was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The rules refuse it: nothing was applied, and the same request may be right later.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The rules refused it when it was first asked with its key.
    #[error(transparent)]
    Replayed(Refusal),
    /// The store could not do its work.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why a store could not do its work. The caller's request was in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// WG503: more is waiting than the limits allow. Nothing was applied.
    #[error("the service is too busy: {limit}")]
    Busy {
        /// The limit that was hit, by its name in the configuration, and its value.
        limit: String,
        /// When trying again makes sense, in whole seconds, at least 1.
        retry_after_seconds: u32,
    },
    /// WG504: writes are refused because the disk is full, because an earlier sync failed, or
    /// because the database cannot be reached. Nothing was applied.
    #[error("the store accepts no operations: {reason}")]
    Unavailable {
        /// What happened, and what ends it.
        reason: Reason,
    },
    /// WG505: the commit was under way when it failed. The operation may or may not be applied.
    #[error("the operation may or may not have been applied: {reason}")]
    FateUnknown {
        /// What happened.
        reason: Reason,
    },
}

impl Fault {
    /// The stable word that clients branch on.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "WG503",
            Self::Unavailable { .. } => "WG504",
            Self::FateUnknown { .. } => "WG505",
        }
    }
}

/// What happened, in two parts: what every caller may read, and what is for the operator alone, such as
/// the names of hosts, users and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    public: &'static str,
    details: Option<String>,
}

impl Reason {
    /// `public` is for everyone: that it is a constant keeps names out of it. `details` are for the
    /// log, and for those who may administer the service.
    pub fn new(public: &'static str, details: impl Into<String>) -> Self {
        let details = Some(details.into());
        Self { public, details }
    }

    /// What every caller may read.
    #[must_use]
    pub const fn public(&self) -> &'static str {
        self.public
    }

    /// What is for the operator alone.
    #[must_use]
    pub fn details(&self) -> Option<&str> {
        self.details.as_deref()
    }
}

/// Everyone may read all of it.
impl From<&'static str> for Reason {
    fn from(public: &'static str) -> Self {
        let details = None;
        Self { public, details }
    }
}

/// Nobody has said what of it callers may read: nothing.
impl From<String> for Reason {
    fn from(details: String) -> Self {
        Self::new("the log of the service says why", details)
    }
}

/// All of it, for the operator.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.public)?;
        match &self.details {
            Some(details) => write!(f, ": {details}"),
            None => Ok(()),
        }
    }
}
