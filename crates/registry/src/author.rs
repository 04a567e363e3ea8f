//! Who did it, and how a caller marks a request so that it can be sent again.

use std::{fmt, ops::Deref, sync::Arc};

/// An author's name has at most so many bytes.
pub const AUTHOR_BYTES_MAX: usize = 255;

/// A key has at most so many bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

// Stores keep their lengths in one byte.
const _: () = assert!(AUTHOR_BYTES_MAX <= u8::MAX as usize);

/// Who asked for an operation: the `sub` of a token, or the subject of a client's certificate. 1 to
/// [`AUTHOR_BYTES_MAX`] bytes of UTF-8 without NUL. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Author(Arc<str>);

impl Author {
    /// `None` where the text is empty, too long or has NUL.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_valid = !text.is_empty() && text.len() <= AUTHOR_BYTES_MAX && !text.contains('\0');
        is_valid.then(|| Self(text.into()))
    }
}

impl Deref for Author {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What a caller calls a request, to send it again without its being applied twice: 1 to
/// [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// `None` where the text is empty or too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_valid = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len());
        is_valid.then(|| Self(text.into()))
    }
}

impl Deref for IdempotencyKey {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
