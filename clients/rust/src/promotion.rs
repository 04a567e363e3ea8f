//! Promotes a standby.

use crate::{
    Client, Error,
    answer::{Answer, Asked},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::time::Duration;

/// The outcome of a promotion.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Promoted {
    /// False if the service already was the primary.
    pub promoted: bool,
    /// The epoch in which it continues.
    pub epoch: u32,
    /// Its last position.
    pub position: String,
}

impl Client {
    /// Makes a standby the primary, which takes operations from then on. The previous primary is
    /// given the address by which this client reaches the standby.
    pub fn promote(&self) -> Result<Promoted, Error> {
        self.make_primary("", Duration::ZERO)
    }

    /// Like [`Self::promote`], but also promotes a standby that may lack acknowledged operations
    /// (`replication.acknowledge = "standby"`), which [`Self::promote`] refuses. The caller accepts
    /// that they may be lost.
    pub fn promote_by_force(&self) -> Result<Promoted, Error> {
        self.make_primary("&force=true", Duration::ZERO)
    }

    /// Like [`Self::promote`], but loses nothing: the primary takes no more operations until the
    /// standby has everything, and then follows it. If that does not succeed within this time,
    /// everything stays as before. If the primary died meanwhile, [`Error::FateUnknown`] says what
    /// to check.
    pub fn switch_over(&self, within: Duration) -> Result<Promoted, Error> {
        // Each of three steps may take this long: asking the primary to hand over, its stopping,
        // and asking it until the standby has everything.
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
        let answer = self.once(&asked).and_then(Answer::success);
        let promoted = answer.and_then(|answer| answer.json());
        promoted.map_err(Error::of_change)
    }
}
