//! `LIKE`: `%` matches any characters, `_` matches one, and `\` escapes the next one.

/// A parsed pattern. Only ASCII letters have two cases, as in the collation "C".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    ignore_case: bool,
    /// The pieces between runs of `%`, in order; the first and the last one are anchored.
    pieces: Vec<Vec<Part>>,
    /// The length of the longest piece that is tried at each character of a text. Most patterns have
    /// none.
    tried_bytes: usize,
}

/// An element of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// These bytes, in lower case if case is ignored.
    Text(Vec<u8>),
    /// `_`: any one character.
    One,
}

/// How many steps of an attempt cost as much as a comparison of a row.
const STEPS: usize = 64;

impl Part {
    const fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::One => 1,
        }
    }
}

impl Pattern {
    /// Parses a pattern; `None` if it ends with an incomplete escape, which PostgreSQL refuses.
    #[must_use]
    pub fn new(text: &str, ignore_case: bool) -> Option<Self> {
        let mut pieces = vec![Vec::new()];
        let mut escaped = false;
        for character in text.chars() {
            let Some(piece) = pieces.last_mut() else {
                unreachable!("there is always a piece")
            };
            match character {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                '%' if !escaped => pieces.push(Vec::new()),
                '_' if !escaped => piece.push(Part::One),
                _ => push(piece, character, ignore_case),
            }
            escaped = false;
        }
        if escaped {
            return None;
        }
        let between = pieces.get(1..pieces.len() - 1).unwrap_or_default();
        let tried = between.iter().filter(|piece| {
            // The first byte of a plain word decides.
            let is_word = matches!(piece[..], [Part::Text(_)]);
            ignore_case || !is_word
        });
        let bytes = tried.map(|piece| piece.iter().map(Part::bytes).sum());
        Some(Self {
            text: text.into(),
            ignore_case,
            tried_bytes: bytes.max().unwrap_or_default(),
            pieces,
        })
    }

    /// Returns the pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Reports whether it treats `a` and `A` alike.
    #[must_use]
    pub fn ignores_case(&self) -> bool {
        self.ignore_case
    }

    /// Returns the prefix of every text that matches, and whether every text with this prefix
    /// matches.
    #[must_use]
    pub fn prefix(&self) -> (&[u8], bool) {
        let plain = match self.pieces.first().map(Vec::as_slice) {
            Some([Part::Text(text), rest @ ..]) if !self.ignore_case => {
                Some((&text[..], rest.is_empty()))
            }
            Some([]) => Some((&[][..], true)),
            _ => None,
        };
        let (prefix, whole) = plain.unwrap_or((&[], false));
        let open = self.pieces.len() > 1 && self.pieces[1..].iter().all(Vec::is_empty);
        (prefix, whole && open)
    }

    /// Reports whether the pattern matches the whole text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else {
            unreachable!("there is always a piece")
        };
        let Some(mut at) = self.piece(first, text, 0) else {
            return false;
        };
        if self.pieces.len() == 1 {
            return at == text.len();
        }
        // The leftmost match of each piece leaves the most for the following ones.
        for piece in &self.pieces[1..self.pieces.len() - 1] {
            let Some(end) = self.first(piece, text, at) else {
                return false;
            };
            at = end;
        }
        self.ends_with(last, text, at)
    }

    /// Returns the end of the leftmost match of the piece that begins at or after `least`.
    fn first(&self, piece: &[Part], text: &[u8], least: usize) -> Option<usize> {
        // Most patterns search for a word, and they are tested against the whole table.
        if let [Part::Text(wanted)] = piece
            && let [first, rest @ ..] = &wanted[..]
            && !self.ignore_case
        {
            // No character begins within another one, so a match always lies between characters.
            let mut starts = text.iter().enumerate().skip(least);
            let found =
                starts.find(|&(start, byte)| byte == first && text[start + 1..].starts_with(rest));
            return found.map(|(start, _)| start + wanted.len());
        }
        (least..=text.len())
            .filter(|&start| is_boundary(text, start))
            .find_map(|start| self.piece(piece, text, start))
    }

    /// Returns the end of the piece if it matches at `start`.
    fn piece(&self, piece: &[Part], text: &[u8], start: usize) -> Option<usize> {
        let mut at = start;
        for part in piece {
            match part {
                Part::Text(wanted) => {
                    let found = text.get(at..at + wanted.len())?;
                    let same = if self.ignore_case {
                        found.eq_ignore_ascii_case(wanted)
                    } else {
                        found == &wanted[..]
                    };
                    if !same {
                        return None;
                    }
                    at += wanted.len();
                }
                Part::One => {
                    text.get(at)?;
                    at += 1;
                    while !is_boundary(text, at) {
                        at += 1;
                    }
                }
            }
        }
        Some(at)
    }

    /// Reports whether the text ends with the piece, which must not begin before `least`.
    fn ends_with(&self, piece: &[Part], text: &[u8], least: usize) -> bool {
        let mut start = text.len();
        for part in piece.iter().rev() {
            let length = match part {
                Part::Text(wanted) => wanted.len(),
                Part::One => {
                    let before = &text[..start];
                    let Some(first) = before.iter().rposition(|&byte| !is_continuation(byte))
                    else {
                        return false;
                    };
                    start - first
                }
            };
            match start.checked_sub(length) {
                Some(before) if before >= least && is_boundary(text, before) => start = before,
                _ => return false,
            }
        }
        self.piece(piece, text, start) == Some(text.len())
    }

    /// Estimates how many bytes of a text it is compared with.
    pub(crate) fn cost(&self) -> usize {
        1 + self.text.len() / 8
    }

    /// Reports whether it may make many attempts at a text.
    pub(crate) const fn strains(&self) -> bool {
        self.tried_bytes > 0
    }

    /// Estimates what matching a text of this length may cost beyond [`Self::cost`]: a piece between
    /// two `%` is tried at each character, and each attempt may go far into it.
    pub(crate) fn strain(&self, text_bytes: usize) -> usize {
        self.tried_bytes.min(text_bytes) * text_bytes / STEPS
    }
}

fn push(piece: &mut Vec<Part>, character: char, ignore_case: bool) {
    let character = if ignore_case {
        character.to_ascii_lowercase()
    } else {
        character
    };
    let mut buffer = [0; 4];
    let bytes = character.encode_utf8(&mut buffer).as_bytes();
    match piece.last_mut() {
        Some(Part::Text(text)) => text.extend_from_slice(bytes),
        _ => piece.push(Part::Text(bytes.to_vec())),
    }
}

/// Reports whether a character begins or the text ends here.
fn is_boundary(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|&byte| !is_continuation(byte))
}

/// Reports whether this byte continues a UTF-8 character.
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Follows the documentation of PostgreSQL, character by character.
    fn plainly(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
            ['_', rest @ ..] => !text.is_empty() && plainly(rest, &text[1..]),
            ['\\', wanted, rest @ ..] | [wanted, rest @ ..] => {
                text.first() == Some(wanted) && plainly(rest, &text[1..])
            }
        }
    }

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, false)
            .expect("a pattern")
            .matches(text)
    }

    #[test]
    fn patterns_match_characters_not_bytes() {
        assert!(matches("_", "é") && matches("_%", "é") && matches("%_", "é"));
        assert!(matches("__", "éx") && !matches("__", "é") && !matches("_", "éx"));
        assert!(matches("a%é_", "aéé€") && !matches("%a_a", "aa"));
        assert!(matches("100\\%", "100%") && !matches("100\\%", "1000"));
    }

    #[test]
    fn a_pattern_that_ends_with_an_escape_is_invalid() {
        assert_eq!(Pattern::new("a\\", false), None);
        assert!(Pattern::new("a\\\\", false).is_some());
    }

    #[test]
    fn case_is_ignored_only_for_ascii_letters() {
        let pattern = Pattern::new("É%x", true).expect("a pattern");
        assert!(pattern.matches("ÉX") && pattern.matches("Éax") && !pattern.matches("éx"));
    }

    #[test]
    fn the_literal_prefix_of_a_pattern_is_extracted() {
        let prefix = |text, ignore_case| {
            let pattern = Pattern::new(text, ignore_case).expect("a pattern");
            let (prefix, all) = pattern.prefix();
            (String::from_utf8_lossy(prefix).into_owned(), all)
        };
        assert_eq!(prefix("AB-%", false), ("AB-".into(), true));
        assert_eq!(prefix("AB-%%", false), ("AB-".into(), true));
        assert_eq!(prefix("AB-", false), ("AB-".into(), false));
        assert_eq!(prefix("AB-%x", false), ("AB-".into(), false));
        assert_eq!(prefix("AB_%", false), ("AB".into(), false));
        assert_eq!(prefix("AB-%", true), (String::new(), false));
        assert_eq!(prefix("%", true), (String::new(), true));
        assert_eq!(prefix("_%", false), (String::new(), false));
    }

    proptest! {
        #[test]
        fn patterns_agree_with_a_naive_implementation(
            pattern in "[ab%_é\\\\]{0,9}",
            text in "[abé%_\\\\]{0,12}",
        ) {
            let characters: Vec<char> = pattern.chars().collect();
            if let Some(taken_apart) = Pattern::new(&pattern, false) {
                let text_characters: Vec<char> = text.chars().collect();
                let matches = taken_apart.matches(&text);
                prop_assert_eq!(matches, plainly(&characters, &text_characters));
                let (prefix, all) = taken_apart.prefix();
                let begins = text.as_bytes().starts_with(prefix);
                prop_assert!(begins || !matches);
                prop_assert!(matches || !(begins && all));
            }
        }
    }
}
