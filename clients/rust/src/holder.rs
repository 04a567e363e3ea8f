//! Who must have an operation before its caller is told.

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
    /// Whose directory must have an operation, if anybody's.
    pub holder: Option<String>,
    /// Whose directory was the holder, and has to hear that it is none any more before another one is.
    #[serde(default)]
    pub leaving: Option<String>,
    /// The primary's own directory.
    pub member: String,
    /// The sequence number after the last entry of the primary's journal.
    pub next_sequence: u64,
    /// Those that are connected, and could be the holder.
    pub standbys: Vec<Copied>,
}

/// What a standby has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Copied {
    /// Which directory it is.
    pub member: String,
    /// It has the entries before this one durably.
    pub next_sequence: u64,
}

impl Client {
    /// Asks a primary who is its holder, or has it be `wanted`: a standby's member, or `alone`, which is the primary's own. Also
    /// the answer itself, which may be of before that has happened.
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
        let answer = self.once(&asked).and_then(Answer::success)?;
        Ok((answer.json()?, answer.text))
    }
}
