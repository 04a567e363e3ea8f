//! Who sends a request, and what the sender's role may do.
//!
//! A request identifies its sender by a bearer token (a JWT, RFC 7519) or by its connection's
//! client certificate. Without either, it has the anonymous role if there is one. Codes, texts and
//! the order of checks are PostgREST's; see `docs/security.md`.
//!
//! Deliberately out of scope: issuing tokens, users, passwords, and revoking a single token before
//! it expires.

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

/// The settings of authentication, except the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationSettings {
    /// The audience that a token's claim `aud` must name. `None` accepts any audience, or none.
    pub audience: Option<String>,
    /// The issuer that a token's claim `iss` must be. `None` accepts any issuer, or none.
    pub issuer: Option<String>,
    /// The claims that a token must have.
    pub required_claims: Vec<String>,
    /// The claim that names the role: a member of the claims, or a JSON Pointer (RFC 6901), which
    /// begins with a slash.
    pub role_claim: String,
    /// What each role may do. A role without permissions does not exist.
    pub roles: Roles,
    /// The role of requests without credentials. `None` refuses them.
    pub anonymous_role: Option<String>,
    /// The role of requests without a token on a connection with a client certificate. `None`
    /// treats them like anonymous requests.
    pub certificate_role: Option<String>,
}

/// Which credentials admit a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proofs {
    /// A token.
    pub(crate) token: bool,
    /// A client certificate alone.
    pub(crate) certificate: bool,
    /// None are needed.
    pub(crate) nothing: bool,
}

/// The sender of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// What it may do.
    pub(crate) access: Access,
    /// The sender's name in the audit trail, if it has one.
    pub(crate) author: Option<Author>,
    /// Distinguishes this sender from all others.
    pub(crate) identity: Identity,
    /// The first second, counted from 1970, in which the sender is refused. Long-running answers
    /// end then. `None` if there is no such time.
    pub(crate) ends: Option<i64>,
}

impl Sender {
    /// Returns a sender without a name that has this access.
    pub(crate) fn anonymous(access: Access) -> Self {
        Self {
            access,
            author: None,
            identity: Identity::anonymous(),
            ends: None,
        }
    }
}

/// Returns the name that the audit trail shows for this text: the text itself or, if that is too
/// long for a name, its beginning and a digest of the whole. `None` for a text that is empty or
/// contains NUL.
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

/// Decides who is admitted. Shared by all workers; the keys can be replaced while it is in use.
#[derive(Debug)]
pub struct Authentication {
    /// `None` if no token can be checked. Empty until fetched keys arrive.
    keys: Option<RwLock<Arc<KeySet>>>,
    /// Requests newer keys. `None` if keys are not fetched.
    asking: Option<Asking>,
    /// The number of times the keys were replaced. It makes workers forget tokens that were
    /// verified with older keys.
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
    /// Allows everyone everything. A token is still refused, because its sender believes that
    /// somebody checks it.
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

    /// Admits senders according to `settings`. Without `keys` a token is answered 500 PGRST300.
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

    /// Admits senders according to `settings`, by fetched keys: the holder of the returned requests
    /// fetches them and passes them to [`replace_keys`](Self::replace_keys). Until the first keys
    /// arrive, a token is answered 503 WG506.
    #[must_use]
    pub fn with_fetched_keys(settings: AuthenticationSettings) -> (Self, KeyRequests) {
        let (asking, requests) = fetched::channel();
        let mut authentication = Self::new(settings, Some(KeySet::none()));
        authentication.asking = Some(asking);
        (authentication, requests)
    }

    /// Replaces the keys for all tokens, including those that were verified before. Has no effect
    /// if there were no keys from the start.
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

    /// Reports whether tokens can be checked or need not be.
    pub(crate) fn ready(&self) -> Result<(), Refused> {
        let keys = self.keys.as_ref();
        let keys = keys.map(|keys| keys.read().unwrap_or_else(PoisonError::into_inner));
        if keys.is_some_and(|keys| keys.is_empty()) {
            return Err(Refused::KeysUnfetched);
        }
        Ok(())
    }

    /// Reports whether newer keys might admit the sender that was refused. Waits until they have
    /// been looked for.
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

    /// Returns the sender of these headers and what it may do. `now_seconds` is the time since
    /// 1970.
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
        // Read before the keys: at worst a token is checked once more than necessary.
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

/// Reports whether a request carries a token, valid or not.
pub(crate) fn has_token(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION);
    value.and_then(bearer_token).is_some()
}

/// Returns the token of `Bearer TOKEN`, in any capitalisation of the scheme (RFC 9110, 11.1). Other
/// schemes are ignored, because they are for others, such as a proxy.
fn bearer_token(value: &HeaderValue) -> Option<&[u8]> {
    let value = value.as_bytes();
    let end = value.iter().position(|&byte| byte == b' ');
    let (scheme, token) = value.split_at(end.unwrap_or(value.len()));
    scheme
        .eq_ignore_ascii_case(b"bearer")
        .then(|| token.trim_ascii())
}
