//! The interface between the service and whatever keeps its state. Its unit is the whole request.

use crate::{
    Author, Command, Feed, IdempotencyKey, Refusal, SerialNumber, Widget,
    query::{Asker, List, Neighbourhood, NeighbourhoodQuery, Page},
};
use std::fmt;
use std::sync::Arc;

/// A request to a store: one type with its associated answer.
pub trait Request: Send + Sized + 'static {
    /// The answer.
    type Answer: Send + 'static;
    /// Why it may not be answered.
    type Error: From<Fault> + Send + 'static;

    /// Returns how many bytes of text it carries, for queues that are bounded in bytes.
    fn text_bytes(&self) -> usize;
}

/// An operation as a caller requests it. The answer is whether it was applied, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The operation.
    pub command: Command,
    /// The author, if known.
    pub author: Option<Author>,
    /// Makes it safe to repeat the operation.
    pub key: Option<IdempotencyKey>,
    /// Whose share of the stored keys this key counts against. Keys are not distinguished by it.
    pub asker: Asker,
}

/// An attempt without an author and without a key.
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

/// A request for the widget with this serial number, its slots and their peers; `None` if there is
/// none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup(pub SerialNumber);

impl Request for Lookup {
    type Answer = Option<Widget>;
    type Error = Fault;

    fn text_bytes(&self) -> usize {
        self.0.len()
    }
}

/// A request for rows, all of one moment.
impl Request for List {
    type Answer = Page;
    type Error = Fault;

    fn text_bytes(&self) -> usize {
        self.filter.text_bytes()
    }
}

/// A request for the surroundings of a widget; `None` if there is no widget with this serial
/// number.
impl Request for NeighbourhoodQuery {
    type Answer = Option<Neighbourhood>;
    type Error = Fault;

    fn text_bytes(&self) -> usize {
        self.serial_number.len()
    }
}

/// Something that answers requests of this kind.
pub trait Ask<R: Request> {
    /// Answers a request. Dropping the future gives up the answer, not the request: an operation
    /// may still be applied.
    fn ask(&self, request: R) -> impl Future<Output = Result<R::Answer, R::Error>> + Send;
}

/// Every kind of request that the service sends to a store. Add a new kind to both lines.
pub trait Kinds: Ask<Attempt> + Ask<Lookup> + Ask<List> + Ask<NeighbourhoodQuery> {
    /// Applies an operation without an author and without a key.
    fn submit(&self, command: Command) -> impl Future<Output = Result<(), Rejection>> + Send {
        let asked = self.ask(Attempt::from(command));
        async move { asked.await.map(|_| ()) }
    }
}

impl<T: Ask<Attempt> + Ask<Lookup> + Ask<List> + Ask<NeighbourhoodQuery>> Kinds for T {}

/// A store that keeps widgets durably and applies one whole operation at a time.
///
/// Operations are strictly serialisable: an acceptance or refusal is answered only when the state
/// that it depends on is durable, and every other request sees all operations that were answered
/// before it began.
pub trait Store: Kinds + Clone + Send + Sync + 'static {
    /// Reports whether operations can be applied now, for readiness probes; otherwise the fault
    /// that they would meet.
    fn ready(&self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Returns its changes, if it keeps them.
    fn feed(&self) -> Option<Arc<dyn Feed>> {
        None
    }

    /// Returns its machines, if its widgets are spread over several and it therefore promises less
    /// than other stores.
    fn distributed(&self) -> Option<Distributed> {
        None
    }
}

/// A store that is spread over machines: a list or a neighbourhood shows one moment for each shard
/// only, and there are no changes to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distributed {
    /// The number of machines that have widgets.
    pub nodes: usize,
    /// Those that were unreachable, or did not answer in time, when they were last needed.
    pub away: Vec<String>,
}

/// Why an operation was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The rules refuse it: nothing was applied, and the same request may be accepted later.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The rules refused it when it was first requested with its key.
    #[error(transparent)]
    Replayed(Refusal),
    /// The store could not do its work.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why a store could not do its work. The caller's request was valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// WG503: more requests are waiting than the limits allow. Nothing was applied.
    #[error("the service is too busy: {limit}")]
    Busy {
        /// The limit that was reached, by its name in the configuration, and its value.
        limit: String,
        /// After how many whole seconds a retry makes sense; at least 1.
        retry_after_seconds: u32,
    },
    /// WG504: writes are refused because the disk is full, because an earlier sync failed, or
    /// because the database cannot be reached. Nothing was applied.
    #[error("the store accepts no operations: {reason}")]
    Unavailable {
        /// What happened, and what ends it.
        reason: Reason,
    },
    /// WG505: the commit failed while it was under way. The operation may or may not be applied.
    #[error("the operation may or may not have been applied: {reason}")]
    FateUnknown {
        /// What happened.
        reason: Reason,
    },
}

impl Fault {
    /// Returns the stable code on which clients branch.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "WG503",
            Self::Unavailable { .. } => "WG504",
            Self::FateUnknown { .. } => "WG505",
        }
    }
}

/// What happened, in two parts: one for every caller, and one only for the operator, such as the
/// names of hosts, users and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    public: &'static str,
    details: Option<String>,
}

impl Reason {
    /// Makes a reason. `public` is for everyone; it is a constant, so that no names get into it.
    /// `details` are for the log and for administrators.
    pub fn new(public: &'static str, details: impl Into<String>) -> Self {
        let details = Some(details.into());
        Self { public, details }
    }

    /// Returns the part for every caller.
    #[must_use]
    pub const fn public(&self) -> &'static str {
        self.public
    }

    /// Returns the part only for the operator.
    #[must_use]
    pub fn details(&self) -> Option<&str> {
        self.details.as_deref()
    }
}

/// The whole text is for everyone.
impl From<&'static str> for Reason {
    fn from(public: &'static str) -> Self {
        let details = None;
        Self { public, details }
    }
}

/// Nothing says which part callers may read, so they read none of it.
impl From<String> for Reason {
    fn from(details: String) -> Self {
        Self::new("the log of the service says why", details)
    }
}

/// Writes both parts, for the operator.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.public)?;
        match &self.details {
            Some(details) => write!(f, ": {details}"),
            None => Ok(()),
        }
    }
}
