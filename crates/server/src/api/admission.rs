//! Who is let in, before anything of a request is read.

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
    /// Checks what can be known of a request before anybody is asked who sends it: that it is HTTP as it
    /// should be and for this service, and that a browser which asks what it may send gets no hopes up.
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

    /// What the caller may do. Whatever watches over the process is answered without being asked who
    /// it is, but may say so: those who administer the service read why it is not ready.
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

    /// What the caller may do, who must say who it is or be anonymous.
    async fn admit_known(&self, caller: &Caller, head: &Parts) -> Result<Sender, Error> {
        // Before the token: checking one costs more than to refuse it.
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

    /// The address of whoever asks, as far as it is known.
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
