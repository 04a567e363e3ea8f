//! The store that is served, as one type for every kind of store: so the server is compiled once,
//! not once for each kind.

use futures_util::future::Either;
use std::sync::Arc;
use widgets_registry::{Ask, Distributed, Fault, Feed, Request, Store};

/// A client of the store.
#[derive(Clone)]
pub(crate) enum Served {
    Embedded(widgets_engine::Client),
    Postgres(widgets_postgres::Client),
}

impl Served {
    /// Returns the client for tasks of the current runtime: see [`widgets_engine::Client`].
    pub(crate) fn on_current_runtime(&self) -> Self {
        match self {
            Self::Embedded(client) => Self::Embedded(client.on_current_runtime()),
            Self::Postgres(client) => Self::Postgres(client.on_current_runtime()),
        }
    }
}

impl<R: Request> Ask<R> for Served
where
    widgets_engine::Client: Ask<R>,
    widgets_postgres::Client: Ask<R>,
{
    // Not `async`, which would hold the request a second time beside the one in the client's
    // future.
    fn ask(&self, request: R) -> impl Future<Output = Result<R::Answer, R::Error>> + Send {
        match self {
            Self::Embedded(client) => Either::Left(client.ask(request)),
            Self::Postgres(client) => Either::Right(client.ask(request)),
        }
    }
}

impl Store for Served {
    async fn ready(&self) -> Result<(), Fault> {
        match self {
            Self::Embedded(client) => client.ready().await,
            Self::Postgres(client) => client.ready().await,
        }
    }

    fn feed(&self) -> Option<Arc<dyn Feed>> {
        match self {
            Self::Embedded(client) => client.feed(),
            Self::Postgres(client) => client.feed(),
        }
    }

    fn distributed(&self) -> Option<Distributed> {
        match self {
            Self::Embedded(client) => client.distributed(),
            Self::Postgres(client) => client.distributed(),
        }
    }
}
