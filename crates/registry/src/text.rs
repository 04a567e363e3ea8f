//! The two kinds of text in the domain. A value of either type is always valid.

use crate::{Defect, NAME_BYTES_MAX, Refusal, SERIAL_NUMBER_BYTES_MAX, SERIAL_NUMBER_BYTES_MIN};
use std::{fmt, ops::Deref};

/// A widget's serial number: unique, case-sensitive, never normalised, without NUL,
/// [`SERIAL_NUMBER_BYTES_MIN`] to [`SERIAL_NUMBER_BYTES_MAX`] bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerialNumber(Box<str>);

/// A widget's name: not unique, without NUL, at most [`NAME_BYTES_MAX`] bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl SerialNumber {
    /// Checks the limits. `field` is the caller's name for it, which a refusal (WG007) quotes.
    pub fn new(field: &'static str, text: impl AsRef<str>) -> Result<Self, Refusal> {
        let text = text.as_ref();
        if text.is_empty() {
            let limit = SERIAL_NUMBER_BYTES_MIN;
            return Err(Refusal::FieldLimit {
                field,
                defect: Defect::Empty { limit },
            });
        }
        check(field, text, SERIAL_NUMBER_BYTES_MAX)?;
        Ok(Self(text.into()))
    }
}

impl Name {
    /// Checks the limits. `field` is the caller's name for it, which a refusal (WG007) quotes.
    pub fn new(field: &'static str, text: impl AsRef<str>) -> Result<Self, Refusal> {
        let text = text.as_ref();
        check(field, text, NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }
}

fn check(field: &'static str, text: &str, limit: usize) -> Result<(), Refusal> {
    let defect = if text.len() > limit {
        Defect::TooLong {
            limit,
            given: text.len(),
        }
    } else if let Some(position) = text.bytes().position(|byte| byte == 0) {
        Defect::Nul { position }
    } else {
        return Ok(());
    };
    Err(Refusal::FieldLimit { field, defect })
}

macro_rules! text {
    ($name:ident) => {
        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text!(SerialNumber);
text!(Name);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(given: Result<impl fmt::Debug, Refusal>) -> String {
        given.expect_err("must be refused").to_string()
    }

    #[test]
    fn length_limits_are_in_bytes_and_inclusive() {
        assert!(SerialNumber::new("widget_sn", "x".repeat(255)).is_ok());
        assert_eq!(
            refused(SerialNumber::new("widget_sn", "é".repeat(128))),
            "widget_sn must be at most 255 bytes long, 256 were given"
        );
        assert!(Name::new("widget_name", "").is_ok());
        assert!(Name::new("widget_name", "x".repeat(1024)).is_ok());
        assert_eq!(
            refused(Name::new("name", "x".repeat(1025))),
            "name must be at most 1024 bytes long, 1025 were given"
        );
    }

    #[test]
    fn empty_serial_numbers_and_nul_are_refused() {
        assert_eq!(
            refused(SerialNumber::new("widget1_sn", "")),
            "widget1_sn must be at least 1 byte long, 0 were given"
        );
        assert_eq!(
            refused(Name::new("widget_name", "a\0b")),
            "widget_name must not contain the character NUL, one was given at byte 1"
        );
    }
}
