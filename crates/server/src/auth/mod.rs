//! Who asks, and what that role may do.
//!
//! A request says who it comes from by a bearer token (a JWT, RFC 7519) or by its connection's client
//! certificate. Who says nothing has the anonymous role, if there is one. Codes, texts and the order
//! of checks are PostgREST's; see `docs/security.md`.
//!
//! Deliberately not here: issuing tokens, users, passwords, and revoking one token before it expires.

mod access;
mod cache;
mod claims;
mod fetched;
mod identity;
mod keys;
mod refused;
mod secret;
mod token;

pub use access::Roles;
pub use fetched::{KeyRequest, KeyRequests};
pub use keys::{KeySet, KeySetError};

pub(crate) use access::{Access, Object, Permission};
pub(crate) use cache::TokenCache;
pub(crate) use identity::Identity;
pub(crate) use refused::{Claim, Refused, TokenFault};

use crate::Caller;
use claims::{ClaimName, Lifetime};
use fetched::Asking;
use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};
use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use widgets_registry::{AUTHOR_BYTES_MAX, Author};

/// What decides who gets in, beside the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationSettings {
    /// What a token's claim `aud` must name. `None` accepts every audience, and none.
    pub audience: Option<String>,
    /// What a token's claim `iss` must be. `None` accepts every issuer, and none.
    pub issuer: Option<String>,
    /// The claims that a token must have.
    pub required_claims: Vec<String>,
    /// The claim that names the role: a member of the claims, or a JSON Pointer (RFC 6901) that
    /// begins with a slash.
    pub role_claim: String,
    /// What each role may do. A role that may do nothing does not exist.
    pub roles: Roles,
    /// The role of requests that do not say who they come from. `None` refuses them.
    pub anonymous_role: Option<String>,
    /// The role of requests without a token on a connection with a client certificate. `None` makes
    /// no difference between them and anonymous requests.
    pub certificate_role: Option<String>,
}

/// What lets a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proofs {
    /// A token.
    pub(crate) token: bool,
    /// A client certificate alone.
    pub(crate) certificate: bool,
    /// Nothing is needed.
    pub(crate) nothing: bool,
}

/// Who a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// What it may do.
    pub(crate) access: Access,
    /// Its name, if it has one: what the audit trail shows.
    pub(crate) author: Option<Author>,
    /// What tells it from all others.
    pub(crate) identity: Identity,
    /// The first second since 1970 began in which it is refused, if there is one: what goes on for long ends then.
    pub(crate) ends: Option<i64>,
}

impl Sender {
    /// Somebody who may do this and has no name.
    pub(crate) fn anonymous(access: Access) -> Self {
        Self {
            access,
            author: None,
            identity: Identity::anonymous(),
            ends: None,
        }
    }
}

/// The name that an audit trail shows for this text: the text itself, or, where that is longer than a
/// name can be, its beginning and a digest of it all. `None` for one that is empty or has NUL.
pub(crate) fn author(text: &str) -> Option<Author> {
    if text.len() <= AUTHOR_BYTES_MAX {
        return Author::new(text);
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    let digest = format!("{:032x}", u128::from_be_bytes(first));
    let mut end = AUTHOR_BYTES_MAX - digest.len() - "…".len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Author::new(&format!("{}…{digest}", &text[..end]))
}

/// Decides who gets in. Shared by all workers; its keys can be replaced while it is used.
#[derive(Debug)]
pub struct Authentication {
    /// `None` where no token can be checked. Empty until keys that are fetched are there.
    keys: Option<RwLock<Arc<KeySet>>>,
    /// How to ask for newer keys, where they are fetched.
    asking: Option<Asking>,
    /// Counts how often the keys were replaced, so that workers forget tokens that the old ones
    /// vouched for.
    generation: AtomicU64,
    audience: Option<String>,
    issuer: Option<String>,
    required_claims: Vec<String>,
    role_claim: ClaimName,
    roles: Roles,
    anonymous_role: Option<String>,
    anonymous: Option<Access>,
    certified: Option<Access>,
}

impl Authentication {
    /// Everyone may do everything. A token is refused all the same: its sender believes that somebody
    /// checks it.
    #[must_use]
    pub fn off() -> Self {
        Self {
            keys: None,
            asking: None,
            generation: AtomicU64::new(0),
            audience: None,
            issuer: None,
            required_claims: Vec::new(),
            role_claim: ClaimName::default(),
            roles: Roles::default(),
            anonymous_role: None,
            anonymous: Some(Access::EVERYTHING),
            certified: None,
        }
    }

    /// Lets in whom `settings` let in. Without `keys` a token is answered 500 PGRST300.
    #[must_use]
    pub fn new(settings: AuthenticationSettings, keys: Option<KeySet>) -> Self {
        let AuthenticationSettings {
            audience,
            issuer,
            required_claims,
            role_claim,
            roles,
            anonymous_role,
            certificate_role,
        } = settings;
        let access = |role: &str| roles.access(role, anonymous_role.as_deref());
        Self {
            keys: keys.map(|keys| RwLock::new(Arc::new(keys))),
            asking: None,
            generation: AtomicU64::new(0),
            audience,
            issuer,
            required_claims,
            role_claim: ClaimName::new(role_claim),
            anonymous: anonymous_role.as_deref().map(&access),
            certified: certificate_role.as_deref().map(&access),
            roles,
            anonymous_role,
        }
    }

    /// Lets in whom `settings` let in, by keys that whoever takes the requests fetches and hands to
    /// [`replace_keys`](Self::replace_keys). Until the first are there a token is answered 503 WG506.
    #[must_use]
    pub fn with_fetched_keys(settings: AuthenticationSettings) -> (Self, KeyRequests) {
        let (asking, requests) = fetched::channel();
        let mut authentication = Self::new(settings, Some(KeySet::none()));
        authentication.asking = Some(asking);
        (authentication, requests)
    }

    /// Checks tokens with these keys from now on, also those that were checked before. Has no effect
    /// where there were none from the start.
    pub fn replace_keys(&self, keys: KeySet) {
        if let Some(current) = &self.keys {
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) const fn proofs(&self) -> Proofs {
        Proofs {
            token: self.keys.is_some(),
            certificate: self.certified.is_some(),
            nothing: self.anonymous.is_some(),
        }
    }

    /// Whether tokens can be checked, or need not be.
    pub(crate) fn ready(&self) -> Result<(), Refused> {
        let keys = self.keys.as_ref();
        let keys = keys.map(|keys| keys.read().unwrap_or_else(PoisonError::into_inner));
        if keys.is_some_and(|keys| keys.is_empty()) {
            return Err(Refused::KeysUnfetched);
        }
        Ok(())
    }

    /// Whether newer keys may let in whom these refused. Waits until somebody has looked for them.
    pub(crate) async fn has_looked_again(&self, refused: &Refused) -> Result<bool, Refused> {
        let missing = matches!(
            refused,
            Refused::KeysUnfetched | Refused::Token(TokenFault::KeyUnknown)
        );
        match &self.asking {
            Some(asking) if missing => {
                if asking.ask().await {
                    return Ok(true);
                }
                Err(Refused::KeysAwaited)
            }
            _ => Ok(false),
        }
    }

    /// Who the sender of these headers is and what it may do. `now_seconds` is the time since 1970 began.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        cache: &Mutex<TokenCache>,
        now_seconds: impl FnOnce() -> i64,
    ) -> Result<Sender, Refused> {
        match headers.get(header::AUTHORIZATION).and_then(bearer_token) {
            Some(token) => self.admit_token(token, cache, now_seconds()),
            None if caller.certified
                && let Some(access) = self.certified =>
            {
                Ok(Sender {
                    access,
                    author: caller.subject.clone(),
                    identity: Identity::certificate(caller.subject.as_deref()),
                    ends: None,
                })
            }
            None => Ok(Sender::anonymous(self.anonymous.ok_or(Refused::Anonymous)?)),
        }
    }

    fn admit_token(
        &self,
        token: &[u8],
        cache: &Mutex<TokenCache>,
        now_seconds: i64,
    ) -> Result<Sender, Refused> {
        let keys = self.keys.as_ref().ok_or(Refused::NoKeys)?;
        // Read before the keys: at worst a token is checked once more than needed.
        let generation = self.generation.load(Ordering::Acquire);
        let known = lock(cache).get(generation, token);
        if let Some((sender, lifetime)) = known {
            lifetime.check(now_seconds)?;
            return Ok(sender);
        }
        let keys = keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        if keys.is_empty() {
            return Err(Refused::KeysUnfetched);
        }
        let claims = token::verified_claims(token, &keys)?;
        let lifetime = Lifetime::current(&claims, now_seconds)?;
        claims::check_audience(&claims, self.audience.as_deref())?;
        claims::check_issuer(&claims, self.issuer.as_deref())?;
        claims::check_required(&claims, &self.required_claims)?;
        let access = match self.role_claim.find(&claims) {
            None => self.anonymous.ok_or(Refused::Anonymous)?,
            Some(role) => {
                let access = self.roles.access(&role, self.anonymous_role.as_deref());
                if access.is_nothing() {
                    return Err(Refused::RoleUnknown(role));
                }
                access
            }
        };
        let author = claims::subject(&claims);
        let sender = Sender {
            access,
            author,
            identity: claims::identity(&claims, token),
            ends: lifetime.ends(),
        };
        lock(cache).insert(generation, token, sender.clone(), lifetime);
        Ok(sender)
    }
}

fn lock(cache: &Mutex<TokenCache>) -> std::sync::MutexGuard<'_, TokenCache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a request says by a token who it comes from. Whether it is true is not checked.
pub(crate) fn has_token(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION);
    value.and_then(bearer_token).is_some()
}

/// The token of `Bearer TOKEN`, however the word is capitalised (RFC 9110, 11.1). Other schemes are
/// somebody else's, such as a proxy's.
fn bearer_token(value: &HeaderValue) -> Option<&[u8]> {
    let value = value.as_bytes();
    let end = value.iter().position(|&byte| byte == b' ');
    let (scheme, token) = value.split_at(end.unwrap_or(value.len()));
    scheme
        .eq_ignore_ascii_case(b"bearer")
        .then(|| token.trim_ascii())
}
