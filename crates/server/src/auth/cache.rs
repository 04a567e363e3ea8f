//! Tokens that were verified before, so that a token is not verified again with each request.
//!
//! Only tokens that passed every check are cached, so unsigned tokens take no room.

use super::{Sender, claims::Lifetime};
use lru::LruCache;

/// How many tokens are remembered, by most recent use.
const TOKENS_MAX: usize = 1000;
/// Longer tokens are verified each time, so that the whole cache takes at most 4 MB.
const TOKEN_BYTES_MAX: usize = 4096;

/// The tokens that one worker remembers.
#[derive(Debug)]
pub(crate) struct TokenCache {
    /// The generation of the keys that the tokens were verified with.
    generation: u64,
    tokens: LruCache<Box<[u8]>, (Sender, Lifetime)>,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self {
            generation: 0,
            // The cache grows as it fills: most services have no tokens.
            tokens: LruCache::unbounded(),
        }
    }
}

impl TokenCache {
    pub(super) fn get(&mut self, generation: u64, token: &[u8]) -> Option<(Sender, Lifetime)> {
        if self.generation != generation {
            return None;
        }
        self.tokens.get(token).cloned()
    }

    pub(super) fn insert(
        &mut self,
        generation: u64,
        token: &[u8],
        sender: Sender,
        lifetime: Lifetime,
    ) {
        if self.generation != generation {
            self.tokens.clear();
            self.generation = generation;
        }
        if token.len() > TOKEN_BYTES_MAX {
            return;
        }
        if self.tokens.len() == TOKENS_MAX {
            self.tokens.pop_lru();
        }
        self.tokens.put(token.into(), (sender, lifetime));
    }
}
