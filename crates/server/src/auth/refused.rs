//! Why a request is refused, in PostgREST's words.

use super::Object;
use crate::Code;
use hyper::header::HeaderValue;
use std::borrow::Cow;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It has a token, but the service has no keys to verify one with.
    NoKeys,
    /// It has a token, but the keys to verify it with have not been fetched yet.
    KeysUnfetched,
    /// No key is known for its token, and too many such requests wait for newer keys already.
    KeysAwaited,
    Token(TokenFault),
    Claim(Claim),
    /// It has no credentials but needs them.
    Anonymous,
    /// No role has the name in the token.
    RoleUnknown(String),
    /// A web page of another site sent it, without a token.
    ForeignPage,
    /// The role may not do this.
    Permission {
        object: Object,
        anonymous: bool,
    },
}

/// What is wrong with a token before any of its claims can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenFault {
    Empty,
    Parts(usize),
    /// It is not a token: not base64url, or not JSON.
    Unreadable,
    /// No key has the token's `kid`.
    KeyUnknown,
    /// No key fits the token's `kid` and `alg`.
    NoKey,
    /// No key that fits the token made its signature.
    Signature,
    /// The algorithm is not accepted.
    Algorithm {
        unsecured: bool,
    },
}

/// What is wrong with a token's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Unreadable,
    /// A claim is given twice.
    Repeated,
    NotNumber(&'static str),
    NotText(&'static str),
    Expired,
    NotYetValid,
    IssuedAtFuture,
    AudienceType,
    Audience,
    /// The issuer is not the trusted one, or is missing.
    Issuer,
    /// This claim is required but missing.
    Missing(String),
}

impl From<TokenFault> for Refused {
    fn from(fault: TokenFault) -> Self {
        Self::Token(fault)
    }
}

impl From<Claim> for Refused {
    fn from(claim: Claim) -> Self {
        Self::Claim(claim)
    }
}

impl Refused {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NoKeys => Code::NoTokenKeys,
            Self::KeysUnfetched | Self::KeysAwaited => Code::KeysUnfetched,
            Self::Token(_) => Code::Token,
            Self::Claim(_) => Code::TokenClaim,
            Self::Anonymous => Code::Anonymous,
            Self::RoleUnknown(_) => Code::RoleUnknown,
            Self::ForeignPage => Code::ForeignPage,
            Self::Permission { anonymous, .. } => {
                if *anonymous {
                    Code::AnonymousPermission
                } else {
                    Code::Permission
                }
            }
        }
    }

    /// Returns message and details.
    pub(crate) fn texts(&self) -> (String, Option<String>) {
        let details = match self {
            Self::Token(fault) => fault.details(),
            Self::Claim(Claim::Repeated) => Some("a claim is given twice"),
            _ => None,
        };
        let message: Cow<'static, str> = match self {
            Self::NoKeys => "Server lacks JWT secret".into(),
            Self::KeysUnfetched => "the keys of auth.jwks_url could not be fetched yet".into(),
            Self::KeysAwaited => "too many requests wait for newer keys of auth.jwks_url".into(),
            Self::Token(fault) => fault.message(),
            Self::Claim(claim) => claim.message(),
            Self::Anonymous => "Anonymous access is disabled".into(),
            Self::ForeignPage => "a web page of another site may not call the service without a \
            token"
                .into(),
            Self::RoleUnknown(role) => format!("role \"{role}\" does not exist").into(),
            Self::Permission { object, .. } => format!("permission denied for {object}").into(),
        };
        (message.into_owned(), details.map(str::to_owned))
    }

    /// Returns what can be done about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        let named = "Send a token, or name the page's origin in http.cors_origins";
        matches!(self, Self::ForeignPage).then_some(named)
    }

    /// Returns the value of `WWW-Authenticate` (RFC 6750, 3), if a token would help.
    pub(crate) fn challenge(&self) -> Option<HeaderValue> {
        let message = match self {
            Self::Token(fault) => fault.message(),
            Self::Claim(claim) => claim.message(),
            _ if self.code().status() == hyper::StatusCode::UNAUTHORIZED => {
                return Some(HeaderValue::from_static("Bearer"));
            }
            _ => return None,
        };
        // Only the name of a claim can contain characters that are not allowed here (RFC 6750, 3).
        let allowed = |each: char| matches!(each, ' '..='~') && each != '"' && each != '\\';
        let message = message.replace(|each| !allowed(each), "?");
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{message}\"");
        HeaderValue::try_from(challenge).ok()
    }
}

impl TokenFault {
    fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Empty => "Empty JWT is sent in Authorization header".into(),
            Self::Parts(parts) => format!("Expected 3 parts in JWT; got {parts}").into(),
            Self::Unreadable => "JWT cryptographic operation failed".into(),
            Self::KeyUnknown | Self::NoKey | Self::Signature => {
                "No suitable key or wrong key type".into()
            }
            Self::Algorithm { .. } => "Wrong or unsupported encoding algorithm".into(),
        }
    }

    fn details(&self) -> Option<&'static str> {
        match self {
            Self::KeyUnknown | Self::NoKey => Some("No suitable key was found to decode the JWT"),
            Self::Signature => Some("None of the keys was able to decode the JWT"),
            Self::Algorithm { unsecured: true } => {
                Some("JWT is unsecured but expected 'alg' was not 'none'")
            }
            Self::Algorithm { unsecured: false }
            | Self::Empty
            | Self::Parts(_)
            | Self::Unreadable => None,
        }
    }
}

impl Claim {
    fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Unreadable | Self::Repeated => "Parsing claims failed".into(),
            Self::NotNumber(name) => format!("The JWT '{name}' claim must be a number").into(),
            Self::NotText(name) => format!("The JWT '{name}' claim must be a string").into(),
            Self::Expired => "JWT expired".into(),
            Self::NotYetValid => "JWT not yet valid".into(),
            Self::IssuedAtFuture => "JWT issued at future".into(),
            Self::AudienceType => {
                "The JWT 'aud' claim must be a string or an array of strings".into()
            }
            Self::Audience => "JWT not in audience".into(),
            Self::Issuer => "JWT not from the trusted issuer".into(),
            Self::Missing(name) => format!("The JWT '{name}' claim must be there").into(),
        }
    }
}
