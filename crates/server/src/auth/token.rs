//! Verifies a token's signature (JWS compact serialisation, RFC 7515).

use super::{
    Claim, Refused, TokenFault,
    claims::Claims,
    keys::{Algorithm, KeySet},
};
use crate::json::{self, Defect};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

/// base64url. PostgREST accepts tokens with and without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

struct Header {
    algorithm: String,
    key: Option<String>,
}

/// Returns the header of a token. It is refused if a member is given twice, because parsers read
/// that differently (RFC 7515, 4).
fn header(json: &[u8]) -> Option<Header> {
    let Ok(Value::Object(mut members)) = json::parse(json) else {
        return None;
    };
    // Extensions that must be understood (RFC 7515, 4.1.11). This service understands none.
    if members.contains_key("crit") {
        return None;
    }
    let Some(Value::String(algorithm)) = members.remove("alg") else {
        return None;
    };
    let key = match members.remove("kid") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return None,
    };
    Some(Header { algorithm, key })
}

/// Returns the claims of a token that one of the keys has signed. The claims themselves are not
/// checked.
pub(super) fn verified_claims(token: &[u8], keys: &KeySet) -> Result<Claims, Refused> {
    if token.is_empty() {
        return Err(TokenFault::Empty.into());
    }
    let mut parts = token.split(|&byte| byte == b'.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        let parts = token.split(|&byte| byte == b'.').count();
        return Err(TokenFault::Parts(parts).into());
    };
    let message = &token[..header.len() + 1 + claims.len()];
    let decode = |part| BASE64URL.decode(part).map_err(|_| TokenFault::Unreadable);
    let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
    let Header { algorithm, key } = self::header(&header).ok_or(TokenFault::Unreadable)?;
    let algorithm = Algorithm::from_name(&algorithm).ok_or(TokenFault::Algorithm {
        unsecured: algorithm == "none",
    })?;
    let id = key.as_deref();
    let mut tried = false;
    for key in keys.candidates(id, algorithm) {
        if key.verifies(algorithm, message, &signature) {
            return match json::parse(&claims) {
                Ok(Value::Object(claims)) => Ok(claims),
                Err(Defect::Repeated(_)) => Err(Claim::Repeated.into()),
                _ => Err(Claim::Unreadable.into()),
            };
        }
        tried = true;
    }
    Err(match id {
        // Newer keys may have it.
        Some(id) if !keys.knows(id) => TokenFault::KeyUnknown,
        _ if tried => TokenFault::Signature,
        _ => TokenFault::NoKey,
    }
    .into())
}
