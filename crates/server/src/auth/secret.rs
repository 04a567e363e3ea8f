//! Checks whether a text can be a secret at all.
//!
//! If a public key, a certificate or the address of a key set is configured in place of a secret,
//! everybody knows the secret, and anybody can sign tokens of any role. So texts that look like one
//! of these are refused, and so are texts that anybody could guess.

use super::KeySetError;
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::de::IgnoredAny;

/// A shorter secret could be guessed (RFC 7518, 3.2).
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// The entropy that a secret must have, by a generous estimate. 32 random digits have about 100
/// bits.
const SECRET_BITS_MIN: u32 = 64;

/// Refuses a text that cannot be a secret. Never quotes it.
pub(super) fn check(secret: &[u8]) -> Result<(), KeySetError> {
    let what = match std::str::from_utf8(secret) {
        Ok(text) => kind(text.trim()),
        Err(_) => is_der(secret).then_some(DER),
    };
    if let Some(what) = what {
        return Err(KeySetError::NoSecret { what });
    }
    if is_example(secret) {
        let what = "an example from documentation";
        return Err(KeySetError::NoSecret { what });
    }
    let bytes = secret.len();
    if bytes < SECRET_BYTES_MIN {
        return Err(KeySetError::Short { bytes });
    }
    let bits = bits(secret);
    if bits < SECRET_BITS_MIN {
        return Err(KeySetError::Guessable {
            bits,
            bits_min: SECRET_BITS_MIN,
        });
    }
    Ok(())
}

/// Secrets from published documentation, reduced to letters and digits: PostgREST's, Supabase's,
/// jwt.io's, the secret of RFC 7515, A.1, and the words that such examples are made of.
const EXAMPLES: &[&str] = &[
    "reallyreallyreallyreallyverysafe",
    "supersecretjwttokenwithatleast32characterslong",
    "stringsecretatleast256bitslong",
    "validstringsecretthatisatleast384bits",
    "validstringsecretthatisatleast512bits",
    "your256bitsecret",
    "your384bitsecret",
    "your512bitsecret",
    "atleast32characters",
    "atleast32chars",
    "atleast256bits",
    "supersecret",
    "yoursecret",
    "mysecret",
    "secretkey",
    "changeme",
    "changethis",
    "replaceme",
    "aym1sysppbyfdfgzld3umj1qzkobwvmkoqqestjqlrt1qs0gzh75aktmn3yj0ips4hcguutwjazzr1z9caow",
];

/// The secret of RFC 7515, A.1, as a JWK encodes it: in bytes.
const EXAMPLE_BYTES: &[u8] = &[
    3, 35, 53, 75, 43, 15, 165, 188, 131, 126, 6, 101, 119, 123, 166, 143, 90, 179, 40, 230, 240,
    84, 201, 40, 169, 15, 132, 178, 210, 80, 46, 191, 211, 251, 90, 146, 210, 6, 71, 239, 150, 138,
    180, 195, 119, 98, 61, 34, 61, 46, 33, 114, 5, 46, 79, 8, 192, 205, 154, 245, 103, 208, 128,
    163,
];

/// Reports whether the secret is published, however it is written and whatever was added to it.
fn is_example(secret: &[u8]) -> bool {
    let letters = secret.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let letters: Vec<u8> = letters.map(u8::to_ascii_lowercase).collect();
    let known = |example: &&str| {
        letters
            .windows(example.len())
            .any(|part| part == example.as_bytes())
    };
    secret == EXAMPLE_BYTES || EXAMPLES.iter().any(known)
}

const DER: &str = "a key or a certificate in DER: give a key as a JWK or a JWKS";

/// Returns what a text is, if it is certainly something that others know.
fn kind(text: &str) -> Option<&'static str> {
    let is_ssh = |text: &str| {
        let name = text.split(' ').next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
        text.contains(' ') && known.iter().any(|known| name.starts_with(known))
    };
    if text.contains("-----BEGIN") {
        Some("a key or a certificate in PEM: give a key as a JWK or a JWKS")
    } else if is_ssh(text) {
        Some("a key of OpenSSH: give a key as a JWK or a JWKS")
    } else if is_url(text) {
        Some(
            "a URL: give the URL of a JWKS as auth.jwks_url, and the path of a file as \
             auth.jwt_secret_file",
        )
    } else if is_json(text) {
        Some(
            "JSON, but not a JWK, which has a member \"kty\", nor a JWKS, which is an object with an array \"keys\"",
        )
    } else if is_token(text) {
        Some("a token, not a key that tokens are signed with")
    } else if is_der_in_text(text) {
        Some(DER)
    } else {
        None
    }
}

/// Reports whether the text is a scheme and the rest of a URL (RFC 3986, 3.1).
fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let begins = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
        begins && scheme.bytes().all(allowed) && !rest.is_empty()
    })
}

/// Reports whether the text is JSON, whole or cut off. A number is taken for a secret, because it
/// is nothing that others know.
fn is_json(text: &str) -> bool {
    let opened = text.strip_prefix(['[', '{']).unwrap_or_default();
    let inside = opened.trim_start().starts_with(['{', '[', '"', ']', '}']);
    let number = text.parse::<f64>().is_ok();
    let whole = || serde_json::from_str::<IgnoredAny>(text).is_ok();
    inside || text.contains("\"kty\"") || !number && whole()
}

/// Reports whether the text is three parts of base64url, of which the first is a JSON object.
fn is_token(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte);
    parts.len() == 3
        && text.starts_with("eyJ")
        && parts.iter().all(|part| part.bytes().all(allowed))
}

/// Reports whether the text is DER in base64, as PEM has it between its lines, or in hexadecimal.
fn is_der_in_text(text: &str) -> bool {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let alphabets = [base64::alphabet::STANDARD, base64::alphabet::URL_SAFE];
    let in_base64 = alphabets.iter().any(|alphabet| {
        let decoded = GeneralPurpose::new(alphabet, config).decode(&text);
        decoded.is_ok_and(|bytes| is_der(&bytes))
    });
    in_base64 || hexadecimal(&text).is_some_and(|bytes| is_der(&bytes))
}

fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = text.chunks(2).map(|pair| {
        let [high, low] = pair else { return None };
        u8::try_from(digit(high)? * 16 + digit(low)?).ok()
    });
    pairs.collect()
}

/// Reports whether the bytes are a sequence of elements that begins with a number or a sequence,
/// like every key and certificate (X.690, 8.1).
///
/// The elements are looked at too, because one random secret in 65,536 has a first byte and a
/// length like these by chance.
fn is_der(bytes: &[u8]) -> bool {
    let Some((SEQUENCE, mut rest, [])) = element(bytes) else {
        return false;
    };
    if !rest.starts_with(&[SEQUENCE]) && !rest.starts_with(&[INTEGER]) {
        return false;
    }
    while let Some((_, _, after)) = element(rest) {
        rest = after;
    }
    rest.is_empty()
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;

/// Takes the first element of DER: its tag, its content and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = bytes else {
        return None;
    };
    // Either the length itself, or the number of bytes that it takes.
    let (length, rest) = if let 0..0x80 = length {
        (usize::from(*length), rest)
    } else {
        let count = usize::from(length & 0x7f);
        if count > size_of::<u32>() {
            return None;
        }
        let (length, rest) = rest.split_at_checked(count)?;
        let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        (length.iter().fold(0, add), rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

/// Estimates how many bits of entropy a text has at most, if it is neither a repetition nor a
/// sequence, by the distribution of its bytes and of the steps from one to the next.
fn bits(secret: &[u8]) -> u32 {
    let unit = &secret[..period(secret)];
    let steps = unit.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let each = entropy(unit.iter().copied()).min(entropy(steps));
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, of at most 8 bits a byte"
    )]
    let bits = (each * unit.len() as f64).min(f64::from(u32::MAX)) as u32;
    bits
}

/// Returns the bits per value, by how often each occurs (Shannon).
fn entropy(values: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0_u32; 256];
    for value in values {
        counts[usize::from(value)] = counts[usize::from(value)].saturating_add(1);
    }
    let total: f64 = counts.iter().copied().map(f64::from).sum();
    let share = |count: &u32| f64::from(*count) / total;
    let present = counts.iter().filter(|count| **count > 0);
    present.map(share).map(|share| -share * share.log2()).sum()
}

/// Returns the length of the shortest prefix of which the text is a repetition, the last one
/// perhaps cut off (Knuth, Morris and Pratt).
fn period(text: &[u8]) -> usize {
    let mut borders = vec![0; text.len()];
    let mut border = 0;
    for end in 1..text.len() {
        while border > 0 && text[end] != text[border] {
            border = borders[border - 1];
        }
        if text[end] == text[border] {
            border += 1;
        }
        borders[end] = border;
    }
    text.len() - border
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[test]
    fn keys_tokens_urls_and_json_are_refused_as_secrets() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/conversations/tokens.json"))
                .expect("JSON");
        let set = file["jwks"].to_string();
        let keys = file["jwks"]["keys"].to_string();
        let quoted = serde_json::Value::String(set.clone()).to_string();
        let token = file["tokens"]["RS256"].as_str().expect("a token");
        let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----";
        // A public key of P-256, made by `openssl ec -pubout`.
        let der = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELO+UDWg+WkP6gXzKd5+69CVrEIxoak0i\n\
                   FR3ARKPuqKo6xQG5qN3TmfHcdPkGthXQGMsWp8MR3eDMjO0EUQhTbQ==";
        let url_safe = der
            .replace('+', "-")
            .replace('/', "_")
            .replace(['\n', '='], "");
        let engine = base64::engine::general_purpose::STANDARD;
        let bytes = engine.decode(der.replace('\n', "")).expect("base64");
        let in_hexadecimal = bytes
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert!(check(&bytes).is_err_and(|error| error.to_string().contains("DER")));
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICbjf/aYBut2c4g6Wjd/FUtNwgeqvC0BdiHdEWQ+gg6o me@host";
        for (text, what) in [
            (pem, "PEM"),
            (&format!("  {pem}"), "PEM"),
            ("key: -----BEGIN CERTIFICATE-----", "PEM"),
            (der, "DER"),
            (&url_safe, "DER"),
            (&in_hexadecimal, "DER"),
            (ssh, "OpenSSH"),
            (&keys, "JSON"),
            (&quoted, "JSON"),
            (&keys[..keys.len() / 2], "JSON"),
            ("[]", "JSON"),
            ("\"a secret of more than thirty-two bytes\"", "JSON"),
            ("'{\"kty\":\"oct\",\"k\":\"…\"}' and something more", "JSON"),
            ("https://login.example.org/.well-known/jwks.json", "URL"),
            ("file:///etc/widgets/public.jwk.of.the.provider", "URL"),
            (token, "a token"),
        ] {
            let error = check(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(what), "{text}: {error}");
            for word in text.split(|each: char| !each.is_alphanumeric()) {
                assert!(
                    word.len() < 12 || !error.contains(word),
                    "{error} shows {word}"
                );
            }
        }
    }

    /// The first two bytes of each secret are the DER header of a sequence of just its length.
    #[test]
    fn random_secrets_that_begin_like_der_are_accepted() {
        for seed in 0..=u8::MAX {
            let scattered = (0..30_u8).map(|each| each.wrapping_mul(89).wrapping_add(seed) ^ 0xa5);
            let bytes: Vec<u8> = [SEQUENCE, 30].into_iter().chain(scattered).collect();
            assert_eq!(check(&bytes), Ok(()), "{bytes:02x?}");
        }
    }

    #[test]
    fn guessable_secrets_are_refused() {
        for text in [
            &" ".repeat(33),
            "passwordpasswordpasswordpassword",
            "12345678901234567890123456789012",
            "abcdefghijklmnopqrstuvwxyz012345",
            "zyxwvutsrqponmlkjihgfedcba9876543",
            "00000000000000000000000000000000001",
            &"ab".repeat(1000),
        ] {
            let error = check(text.as_bytes()).expect_err(text);
            assert!(
                matches!(error, KeySetError::Guessable { .. }),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn secrets_from_documentation_are_refused() {
        for text in [
            "reallyreallyreallyreallyverysafe",
            "REALLYREALLYREALLYREALLYVERYSAFE123",
            "super-secret-jwt-token-with-at-least-32-characters-long",
            "your-super-secret-jwt-token-with-at-least-32-characters-long",
            "a-string-secret-at-least-256-bits-long",
            "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
            "please change me before going live, really!",
            "AyM1SysPpbyfDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        ] {
            let error = check(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains("an example"), "{text}: {error}");
        }
        assert!(check(EXAMPLE_BYTES).is_err());
    }

    proptest! {
        /// Texts of a random generator are always accepted.
        #[test]
        fn random_secrets_are_accepted(
            digits in "[0-9]{40}",
            hexadecimal in "[0-9a-f]{32}",
            base64 in "[A-Za-z0-9+/]{43}=",
            printable in "[!-~]{32}",
            bytes in vec(any::<u8>(), 32..=64),
        ) {
            for text in [digits, hexadecimal, base64, printable] {
                // A random text can look like something else, such as a URL, but rarely does.
                prop_assume!(kind(&text).is_none());
                prop_assert_eq!(check(text.as_bytes()), Ok(()), "{}", text);
            }
            prop_assume!(bits(&bytes) > 100);
            prop_assert_eq!(check(&bytes), Ok(()));
        }

        #[test]
        fn a_text_repeats_after_its_period(unit in vec(0..3_u8, 1..8), length in 1..40_usize) {
            let text: Vec<u8> = unit.iter().copied().cycle().take(length).collect();
            let period = period(&text);
            prop_assert!(period <= unit.len().max(1).min(length.max(1)));
            prop_assert!(text.iter().zip(&text[period..]).all(|(one, other)| one == other));
        }
    }
}
