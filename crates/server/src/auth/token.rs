//! Checking a token's signature (JWS compact serialisation, RFC 7515).

use super::{
    Claim, Refused, TokenFault,
    claims::Claims,
    keys::{Algorithm, KeySet},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

/// base64url; PostgREST takes tokens with and without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, 4.1.11). None is.
    crit: Option<serde_json::Value>,
}

/// The claims of a token that one of the keys has signed. Whether they hold is not checked.
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
    let header: Header = serde_json::from_slice(&header).map_err(|_| TokenFault::Unreadable)?;
    if header.crit.is_some() {
        return Err(TokenFault::Unreadable.into());
    }
    let algorithm = Algorithm::from_name(&header.alg).ok_or(TokenFault::Algorithm {
        unsecured: header.alg == "none",
    })?;
    let mut fault = match header.kid.as_deref() {
        Some(id) if !keys.knows(id) => TokenFault::KeyUnknown,
        _ => TokenFault::NoKey,
    };
    for key in &keys.keys {
        if key.is_for(header.kid.as_deref(), algorithm) {
            if key.verifies(algorithm, message, &signature) {
                return serde_json::from_slice(&claims).map_err(|_| Claim::Unreadable.into());
            }
            fault = TokenFault::Signature;
        }
    }
    Err(fault.into())
}
