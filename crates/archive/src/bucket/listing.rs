//! Reads what a bucket lists, which may be anything: invalid names, and pages without end.

use super::failed::Tried;
use crate::{Error, error::Failure};
use futures_util::{Stream, StreamExt as _};
use object_store::ObjectMeta;
use std::{pin::pin, time::Duration};

/// How many names are taken at most: an object a second, day and night, for a year.
pub(super) const NAMES_MAX: usize = 32_000_000;

/// Why a list was not read to its end.
#[derive(Debug)]
pub(super) enum Unlisted {
    /// The request failed.
    Failed(object_store::Error),
    /// The bucket sends pages without names.
    Silent(Duration),
    /// The list has more names than this.
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

/// Reads the whole list, if it ends. A long list is many requests, each with its own timeout; if no
/// name arrives for `silence_max`, the list is given up. Entries whose names cannot be an object's are
/// not ours. With `skips_invalid` they are skipped: the list must then go on after them.
pub(super) async fn whole(
    listing: impl Stream<Item = object_store::Result<ObjectMeta>>,
    silence_max: Duration,
    names_max: usize,
    skips_invalid: bool,
) -> Result<Vec<ObjectMeta>, Unlisted> {
    let mut listing = pin!(listing);
    let mut objects = Vec::new();
    loop {
        let next = tokio::time::timeout(silence_max, listing.next()).await;
        match next.map_err(|_| Unlisted::Silent(silence_max))? {
            None => return Ok(objects),
            Some(Err(object_store::Error::InvalidPath { .. })) if skips_invalid => {}
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
    async fn an_endless_or_stalled_listing_is_abandoned() {
        let endless = stream::repeat_with(|| Ok(object("journal/00000001/0000000000000001")));
        let listed = whole(endless, LONG, 1000, true).await;
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
            true,
        )
        .await;
        let error = listed.expect_err("no end").at("journal").to_string();
        assert!(error.contains("no further name"), "{error}");
    }

    #[tokio::test]
    async fn invalid_names_are_skipped_only_if_the_listing_continues() {
        let listing = || {
            let bad = Path::parse("a\u{1b}").expect_err("it is no name");
            stream::iter([Ok(object("a")), Err(bad.into()), Ok(object("b"))])
        };
        let listed = whole(listing(), LONG, 1000, true).await;
        assert_eq!(listed.map(|objects| objects.len()).ok(), Some(2));
        // A listing that ends at the invalid name is incomplete.
        let listed = whole(listing().take(2), LONG, 1000, false).await;
        let error = listed.expect_err("its end").at("journal").to_string();
        assert!(error.contains("listing journal"), "{error}");
    }
}
