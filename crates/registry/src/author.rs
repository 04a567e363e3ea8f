//! The author of a request, and the key with which a caller can repeat it safely.

use std::{fmt, ops::Deref, sync::Arc};

/// The maximum length of an author's name in bytes.
pub const AUTHOR_BYTES_MAX: usize = 255;

/// The maximum length of a key in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

// Stores keep these lengths in one byte.
const _: () = assert!(AUTHOR_BYTES_MAX <= u8::MAX as usize);

/// The author of an operation: the `sub` of a token, or the subject of a client's certificate. 1 to
/// [`AUTHOR_BYTES_MAX`] bytes of UTF-8 without NUL. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Author(Arc<str>);

impl Author {
    /// Returns `None` if the text is empty, too long or contains NUL.
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

/// A caller's key for a request, with which a repetition is not applied twice: 1 to
/// [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Returns `None` if the text is empty or too long.
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
