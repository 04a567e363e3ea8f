//! Parses a parameter's value character by character, like PostgREST's parser.

use super::Unreadable;

/// A value and the position up to which it was parsed.
pub(super) struct Text<'a> {
    kind: &'static str,
    given: &'a str,
    at: usize,
}

impl<'a> Text<'a> {
    /// Makes a text that errors call `kind`.
    pub(super) fn new(kind: &'static str, text: &'a str) -> Self {
        Self {
            kind,
            given: text,
            at: 0,
        }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.given[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Consumes this text if it comes next, and reports whether it did.
    pub(super) fn take(&mut self, expected: &str) -> bool {
        let is_next = self.rest().starts_with(expected);
        if is_next {
            self.at += expected.len();
        }
        is_next
    }

    /// Consumes everything up to the first of these characters, or to the end.
    pub(super) fn until(&mut self, ends: &[char]) -> &'a str {
        let rest = self.rest();
        let length = rest.find(ends).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    pub(super) fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(' ').len();
    }

    /// Consumes a quoted text, in which `\` escapes the next character.
    pub(super) fn quoted(&mut self) -> Result<Option<String>, Unreadable> {
        let from = self.at;
        if !self.take("\"") {
            return Ok(None);
        }
        let mut content = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((place, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += place + 1;
                    return Ok(Some(content));
                }
                '\\' => content.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => content.push(character),
            }
        }
        self.at = from;
        Err(self.error("a quote that has no end"))
    }

    /// Consumes a name: quoted, or up to a character that it cannot contain.
    pub(super) fn name(&mut self) -> Result<String, Unreadable> {
        if let Some(name) = self.quoted()? {
            return Ok(name);
        }
        let rest = self.rest();
        let is_part = |each: char| each.is_alphanumeric() || "_ $-".contains(each);
        let length = rest.find(|each| !is_part(each)).unwrap_or(rest.len());
        // `-` may also begin an arrow.
        let length = rest[..length].find("->").unwrap_or(length);
        let length = if rest[length..].starts_with('>') && rest[..length].ends_with('-') {
            length - 1
        } else {
            length
        };
        if length == 0 {
            return Err(self.unexpected("a name"));
        }
        self.at += length;
        Ok(rest[..length].trim().to_owned())
    }

    /// Checks that the value ends here.
    pub(super) fn end(&self) -> Result<(), Unreadable> {
        if self.rest().is_empty() {
            return Ok(());
        }
        Err(self.unexpected("end of input"))
    }

    /// Returns the error for an unexpected character.
    pub(super) fn unexpected(&self, expected: &str) -> Unreadable {
        let found = match self.peek() {
            Some(character) => format!("\"{character}\""),
            None => "end of input".into(),
        };
        self.error(&format!("unexpected {found} expecting {expected}"))
    }

    /// Returns a syntax error at this position.
    pub(super) fn error(&self, details: &str) -> Unreadable {
        Unreadable::Syntax {
            kind: self.kind,
            given: self.given.to_owned(),
            column: self.given[..self.at].chars().count() + 1,
            details: details.to_owned(),
        }
    }
}
