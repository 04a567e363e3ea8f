//! A request, the task that waits for it, and its answer on the way back.

use std::{
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;
use widgets_mailbox::{Address, Deliver};
use widgets_registry::{Applied, Attempt, Fault, Reason, Rejection, Request};

/// The channel on which the answer to a request is awaited.
pub type Reply<R> = oneshot::Sender<Result<<R as Request>::Answer, <R as Request>::Error>>;

/// What waits in a store's queue: a request of some kind with its [`Reply`].
pub trait Waits: Send + 'static {
    /// Returns how many bytes of text it carries.
    fn text_bytes(&self) -> usize;
    /// Reports whether it is an operation, as opposed to a read.
    fn is_operation(&self) -> bool;
    /// Answers it with this fault.
    fn refuse(self, fault: Fault);
}

/// A request with its time of arrival and the address for its answer.
#[derive(Debug)]
pub struct Submission<T> {
    /// The request.
    pub request: T,
    /// The time of arrival, by the store's clock.
    pub arrived: Duration,
    /// Where the answer goes.
    pub reply_to: Address,
}

/// The mailbox of one runtime, through which requests and answers travel.
pub type Mailbox<T> = widgets_mailbox::Mailbox<Submission<T>, Answered>;

/// The store's side of its mailboxes.
pub type Outbox<T> = widgets_mailbox::Outbox<Submission<T>, Answered>;

/// A request of any kind other than an operation, and later its answer, in the same box.
pub struct Asked<R: Request> {
    content: Content<R>,
    reply: Reply<R>,
}

enum Content<R: Request> {
    Request(R),
    Answer(Result<R::Answer, R::Error>),
    /// The answer is being made.
    Taken,
}

impl<R: Request> Asked<R> {
    /// Wraps a request and the channel on which its answer is awaited.
    #[must_use]
    pub fn new(request: R, reply: Reply<R>) -> Self {
        let content = Content::Request(request);
        Self { content, reply }
    }

    /// Returns the request, until it is answered.
    #[must_use]
    pub fn request(&self) -> Option<&R> {
        match &self.content {
            Content::Request(request) => Some(request),
            Content::Answer(_) | Content::Taken => None,
        }
    }

    /// Makes the answer, unless there is one already.
    pub fn answer(&mut self, answer: impl FnOnce(R) -> Result<R::Answer, R::Error>) {
        match std::mem::replace(&mut self.content, Content::Taken) {
            Content::Request(request) => self.content = Content::Answer(answer(request)),
            other => self.content = other,
        }
    }

    /// Replaces any answer by this fault.
    pub fn fail(&mut self, fault: Fault) {
        self.content = Content::Answer(Err(fault.into()));
    }

    /// Reports whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    /// Completes when nobody waits for the answer any more.
    pub fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.reply.poll_closed(context)
    }

    /// Returns how many bytes of text the request carries.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.request().map_or(0, Request::text_bytes)
    }
}

/// A boxed answer that returns to the waiting task.
pub trait DeliverBoxed: Send + 'static {
    /// Delivers the answer. It makes no difference if the caller has gone.
    fn deliver(self: Box<Self>);

    /// Replaces any answer by this fault.
    fn fail(&mut self, fault: Fault);
}

impl<R: Request> DeliverBoxed for Asked<R> {
    fn deliver(self: Box<Self>) {
        // If it was not answered, dropping the reply says so.
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
    /// The answer to an operation.
    Operation(Reply<Attempt>, Result<Applied, Rejection>),
    /// The answer to any other request, in its box.
    Other(Box<dyn DeliverBoxed>),
}

impl Answered {
    /// Replaces the answer, because what it says may be lost. If the operation was accepted, its
    /// fate is unknown; any other request changed nothing.
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
