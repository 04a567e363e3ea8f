//! Requests and answers on their way between a runtime and the owner: handed over in bulk, one
//! wake-up for a batch in either direction.
//!
//! Waking another thread costs a lock and often a system call, and a batch has dozens of requests.
//! So a runtime has a mailbox, and one task there, the postman, that empties it.
//!
//! Requests: a task leaves its request and wakes the postman, whose turn comes after those tasks
//! that were ready before it. By then all that the runtime read from its sockets in one go has come
//! together, and the owner, which would otherwise be woken for the first of them, decides and syncs
//! them as one batch. A lone request finds nobody before it and loses no time.
//!
//! Answers: the owner puts all answers for one runtime into the mailbox and wakes the postman, who
//! delivers them from within: that wakes each waiting task by a push to a list of its own thread. It
//! unparks that thread as well, which may be resting before it waits for events.

use crate::queue::{Queue, Submission};
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
};
use tokio::sync::{Notify, oneshot};
use widgets_registry::{Fault, Rejection, Widget};

/// An answer and who waits for it.
pub(crate) enum Letter {
    Command(
        oneshot::Sender<Result<(), Rejection>>,
        Result<(), Rejection>,
    ),
    Lookup(
        oneshot::Sender<Result<Option<Widget>, Fault>>,
        Result<Option<Widget>, Fault>,
    ),
}

impl Letter {
    /// Hands the answer over. The caller may have gone; that changes nothing.
    pub(crate) fn deliver(self) {
        match self {
            Self::Command(reply, answer) => drop(reply.send(answer)),
            Self::Lookup(reply, answer) => drop(reply.send(answer)),
        }
    }
}

/// Where a caller wants its answer to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Straight to the waiting task.
    Task,
    /// By the mailbox of this number.
    Mailbox(usize),
}

/// What waits for the postman of one runtime.
pub(crate) struct Mailbox {
    submissions: Mutex<Vec<Submission>>,
    letters: Mutex<Vec<Letter>>,
    arrival: Notify,
    /// The thread of the runtime, which may be resting before it waits for events.
    thread: Thread,
}

impl Mailbox {
    /// A mailbox whose postman runs on the current runtime for as long as that does, and takes
    /// requests to `queue`.
    pub(crate) fn on_current_runtime(queue: Arc<Queue>) -> Arc<Self> {
        let mailbox = Arc::new(Self {
            submissions: Mutex::default(),
            letters: Mutex::default(),
            arrival: Notify::new(),
            thread: thread::current(),
        });
        let postman = mailbox.clone();
        tokio::spawn(async move {
            let (mut submissions, mut letters) = (Vec::new(), Vec::new());
            loop {
                postman.arrival.notified().await;
                mem::swap(&mut submissions, &mut *lock(&postman.submissions));
                if !submissions.is_empty() {
                    queue.push_all(&mut submissions);
                }
                mem::swap(&mut letters, &mut *lock(&postman.letters));
                for letter in letters.drain(..) {
                    letter.deliver();
                }
            }
        });
        mailbox
    }

    /// Leaves a request for the queue.
    pub(crate) fn submit(&self, submission: Submission) {
        let mut submissions = lock(&self.submissions);
        let first = submissions.is_empty();
        submissions.push(submission);
        drop(submissions);
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

fn lock<T>(items: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    // Nothing in here can panic halfway through a change.
    items.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The owner's side: sorts letters by mailbox, and hands them over when told to.
#[derive(Default)]
pub(crate) struct PostOffice {
    mailboxes: Vec<(Arc<Mailbox>, Vec<Letter>)>,
}

impl PostOffice {
    /// Knows one more mailbox, under the next number from 0.
    pub(crate) fn add(&mut self, mailbox: Arc<Mailbox>) {
        self.mailboxes.push((mailbox, Vec::new()));
    }

    /// Takes a letter. One that goes straight to a task is delivered at once.
    pub(crate) fn send(&mut self, address: Address, letter: Letter) {
        match address {
            Address::Task => letter.deliver(),
            Address::Mailbox(number) => self.mailboxes[number].1.push(letter),
        }
    }

    /// Hands over everything that was sent, one wake-up for each mailbox that gets something.
    pub(crate) fn flush(&mut self) {
        for (mailbox, letters) in &mut self.mailboxes {
            if !letters.is_empty() {
                mailbox.put(letters);
            }
        }
    }
}
