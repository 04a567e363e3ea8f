//! Answers on their way back: handed over in bulk, one wake-up for a batch and a runtime.
//!
//! Waking a task of another thread's runtime costs a lock and often a system call, and a batch has
//! dozens of answers. So the owner puts all answers for one runtime into its mailbox and wakes one
//! task there, the postman, which delivers them from within: that wakes each waiting task by a push
//! to a list of its own thread.

use std::sync::{Arc, Mutex, PoisonError};
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

/// Where the answers for one runtime wait for its postman.
#[derive(Default)]
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    arrival: Notify,
}

impl Mailbox {
    /// A mailbox whose postman runs on the current runtime for as long as that does.
    pub(crate) fn on_current_runtime() -> Arc<Self> {
        let mailbox = Arc::new(Self::default());
        let postman = mailbox.clone();
        tokio::spawn(async move {
            let mut bag = Vec::new();
            loop {
                postman.arrival.notified().await;
                std::mem::swap(&mut bag, &mut *postman.lock());
                for letter in bag.drain(..) {
                    letter.deliver();
                }
            }
        });
        mailbox
    }

    /// Puts letters in, leaves `letters` empty, and wakes the postman.
    pub(crate) fn put(&self, letters: &mut Vec<Letter>) {
        self.lock().append(letters);
        self.arrival.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Letter>> {
        // Nothing in here can panic halfway through a change.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
