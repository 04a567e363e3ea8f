//! The do-nothing peer: the product's own server over a store that keeps nothing.

use widgets_registry::{Ask, Command, Fault, Lookup, Rejection, Store, Widget};

/// Accepts everything at once and keeps nothing.
#[derive(Clone)]
pub(crate) struct NullStore;

impl Ask<Command> for NullStore {
    async fn ask(&self, _: Command) -> Result<(), Rejection> {
        Ok(())
    }
}

impl Ask<Lookup> for NullStore {
    async fn ask(&self, _: Lookup) -> Result<Option<Widget>, Fault> {
        Ok(None)
    }
}

impl Store for NullStore {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}
