//! Operations go to the primary: a standby, which takes none, names it (WG507), and it is asked instead.

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

/// One operation is sent to so many further addresses.
const HOPS_MAX: usize = 4;

/// The pause before each of them but the first: two that name each other are changing roles.
const HOP_AGAIN: Duration = Duration::from_millis(100);

/// Where the primary is, if it is not where the client was told to ask. Clones are of the same.
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
    /// Where operations are sent, if a standby named another address for them than the settings have. Clones of a client
    /// know the same.
    #[must_use]
    pub fn primary(&self) -> Option<String> {
        self.known.get()
    }

    /// Asks the primary: the one that is known, and whichever a standby names, a few in turn. Nobody who is passed over has
    /// applied it.
    pub(crate) fn ask_primary(&self, asked: &Asked<'_>) -> Result<Answer, Error> {
        let mut passed = Vec::new();
        loop {
            let known = self.known.get();
            let at = known.clone().unwrap_or_else(|| self.base.clone());
            let outcome = self.once_at(&at, asked).and_then(Answer::success);
            let next = match &outcome {
                Err(Error::Unavailable(refusal)) => self.named(refusal),
                // It may have gone for good: whoever was asked at first may know another.
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

    /// The primary that a standby names. Never one without the TLS that was asked for: what is sent along, a token first of
    /// all, was meant for nobody to read on the way.
    fn named(&self, refusal: &Refusal) -> Option<String> {
        let address = refusal.details.as_ref()?;
        let (named, secure) = base(address).ok()?;
        let as_asked_for = secure == self.base.starts_with("https://");
        (refusal.code == "WG507" && as_asked_for).then_some(named)
    }
}

/// The same error, which says who was asked.
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
