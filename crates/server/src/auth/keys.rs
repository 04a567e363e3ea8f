//! The keys that verify tokens: a secret text, a JWK, or a set of them (RFC 7517).

use super::secret::{self, SECRET_BYTES_MIN};
use crate::json::{self, Defect};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey, agree_ephemeral},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
        RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use serde::Deserialize;
use serde_json::Value;
use std::{fmt, ops::RangeInclusive};

/// How many bits the modulus of an RSA key may have, as in the names of the checks below.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// The greatest exponent of an RSA key that the checks accept.
const RSA_EXPONENT_MAX: u64 = (1 << 33) - 1;

/// In a set of at most this many keys, each point is checked. Providers publish a handful, and the
/// points of thousands of keys would take seconds.
const POINTS_CHECKED_MAX: usize = 64;

/// The keys that verify tokens.
pub struct KeySet {
    pub(super) keys: Vec<Key>,
    unusable: usize,
}

/// Why a text contains no usable keys. Never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is too short for a secret.
    #[error("a secret must be at least {SECRET_BYTES_MIN} bytes long, {bytes} bytes were given")]
    Short {
        /// Its length.
        bytes: usize,
    },
    /// It is something that others know.
    #[error("a secret must be known to nobody else, and this looks like {what}")]
    NoSecret {
        /// What it looks like, and where that belongs.
        what: &'static str,
    },
    /// It has too little entropy.
    #[error(
        "a secret must be hard to guess: this one is a repetition, a sequence or made of few \
         different bytes, and carries {bits} bits where {bits_min} are needed; make one with \
         openssl rand -base64 48"
    )]
    Guessable {
        /// The estimated entropy.
        bits: u32,
        /// The required entropy.
        bits_min: u32,
    },
    /// It begins with the byte order mark that some editors write.
    #[error("it begins with a byte order mark (U+FEFF): save it without one")]
    ByteOrderMark,
    /// An object in it names a member twice.
    #[error("it names a member of an object twice")]
    Repeated,
    /// It begins like JSON but is not valid JSON.
    #[error("it begins with \"{{\" and is not JSON: line {line}, column {column}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It is JSON, but neither a key nor a set of keys.
    #[error(
        "it is neither a JWK, which has a member \"kty\", nor a JWKS, which has an array \"keys\""
    )]
    Shape,
    /// None of its keys can verify a signature.
    #[error("none of its {keys} keys can be used: {reason}")]
    Unusable {
        /// The number of keys.
        keys: usize,
        /// What is wrong with the last one.
        reason: String,
    },
}

/// The algorithms that are accepted (RFC 7518, 3.1; RFC 8037, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// One key.
pub(super) struct Key {
    /// `kid`
    id: Option<String>,
    /// `alg`: the only algorithm that the key may be used with. `None` if any that fits.
    algorithm: Option<Algorithm>,
    material: Material,
}

enum Material {
    Secret(Vec<u8>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// Reports whether the key is for tokens with this `alg`. A key is only ever used with
    /// algorithms of its own kind, so a public key is never taken for a secret.
    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm) && self.check(algorithm).is_some()
    }

    const fn is_secret(&self) -> bool {
        matches!(self.material, Material::Secret(_))
    }

    /// Reports whether its point is on its curve. Points of Ed25519 are not checked: the library
    /// examines them only together with a signature.
    fn is_on_its_curve(&self) -> bool {
        let (curve, point) = match &self.material {
            Material::P256(point) => (&ECDH_P256, point),
            Material::P384(point) => (&ECDH_P384, point),
            Material::Secret(_) | Material::Rsa(_) | Material::Ed25519(_) => return true,
        };
        // The library examines a point when it agrees on a secret with the point's owner. Whatever
        // the own key is, it fails only because of the point.
        let Ok(own) = EphemeralPrivateKey::generate(curve, &SystemRandom::new()) else {
            return true;
        };
        let point = agreement::UnparsedPublicKey::new(curve, point);
        agree_ephemeral(own, &point, |_| ()).is_ok()
    }

    /// Reports whether the key made this signature.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let check = self.check(algorithm);
        check.is_some_and(|check| check.passes(message, signature))
    }

    /// Returns how the algorithm verifies with this key, if the two match.
    fn check(&self, algorithm: Algorithm) -> Option<Check<'_>> {
        let rsa = |key, parameters| Some(Check::Rsa(key, parameters));
        match (algorithm, &self.material) {
            (Algorithm::Hs256, Material::Secret(secret)) => {
                Some(Check::Hmac(hmac::HMAC_SHA256, secret))
            }
            (Algorithm::Hs384, Material::Secret(secret)) => {
                Some(Check::Hmac(hmac::HMAC_SHA384, secret))
            }
            (Algorithm::Hs512, Material::Secret(secret)) => {
                Some(Check::Hmac(hmac::HMAC_SHA512, secret))
            }
            (Algorithm::Rs256, Material::Rsa(key)) => rsa(key, &RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::Rs384, Material::Rsa(key)) => rsa(key, &RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::Rs512, Material::Rsa(key)) => rsa(key, &RSA_PKCS1_2048_8192_SHA512),
            (Algorithm::Es256, Material::P256(point)) => Some(Check::Public(
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point),
            )),
            (Algorithm::Es384, Material::P384(point)) => Some(Check::Public(
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point),
            )),
            (Algorithm::EdDsa, Material::Ed25519(point)) => {
                Some(Check::Public(UnparsedPublicKey::new(&ED25519, point)))
            }
            _ => None,
        }
    }
}

enum Check<'a> {
    Hmac(hmac::Algorithm, &'a [u8]),
    Rsa(&'a RsaPublicKeyComponents<Vec<u8>>, &'static RsaParameters),
    Public(UnparsedPublicKey<&'a Vec<u8>>),
}

impl Check<'_> {
    fn passes(self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(algorithm, secret) => {
                let key = hmac::Key::new(algorithm, secret);
                hmac::verify(&key, message, signature).is_ok()
            }
            Self::Rsa(key, parameters) => key.verify(parameters, message, signature).is_ok(),
            Self::Public(key) => key.verify(message, signature).is_ok(),
        }
    }
}

impl KeySet {
    /// Parses a text: a JWK or a JWKS if it begins with `{`, otherwise the secret itself. A set may
    /// contain keys that cannot be used here, such as keys for encryption; they are left out. A
    /// text that cannot be secret is refused.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        if text.starts_with('\u{feff}') {
            return Err(KeySetError::ByteOrderMark);
        }
        if text.trim_ascii_start().starts_with('{') {
            return Self::parse_json(text, true);
        }
        secret::check(text.as_bytes())?;
        let material = Material::Secret(text.into());
        Ok(Self {
            keys: vec![Key {
                id: None,
                algorithm: None,
                material,
            }],
            unusable: 0,
        })
    }

    /// Parses a public JWKS. Secrets in it are left out, because they are no longer secret.
    pub fn parse_public(text: &str) -> Result<Self, KeySetError> {
        if !text.trim_ascii_start().starts_with('{') {
            return Err(KeySetError::Shape);
        }
        Self::parse_json(text, false)
    }

    /// Returns a set without keys.
    pub(super) const fn none() -> Self {
        Self {
            keys: Vec::new(),
            unusable: 0,
        }
    }

    /// Returns the keys that may have signed a token with this `kid` and `alg`. Keys without a
    /// `kid`, such as a plain secret, are candidates for a `kid` that no key has.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let wanted = id.filter(|id| self.knows(id));
        let named = move |key: &&Key| match id {
            None => true,
            Some(_) => key.id.as_deref() == wanted,
        };
        let keys = self.keys.iter().filter(named);
        keys.filter(move |key| key.is_for(algorithm))
    }

    /// Reports whether one of the keys has this `kid`.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    fn parse_json(text: &str, secrets: bool) -> Result<Self, KeySetError> {
        let json = json::parse(text.as_bytes()).map_err(|defect| match defect {
            Defect::Syntax { line, column } => KeySetError::Json { line, column },
            Defect::Repeated(_) => KeySetError::Repeated,
        })?;
        let given = match json.get("keys") {
            Some(Value::Array(keys)) => keys.as_slice(),
            None if json.get("kty").is_some() => std::slice::from_ref(&json),
            _ => return Err(KeySetError::Shape),
        };
        let mut keys = Vec::new();
        let mut reason = "there is none".into();
        let checks_points = given.len() <= POINTS_CHECKED_MAX;
        for each in given {
            match key(each) {
                Ok(key) if !secrets && key.is_secret() => {
                    reason = "a secret that anyone may read is not a secret".into();
                }
                Ok(key) if checks_points && !key.is_on_its_curve() => {
                    reason = "\"x\" and \"y\" are not a point of the curve".into();
                }
                Ok(key) => keys.push(key),
                Err(unusable) => reason = unusable,
            }
        }
        if keys.is_empty() {
            let keys = given.len();
            return Err(KeySetError::Unusable { keys, reason });
        }
        let unusable = given.len() - keys.len();
        Ok(Self { keys, unusable })
    }

    /// Returns the number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Reports whether the set is empty. A set that was parsed never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the number of keys that were left out because they cannot be used here.
    #[must_use]
    pub fn unusable(&self) -> usize {
        self.unusable
    }
}

/// Never shows a key.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.keys.len())
            .field("unusable", &self.unusable)
            .finish()
    }
}

/// The members of a JWK that matter for verifying signatures. Private parts are not even read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Returns the key of a JWK, or why it cannot be used.
fn key(json: &Value) -> Result<Key, String> {
    let jwk =
        Jwk::deserialize(json).map_err(|_| "\"kty\" is missing, or a member is not a string")?;
    if jwk
        .purpose
        .as_deref()
        .is_some_and(|purpose| purpose != "sig")
    {
        return Err("\"use\" is not \"sig\"".into());
    }
    let algorithm = match jwk.alg.as_deref() {
        None => None,
        Some(name) => Some(Algorithm::from_name(name).ok_or("\"alg\" is not supported")?),
    };
    let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("oct", _) => {
            let secret = member("k", jwk.k)?;
            secret::check(&secret).map_err(|error| error.to_string())?;
            Material::Secret(secret)
        }
        ("RSA", _) => {
            let (n, e) = (member("n", jwk.n)?, member("e", jwk.e)?);
            Material::Rsa(rsa(n, e)?)
        }
        ("EC", Some("P-256")) => Material::P256(point(jwk.x, jwk.y, 32)?),
        ("EC", Some("P-384")) => Material::P384(point(jwk.x, jwk.y, 48)?),
        ("OKP", Some("Ed25519")) => match member("x", jwk.x)? {
            x if x.len() == ED25519_BYTES => Material::Ed25519(x),
            _ => return Err(format!("\"x\" must have {ED25519_BYTES} bytes")),
        },
        _ => return Err("\"kty\" with \"crv\" is not supported".into()),
    };
    let key = Key {
        id: jwk.kid,
        algorithm: None,
        material,
    };
    match algorithm {
        Some(algorithm) if key.check(algorithm).is_none() => {
            Err("\"alg\" is for another kind of key".into())
        }
        algorithm => Ok(Key { algorithm, ..key }),
    }
}

fn member(name: &str, value: Option<String>) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("{name:?} is missing"))?;
    URL_SAFE_NO_PAD
        .decode(value.trim_end_matches('='))
        .map_err(|_| format!("{name:?} is not base64url"))
}

/// The length of a public key of Ed25519.
const ED25519_BYTES: usize = 32;

/// Returns an RSA key that the checks of signatures accept. They would refuse any other together
/// with each signature, and nobody would learn why.
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<RsaPublicKeyComponents<Vec<u8>>, String> {
    for (name, number) in [("n", &n), ("e", &e)] {
        if number.first().is_none_or(|&first| first == 0) {
            return Err(format!("{name:?} is empty or begins with a zero byte"));
        }
        if number.last().is_some_and(|last| last % 2 == 0) {
            return Err(format!("{name:?} is not odd"));
        }
    }
    let unused = n.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = n.len() * 8 - unused;
    // The checks count the lower limit in whole bytes.
    if n.len() * 8 < *RSA_BITS.start() || bits > *RSA_BITS.end() {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Err(format!(
            "an RSA key must have {least} to {most} bits, \"n\" has {bits}"
        ));
    }
    let value = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    let is_short = e.len() <= size_of::<u64>();
    if !is_short || !(3..=RSA_EXPONENT_MAX).contains(&e.iter().fold(0, value)) {
        return Err(format!("\"e\" must be 3 to {RSA_EXPONENT_MAX}"));
    }
    Ok(RsaPublicKeyComponents { n, e })
}

/// Returns a point of a curve, uncompressed (SEC 1, 2.3.3).
fn point(x: Option<String>, y: Option<String>, bytes: usize) -> Result<Vec<u8>, String> {
    let (x, y) = (member("x", x)?, member("y", y)?);
    if x.len() != bytes || y.len() != bytes {
        return Err(format!("\"x\" and \"y\" must have {bytes} bytes"));
    }
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_keys_are_reported_without_revealing_them() {
        for (text, error) in [
            (
                "0123456789",
                "a secret must be at least 32 bytes long, 10 bytes were given",
            ),
            (
                "{\"kty\":",
                "it begins with \"{\" and is not JSON: line 1, column 7",
            ),
            (
                "\u{feff}{\"keys\":[]}",
                "it begins with a byte order mark (U+FEFF): save it without one",
            ),
            (
                r#"{"kty":"oct","kty":"RSA"}"#,
                "it names a member of an object twice",
            ),
            (
                r#"[{"kty":"oct"}]"#,
                "a secret must be known to nobody else, and this looks like JSON, but not a JWK, which has \
                 a member \"kty\", nor a JWKS, which is an object with an array \"keys\"",
            ),
            (
                r#"{"kty":"oct","k":"ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg"}"#,
                "none of its 1 keys can be used: a secret must be hard to guess: this one is a repetition, \
                 a sequence or made of few different bytes, and carries 0 bits where 64 are needed; make \
                 one with openssl rand -base64 48",
            ),
            (
                "{}",
                "it is neither a JWK, which has a member \"kty\", nor a JWKS, which has an array \
                 \"keys\"",
            ),
            (
                "{\"keys\":[]}",
                "none of its 0 keys can be used: there is none",
            ),
            (
                r#"{"kty":"oct","k":"c2hvcnQ"}"#,
                "none of its 1 keys can be used: a secret must be at least 32 bytes long, 5 bytes \
                 were given",
            ),
            (
                r#"{"kty":"oct","k":"+/+/"}"#,
                "none of its 1 keys can be used: \"k\" is not base64url",
            ),
            (
                r#"{"kty":"RSA","n":"AQAB","use":"enc"}"#,
                "none of its 1 keys can be used: \"use\" is not \"sig\"",
            ),
            (
                r#"{"kty":"RSA","n":"AQAB"}"#,
                "none of its 1 keys can be used: \"e\" is missing",
            ),
            (
                r#"{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"PS256"}"#,
                "none of its 1 keys can be used: \"alg\" is not supported",
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"JuN_9pgG63ZziDpaN38VS03CB6q8LQF2Id0RZD6CDqg","alg":"HS256"}"#,
                "none of its 1 keys can be used: \"alg\" is for another kind of key",
            ),
            (
                r#"{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB"}"#,
                "none of its 1 keys can be used: \"x\" and \"y\" must have 32 bytes",
            ),
            (
                r#"{"kty":"EC","crv":"P-521","x":"AQAB","y":"AQAB"}"#,
                "none of its 1 keys can be used: \"kty\" with \"crv\" is not supported",
            ),
        ] {
            let given = KeySet::parse(text).map(|keys| keys.len());
            assert_eq!(given.map_err(|error| error.to_string()), Err(error.into()));
        }
        let long = "a secret of more than thirty-two bytes";
        let public = |text: &str| KeySet::parse_public(text).map_err(|error| error.to_string());
        assert_eq!(public(long).err(), Some(KeySetError::Shape.to_string()));
        let secret = r#"{"kty":"oct","k":"YSBzZWNyZXQgb2YgbW9yZSB0aGFuIHRoaXJ0eS10d28gYnl0ZXM"}"#;
        assert!(KeySet::parse(secret).is_ok());
        assert_eq!(
            public(secret).err().as_deref(),
            Some("none of its 1 keys can be used: a secret that anyone may read is not a secret")
        );
        let keys = KeySet::parse(long).expect("long enough");
        assert_eq!(format!("{keys:?}"), "KeySet { keys: 1, unusable: 0 }");
    }

    fn number(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Otherwise each token that such a key signed would be refused as if another key had.
    #[test]
    fn rsa_keys_that_no_signature_is_checked_with_are_refused() {
        let parse = |n: &[u8], e: &[u8]| {
            let (n, e) = (number(n), number(e));
            let keys = KeySet::parse(&format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"}}"#));
            keys.map(|keys| keys.len())
                .map_err(|error| error.to_string())
        };
        let (usual, long) = ([0xff; 256], [&[1][..], &[0xff; 1024]].concat());
        for (n, e) in [
            (&usual[..], &[1, 0, 1][..]),
            (&[0xff; 1024], &[3]),
            // The checks accept 2041 bits as well.
            (
                &[&[1][..], &[0xff; 255]].concat(),
                &[1, 0xff, 0xff, 0xff, 0xff],
            ),
        ] {
            assert_eq!(parse(n, e), Ok(1), "{} bytes, {e:?}", n.len());
        }
        let exponent = "\"e\" must be 3 to 8589934591";
        let even = [&[0xff; 255][..], &[0xfe]].concat();
        let padded = [&[0][..], &usual].concat();
        for (n, e, reason) in [
            (
                &[1, 0, 1][..],
                &[1, 0, 1][..],
                "an RSA key must have 2048 to 8192 bits, \"n\" has 17",
            ),
            (
                &[0xff; 128],
                &[1, 0, 1],
                "an RSA key must have 2048 to 8192 bits, \"n\" has 1024",
            ),
            (
                &long,
                &[1, 0, 1],
                "an RSA key must have 2048 to 8192 bits, \"n\" has 8193",
            ),
            (&even, &[1, 0, 1], "\"n\" is not odd"),
            (
                &padded,
                &[1, 0, 1],
                "\"n\" is empty or begins with a zero byte",
            ),
            (&usual, &[], "\"e\" is empty or begins with a zero byte"),
            (&usual, &[1, 0], "\"e\" is not odd"),
            (&usual, &[1], exponent),
            (&usual, &[2, 0, 0, 0, 1], exponent),
            (&usual, &[1; 9], exponent),
        ] {
            let reason = format!("none of its 1 keys can be used: {reason}");
            assert_eq!(parse(n, e), Err(reason), "{} bytes, {e:?}", n.len());
        }
    }

    #[test]
    fn points_off_their_curve_are_refused() {
        let file: Value =
            serde_json::from_str(include_str!("../../tests/conversations/tokens.json"))
                .expect("JSON");
        let keys = file["jwks"]["keys"].as_array().expect("an array");
        let mut checked = 0;
        for key in keys.iter().filter(|key| key["crv"] != "P-521") {
            let curve = key["crv"].as_str().unwrap_or_default();
            assert!(KeySet::parse(&key.to_string()).is_ok(), "{curve}");
            let mut key = key.clone();
            let reason = match curve {
                "P-256" | "P-384" => {
                    key["y"] = key["x"].clone();
                    "\"x\" and \"y\" are not a point of the curve"
                }
                "Ed25519" => {
                    key["x"] = "AQAB".into();
                    "\"x\" must have 32 bytes"
                }
                _ => continue,
            };
            checked += 1;
            let error = KeySet::parse(&key.to_string()).expect_err(curve);
            let expected = format!("none of its 1 keys can be used: {reason}");
            assert_eq!(error.to_string(), expected, "{curve}");
        }
        assert_eq!(checked, 3);
    }
}
