//! The errors of requests.

use serde::Deserialize;
use std::fmt;

/// The service's explanation of why it did not do what was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response.
    pub status: u16,
    /// The stable code to branch on, such as `WG001` or `23505`.
    pub code: String,
    /// What is wrong, in words.
    pub message: String,
    /// Further details, if there are any.
    pub details: Option<String>,
    /// What to do about it, if the service knows.
    pub hint: Option<String>,
    /// After how many seconds another attempt makes sense, if the service says so (`Retry-After`).
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
    /// Reads the body of a response that is not a success. A proxy in between may have written it.
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

impl Refusal {
    /// Returns whether it says what became of earlier attempts with the same idempotency key. The
    /// service checks the token, the role and the time that the body may take before it looks for
    /// the key, and without a code it is not the service that refuses.
    pub(crate) fn decides_earlier_attempts(&self) -> bool {
        let before_the_key = matches!(self.status, 401 | 403 | 408 | 500..);
        !before_the_key && !self.code.is_empty()
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

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are unusable; nothing was sent.
    #[error("{0}")]
    Settings(String),
    /// The service refused the request: nothing was applied.
    #[error("{0}")]
    Refused(Refusal),
    /// The service cannot do it now (429, WG503, WG504, WG506, WG507): nothing was applied.
    #[error("{0}")]
    Unavailable(Refusal),
    /// There was no response, or none in time. An operation that was
    /// [sent](Self::Unreachable::sent) is reported as [`Error::FateUnknown`] instead.
    #[error("{url}: {why}")]
    Unreachable {
        /// The URL of the request.
        url: String,
        /// What happened instead of a response.
        why: String,
        /// Whether the request may have reached the service.
        sent: bool,
    },
    /// An operation was sent and may or may not have been applied: there was no response, or one
    /// that does not say whether it was.
    #[error("it may or may not have been applied: {0}")]
    FateUnknown(String),
    /// The response is not one that this program understands.
    #[error("{url} answered what cannot be read: {why}")]
    Odd {
        /// The URL of the request.
        url: String,
        /// What is wrong with the response.
        why: String,
    },
}

impl Error {
    /// Returns the error of a request that changes something. [`Self::FateUnknown`] replaces every
    /// error that does not say that nothing was changed.
    pub(crate) fn of_change(self) -> Self {
        match self {
            Self::Unreachable {
                url,
                why,
                sent: true,
            } => Self::FateUnknown(format!("{url}: {why}")),
            // A proxy lost its connection to the service.
            Self::Unavailable(refusal) if matches!(refusal.status, 502 | 504) => {
                Self::FateUnknown(refusal.to_string())
            }
            // A proxy failed, perhaps after it had passed the request on.
            Self::Refused(refusal) | Self::Unavailable(refusal)
                if refusal.status >= 500 && refusal.code.is_empty() =>
            {
                Self::FateUnknown(refusal.to_string())
            }
            // Whoever answered may have passed the request on as well.
            Self::Odd { .. } => Self::FateUnknown(self.to_string()),
            error => error,
        }
    }
}
