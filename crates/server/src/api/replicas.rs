//! What primaries alone do, and what standbys are sent.

use super::{Answer, AnswerBody, Api, Wanted, check_reads};
use crate::{
    auth::{Access, Object, Permission},
    error::{Error, Malformed},
    pieces::Pieces,
    replication::{self, Replication, Tell},
    responses::{of_type, options},
};
use hyper::{Method, Response, header::HeaderValue, http::request::Parts};
use widgets_registry::{Fault, Store};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

impl<S: Store> Api<S> {
    /// Refuses what a primary alone does.
    pub(super) fn check_primary(&self) -> Result<(), Error> {
        let primary = self.replication.as_ref().and_then(|it| it.primary());
        primary.map_or(Ok(()), |primary| Err(Error::Standby(primary)))
    }

    /// Whether it does what its role promises, or is of the role that a probe looks for.
    pub(super) fn ready_in_role(&self, head: &Parts) -> Result<(), Error> {
        if replication::asks_for_primary(head)? {
            self.check_primary()?;
        }
        let ready = self.replication.as_ref().map_or(Ok(()), |it| it.ready());
        ready.map_err(|reason| Fault::Unavailable { reason }.into())
    }

    pub(super) fn read_replication(&self, access: Access, head: &Parts) -> Result<Wanted, Error> {
        if let Some(answer) = check_reads(head)? {
            return Ok(Wanted::Answer(answer));
        }
        access.require(Permission::Admin, Object::Replication)?;
        let Some(replication) = &self.replication else {
            return Err(Malformed::Path { details: None }.into());
        };
        replication::check_media_type(head, replication.media_type())?;
        let query = head.uri.query().unwrap_or_default();
        Ok(Wanted::Replication(replication.clone(), query.into()))
    }

    /// Tells the store of its role.
    pub(super) async fn tell(&self, what: Tell, access: Access, head: &Parts) -> Answer {
        match head.method {
            Method::POST => {}
            Method::OPTIONS => return Ok(options("OPTIONS,POST")),
            _ => {
                let (given, allowed) = (head.method.clone(), "OPTIONS,POST");
                return Err(Malformed::Method { given, allowed }.into());
            }
        }
        access.require(Permission::Admin, Object::Replication)?;
        let Some(replication) = &self.replication else {
            return Err(Malformed::Path { details: None }.into());
        };
        let query = head.uri.query().unwrap_or_default();
        let told = replication.tell(what, query).await?;
        Ok(of_type(JSON, told.into()))
    }

    /// Sends the store to a standby.
    pub(super) async fn replicate(
        &self,
        replication: &dyn Replication,
        query: &str,
    ) -> Result<Response<AnswerBody>, Error> {
        let stopping = self.shared.subscribers.stopping();
        let pieces = replication.send(query, stopping).await?;
        let stream = Pieces::new(pieces);
        let mut response = Response::new(AnswerBody::Right(stream));
        let (name, value) = replication::content_type(replication.media_type());
        response.headers_mut().insert(name, value);
        Ok(response)
    }
}
