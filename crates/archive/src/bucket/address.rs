//! The address of an archive, as people write it.

use std::{fmt, str::FromStr};
use url::Url;

/// The address of an archive: a bucket with a prefix, or a folder.
#[derive(Clone, PartialEq, Eq)]
pub struct ArchiveUrl(pub(super) Url);

/// Why a text is not the address of an archive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

impl FromStr for ArchiveUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |why: &str| Err(UrlError(why.into()));
        let Ok(url) = Url::parse(text) else {
            return refuse("it is not a URL");
        };
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if has_credentials || url.query().is_some() || url.fragment().is_some() {
            return refuse(
                "it has more than a bucket and a prefix: credentials come from the provider's own \
                 variables",
            );
        }
        if url.port().is_some() {
            return refuse(
                "it has a port: where the bucket's server is comes from the provider's own \
                 variables, such as AWS_ENDPOINT",
            );
        }
        match (url.scheme(), url.host_str()) {
            ("file", None) if url.path().len() > 1 => Ok(Self(url)),
            ("file", _) => refuse("a folder is named file:///absolute/path"),
            ("s3" | "gs" | "az", Some(_)) => Ok(Self(url)),
            ("s3" | "gs" | "az", None) => refuse("it names no bucket"),
            _ => refuse("its scheme is not s3, gs, az or file"),
        }
    }
}

impl fmt::Display for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_urls_name_a_bucket_or_a_folder_without_credentials() {
        for text in [
            "s3://b",
            "s3://b/a/b",
            "gs://b/x",
            "az://c/x",
            "file:///var/archive",
        ] {
            let url: ArchiveUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), text);
        }
        for text in [
            "",
            "b",
            "/var/archive",
            "http://b/x",
            "s3://",
            "file://host/x",
            "file:///",
            "s3://key:secret@b/x",
            "az://c/x?sig=abc",
            "s3://b/x#y",
            "s3://b:9000/x",
        ] {
            let error = text.parse::<ArchiveUrl>().expect_err(text);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
