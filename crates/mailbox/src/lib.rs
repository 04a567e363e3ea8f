//! Requests and answers on their way between a runtime and a store's threads: handed over in bulk,
//! one wake-up for a batch in either direction.
//!
//! Waking another thread costs a lock and often a system call, and a batch has dozens of requests.
//! So a runtime has a [`Mailbox`], and one task there, the postman, that empties it.
//!
//! Requests: a task leaves its request and wakes the postman, whose turn comes after those tasks
//! that were ready before it. By then all that the runtime read from its sockets in one go has come
//! together, and the store, which would otherwise be woken for the first of them, takes them as one
//! batch. A lone request finds nobody before it and loses no time.
//!
//! Answers: a store gives them to its [`PostOffice`], which puts all that are for one runtime into
//! the mailbox and wakes the postman, who delivers them from within: that wakes each waiting task by
//! a push to a list of its own thread. It unparks that thread as well, which may be resting before
//! it waits for events.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
};
use tokio::sync::{Notify, oneshot};
use widgets_registry::{Fault, Rejection, Widget};

/// An answer and who waits for it.
#[derive(Debug)]
pub enum Letter {
    /// The answer to an operation.
    Command(
        oneshot::Sender<Result<(), Rejection>>,
        Result<(), Rejection>,
    ),
    /// The answer to a lookup.
    Lookup(
        oneshot::Sender<Result<Option<Widget>, Fault>>,
        Result<Option<Widget>, Fault>,
    ),
}

impl Letter {
    /// Hands the answer over. The caller may have gone; that changes nothing.
    pub fn deliver(self) {
        match self {
            Self::Command(reply, answer) => drop(reply.send(answer)),
            Self::Lookup(reply, answer) => drop(reply.send(answer)),
        }
    }
}

/// Where a caller wants its answer to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Straight to the waiting task.
    Task,
    /// By the mailbox that a [`PostOffice`] knows by this number.
    Mailbox(usize),
}

/// What waits for the postman of one runtime: requests `R` on their way out, and answers.
pub struct Mailbox<R> {
    requests: Mutex<Vec<R>>,
    letters: Mutex<Vec<Letter>>,
    arrival: Notify,
    /// The thread of the runtime, which may be resting before it waits for events.
    thread: Thread,
}

impl<R: Send + 'static> Mailbox<R> {
    /// A mailbox whose postman runs on the current runtime for as long as that does, and takes
    /// requests away by `push_all`, which leaves none behind.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn on_current_runtime(push_all: impl Fn(&mut Vec<R>) + Send + 'static) -> Arc<Self> {
        let mailbox = Arc::new(Self {
            requests: Mutex::default(),
            letters: Mutex::default(),
            arrival: Notify::new(),
            thread: thread::current(),
        });
        let postman = mailbox.clone();
        tokio::spawn(async move {
            let (mut requests, mut letters) = (Vec::new(), Vec::new());
            loop {
                postman.arrival.notified().await;
                mem::swap(&mut requests, &mut *lock(&postman.requests));
                if !requests.is_empty() {
                    push_all(&mut requests);
                }
                mem::swap(&mut letters, &mut *lock(&postman.letters));
                for letter in letters.drain(..) {
                    letter.deliver();
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

    /// Puts letters in, leaves `letters` empty, and wakes the postman.
    fn put(&self, letters: &mut Vec<Letter>) {
        lock(&self.letters).append(letters);
        self.arrival.notify_one();
        self.thread.unpark();
    }
}

impl<R> fmt::Debug for Mailbox<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

fn lock<T>(items: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    // Nothing in here can panic halfway through a change.
    items.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store's side: sorts letters by mailbox, and hands them over when told to.
#[derive(Debug)]
pub struct PostOffice<R> {
    mailboxes: Vec<(Arc<Mailbox<R>>, Vec<Letter>)>,
}

impl<R> Default for PostOffice<R> {
    fn default() -> Self {
        let mailboxes = Vec::new();
        Self { mailboxes }
    }
}

impl<R: Send + 'static> PostOffice<R> {
    /// Knows one more mailbox, under the next number from 0.
    pub fn add(&mut self, mailbox: Arc<Mailbox<R>>) -> Address {
        self.mailboxes.push((mailbox, Vec::new()));
        Address::Mailbox(self.mailboxes.len() - 1)
    }

    /// Takes a letter. One that goes straight to a task is delivered at once.
    ///
    /// # Panics
    /// Where no mailbox has that number.
    pub fn send(&mut self, address: Address, letter: Letter) {
        match address {
            Address::Task => letter.deliver(),
            Address::Mailbox(number) => self.mailboxes[number].1.push(letter),
        }
    }

    /// Hands over everything that was sent, one wake-up for each mailbox that gets something.
    pub fn flush(&mut self) {
        for (mailbox, letters) in &mut self.mailboxes {
            if !letters.is_empty() {
                mailbox.put(letters);
            }
        }
    }
}
