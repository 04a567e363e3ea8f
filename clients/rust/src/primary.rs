//! Sends operations to the primary: a standby takes none, but names the primary (WG507), to which
//! the client then turns.

use crate::{
    Client, Error, Refusal,
    answer::{Answer, Asked},
    connection::base,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// The maximum number of further addresses to which one operation is sent.
const HOPS_MAX: usize = 4;

/// The pause before each of them except the first: two members that name each other are changing
/// roles.
const HOP_AGAIN: Duration = Duration::from_millis(100);

/// The address of the primary, if it differs from the configured one. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<Mutex<Option<String>>>);

impl Known {
    fn get(&self) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    fn set(&self, primary: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = primary;
    }
}

impl Client {
    /// Returns where operations are sent, if a standby has named an address other than the
    /// configured one. Clones of a client share it.
    #[must_use]
    pub fn primary(&self) -> Option<String> {
        self.known.get()
    }

    /// Sends an operation to the known primary, and then to each address that a standby names, up to a
    /// limit. None of the members that were passed over has applied the operation.
    pub(crate) fn ask_primary(&self, asked: &Asked<'_>) -> Result<(), Error> {
        let mut passed = Vec::new();
        loop {
            let known = self.known.get();
            let at = known.clone().unwrap_or_else(|| self.base.clone());
            let outcome = self.once_at(&at, asked).and_then(Answer::applied);
            let next = match &outcome {
                Err(Error::Unavailable(refusal)) => self.named(refusal),
                // That primary may be gone for good; the configured address may know another.
                Err(Error::Unreachable { sent: false, .. }) if known.is_some() => {
                    Some(self.base.clone())
                }
                _ => None,
            };
            let Some(next) = next else {
                return outcome;
            };
            passed.push(at);
            self.known.set((next != self.base).then_some(next));
            if passed.len() > HOPS_MAX {
                return outcome.map_err(|error| told(error, &passed));
            }
            if passed.len() > 1 {
                thread::sleep(HOP_AGAIN);
            }
        }
    }

    /// Returns the primary that a standby names, unless it would change between HTTP and HTTPS:
    /// what is sent along, above all a token, must not become readable on the way.
    fn named(&self, refusal: &Refusal) -> Option<String> {
        let address = refusal.details.as_ref()?;
        let (named, secure) = base(address).ok()?;
        let as_asked_for = secure == self.base.starts_with("https://");
        (refusal.code == "WG507" && as_asked_for).then_some(named)
    }
}

/// Returns the same error, with a hint that lists the members that were asked.
fn told(mut error: Error, passed: &[String]) -> Error {
    if let Error::Unavailable(refusal) = &mut error {
        let hint = format!(
            "asked in turn: {}; none of them is the primary",
            passed.join(", ")
        );
        refusal.hint = Some(hint);
    }
    error
}
