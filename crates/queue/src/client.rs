//! The client, which is the only way to ask a store.

use crate::{Depth, Mailbox, Reply, Submission, Waits};
use std::sync::Arc;
use tokio::sync::oneshot;
use widgets_clock::Clock;
use widgets_mailbox::Address;
use widgets_registry::{
    Ask, Distributed, Fault, Feed, Kinds, Lookup, Reason, Request, SerialNumber, Store,
};

/// The queue of a store's requests.
pub trait Queue: Send + Sync + 'static {
    /// A waiting request.
    type Request: Waits;

    /// Adds requests and drains `submissions`. A request that cannot wait is answered immediately
    /// with the reason.
    fn push_all(&self, submissions: &mut Vec<Submission<Self::Request>>);

    /// Registers a mailbox: requests pushed with the returned address are answered through it.
    fn register(&self, mailbox: Arc<Mailbox<Self::Request>>) -> Address;

    /// Returns why no operation could be applied now, as far as is known.
    fn unavailable(&self) -> Option<Reason>;

    /// Reports whether a fault concerns only a part of what is stored, so that other requests would
    /// be answered. This is possible if a store is spread over several machines.
    fn is_of_a_part(&self, _fault: &Fault) -> bool {
        false
    }

    /// Returns how much waits.
    fn depth(&self) -> Depth;

    /// Returns the changes of the store behind it, if it keeps them.
    fn feed(&self) -> Option<Arc<dyn Feed>> {
        None
    }

    /// Returns the machines of the store behind it, if it is spread over several.
    fn distributed(&self) -> Option<Distributed> {
        None
    }
}

/// A queue whose store answers requests of this kind.
pub trait Takes<R: Request>: Queue {
    /// Wraps a request for the queue.
    fn request(request: R, reply: Reply<R>) -> Self::Request;
}

/// A client of the store behind a queue. Clones share the queue.
pub struct Client<Q: Queue> {
    queue: Arc<Q>,
    clock: Arc<dyn Clock>,
    /// The mailbox of its runtime, and the address under which the store knows it.
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
    /// Returns a client whose answers go directly to the waiting tasks.
    #[must_use]
    pub fn new(queue: Arc<Q>, clock: Arc<dyn Clock>) -> Self {
        Self {
            queue,
            clock,
            mailbox: None,
        }
    }

    /// Returns a client for tasks of the current tokio runtime, whose requests and answers travel
    /// in bulk. The store is woken once for everything that the runtime read in one turn. The
    /// runtime is woken once for a batch, and its thread is also unparked in case it rests. The
    /// client works as long as that runtime runs.
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
        // It does not matter whether this widget exists; only that the store answers does. The
        // embedded store also uses the occasion to check for free disk space again.
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
