//! Shows texts that somebody else chose, so that a terminal does not interpret them.

use std::borrow::Cow;

/// Returns a text with everything that a terminal would interpret written as an escape, such as
/// `\u{1b}`. Characters that change the direction of text or have no width are escaped too, because
/// they would make the text look different.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, is_harmful)
}

/// Like [`shown`], for a text that may have several lines, such as a report or an error that lists
/// problems.
#[must_use]
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character != '\n' && is_harmful(character))
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn escaped(text: &str, is_harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_harmful) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_harmful(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::{shown, shown_lines};

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(shown("plain ü 日本"), "plain ü 日本");
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(shown("\u{9b}31m"), "\\u{9b}31m");
    }

    #[test]
    fn line_breaks_are_kept_in_multi_line_text() {
        assert_eq!(shown_lines("a\n  b\r\u{7}\n"), "a\n  b\\r\\u{7}\n");
    }
}
