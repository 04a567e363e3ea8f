//! A token's claims: its lifetime, its audience, its role.

use super::{Claim, Identity};
use serde_json::{Map, Value};
use widgets_registry::Author;

pub(super) type Claims = Map<String, Value>;

/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY_SECONDS: i64 = 30;

/// When a token is valid, in seconds since 1970 (RFC 7519, 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    expires: Option<i64>,
    not_before: Option<i64>,
    issued_at: Option<i64>,
}

impl Lifetime {
    /// Returns the lifetime that a token claims, if it is valid now. The error is the first one in
    /// the order `exp`, `nbf`, `iat`.
    pub(super) fn current(claims: &Claims, now_seconds: i64) -> Result<Self, Claim> {
        let mut lifetime = Self {
            expires: None,
            not_before: None,
            issued_at: None,
        };
        lifetime.expires = seconds(claims, "exp")?;
        lifetime.check(now_seconds)?;
        lifetime.not_before = seconds(claims, "nbf")?;
        lifetime.check(now_seconds)?;
        lifetime.issued_at = seconds(claims, "iat")?;
        lifetime.check(now_seconds)?;
        Ok(lifetime)
    }

    /// Returns the first second, counted from 1970, in which the token is refused, if there is one.
    pub(super) fn ends(self) -> Option<i64> {
        let last = self.expires?.saturating_add(LEEWAY_SECONDS);
        Some(last.saturating_add(1))
    }

    /// Checks that the token is valid now.
    pub(super) fn check(self, now_seconds: i64) -> Result<(), Claim> {
        let earliest = now_seconds.saturating_sub(LEEWAY_SECONDS);
        let latest = now_seconds.saturating_add(LEEWAY_SECONDS);
        if self.expires.is_some_and(|expires| expires < earliest) {
            return Err(Claim::Expired);
        }
        if self.not_before.is_some_and(|start| start > latest) {
            return Err(Claim::NotYetValid);
        }
        if self.issued_at.is_some_and(|issued| issued > latest) {
            return Err(Claim::IssuedAtFuture);
        }
        Ok(())
    }
}

/// Returns a time, which may have a fraction. If the claim is missing or null, there is no limit.
fn seconds(claims: &Claims, name: &'static str) -> Result<Option<i64>, Claim> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            if let Some(seconds) = number.as_i64() {
                return Ok(Some(seconds));
            }
            let seconds = number.as_f64().ok_or(Claim::NotNumber(name))?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a cast from a float saturates, and a time at either end is as good as none"
            )]
            Ok(Some(seconds.floor() as i64))
        }
        Some(_) => Err(Claim::NotNumber(name)),
    }
}

/// Checks that the token is for this service, if an audience is configured.
pub(super) fn check_audience(claims: &Claims, audience: Option<&str>) -> Result<(), Claim> {
    let is_ours = |given: &Value| match (given, audience) {
        (Value::String(_), None) => Ok(true),
        (Value::String(given), Some(audience)) => Ok(given == audience),
        _ => Err(Claim::AudienceType),
    };
    let ours = match claims.get("aud") {
        None | Some(Value::Null) => audience.is_none(),
        Some(Value::Array(given)) => {
            let mut any = given.is_empty() && audience.is_none();
            for each in given {
                any |= is_ours(each)?;
            }
            any
        }
        Some(given) => is_ours(given)?,
    };
    if ours { Ok(()) } else { Err(Claim::Audience) }
}

/// Checks that the token is from the trusted issuer, if one is configured.
pub(super) fn check_issuer(claims: &Claims, issuer: Option<&str>) -> Result<(), Claim> {
    let given = match claims.get("iss") {
        None | Some(Value::Null) => None,
        Some(Value::String(given)) => Some(given.as_str()),
        // Taken as none, it would be the same caller as one that names no issuer.
        Some(_) => return Err(Claim::NotText("iss")),
    };
    match issuer {
        Some(issuer) if given != Some(issuer) => Err(Claim::Issuer),
        _ => Ok(()),
    }
}

/// Checks that these claims are present. A null claim counts as missing.
pub(super) fn check_required(claims: &Claims, required: &[String]) -> Result<(), Claim> {
    let absent = |name: &&String| claims.get(*name).is_none_or(Value::is_null);
    match required.iter().find(absent) {
        Some(name) => Err(Claim::Missing(name.clone())),
        None => Ok(()),
    }
}

/// Returns the subject of a token (RFC 7519, 4.1.2), if it names one.
pub(super) fn subject(claims: &Claims) -> Option<Author> {
    super::author(claims.get("sub")?.as_str()?)
}

/// Returns the identity of a token with these claims.
pub(super) fn identity(claims: &Claims, token: &[u8]) -> Identity {
    let text = |name| claims.get(name).and_then(Value::as_str);
    match text("sub") {
        Some(subject) if !subject.is_empty() => Identity::subject(text("iss"), subject),
        _ => Identity::token(token),
    }
}

/// The place of the role in the claims.
#[derive(Debug)]
pub(super) enum ClaimName {
    Member(String),
    Pointer(String),
}

impl Default for ClaimName {
    fn default() -> Self {
        Self::Member("role".into())
    }
}

impl ClaimName {
    pub(super) fn new(name: String) -> Self {
        if name.starts_with('/') {
            Self::Pointer(name)
        } else {
            Self::Member(name)
        }
    }

    /// Returns the text at this place. Anything else is returned as JSON, as in PostgREST.
    pub(super) fn find(&self, claims: &Claims) -> Option<String> {
        let found = match self {
            Self::Member(name) => claims.get(name),
            Self::Pointer(pointer) => {
                // `Value::pointer` needs a value rather than a map, so the first step is made here.
                let rest = pointer.strip_prefix('/')?;
                let (first, rest) = match rest.find('/') {
                    Some(end) => rest.split_at(end),
                    None => (rest, ""),
                };
                let first = first.replace("~1", "/").replace("~0", "~");
                claims.get(&first)?.pointer(rest)
            }
        };
        found.map(|found| match found {
            Value::String(role) => role.clone(),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        serde_json::from_str(json).expect("an object")
    }

    #[test]
    fn exp_nbf_and_iat_are_checked_with_a_leeway_of_30_seconds() {
        let now = 1_000;
        for (json, outcome) in [
            ("{}", Ok(())),
            (r#"{"exp":null,"nbf":null,"iat":null}"#, Ok(())),
            (r#"{"exp":970}"#, Ok(())),
            (r#"{"exp":970.9}"#, Ok(())),
            (r#"{"exp":969}"#, Err(Claim::Expired)),
            (r#"{"exp":969.9}"#, Err(Claim::Expired)),
            (r#"{"exp":-1}"#, Err(Claim::Expired)),
            (r#"{"exp":1e300}"#, Ok(())),
            (r#"{"exp":18446744073709551615}"#, Ok(())),
            (r#"{"nbf":1030,"iat":1030}"#, Ok(())),
            (r#"{"nbf":1031}"#, Err(Claim::NotYetValid)),
            (r#"{"iat":1031}"#, Err(Claim::IssuedAtFuture)),
            (r#"{"iat":1e300}"#, Err(Claim::IssuedAtFuture)),
            (r#"{"exp":"970"}"#, Err(Claim::NotNumber("exp"))),
            (r#"{"nbf":{}}"#, Err(Claim::NotNumber("nbf"))),
            (r#"{"iat":[1]}"#, Err(Claim::NotNumber("iat"))),
            // The first of several errors, in the order exp, nbf, iat.
            (r#"{"exp":0,"nbf":"","iat":""}"#, Err(Claim::Expired)),
            (r#"{"exp":true,"nbf":9e9}"#, Err(Claim::NotNumber("exp"))),
            (r#"{"nbf":9e9,"iat":9e9}"#, Err(Claim::NotYetValid)),
        ] {
            let checked = Lifetime::current(&claims(json), now);
            assert_eq!(checked.map(|_| ()), outcome, "{json}");
        }
    }

    #[test]
    fn the_audience_claim_must_contain_the_expected_audience() {
        for (json, any, ours) in [
            ("{}", Ok(()), Err(Claim::Audience)),
            (r#"{"aud":null}"#, Ok(()), Err(Claim::Audience)),
            (r#"{"aud":[]}"#, Ok(()), Err(Claim::Audience)),
            (r#"{"aud":"us"}"#, Ok(()), Ok(())),
            (r#"{"aud":["them","us"]}"#, Ok(()), Ok(())),
            (r#"{"aud":"them"}"#, Ok(()), Err(Claim::Audience)),
            (r#"{"aud":["them"]}"#, Ok(()), Err(Claim::Audience)),
            (
                r#"{"aud":5}"#,
                Err(Claim::AudienceType),
                Err(Claim::AudienceType),
            ),
            (
                r#"{"aud":["us",5]}"#,
                Err(Claim::AudienceType),
                Err(Claim::AudienceType),
            ),
        ] {
            let claims = claims(json);
            assert_eq!(check_audience(&claims, None), any, "{json}");
            assert_eq!(check_audience(&claims, Some("us")), ours, "{json}");
        }
    }

    #[test]
    fn the_issuer_claim_must_equal_the_trusted_issuer() {
        for (json, any, ours) in [
            ("{}", Ok(()), Err(Claim::Issuer)),
            (r#"{"iss":null}"#, Ok(()), Err(Claim::Issuer)),
            (r#"{"iss":"US"}"#, Ok(()), Err(Claim::Issuer)),
            (r#"{"iss":"us/"}"#, Ok(()), Err(Claim::Issuer)),
            (r#"{"iss":"us"}"#, Ok(()), Ok(())),
        ] {
            let claims = claims(json);
            assert_eq!(check_issuer(&claims, None), any, "{json}");
            assert_eq!(check_issuer(&claims, Some("us")), ours, "{json}");
        }
        for json in [
            r#"{"iss":["us"]}"#,
            r#"{"iss":5}"#,
            r#"{"iss":{}}"#,
            r#"{"iss":false}"#,
        ] {
            for issuer in [None, Some("us")] {
                let checked = check_issuer(&claims(json), issuer);
                assert_eq!(checked, Err(Claim::NotText("iss")), "{json}");
            }
        }
    }

    #[test]
    fn required_claims_must_be_present() {
        let required = ["exp", "jti"].map(String::from);
        for (json, missing) in [
            (r#"{"exp":1,"jti":""}"#, None),
            (r#"{"exp":1}"#, Some("jti")),
            (r#"{"exp":null,"jti":"a"}"#, Some("exp")),
            ("{}", Some("exp")),
        ] {
            let expected = missing.map_or(Ok(()), |name| Err(Claim::Missing(name.into())));
            assert_eq!(check_required(&claims(json), &required), expected, "{json}");
        }
    }

    #[test]
    fn the_role_claim_is_found_by_name_or_json_pointer() {
        let claims = claims(
            r#"{"role":"a","https://x/role":"b","app":{"roles":["c","d"],"":"e"},"n":7,"t~":"f"}"#,
        );
        for (name, role) in [
            ("role", Some("a")),
            ("https://x/role", Some("b")),
            ("/https:~1~1x~1role", Some("b")),
            ("/app/roles/1", Some("d")),
            ("/app/", Some("e")),
            ("/t~0", Some("f")),
            ("/role", Some("a")),
            ("n", Some("7")),
            ("app.roles", None),
            ("/app/roles/2", None),
            ("/", None),
        ] {
            let found = ClaimName::new(name.into()).find(&claims);
            assert_eq!(found.as_deref(), role, "{name}");
        }
    }
}
