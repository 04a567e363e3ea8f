//! Requests that read from the database. To add a kind, implement [`Query`] for it.

use crate::error::reason;
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio_postgres::{
    Client, Error, Row,
    types::{ToSql, Type},
};
use widgets_queue::{Answered, Asked, DeliverBoxed};
use widgets_registry::{Fault, Lookup, Reason, Request, query::Asker};

/// A parameter of a statement and its type.
pub type Parameter = (Box<dyn ToSql + Sync + Send>, Type);

/// A request that one read-only statement answers.
pub trait Query: Request {
    /// The statement.
    const STATEMENT: &str;

    /// Whether the statement can take long. If so, it uses connections that lookups do not wait
    /// for.
    const READS_MANY: bool = false;

    /// Returns who asks, if the request [reads much](Self::READS_MANY), so that no caller occupies
    /// all the connections.
    fn asker(&self) -> Asker {
        Asker::default()
    }

    /// Returns the parameters of the statement.
    fn parameters(&self) -> Vec<Parameter>;

    /// Converts rows to an answer. Returns an error if a column cannot be read.
    fn answer(self, rows: &[Row]) -> Result<Result<Self::Answer, Self::Error>, Error>;
}

/// A future of a statement's rows.
pub(crate) type Rows<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + Send + 'a>>;

/// A query of any kind, while it travels to a connection and back.
pub(crate) trait Question: DeliverBoxed {
    fn text_bytes(&self) -> usize;
    fn asker(&self) -> Asker;
    fn ask<'a>(&self, client: &'a Client) -> Rows<'a>;
    /// Returns ready once nobody waits for the answer any more.
    fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()>;
    fn answer(&mut self, rows: &[Row]);
    fn refuse(&mut self, fault: Fault);
}

impl<Q: Query> Question for Asked<Q> {
    fn text_bytes(&self) -> usize {
        self.text_bytes()
    }

    fn asker(&self) -> Asker {
        self.request().map_or_else(Asker::default, Query::asker)
    }

    fn ask<'a>(&self, client: &'a Client) -> Rows<'a> {
        let parameters = self.request().map_or_else(Vec::new, Query::parameters);
        Box::pin(async move {
            let parameters: Vec<(&(dyn ToSql + Sync), Type)> = parameters
                .iter()
                .map(|(value, kind)| (&**value as _, kind.clone()))
                .collect();
            client.query_typed(Q::STATEMENT, &parameters).await
        })
    }

    fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_given_up(context)
    }

    fn answer(&mut self, rows: &[Row]) {
        self.answer(|query| match query.answer(rows) {
            Ok(answer) => answer,
            Err(error) => {
                let reason = reason(&error);
                tracing::error!(reason, "the database returned impossible rows");
                let reason = Reason::new("the database returned impossible rows", reason);
                Err(Fault::Unavailable { reason }.into())
            }
        });
    }

    fn refuse(&mut self, fault: Fault) {
        self.answer(|_| Err(fault.into()));
    }
}

/// Anything that reads.
pub(crate) trait Reading {
    /// Returns this fault as the answer.
    fn refused(self, fault: Fault) -> Answered;
}

impl Reading for Box<Asked<Lookup>> {
    fn refused(mut self, fault: Fault) -> Answered {
        self.answer(|_| Err(fault));
        Answered::Other(self)
    }
}

impl Reading for Box<dyn Question> {
    fn refused(mut self, fault: Fault) -> Answered {
        self.refuse(fault);
        Answered::Other(self)
    }
}
