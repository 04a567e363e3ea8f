//! A request, whoever waits for it, and its answer on the way back.

use std::{
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;
use widgets_mailbox::{Address, Deliver};
use widgets_registry::{Applied, Attempt, Fault, Reason, Rejection, Request};

/// Where the answer to a request is awaited.
pub type Reply<R> = oneshot::Sender<Result<<R as Request>::Answer, <R as Request>::Error>>;

/// What waits in a store's queue: a request of some kind, with its [`Reply`].
pub trait Waits: Send + 'static {
    /// How many bytes of text it carries.
    fn text_bytes(&self) -> usize;
    /// Whether it is an operation, and not something that reads.
    fn is_operation(&self) -> bool;
    /// Answers at once that it cannot be done.
    fn refuse(self, fault: Fault);
}

/// A request, when it came, and where its answer is to go.
#[derive(Debug)]
pub struct Submission<T> {
    /// What is asked.
    pub request: T,
    /// When, by the store's clock.
    pub arrived: Duration,
    /// Where the answer goes.
    pub reply_to: Address,
}

/// How what waits in a store's queue and its answers travel to and from one runtime.
pub type Mailbox<T> = widgets_mailbox::Mailbox<Submission<T>, Answered>;

/// The store's side of its mailboxes.
pub type Outbox<T> = widgets_mailbox::Outbox<Submission<T>, Answered>;

/// A request other than an operation, of any kind, and then its answer in the same box.
pub struct Asked<R: Request> {
    content: Content<R>,
    reply: Reply<R>,
}

enum Content<R: Request> {
    Request(R),
    Answer(Result<R::Answer, R::Error>),
    /// While the answer is being made.
    Taken,
}

impl<R: Request> Asked<R> {
    /// A request and where its answer is awaited.
    #[must_use]
    pub fn new(request: R, reply: Reply<R>) -> Self {
        let content = Content::Request(request);
        Self { content, reply }
    }

    /// The request, until it is answered.
    #[must_use]
    pub fn request(&self) -> Option<&R> {
        match &self.content {
            Content::Request(request) => Some(request),
            Content::Answer(_) | Content::Taken => None,
        }
    }

    /// Makes the answer. The first one stands.
    pub fn answer(&mut self, answer: impl FnOnce(R) -> Result<R::Answer, R::Error>) {
        match std::mem::replace(&mut self.content, Content::Taken) {
            Content::Request(request) => self.content = Content::Answer(answer(request)),
            other => self.content = other,
        }
    }

    /// Takes back whatever the answer was: this is it.
    pub fn fail(&mut self, fault: Fault) {
        self.content = Content::Answer(Err(fault.into()));
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    /// Ready when nobody waits for the answer any more.
    pub fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.reply.poll_closed(context)
    }

    /// How many bytes of text the request carries.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.request().map_or(0, Request::text_bytes)
    }
}

/// An answer in a box that goes back to whoever waits.
pub trait DeliverBoxed: Send + 'static {
    /// Hands it over. The caller may have gone; that changes nothing.
    fn deliver(self: Box<Self>);

    /// Takes back whatever it was: this is the answer.
    fn fail(&mut self, fault: Fault);
}

impl<R: Request> DeliverBoxed for Asked<R> {
    fn deliver(self: Box<Self>) {
        // One that was not answered drops its reply, which says so.
        if let Content::Answer(answer) = self.content {
            drop(self.reply.send(answer));
        }
    }

    fn fail(&mut self, fault: Fault) {
        Self::fail(self, fault);
    }
}

/// An answer on its way back.
pub enum Answered {
    /// To an operation.
    Operation(Reply<Attempt>, Result<Applied, Rejection>),
    /// To any other request: it is in the box.
    Other(Box<dyn DeliverBoxed>),
}

impl Answered {
    /// The same without what it would tell, as that may yet be lost: whether an accepted operation is applied is
    /// not known, and whatever else was asked changed nothing.
    #[must_use]
    pub fn withdrawn(self, reason: &Reason) -> Self {
        let reason = reason.clone();
        match self {
            Self::Operation(reply, Ok(_)) => {
                Self::Operation(reply, Err(Fault::FateUnknown { reason }.into()))
            }
            Self::Operation(reply, Err(_)) => {
                Self::Operation(reply, Err(Fault::Unavailable { reason }.into()))
            }
            Self::Other(mut asked) => {
                asked.fail(Fault::Unavailable { reason });
                Self::Other(asked)
            }
        }
    }
}

impl Deliver for Answered {
    fn deliver(self) {
        match self {
            Self::Operation(reply, answer) => drop(reply.send(answer)),
            Self::Other(asked) => asked.deliver(),
        }
    }
}
