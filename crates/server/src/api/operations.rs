//! Calls of operations and of unknown functions, in PostgREST's order of checks.

use super::{Api, Wanted};
use crate::{
    arguments,
    auth::{Object, Permission, Sender},
    body, calls,
    error::{self, Error, Malformed, NoFunction},
    given::{Given, Head},
    idempotency, negotiation,
    responses::options,
};
use hyper::{
    Method,
    body::{Body, Bytes},
};
use std::{fmt::Display, pin::Pin};
use widgets_registry::{Attempt, Operation, Store, query::Asker};

impl<S: Store> Api<S> {
    pub(super) async fn read_operation<B>(
        &self,
        operation: Operation,
        sender: &Sender,
        asker: Asker,
        head: &Head<'_>,
        body: Pin<&mut B>,
    ) -> Result<Wanted, Error>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        if head.has(Given::PROFILE) {
            negotiation::check_profile(&head.method, &head.headers)?;
        }
        // Before the body: nothing is read from callers without the permission.
        if head.method != Method::OPTIONS {
            let function = Object::Function(operation);
            sender.access.require(Permission::Write, function)?;
        }
        match head.method {
            Method::POST => {
                calls::check_query(head)?;
                calls::check_content_type(operation.as_str(), &head.headers)?;
                calls::check_content_encoding(head)?;
                let body =
                    body::read(body, head, &self.shared.settings, &self.shared.bodies).await?;
                let command = arguments::command(operation, &body)?;
                let preferences = calls::negotiate(head)?;
                let key = if head.has(Given::IDEMPOTENCY_KEY) {
                    let key = idempotency::key(&head.headers)?;
                    key.and_then(|key| sender.identity.own(&key))
                } else {
                    None
                };
                let attempt = Attempt {
                    command: command?,
                    author: sender.author.clone(),
                    key,
                    asker,
                };
                Ok(Wanted::Operation(attempt, preferences))
            }
            Method::GET | Method::HEAD => {
                calls::check_named_in_query(operation, head)?;
                calls::negotiate(head)?;
                Err(Malformed::ReadOnlyTransaction(operation).into())
            }
            Method::OPTIONS => {
                // With arguments in the query, the request asks about that call; without any, about
                // the path itself.
                if head.uri.query().is_some() {
                    calls::check_named_in_query(operation, head)?;
                }
                Ok(Wanted::Answer(options("OPTIONS,POST")))
            }
            _ => Err(Malformed::OperationMethod(head.method.clone()).into()),
        }
    }

    /// Returns the first error of a call of a function that does not exist.
    pub(super) async fn unknown_function<B>(
        &self,
        function: &str,
        head: &Head<'_>,
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
                    calls::check_content_encoding(head)?;
                    let body =
                        body::read(body, head, &self.shared.settings, &self.shared.bodies).await?;
                    Ok::<_, Error>(arguments::unknown(function, &body))
                }
                Method::GET | Method::HEAD | Method::OPTIONS => {
                    let given = error::Given::Query(calls::names_in_query(head));
                    let function = function.to_owned();
                    Ok(Malformed::Function(NoFunction { function, given }))
                }
                _ => Ok(Malformed::OperationMethod(head.method.clone())),
            }
        };
        malformed.await.map_or_else(|first| first, Error::from)
    }
}
