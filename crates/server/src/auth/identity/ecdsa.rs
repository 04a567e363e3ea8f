//! The two forms of an ECDSA signature: if (r, s) is one, (r, n - s) is another signature of the
//! same text by the same key, and whoever has the first can compute the second.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// The order of P-256, according to SEC 2.
const P256: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The order of P-384.
const P384: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf,
    0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// Returns the token with the lesser s, if it has the greater one.
pub(super) fn lesser(token: &[u8]) -> Option<Vec<u8>> {
    let header = token.split(|&byte| byte == b'.').next()?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let order: &[u8] = match header.get("alg")?.as_str()? {
        "ES256" => &P256,
        "ES384" => &P384,
        _ => return None,
    };
    let dot = token.iter().rposition(|&byte| byte == b'.')?;
    let (signed, signature) = token.split_at(dot + 1);
    let mut signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    if signature.len() != 2 * order.len() {
        return None;
    }
    let s = &mut signature[order.len()..];
    let other = difference(order, s)?;
    if other.as_slice() >= &*s {
        return None;
    }
    s.copy_from_slice(&other);
    let mut lesser = signed.to_vec();
    lesser.extend_from_slice(URL_SAFE_NO_PAD.encode(signature).as_bytes());
    Some(lesser)
}

/// Returns `one - other`, both of the same length, unless it is negative.
fn difference(one: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut difference = vec![0; one.len()];
    let mut borrowed = false;
    for (at, byte) in difference.iter_mut().enumerate().rev() {
        let (less, first) = one[at].overflowing_sub(other[at]);
        let (less, second) = less.overflowing_sub(borrowed.into());
        (*byte, borrowed) = (less, first || second);
    }
    (!borrowed).then_some(difference)
}
