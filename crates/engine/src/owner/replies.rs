//! How answers leave the owner: through its outbox, or through the gate if they wait for another
//! machine.

use crate::{acknowledge::Gate, queue::Request};
use std::sync::Arc;
use widgets_mailbox::Address;
use widgets_queue::{Answered, Mailbox, Outbox};

/// The owner's answers on their way out.
#[derive(Default)]
pub(crate) struct Replies {
    outbox: Outbox<Request>,
    gate: Option<Arc<Gate>>,
    /// What the gate gets at the next flush.
    resting: Vec<(Address, Answered)>,
}

impl Replies {
    pub(crate) fn new(gate: Option<Arc<Gate>>) -> Self {
        Self {
            gate,
            ..Self::default()
        }
    }

    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    /// Adds a mailbox, under the next number.
    pub(crate) fn add(&mut self, mailbox: Arc<Mailbox<Request>>) {
        if let Some(gate) = &self.gate {
            gate.add(mailbox.clone());
        }
        self.outbox.add(mailbox);
    }

    /// Takes an answer that reveals something about the state.
    pub(crate) fn send(&mut self, reply_to: Address, answer: Answered) {
        if self.gate.is_some() {
            self.resting.push((reply_to, answer));
        } else {
            self.outbox.send(reply_to, answer);
        }
    }

    /// Takes an answer that reveals nothing about the state.
    pub(crate) fn send_fault(&mut self, reply_to: Address, answer: Answered) {
        self.outbox.send(reply_to, answer);
    }

    /// Hands over the collected answers. They depend on the entries before `rests_on`.
    pub(crate) fn flush(&mut self, rests_on: u64) {
        if let Some(gate) = &self.gate
            && !self.resting.is_empty()
        {
            gate.send(&mut self.resting, rests_on);
        }
        self.outbox.flush();
    }
}
