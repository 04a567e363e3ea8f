//! Calls of operations, and of functions that there are not, in PostgREST's order of checks.

use super::{Api, Wanted};
use crate::{
    arguments,
    auth::{Object, Permission, Sender},
    body, calls,
    error::{Error, Given, Malformed, NoFunction},
    idempotency, negotiation,
    responses::options,
};
use hyper::{
    Method,
    body::{Body, Bytes},
    http::request::Parts,
};
use std::{fmt::Display, pin::Pin};
use widgets_registry::{Attempt, Operation, Store, query::Asker};

impl<S: Store> Api<S> {
    pub(super) async fn read_operation<B>(
        &self,
        operation: Operation,
        sender: Sender,
        asker: Asker,
        head: &Parts,
        body: Pin<&mut B>,
    ) -> Result<Wanted, Error>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        negotiation::check_profile(&head.method, &head.headers)?;
        // Before the body: nothing is read for those who may not call it.
        if head.method != Method::OPTIONS {
            let function = Object::Function(operation);
            sender.access.require(Permission::Write, function)?;
        }
        match head.method {
            Method::POST => {
                calls::check_query(head)?;
                calls::check_content_type(operation.as_str(), &head.headers)?;
                calls::check_content_encoding(&head.headers)?;
                let body =
                    body::read(body, head, &self.shared.settings, &self.shared.bodies).await?;
                let command = arguments::command(operation, &body)?;
                let preferences = calls::negotiate(&head.headers)?;
                let key = idempotency::key(&head.headers)?;
                let key = key.and_then(|key| sender.identity.own(&key));
                let attempt = Attempt {
                    command: command?,
                    author: sender.author,
                    key,
                    asker,
                };
                Ok(Wanted::Operation(attempt, preferences))
            }
            Method::GET | Method::HEAD => {
                calls::check_named_in_query(operation, head)?;
                calls::negotiate(&head.headers)?;
                Err(Malformed::ReadOnlyTransaction(operation).into())
            }
            Method::OPTIONS => {
                // What could be called is asked for by its arguments, the path itself without any.
                if head.uri.query().is_some() {
                    calls::check_named_in_query(operation, head)?;
                }
                Ok(Wanted::Answer(options("OPTIONS,POST")))
            }
            _ => Err(Malformed::OperationMethod(head.method.clone()).into()),
        }
    }

    /// What is wrong first with a call of a function that does not exist.
    pub(super) async fn unknown_function<B>(
        &self,
        function: &str,
        head: &Parts,
        body: Pin<&mut B>,
    ) -> Error
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let malformed = async {
            negotiation::check_profile(&head.method, &head.headers)?;
            match head.method {
                Method::POST => {
                    calls::check_query(head)?;
                    calls::check_content_type(function, &head.headers)?;
                    calls::check_content_encoding(&head.headers)?;
                    let body =
                        body::read(body, head, &self.shared.settings, &self.shared.bodies).await?;
                    Ok::<_, Error>(arguments::unknown(function, &body))
                }
                Method::GET | Method::HEAD | Method::OPTIONS => {
                    let given = Given::Query(calls::names_in_query(head));
                    let function = function.to_owned();
                    Ok(Malformed::Function(NoFunction { function, given }))
                }
                _ => Ok(Malformed::OperationMethod(head.method.clone())),
            }
        };
        malformed.await.map_or_else(|first| first, Error::from)
    }
}
