//! Making a standby the primary.

use crate::{
    Client, Error,
    answer::{Answer, Asked},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::time::Duration;

/// What a promotion came to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Promoted {
    /// False where the service was the primary already.
    pub promoted: bool,
    /// The epoch in which it goes on.
    pub epoch: u32,
    /// The last position that it had.
    pub position: String,
}

impl Client {
    /// Makes a standby the primary: it takes operations from then on. The one before is told, at the address by which this
    /// client reaches the standby.
    pub fn promote(&self) -> Result<Promoted, Error> {
        self.make_primary("", Duration::ZERO)
    }

    /// The same, also of a standby that may lack operations that were answered (`replication.acknowledge = "standby"`), which
    /// [`Self::promote`] refuses: the caller's word that they may be lost.
    pub fn promote_by_force(&self) -> Result<Promoted, Error> {
        self.make_primary("&force=true", Duration::ZERO)
    }

    /// The same as [`Self::promote`], and loses nothing: the primary takes no operations any more until the standby has everything, and follows it
    /// then. Where that is not so within this time, everything is as before; [`Error::FateUnknown`] says what to look at where
    /// the primary died meanwhile.
    pub fn switch_over(&self, within: Duration) -> Result<Promoted, Error> {
        // The primary is told, stops, and is asked until the standby has everything.
        self.make_primary(&format!("&within_ms={}", within.as_millis()), within * 3)
    }

    fn make_primary(&self, more: &str, wait: Duration) -> Result<Promoted, Error> {
        let address = utf8_percent_encode(self.base(), NON_ALPHANUMERIC);
        let asked = Asked {
            target: &format!("/replication/promote?address={address}{more}"),
            body: Some(""),
            wait,
            ..Asked::default()
        };
        match self.once(&asked).and_then(Answer::success) {
            Ok(answer) => answer.json(),
            Err(Error::Unreachable {
                url,
                why,
                sent: true,
            }) => Err(Error::FateUnknown(format!("{url}: {why}"))),
            Err(error) => Err(error),
        }
    }
}
