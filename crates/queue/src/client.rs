//! The one way to ask a store.

use crate::{Depth, Mailbox, Reply, Submission, Waits};
use std::sync::Arc;
use tokio::sync::oneshot;
use widgets_clock::Clock;
use widgets_mailbox::Address;
use widgets_registry::{
    Ask, Distributed, Fault, Feed, Kinds, Lookup, Reason, Request, SerialNumber, Store,
};

/// Where a store's requests wait.
pub trait Queue: Send + Sync + 'static {
    /// What waits.
    type Request: Waits;

    /// Adds requests and leaves `submissions` empty. Those that cannot wait are answered at once why.
    fn push_all(&self, submissions: &mut Vec<Submission<Self::Request>>);

    /// Makes a mailbox known: what is pushed with its address is answered by it.
    fn register(&self, mailbox: Arc<Mailbox<Self::Request>>) -> Address;

    /// Why no operation could be applied now, as far as is known.
    fn unavailable(&self) -> Option<Reason>;

    /// Whether a fault concerns a part of what is stored, and others would be answered: of a store that is spread over
    /// several machines.
    fn is_of_a_part(&self, _fault: &Fault) -> bool {
        false
    }

    /// How much waits.
    fn depth(&self) -> Depth;

    /// The changes of the store behind it, where it keeps them.
    fn feed(&self) -> Option<Arc<dyn Feed>> {
        None
    }

    /// The machines of the store behind it, where it is spread over several.
    fn distributed(&self) -> Option<Distributed> {
        None
    }
}

/// A queue whose store answers requests of this kind.
pub trait Takes<R: Request>: Queue {
    /// The request as it waits.
    fn request(request: R, reply: Reply<R>) -> Self::Request;
}

/// A way to ask the store behind a queue. Clones share it.
pub struct Client<Q: Queue> {
    queue: Arc<Q>,
    clock: Arc<dyn Clock>,
    /// Its runtime's, and the address by which the store knows it.
    mailbox: Option<(Arc<Mailbox<Q::Request>>, Address)>,
}

impl<Q: Queue> Clone for Client<Q> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            clock: self.clock.clone(),
            mailbox: self.mailbox.clone(),
        }
    }
}

impl<Q: Queue> Client<Q> {
    /// A client whose answers go straight to the tasks that wait.
    #[must_use]
    pub fn new(queue: Arc<Q>, clock: Arc<dyn Clock>) -> Self {
        Self {
            queue,
            clock,
            mailbox: None,
        }
    }

    /// A client for tasks of the current tokio runtime, whose requests and answers travel in bulk:
    /// the store is woken once for all that the runtime read in one go, and the runtime once for a
    /// batch, whose thread is also unparked, should it rest. It asks and is answered as long as that
    /// runtime runs.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn on_current_runtime(&self) -> Self {
        let queue = self.queue.clone();
        let mailbox = Mailbox::on_current_runtime(move |requests| queue.push_all(requests));
        let address = self.queue.register(mailbox.clone());
        Self {
            mailbox: Some((mailbox, address)),
            ..self.clone()
        }
    }

    fn push(&self, request: Q::Request) {
        let arrived = self.clock.now();
        let submission = |reply_to| Submission {
            request,
            arrived,
            reply_to,
        };
        match &self.mailbox {
            None => self.queue.push_all(&mut vec![submission(Address::Task)]),
            Some((mailbox, address)) => mailbox.submit(submission(*address)),
        }
    }
}

impl<Q: Takes<R>, R: Request> Ask<R> for Client<Q> {
    async fn ask(&self, request: R) -> Result<R::Answer, R::Error> {
        let (reply, answer) = oneshot::channel();
        self.push(Q::request(request, reply));
        answer.await.unwrap_or_else(|_| Err(stopped().into()))
    }
}

impl<Q: Takes<Lookup>> Store for Client<Q>
where
    Self: Kinds,
{
    async fn ready(&self) -> Result<(), Fault> {
        // Whether there is such a widget does not matter: what counts is that the store answers. The
        // embedded one looks for room again on that occasion.
        let probe = match SerialNumber::new("probe", "ready") {
            Ok(serial_number) => Lookup(serial_number),
            Err(refusal) => unreachable!("the probe is within its limits: {refusal}"),
        };
        if let Err(fault) = self.ask(probe).await
            && !self.queue.is_of_a_part(&fault)
        {
            return Err(fault);
        }
        match self.queue.unavailable() {
            Some(reason) => Err(Fault::Unavailable { reason }),
            None => Ok(()),
        }
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        self.queue.feed()
    }

    fn distributed(&self) -> Option<Distributed> {
        self.queue.distributed()
    }
}

fn stopped() -> Fault {
    Fault::FateUnknown {
        reason: "the store stopped before it answered".into(),
    }
}
