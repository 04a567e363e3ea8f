//! Quantities as people write them: `10M` widgets, `5k` requests a second, `64MiB`, `75s`.

use std::time::Duration;

/// Powers of a thousand, for counts and rates.
const DECIMAL: [(&str, u64); 5] = [
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("", 1),
];

/// For bytes. The longest come first, because `MiB` also ends with `B`.
const BYTES: [(&str, u64); 15] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("", 1),
];

/// Parses a whole number: `10000000`, `10_000_000`, `10M`, `1.5M` or `1e7`.
#[must_use]
pub fn count(text: &str) -> Option<u64> {
    scaled(text, &DECIMAL)
}

/// Parses a number of bytes: as in [`count`], or `64MiB` or `64MB`.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    scaled(text, &BYTES)
}

/// Parses a time in whole milliseconds: a number of them, or `75s`, `1m 30s`, `250ms`.
#[must_use]
pub fn milliseconds(text: &str) -> Option<u64> {
    if let Some(number) = count(text) {
        return Some(number);
    }
    let time = humantime::parse_duration(text.trim()).ok()?;
    let whole = u64::try_from(time.as_millis()).ok()?;
    (Duration::from_millis(whole) == time).then_some(whole)
}

/// Parses a time that must have a unit, for a command line. The error says what it must be.
pub fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| {
        format!(
            "must be a time with its unit, as in `250ms`, `10s` or `1m 30s`, `{text}` was given"
        )
    })
}

/// Parses a rate per second: `2500`, `0.5`, `5k` or `1.5k`.
#[must_use]
pub fn rate(text: &str) -> Option<f64> {
    let text = text.trim();
    let text = text.strip_suffix("/s").unwrap_or(text);
    let (number, scale) = split(text, &DECIMAL)?;
    let number = number.replace('_', "").parse::<f64>().ok()?;
    number.is_finite().then_some(number * scale as f64)
}

/// Splits a text into the number before its suffix and the suffix's factor.
fn split<'a>(text: &'a str, suffixes: &[(&str, u64)]) -> Option<(&'a str, u64)> {
    let found = suffixes.iter().find_map(|&(suffix, scale)| {
        let number = text.strip_suffix(suffix)?;
        Some((number.trim_end(), scale))
    });
    found.filter(|(number, _)| number.starts_with(|first: char| first.is_ascii_digit()))
}

fn scaled(text: &str, suffixes: &[(&str, u64)]) -> Option<u64> {
    let (number, mut scale) = split(text.trim(), suffixes)?;
    let mut number = number.replace('_', "");
    if let Some((mantissa, exponent)) = number.split_once(['e', 'E']) {
        // An exponent and a suffix exclude each other.
        let digits = exponent.bytes().all(|byte| byte.is_ascii_digit());
        let exponent = exponent.parse().ok().filter(|_| digits && scale == 1)?;
        scale = 10u64.checked_pow(exponent)?;
        number = mantissa.into();
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let whole: u64 = whole.parse().ok()?;
    let mut value = whole.checked_mul(scale)?;
    if number.contains('.') {
        // The result must be exact and whole: that of 1.5k is, those of 1.0005k and 1.5 are not.
        let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
        let length = u32::try_from(fraction.len())
            .ok()
            .filter(|length| (1..=9).contains(length))?;
        let parts = 10u64.checked_pow(length)?;
        let product = fraction
            .parse::<u64>()
            .ok()
            .filter(|_| digits)?
            .checked_mul(scale)?;
        if !product.is_multiple_of(parts) {
            return None;
        }
        value = value.checked_add(product / parts)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_numbers_with_or_without_a_suffix() {
        for (text, number) in [
            ("0", 0),
            ("10000000", 10_000_000),
            ("10_000_000", 10_000_000),
            ("10M", 10_000_000),
            (" 10 M ", 10_000_000),
            ("5k", 5000),
            ("5K", 5000),
            ("1.5M", 1_500_000),
            ("1.25k", 1250),
            ("2G", 2_000_000_000),
            ("1e9", 1_000_000_000),
            ("2.5E6", 2_500_000),
            ("7e0", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(count(text), Some(number), "{text:?}");
        }
        for text in [
            "",
            "k",
            "-1",
            "+1",
            "1.5",
            "1.0005k",
            "1.k",
            "1.+5k",
            "10m",
            "1e",
            "1e+6",
            "1e-6",
            "1.5e0",
            "1e6k",
            "1e20",
            "e6",
            "10MiB",
            "5 k k",
            "18446744073709551616",
            "99999999999999G",
            "ten",
        ] {
            assert_eq!(count(text), None, "{text:?}");
        }
    }

    #[test]
    fn byte_sizes_have_decimal_or_binary_suffixes() {
        for (text, number) in [
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("64Mi", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("64MB", 64_000_000),
            ("64M", 64_000_000),
            ("8 kB", 8000),
        ] {
            assert_eq!(bytes(text), Some(number), "{text:?}");
        }
        for text in ["64MIB", "64mb", "B", "64B", "1.00000001k"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_time_without_a_unit_is_rejected() {
        assert_eq!(time("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["10", "", "10 parsecs", "-1s"] {
            let wrong = time(text).unwrap_err();
            let given = format!("as in `250ms`, `10s` or `1m 30s`, `{text}` was given");
            assert!(wrong.ends_with(&given), "{wrong}");
        }
    }

    #[test]
    fn times_are_milliseconds_or_have_a_unit() {
        for (text, number) in [
            ("75000", 75_000),
            ("75s", 75_000),
            ("1m 30s", 90_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(milliseconds(text), Some(number), "{text:?}");
        }
        for text in ["250us", "soon", "", "-1s"] {
            assert_eq!(milliseconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn rates_may_have_a_fraction() {
        assert_eq!(rate("2500"), Some(2500.0));
        assert_eq!(rate("0.5"), Some(0.5));
        assert_eq!(rate("5k"), Some(5000.0));
        assert_eq!(rate("1.5k/s"), Some(1500.0));
        for text in ["-1", "NaN", "inf", "1e400", "k", "fast"] {
            assert_eq!(rate(text), None, "{text:?}");
        }
    }
}
