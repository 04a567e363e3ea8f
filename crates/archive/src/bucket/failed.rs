//! Describes why a request failed, in words without credentials.

use super::REQUEST_TIME_MAX;
use crate::{Error, error::Failure};

/// A request that failed.
pub(super) struct Tried {
    /// The error; `None` if the request timed out.
    pub(super) error: Option<object_store::Error>,
    pub(super) what: String,
}

impl Tried {
    pub(super) fn is_conflict(&self) -> bool {
        use object_store::Error::{AlreadyExists, Precondition};
        matches!(self.error, Some(AlreadyExists { .. } | Precondition { .. }))
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self.error, Some(object_store::Error::NotFound { .. }))
    }

    /// Returns whether the bucket itself is missing, which is not the same as an empty one.
    pub(super) fn says_no_bucket(&self) -> bool {
        let text = self.error.as_ref().map(ToString::to_string);
        text.is_some_and(|text| text.contains("NoSuchBucket") || text.contains("ContainerNotFound"))
    }
}

impl From<Tried> for Error {
    fn from(tried: Tried) -> Self {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let failure = match &tried.error {
            Some(PermissionDenied { .. } | Unauthenticated { .. }) => Failure::Refused,
            Some(NotFound { .. }) => Failure::Missing,
            _ => Failure::Unavailable,
        };
        let why = match &tried.error {
            Some(error) => redacted(&chain_of(error)),
            None => format!("no answer in {} s", REQUEST_TIME_MAX.as_secs()),
        };
        Self::Bucket {
            what: tried.what,
            failure,
            why,
        }
    }
}

/// Returns an error with its causes, leaving out those that its text already contains.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(each) = cause {
        let more = each.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = each.source();
    }
    text
}

/// Returns a text without the queries of URLs, which may contain signatures, cut to a line or two.
pub(super) fn redacted(text: &str) -> String {
    let mut shown = String::new();
    let mut is_query = false;
    for each in text.chars() {
        if each == '?' {
            shown.push_str("?…");
            is_query = true;
        }
        if each.is_whitespace() || ")\"'>".contains(each) {
            is_query = false;
        }
        if !is_query {
            shown.push(if each.is_control() { ' ' } else { each });
        }
        if shown.len() > 500 {
            shown.push('…');
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_errors_are_shown_without_url_signatures() {
        let said =
            "error sending request for url (https://a.example/c/x?sv=1&sig=TOPSECRET): timed out";
        let shown = "error sending request for url (https://a.example/c/x?…): timed out";
        assert_eq!(redacted(said), shown);
    }
}
