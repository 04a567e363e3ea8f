//! The types of lists, and of optional values, which are written as an empty text if they are
//! absent.

use super::values::{Anything, Kind, Value};
use ipnet::IpNet;
use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};
use widgets_archive::ArchiveUrl;
use widgets_load::redacted;
use widgets_server::{ClientCertificates, Origins};

fn toml_string(text: impl Into<String>) -> String {
    toml::Value::String(text.into()).to_string()
}

impl Value for bool {
    type Limit = Anything;
    const KIND: Kind = Kind::Boolean;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        text.parse().ok()
    }

    fn describe(_: &Anything) -> String {
        "true or false".into()
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<PathBuf> {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        (!text.contains('\0')).then(|| (!text.is_empty()).then(|| text.into()))
    }

    fn describe(_: &Anything) -> String {
        "a path, or empty for none".into()
    }

    fn toml(&self) -> String {
        toml_string(self.as_deref().map_or("".into(), Path::to_string_lossy))
    }
}

impl Value for Option<String> {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        Some((!text.is_empty()).then(|| text.into()))
    }

    fn describe(_: &Anything) -> String {
        "a string, or empty for none".into()
    }

    fn toml(&self) -> String {
        toml_string(self.as_deref().unwrap_or_default())
    }
}

impl Value for Option<ArchiveUrl> {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        if text.is_empty() {
            return Some(None);
        }
        text.parse().ok().map(Some)
    }

    fn describe(_: &Anything) -> String {
        "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER without credentials, \
         or empty for none"
            .into()
    }

    fn toml(&self) -> String {
        toml_string(self.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    /// The text may contain credentials by mistake.
    fn quote(text: &str) -> String {
        toml_string(redacted(text))
    }
}

/// A text that is never shown. `None` if it is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Option<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.toml())
    }
}

impl Value for Secret {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        Some(Self((!text.is_empty()).then(|| text.into())))
    }

    fn describe(_: &Anything) -> String {
        "a secret, or empty for none".into()
    }

    fn toml(&self) -> String {
        toml_string(if self.0.is_some() { "***" } else { "" })
    }

    fn quote(_: &str) -> String {
        "\"***\"".into()
    }
}

/// Names separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<String>);

impl Names {
    pub(crate) fn of(names: &[&str]) -> Self {
        Self(names.iter().map(ToString::to_string).collect())
    }
}

/// Returns the items of a list, without the spaces around them. An empty text has none.
fn items(text: &str) -> impl Iterator<Item = &str> {
    let none = text.trim().is_empty();
    text.split(',').map(str::trim).filter(move |_| !none)
}

impl Value for Names {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        let item = |item: &str| (!item.is_empty()).then(|| item.into());
        items(text).map(item).collect::<Option<_>>().map(Self)
    }

    fn describe(_: &Anything) -> String {
        "names separated by commas, or empty for none".into()
    }

    fn toml(&self) -> String {
        toml_string(self.0.join(", "))
    }
}

/// The claims that tokens must have: either named, or those that suit the keys that verify the
/// tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RequiredClaims {
    #[default]
    Default,
    Named(Names),
}

impl Value for RequiredClaims {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, limit: &Anything) -> Option<Self> {
        if text == "default" {
            return Some(Self::Default);
        }
        Names::parse(text, limit).map(Self::Named)
    }

    fn describe(_: &Anything) -> String {
        "\"default\", or names separated by commas, or empty for none".into()
    }

    fn toml(&self) -> String {
        match self {
            Self::Default => toml_string("default"),
            Self::Named(names) => names.toml(),
        }
    }
}

/// Addresses and networks separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks(pub(crate) Vec<IpNet>);

impl Value for Networks {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        let item = |item: &str| {
            let address = item.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| item.parse::<IpNet>()).ok()
        };
        items(text).map(item).collect::<Option<_>>().map(Self)
    }

    fn describe(_: &Anything) -> String {
        "addresses or networks separated by commas, such as 127.0.0.1, 10.0.0.0/8, or empty for none"
            .into()
    }

    fn toml(&self) -> String {
        let items: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        toml_string(items.join(", "))
    }
}

impl Value for Origins {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        Self::parse(items(text))
    }

    fn describe(_: &Anything) -> String {
        "origins separated by commas, such as https://app.example, or * for any, or empty for none"
            .into()
    }

    fn toml(&self) -> String {
        toml_string(self.to_string())
    }
}

impl Value for ClientCertificates {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        match text {
            "required" => Some(Self::Required),
            "optional" => Some(Self::Optional),
            _ => None,
        }
    }

    fn describe(_: &Anything) -> String {
        "\"required\" or \"optional\"".into()
    }

    fn toml(&self) -> String {
        toml_string(match self {
            Self::Required => "required",
            Self::Optional => "optional",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_and_formatted() {
        for (text, toml) in [
            ("", Some("\"\"")),
            (" ", Some("\"\"")),
            ("a", Some("\"a\"")),
            (" a ,b c", Some("\"a, b c\"")),
            ("a,,b", None),
            ("a,", None),
        ] {
            let names = Names::parse(text, &Anything).map(|names| names.toml());
            assert_eq!(names.as_deref(), toml, "{text:?}");
        }
        for (text, toml) in [
            ("", Some("\"\"")),
            ("127.0.0.1", Some("\"127.0.0.1/32\"")),
            ("::1, 10.0.0.0/8", Some("\"::1/128, 10.0.0.0/8\"")),
            ("10.0.0.0/33", None),
            ("localhost", None),
        ] {
            let networks = Networks::parse(text, &Anything).map(|networks| networks.toml());
            assert_eq!(networks.as_deref(), toml, "{text:?}");
        }
        for (text, toml) in [
            ("", Some("\"\"")),
            ("*", Some("\"*\"")),
            ("https://a, http://b:80", Some("\"https://a, http://b\"")),
            ("https://a/", None),
            ("a.example", None),
        ] {
            let origins = <Origins as Value>::parse(text, &Anything);
            let origins = origins.map(|origins| origins.toml());
            assert_eq!(origins.as_deref(), toml, "{text:?}");
        }
    }

    #[test]
    fn required_claims_are_parsed_as_names_or_default() {
        for (text, toml) in [
            ("default", Some("\"default\"")),
            ("", Some("\"\"")),
            ("exp,sub", Some("\"exp, sub\"")),
            ("exp,", None),
        ] {
            let claims = RequiredClaims::parse(text, &Anything).map(|claims| claims.toml());
            assert_eq!(claims.as_deref(), toml, "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::parse("hunter2", &Anything).expect("any text");
        let shown = [
            secret.toml(),
            format!("{secret:?}"),
            Secret::quote("hunter2"),
        ];
        assert_eq!(shown, ["\"***\""; 3].map(String::from));
        assert_eq!(Secret::default().toml(), "\"\"");
    }
}
