//! Admission: who is allowed in, decided before the body of a request is read.

use super::Api;
use crate::{
    Caller,
    auth::{self, Access, Refused, Sender},
    error::Error,
    given::Head,
    head,
    routes::Route,
};
use hyper::http::request::Parts;
use std::net::IpAddr;
use widgets_registry::Store;

impl<S: Store> Api<S> {
    /// Checks what can be checked before the sender is authenticated: that the request is valid
    /// HTTP for this service, and that a browser's preflight is refused if the request itself would
    /// be.
    pub(super) fn check_sender(
        &self,
        route: &Route<'_>,
        head: &Head<'_>,
        preflight: bool,
    ) -> Result<(), Error> {
        let host = head::check(head)?;
        if route.is_probe() {
            return Ok(());
        }
        self.browsers.check_host(host)?;
        let hopeless = preflight && !self.authentication.proofs().token;
        if hopeless && self.browsers.is_foreign(head) {
            return Err(Refused::ForeignPage.into());
        }
        Ok(())
    }

    /// Returns what the caller may do. Probes are answered without credentials, but may have some:
    /// administrators see why the service is not ready.
    pub(super) async fn admit(
        &self,
        caller: &Caller,
        route: &Route<'_>,
        head: &Head<'_>,
    ) -> Result<Sender, Error> {
        if route.is_public() {
            self.check_rate(caller, head)?;
            return Ok(Sender::anonymous(Access::NOTHING));
        }
        if !route.is_probe() {
            let sender = self.admit_known(caller, head).await?;
            if self.browsers.is_foreign(head) && !auth::has_token(&head.headers) {
                return Err(Refused::ForeignPage.into());
            }
            return Ok(sender);
        }
        let says_who = *route == Route::Ready && auth::has_token(&head.headers);
        if says_who && let Ok(sender) = self.admit_known(caller, head).await {
            return Ok(sender);
        }
        Ok(Sender::anonymous(Access::NOTHING))
    }

    /// Returns what a caller may do who must have credentials or be anonymous.
    async fn admit_known(&self, caller: &Caller, head: &Parts) -> Result<Sender, Error> {
        // Before the token, because checking a token costs more than refusing it.
        self.check_rate(caller, head)?;
        let now_seconds = || self.shared.clock.unix_seconds();
        let (authentication, tokens) = (&self.authentication, &self.tokens);
        let admit = || authentication.admit(&head.headers, caller, tokens, now_seconds);
        let refused = match admit() {
            Ok(sender) => return Ok(sender),
            Err(refused) => refused,
        };
        if Box::pin(authentication.has_looked_again(&refused)).await? {
            return Ok(admit()?);
        }
        Err(refused.into())
    }

    /// Returns the client's address, as far as it is known.
    pub(super) fn client(&self, caller: &Caller, head: &Parts) -> IpAddr {
        self.proxies.client(caller.address, &head.headers)
    }

    pub(super) fn check_rate(&self, caller: &Caller, head: &Parts) -> Result<(), Error> {
        match &self.rate_limit {
            None => Ok(()),
            Some(limit) => {
                let now = self.shared.clock.now();
                limit.check(self.client(caller, head), now)
            }
        }
    }
}
