//! What a bucket lists, which may be anything: names that are none, and pages without an end.

use super::failed::Tried;
use crate::{Error, error::Failure};
use futures_util::{Stream, StreamExt as _};
use object_store::ObjectMeta;
use std::{pin::pin, time::Duration};

/// So many names are taken: an object a second, day and night, for a year.
pub(super) const NAMES_MAX: usize = 32_000_000;

/// Why a list was not read to its end.
#[derive(Debug)]
pub(super) enum Unlisted {
    /// The bucket did not do it.
    Failed(object_store::Error),
    /// It sends pages, and no names.
    Silent(Duration),
    /// It goes on and on.
    Endless(usize),
}

impl Unlisted {
    pub(super) fn at(self, prefix: &str) -> Error {
        let what = format!("listing {prefix}");
        let why = match self {
            Self::Failed(error) => {
                let error = Some(error);
                return Tried { error, what }.into();
            }
            Self::Silent(time) => format!("no further name in {} s", time.as_secs()),
            Self::Endless(most) => format!("more than {most} names"),
        };
        Error::Bucket {
            what,
            failure: Failure::Unavailable,
            why,
        }
    }
}

/// All that is listed, if that ends. A long list is many requests, each of which has its own time; one that brings no name
/// for so long is given up. What is in a folder and can be no object's name is none of ours, and passed over.
pub(super) async fn whole(
    listing: impl Stream<Item = object_store::Result<ObjectMeta>>,
    silence_max: Duration,
    names_max: usize,
) -> Result<Vec<ObjectMeta>, Unlisted> {
    let mut listing = pin!(listing);
    let mut objects = Vec::new();
    loop {
        let next = tokio::time::timeout(silence_max, listing.next()).await;
        match next.map_err(|_| Unlisted::Silent(silence_max))? {
            None => return Ok(objects),
            Some(Err(object_store::Error::InvalidPath { .. })) => {}
            Some(Err(error)) => return Err(Unlisted::Failed(error)),
            Some(Ok(_)) if objects.len() >= names_max => return Err(Unlisted::Endless(names_max)),
            Some(Ok(object)) => objects.push(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use object_store::path::Path;

    fn object(name: &str) -> ObjectMeta {
        ObjectMeta {
            location: Path::from(name),
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size: 1,
            e_tag: None,
            version: None,
        }
    }

    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn a_list_without_an_end_is_given_up() {
        let endless = stream::repeat_with(|| Ok(object("journal/00000001/0000000000000001")));
        let listed = whole(endless, LONG, 1000).await;
        let error = listed.expect_err("no end").at("journal").to_string();
        assert!(
            error.contains("listing journal") && error.contains("more than 1000 names"),
            "{error}"
        );
        let named = stream::iter([Ok(object("a")), Ok(object("b"))]);
        let listed = whole(
            named.chain(stream::pending()),
            Duration::from_millis(1),
            1000,
        )
        .await;
        let error = listed.expect_err("no end").at("journal").to_string();
        assert!(error.contains("no further name"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_name_is_passed_over() {
        let bad = Path::parse("a\u{1b}").expect_err("it is no name");
        let listing = [Ok(object("a")), Err(bad.into()), Ok(object("b"))];
        let listed = whole(stream::iter(listing), LONG, 1000).await;
        assert_eq!(listed.map(|objects| objects.len()).ok(), Some(2));
    }
}
