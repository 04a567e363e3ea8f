//! Why something that was asked was not done.

use serde::Deserialize;
use std::fmt;

/// What the service says where it does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// The stable word to branch on, such as `WG001` or `23505`.
    pub code: String,
    /// What is wrong, in words.
    pub message: String,
    /// More of it, where there is more.
    pub details: Option<String>,
    /// What to do about it, where the service knows.
    pub hint: Option<String>,
    /// When trying again makes sense, where the service says so (`Retry-After`).
    pub retry_after_seconds: Option<u32>,
}

#[derive(Deserialize)]
struct Body {
    code: String,
    message: String,
    details: Option<String>,
    hint: Option<String>,
}

impl Refusal {
    /// Reads the body of an answer that is no success; whatever stands between may have made it.
    pub(crate) fn read(status: u16, body: &str) -> Self {
        match serde_json::from_str::<Body>(body) {
            Ok(body) => Self {
                status,
                code: body.code,
                message: body.message,
                details: body.details,
                hint: body.hint,
                retry_after_seconds: None,
            },
            Err(_) => Self {
                status,
                code: String::new(),
                message: format!("the answer is {status} without an error object"),
                details: None,
                hint: Some("is this the address of the service?".into()),
                retry_after_seconds: None,
            },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.code.is_empty() {
            write!(formatter, "{}: ", self.code)?;
        }
        formatter.write_str(&self.message)?;
        for more in [&self.details, &self.hint].into_iter().flatten() {
            write!(formatter, "; {more}")?;
        }
        Ok(())
    }
}

/// Why something that was asked was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used; nothing was asked.
    #[error("{0}")]
    Settings(String),
    /// The service refuses it: nothing was applied.
    #[error("{0}")]
    Refused(Refusal),
    /// The service cannot do it now (429, WG503, WG504, WG507): nothing was applied.
    #[error("{0}")]
    Unavailable(Refusal),
    /// Nobody answered, or not in time. An operation that was [sent](Self::Unreachable::sent) is
    /// [`Error::FateUnknown`] instead.
    #[error("{url}: {why}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What happened instead of an answer.
        why: String,
        /// Whether the request may have reached the service.
        sent: bool,
    },
    /// An operation may or may not have been applied: it was sent, and its outcome is not known.
    #[error("it may or may not have been applied: {0}")]
    FateUnknown(String),
    /// The service answered something that this program does not understand.
    #[error("{url} answered what cannot be read: {why}")]
    Odd {
        /// What was asked.
        url: String,
        /// What is odd.
        why: String,
    },
}
