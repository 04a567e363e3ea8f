//! The do-nothing peer: our own server over a store that keeps nothing.

use widgets_registry::{
    Applied, Ask, Attempt, Fault, Lookup, Rejection, Store, Widget,
    query::{List, Neighbourhood, NeighbourhoodQuery, Page},
};

/// Accepts everything at once and keeps nothing.
#[derive(Clone)]
pub(crate) struct NullStore;

impl Ask<Attempt> for NullStore {
    async fn ask(&self, _: Attempt) -> Result<Applied, Rejection> {
        Ok(Applied::Now)
    }
}

impl Ask<Lookup> for NullStore {
    async fn ask(&self, _: Lookup) -> Result<Option<Widget>, Fault> {
        Ok(None)
    }
}

impl Ask<List> for NullStore {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        Ok(Page::empty(&list))
    }
}

impl Ask<NeighbourhoodQuery> for NullStore {
    async fn ask(&self, _: NeighbourhoodQuery) -> Result<Option<Neighbourhood>, Fault> {
        Ok(None)
    }
}

impl Store for NullStore {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}
