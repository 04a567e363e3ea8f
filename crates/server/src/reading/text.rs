//! Reading a parameter's value character by character, as PostgREST's parser does.

use super::Unreadable;

/// A value and how far it has been read.
pub(super) struct Text<'a> {
    kind: &'static str,
    given: &'a str,
    at: usize,
}

impl<'a> Text<'a> {
    /// `kind` is what errors call it.
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

    /// Passes over this, if it comes next.
    pub(super) fn take(&mut self, expected: &str) -> bool {
        let is_next = self.rest().starts_with(expected);
        if is_next {
            self.at += expected.len();
        }
        is_next
    }

    /// Everything up to the first of these characters, or to the end.
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

    /// What stands between quotes, in which `\` makes the next character itself.
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

    /// A name: between quotes, or up to what cannot be in one.
    pub(super) fn name(&mut self) -> Result<String, Unreadable> {
        if let Some(name) = self.quoted()? {
            return Ok(name);
        }
        let rest = self.rest();
        let is_part = |each: char| each.is_alphanumeric() || "_ $-".contains(each);
        let length = rest.find(|each| !is_part(each)).unwrap_or(rest.len());
        // `-` begins an arrow as well.
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

    /// The value is over.
    pub(super) fn end(&self) -> Result<(), Unreadable> {
        if self.rest().is_empty() {
            return Ok(());
        }
        Err(self.unexpected("end of input"))
    }

    /// That something else comes than what may come here.
    pub(super) fn unexpected(&self, expected: &str) -> Unreadable {
        let found = match self.peek() {
            Some(character) => format!("\"{character}\""),
            None => "end of input".into(),
        };
        self.error(&format!("unexpected {found} expecting {expected}"))
    }

    /// That something is wrong here.
    pub(super) fn error(&self, details: &str) -> Unreadable {
        Unreadable::Syntax {
            kind: self.kind,
            given: self.given.to_owned(),
            column: self.given[..self.at].chars().count() + 1,
            details: details.to_owned(),
        }
    }
}
