//! Requests that read the state without changing it. To add a kind, implement [`Query`] for it.

use crate::State;
use widgets_queue::{Asked, DeliverBoxed};
use widgets_registry::{Fault, Lookup, Request, Widget};

/// A request that reads the state and changes nothing.
pub trait Query: Request {
    /// Computes the answer from a state of which everything is durable.
    fn answer(self, state: &State) -> Result<Self::Answer, Self::Error>;
}

impl Query for Lookup {
    fn answer(self, state: &State) -> Result<Option<Widget>, Fault> {
        Ok(state.lookup(&self.0))
    }
}

/// A query of any kind, on its way to the owner and back.
pub(crate) trait Question: DeliverBoxed {
    fn text_bytes(&self) -> usize;
    fn answer(&mut self, state: &State);
    fn refuse(&mut self, fault: Fault);
}

impl<Q: Query> Question for Asked<Q> {
    fn text_bytes(&self) -> usize {
        self.text_bytes()
    }

    fn answer(&mut self, state: &State) {
        self.answer(|query| query.answer(state));
    }

    fn refuse(&mut self, fault: Fault) {
        self.answer(|_| Err(fault.into()));
    }
}
