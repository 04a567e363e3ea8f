//! The types of values: how each is parsed, limited, described and written.

use std::{
    fmt::Display,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};
use tracing_subscriber::filter::{LevelFilter, Targets};
use widgets_load::redacted;
use widgets_pacing::Mode;
use widgets_postgres::Nodes;

/// The TOML types of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Integer,
    String,
}

/// A type of values.
pub(crate) trait Value: Sized {
    /// What limits a value in addition to its type.
    type Limit;
    /// The TOML type in a file.
    const KIND: Kind;

    /// Parses a value, if it is within its limit.
    fn parse(text: &str, limit: &Self::Limit) -> Option<Self>;
    /// Describes the valid values, in words that follow "must be".
    fn describe(limit: &Self::Limit) -> String;
    /// Returns the value in the syntax of a file.
    fn toml(&self) -> String;
    /// Returns the given text as an error message shows it, without secrets.
    fn quote(text: &str) -> String {
        format!("{text:?}")
    }
}

/// No limit in addition to the type.
pub(crate) struct Anything;

fn toml_string(text: impl Into<String>) -> String {
    toml::Value::String(text.into()).to_string()
}

macro_rules! integer {
    ($($Type:ty),+) => { $(
        impl Value for $Type {
            type Limit = RangeInclusive<Self>;
            const KIND: Kind = Kind::Integer;

            fn parse(text: &str, limit: &Self::Limit) -> Option<Self> {
                text.parse().ok().filter(|value| limit.contains(value))
            }

            fn describe(limit: &Self::Limit) -> String {
                format!("an integer from {} to {}", limit.start(), limit.end())
            }

            fn toml(&self) -> String {
                self.to_string()
            }

            fn quote(text: &str) -> String {
                match text.parse::<i128>() {
                    Ok(integer) => integer.to_string(),
                    Err(_) => format!("{text:?}"),
                }
            }
        }
    )+ };
}

integer!(u32, u64, usize);

impl Value for SocketAddr {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        // No other name is looked up: its address may change, and may not be this machine's.
        let (ip, port) = match text.strip_prefix("localhost:") {
            Some(port) => (Ipv4Addr::LOCALHOST, port),
            None => return text.parse().ok(),
        };
        Some((ip, port.parse().ok()?).into())
    }

    fn describe(_: &Anything) -> String {
        "an IP address (or localhost) and a port, such as 127.0.0.1:3000 or [::1]:3000".into()
    }

    fn toml(&self) -> String {
        toml_string(self.to_string())
    }
}

impl Value for PathBuf {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| text.into())
    }

    fn describe(_: &Anything) -> String {
        "a non-empty path".into()
    }

    fn toml(&self) -> String {
        toml_string(Path::to_string_lossy(self))
    }
}

/// Which store.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// The embedded store: in this process, in a data directory.
    Embedded,
    /// The PostgreSQL database with this URL, which may contain a password.
    Postgres(String),
}

impl std::fmt::Debug for StoreKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.toml())
    }
}

impl Value for StoreKind {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        if text == "embedded" {
            return Some(Self::Embedded);
        }
        widgets_postgres::Target::is_url(text).then(|| Self::Postgres(text.into()))
    }

    fn describe(_: &Anything) -> String {
        "\"embedded\", or the URL of a PostgreSQL database such as \"postgres://user@host/database\""
            .into()
    }

    fn toml(&self) -> String {
        match self {
            Self::Embedded => toml_string("embedded"),
            Self::Postgres(url) => toml_string(redacted(url)),
        }
    }

    fn quote(text: &str) -> String {
        format!("{:?}", redacted(text))
    }
}

impl Value for Mode {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            _ => None,
        }
    }

    fn describe(_: &Anything) -> String {
        "\"auto\", \"always\" or \"never\"".into()
    }

    fn toml(&self) -> String {
        toml_string(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// When an operation is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledge {
    /// Once the operation is on this store's disk.
    Local,
    /// Once the operation is on a standby's disk as well.
    Standby,
}

impl Value for Acknowledge {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        match text {
            "local" => Some(Self::Local),
            "standby" => Some(Self::Standby),
            _ => None,
        }
    }

    fn describe(_: &Anything) -> String {
        "\"local\" or \"standby\"".into()
    }

    fn toml(&self) -> String {
        toml_string(match self {
            Self::Local => "local",
            Self::Standby => "standby",
        })
    }
}

impl Value for Nodes {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        text.parse().ok()
    }

    fn describe(_: &Anything) -> String {
        "\"catalog\", \"off\", or NODE:PORT=HOST:PORT for each node with another address, separated by commas".into()
    }

    fn toml(&self) -> String {
        toml_string(self.to_string())
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Value for LogFormat {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn describe(_: &Anything) -> String {
        "\"text\" or \"json\"".into()
    }

    fn toml(&self) -> String {
        toml_string(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Which log lines are written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter {
    text: String,
    pub(crate) targets: Targets,
}

impl Default for Filter {
    fn default() -> Self {
        // Clients can cause the warnings of libraries, which are meant for the libraries'
        // developers.
        Self {
            text: "error,widgets=info".into(),
            targets: Targets::new()
                .with_default(LevelFilter::ERROR)
                .with_target("widgets", LevelFilter::INFO),
        }
    }
}

impl Filter {
    /// Selects the archive's warnings, for commands whose own messages say everything else.
    pub(crate) fn of_archive() -> Self {
        Self {
            text: "widgets_archive=warn".into(),
            targets: Targets::new().with_target("widgets_archive", LevelFilter::WARN),
        }
    }
}

impl Value for Filter {
    type Limit = Anything;
    const KIND: Kind = Kind::String;

    fn parse(text: &str, _: &Anything) -> Option<Self> {
        // `Targets` would take any single word that is not a level as a target with all levels.
        let word = !text.contains(['=', ',']);
        if text.is_empty() || word && LevelFilter::from_str(text).is_err() {
            return None;
        }
        let targets = Targets::from_str(text).ok()?;
        Some(Self {
            text: text.into(),
            targets,
        })
    }

    fn describe(_: &Anything) -> String {
        "a level (off, error, warn, info, debug or trace), or several, such as \
         \"info,widgets_engine=debug\""
            .into()
    }

    fn toml(&self) -> String {
        toml_string(self.text.as_str())
    }
}

impl Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_filters_are_levels_or_levels_by_target() {
        for text in [
            "info",
            "off",
            "info,widgets_engine=debug",
            "widgets_engine=trace",
        ] {
            assert!(Filter::parse(text, &Anything).is_some(), "{text}");
        }
        for text in ["", "inof", "info,widgets_engine=loud"] {
            assert!(Filter::parse(text, &Anything).is_none(), "{text}");
        }
    }
}
