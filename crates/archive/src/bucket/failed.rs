//! Describes why a request failed, in words without credentials.

use super::REQUEST_TIME_MAX;
use crate::{Error, error::Failure};
use std::io;

/// What the library calls a folder. It reports most errors of a folder without their meaning.
const FOLDER: &str = "LocalFileSystem";

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
        use object_store::Error::{Generic, NotFound, PermissionDenied, Unauthenticated};
        let failure = match &tried.error {
            Some(PermissionDenied { .. } | Unauthenticated { .. }) => Failure::Refused,
            Some(NotFound { .. }) => Failure::Missing,
            Some(Generic {
                store: FOLDER,
                source,
            }) => io_kind_of(&**source).map_or(Failure::Unavailable, of_kind),
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

/// Returns the kind of failure that an error of a folder's file system is.
pub(super) const fn of_kind(kind: io::ErrorKind) -> Failure {
    match kind {
        io::ErrorKind::PermissionDenied => Failure::Refused,
        io::ErrorKind::NotFound => Failure::Missing,
        _ => Failure::Unavailable,
    }
}

/// Returns the kind of the operating system's error that caused this one, if one did.
fn io_kind_of(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()))
}

/// Returns an error with its causes, leaving out those that its text already contains.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(each) = cause {
        let more = widgets_tls::text(each);
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
    fn a_denied_permission_in_a_folder_counts_as_refused() {
        let failure = |kind: io::ErrorKind| {
            let tried = Tried {
                error: Some(object_store::Error::Generic {
                    store: FOLDER,
                    source: Box::new(io::Error::from(kind)),
                }),
                what: "reading the manifest".into(),
            };
            match Error::from(tried) {
                Error::Bucket { failure, .. } => failure,
                error => unreachable!("{error}"),
            }
        };
        assert_eq!(failure(io::ErrorKind::PermissionDenied), Failure::Refused);
        assert_eq!(failure(io::ErrorKind::StorageFull), Failure::Unavailable);
    }

    #[test]
    fn bucket_errors_are_shown_without_url_signatures() {
        let said =
            "error sending request for url (https://a.example/c/x?sv=1&sig=TOPSECRET): timed out";
        let shown = "error sending request for url (https://a.example/c/x?…): timed out";
        assert_eq!(redacted(said), shown);
    }
}
