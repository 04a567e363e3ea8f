//! Tokens that were verified before, so that each is verified once and not with each request.
//!
//! Only tokens that passed every check get in, so what nobody signed takes no room here.

use super::{Sender, claims::Lifetime};
use lru::LruCache;

/// So many tokens are remembered, those that were used last.
const TOKENS_MAX: usize = 1000;
/// A longer token is verified each time, so that the whole cache has at most 4 MB.
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
            // It grows as it is filled: most services have no tokens.
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
