//! Requests and answers on their way between a runtime and a store's threads: handed over in bulk,
//! one wake-up for a batch in either direction.
//!
//! Waking another thread costs a lock and often a system call, and a batch has dozens of requests.
//! So a runtime has a [`Mailbox`], and one task there empties it. The mailbox does not know what a
//! request or an answer is.
//!
//! Requests: a task leaves its request and wakes the mailbox's task, whose turn comes after those
//! tasks that were ready before it. By then all that the runtime read from its sockets in one go has
//! come together, and the store, which would otherwise be woken for the first of them, takes them as
//! one batch. A lone request loses no time: no task is ready before the mailbox's.
//!
//! Answers: a store gives them to its [`Outbox`], which puts all that are for one runtime into the
//! mailbox and wakes the mailbox's task, which delivers them from within: that wakes each waiting
//! task by a push to a list of its own thread. It unparks that thread as well, which may be resting
//! before it waits for events.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
};
use tokio::sync::Notify;

/// An answer that knows who waits for it.
pub trait Deliver: Send + 'static {
    /// Hands the answer over. The caller may have gone; that changes nothing.
    fn deliver(self);
}

/// Where a caller wants its answer to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Straight to the waiting task.
    Task,
    /// By the mailbox that an [`Outbox`] knows by this number.
    Mailbox(usize),
}

/// What waits for the task that empties it: requests `R` on their way out, and answers `A`.
pub struct Mailbox<R, A> {
    requests: Mutex<Vec<R>>,
    answers: Mutex<Vec<A>>,
    arrival: Notify,
    /// The thread of the runtime, which may be resting before it waits for events.
    thread: Thread,
}

impl<R: Send + 'static, A: Deliver> Mailbox<R, A> {
    /// A mailbox that is emptied by a task of the current runtime for as long as that runs. Requests
    /// are taken away by `push_all`, which leaves none behind.
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

    /// Puts answers in, leaves `answers` empty, and wakes the mailbox's task.
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
    // Nothing in here can panic halfway through a change.
    items.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store's side: sorts answers by mailbox, and hands them over when told to.
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
    /// Knows one more mailbox, under the next number from 0.
    pub fn add(&mut self, mailbox: Arc<Mailbox<R, A>>) -> Address {
        self.mailboxes.push((mailbox, Vec::new()));
        Address::Mailbox(self.mailboxes.len() - 1)
    }

    /// Takes an answer. One that goes straight to a task is delivered at once.
    ///
    /// # Panics
    /// Where no mailbox has that number.
    pub fn send(&mut self, address: Address, answer: A) {
        match address {
            Address::Task => answer.deliver(),
            Address::Mailbox(number) => self.mailboxes[number].1.push(answer),
        }
    }

    /// Hands over everything that was sent, one wake-up for each mailbox that gets something.
    pub fn flush(&mut self) {
        for (mailbox, answers) in &mut self.mailboxes {
            if !answers.is_empty() {
                mailbox.put(answers);
            }
        }
    }
}
