//! Which member must have an operation before its caller is answered.

use crate::{
    Client, Error,
    answer::{Answer, Asked},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// Who acknowledges a primary's operations, and which standbys are connected to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Holding {
    /// `standby`, `alone` or `nobody`.
    pub acknowledged_by: String,
    /// The member that must have an operation, if there is one.
    pub holder: Option<String>,
    /// The member that was the holder, and must learn that it no longer is before another one is
    /// named.
    #[serde(default)]
    pub leaving: Option<String>,
    /// The primary's own member number.
    pub member: String,
    /// The sequence number after the last entry of the primary's journal.
    pub next_sequence: u64,
    /// The connected standbys that could be the holder.
    pub standbys: Vec<Copied>,
}

/// How much a standby has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Copied {
    /// The standby's member number.
    pub member: String,
    /// The standby has every entry before this sequence number durably.
    pub next_sequence: u64,
}

impl Client {
    /// Asks a primary which member is its holder, or names `wanted` as the holder: a standby's
    /// member number, or `alone` for the primary itself. Also returns the text of the response,
    /// which may show the state before the change.
    pub fn holder(&self, wanted: Option<&str>) -> Result<(Holding, String), Error> {
        let mut target = "/replication/holder".to_owned();
        if let Some(wanted) = wanted {
            target.push_str("?member=");
            target.extend(utf8_percent_encode(wanted, NON_ALPHANUMERIC));
        }
        let asked = Asked {
            target: &target,
            body: Some(""),
            ..Asked::default()
        };
        let answer = self.once(&asked).and_then(Answer::success);
        let told = answer.and_then(|answer| Ok((answer.json()?, answer.text)));
        told.map_err(|error| match wanted {
            Some(_) => error.of_change(),
            None => error,
        })
    }
}
