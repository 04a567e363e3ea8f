//! Carries requests and answers between a runtime and a store's threads in bulk, with one wake-up
//! per batch in each direction.
//!
//! Waking another thread costs a lock and often a system call, and a batch has dozens of requests.
//! So a runtime has a [`Mailbox`], which one of its tasks empties. The mailbox does not know what a
//! request or an answer is.
//!
//! Requests: a task leaves its request and wakes the mailbox's task, which runs after the tasks
//! that were ready before it. By then, everything that the runtime read from its sockets in one
//! turn has been collected. The store takes it as one batch, and is not woken for the first request
//! alone. A lone request loses no time, because no task is ready before the mailbox's.
//!
//! Answers: a store passes them to its [`Outbox`], which puts all answers for one runtime into its
//! mailbox and wakes the mailbox's task. That task delivers them from inside the runtime, where
//! waking a task only pushes it to a list of the same thread. The outbox also unparks that thread,
//! which may be resting before it waits for events.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
};
use tokio::sync::Notify;

/// An answer that knows who waits for it.
pub trait Deliver: Send + 'static {
    /// Delivers the answer. It makes no difference if the caller has gone.
    fn deliver(self);
}

/// Where a caller wants its answer to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Directly to the waiting task.
    Task,
    /// Through the mailbox that an [`Outbox`] knows by this number.
    Mailbox(usize),
}

/// The items that wait for the task that empties it: outgoing requests `R`, and answers `A`.
pub struct Mailbox<R, A> {
    requests: Mutex<Vec<R>>,
    answers: Mutex<Vec<A>>,
    arrival: Notify,
    /// The thread of the runtime, which may be resting before it waits for events.
    thread: Thread,
}

impl<R: Send + 'static, A: Deliver> Mailbox<R, A> {
    /// Returns a mailbox that a task of the current runtime empties for as long as that runtime
    /// runs. `push_all` takes the requests and must leave none behind.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn on_current_runtime(push_all: impl Fn(&mut Vec<R>) + Send + 'static) -> Arc<Self> {
        let mailbox = Arc::new(Self {
            requests: Mutex::default(),
            answers: Mutex::default(),
            arrival: Notify::new(),
            thread: thread::current(),
        });
        let emptied = mailbox.clone();
        tokio::spawn(async move {
            let (mut requests, mut answers) = (Vec::new(), Vec::new());
            loop {
                emptied.arrival.notified().await;
                mem::swap(&mut requests, &mut *lock(&emptied.requests));
                if !requests.is_empty() {
                    push_all(&mut requests);
                }
                mem::swap(&mut answers, &mut *lock(&emptied.answers));
                for answer in answers.drain(..) {
                    answer.deliver();
                }
            }
        });
        mailbox
    }

    /// Leaves a request for the store.
    pub fn submit(&self, request: R) {
        let mut requests = lock(&self.requests);
        let first = requests.is_empty();
        requests.push(request);
        drop(requests);
        if first {
            self.arrival.notify_one();
        }
    }

    /// Puts answers in, drains `answers`, and wakes the mailbox's task.
    fn put(&self, answers: &mut Vec<A>) {
        lock(&self.answers).append(answers);
        self.arrival.notify_one();
        self.thread.unpark();
    }
}

impl<R, A> fmt::Debug for Mailbox<R, A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

fn lock<T>(items: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    // No code that holds this lock can panic halfway through a change.
    items.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store's side: sorts answers by mailbox, and hands them over on request.
#[derive(Debug)]
pub struct Outbox<R, A> {
    mailboxes: Vec<Destination<R, A>>,
}

/// A mailbox, and the answers that were sent to it since the last flush.
type Destination<R, A> = (Arc<Mailbox<R, A>>, Vec<A>);

impl<R, A> Default for Outbox<R, A> {
    fn default() -> Self {
        let mailboxes = Vec::new();
        Self { mailboxes }
    }
}

impl<R: Send + 'static, A: Deliver> Outbox<R, A> {
    /// Adds a mailbox, under the next number from 0.
    pub fn add(&mut self, mailbox: Arc<Mailbox<R, A>>) -> Address {
        self.mailboxes.push((mailbox, Vec::new()));
        Address::Mailbox(self.mailboxes.len() - 1)
    }

    /// Takes an answer. An answer for a task is delivered immediately.
    ///
    /// # Panics
    /// If no mailbox has that number.
    pub fn send(&mut self, address: Address, answer: A) {
        match address {
            Address::Task => answer.deliver(),
            Address::Mailbox(number) => self.mailboxes[number].1.push(answer),
        }
    }

    /// Hands over everything that was sent, with one wake-up for each mailbox that gets something.
    pub fn flush(&mut self) {
        for (mailbox, answers) in &mut self.mailboxes {
            if !answers.is_empty() {
                mailbox.put(answers);
            }
        }
    }
}
