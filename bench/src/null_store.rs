//! The do-nothing peer: the product's own server over a store that keeps nothing.

use widgets_registry::{Command, Fault, Rejection, SerialNumber, Store, Widget};

/// Accepts everything at once and keeps nothing.
#[derive(Clone)]
pub(crate) struct NullStore;

impl Store for NullStore {
    async fn submit(&self, _: Command) -> Result<(), Rejection> {
        Ok(())
    }

    async fn lookup(&self, _: SerialNumber) -> Result<Option<Widget>, Fault> {
        Ok(None)
    }

    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}
