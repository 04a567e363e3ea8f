//! Making a standby the primary.

use crate::{
    Client, Error,
    answer::{Answer, Asked},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

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
        let address = utf8_percent_encode(self.base(), NON_ALPHANUMERIC);
        let asked = Asked {
            target: &format!("/replication/promote?address={address}"),
            body: Some(""),
            ..Asked::default()
        };
        self.once(&asked).and_then(Answer::success)?.json()
    }
}
