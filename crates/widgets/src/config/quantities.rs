//! Quantities with a unit: `75s` for a key in milliseconds, `64MiB` for one in bytes, `10k` for a
//! count.

use super::values::Kind;
use std::borrow::Cow;
use widgets_load::quantity::{bytes, count, milliseconds};

/// Converts a quantity with a unit that suits the key's name to a plain number. Any other text
/// stays unchanged, and is refused as it was given.
pub(super) fn plain<'a>(name: &str, kind: Kind, text: &'a str) -> Cow<'a, str> {
    if kind != Kind::Integer || text.parse::<i128>().is_ok() {
        return text.into();
    }
    let named = |unit| name.split('_').any(|word| word == unit);
    let quantity = if named("ms") {
        milliseconds(text)
    } else if named("bytes") {
        bytes(text)
    } else {
        count(text)
    };
    quantity.map_or(text.into(), |number| number.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_key_decides_which_units_it_accepts() {
        for (name, text, number) in [
            ("idle_timeout_ms", "75s", "75000"),
            ("queue_wait_ms_max", "5s", "5000"),
            ("idle_timeout_ms", "75000", "75000"),
            ("segment_bytes", "64MiB", "67108864"),
            ("queue_bytes_max", "4M", "4000000"),
            ("connections_max", "10k", "10000"),
            ("connections_max", "75s", "75s"),
            ("connections_max", "-1", "-1"),
            ("segment_bytes", "75s", "75s"),
        ] {
            assert_eq!(plain(name, Kind::Integer, text), number, "{name} = {text}");
        }
        assert_eq!(plain("data_dir", Kind::String, "10k"), "10k");
    }
}
