//! Which client certificates are accepted.
//!
//! An authority counts until its own certificate expires. The library uses only an authority's name
//! and key, so its validity is checked here, at every handshake and whenever somebody asks.

use super::{ClientCertificates, TlsError, certificates};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};
use x509_cert::{Certificate, der::Decode as _};

/// The maximum length of a chain: a client's certificate and the intermediate authorities. No real
/// chain is longer. The client chooses what is in its chain, and finding a path through dozens of
/// certificates that sign each other takes a worker a third of a second.
const CHAIN_MAX: usize = 6;

/// The authorities in a file.
#[derive(Debug)]
pub(super) struct Clients {
    path: String,
    authorities: Vec<Authority>,
    provider: Arc<CryptoProvider>,
    /// Covers all authorities, expired or not.
    all: Arc<dyn ClientCertVerifier>,
    counting: RwLock<Counting>,
}

#[derive(Debug)]
struct Authority {
    anchor: TrustAnchor<'static>,
    /// The last second, counted from 1970, in which it counts. An authority whose expiry cannot be
    /// parsed never expires.
    last: u64,
}

/// The authorities that count, and for how long: from the expiry of one to that of the next.
#[derive(Clone, Debug)]
struct Counting {
    first: u64,
    last: u64,
    expired: usize,
    /// `None` if all have expired.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Clients {
    pub(super) fn load(
        path: &Path,
        wanted: ClientCertificates,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let broken = |what: String| TlsError::File {
            path: path.display().to_string(),
            what,
        };
        let mut roots = RootCertStore::empty();
        let mut lasts = Vec::new();
        for certificate in certificates(path)? {
            lasts.push(last_second(&certificate));
            let added = roots.add(certificate);
            added.map_err(|error| broken(error.to_string()))?;
        }
        let anchors = roots.roots.iter().cloned().zip(lasts);
        let authorities: Vec<_> = anchors
            .map(|(anchor, last)| Authority { anchor, last })
            .collect();
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let builder = match wanted {
            ClientCertificates::Required => builder,
            ClientCertificates::Optional => builder.allow_unauthenticated(),
        };
        let all = builder.build().map_err(|error| broken(error.to_string()))?;
        let counting = Counting {
            first: 0,
            last: end_of(&authorities, 0),
            expired: 0,
            verifier: Some(all.clone()),
        };
        Ok(Self {
            path: path.display().to_string(),
            authorities,
            provider,
            all,
            counting: RwLock::new(counting),
        })
    }

    /// Checks which authorities count now, and logs those that have expired since the last time.
    pub(super) fn look(&self, now: UnixTime) {
        self.counting_at(now.as_secs());
    }

    fn counting_at(&self, now: u64) -> Counting {
        let counts = |counting: &Counting| (counting.first..=counting.last).contains(&now);
        let counting = self.counting.read();
        let counting = counting.unwrap_or_else(PoisonError::into_inner).clone();
        if counts(&counting) {
            return counting;
        }
        let mut counting = self
            .counting
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been first.
        if !counts(&counting) {
            let before = counting.expired;
            *counting = self.count(now);
            if counting.expired > before {
                self.tell(counting.expired);
            }
        }
        counting.clone()
    }

    fn count(&self, now: u64) -> Counting {
        let is_expired = |authority: &&Authority| authority.last < now;
        let ended = self.authorities.iter().filter(is_expired);
        let expired = ended.clone().count();
        let verifier = match expired {
            0 => Ok(Some(self.all.clone())),
            _ => self.verifier_at(now),
        };
        Counting {
            first: ended.map(|each| each.last).max().map_or(0, |last| last + 1),
            last: end_of(&self.authorities, now),
            expired,
            verifier: verifier.unwrap_or_else(|error| {
                tracing::error!(%error, path = self.path, "the authorities cannot be used: no client's certificate is accepted");
                None
            }),
        }
    }

    /// Returns the verifier for the authorities that count.
    fn verifier_at(
        &self,
        now: u64,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, VerifierBuilderError> {
        let counting = self.authorities.iter().filter(|each| each.last >= now);
        let roots = RootCertStore {
            roots: counting.map(|each| each.anchor.clone()).collect(),
        };
        if roots.is_empty() {
            return Ok(None);
        }
        let provider = self.provider.clone();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
        verifier.map(Some)
    }

    fn tell(&self, expired: usize) {
        let (path, all) = (&self.path, self.authorities.len());
        if expired == all {
            tracing::error!(
                path,
                "every authority of http.tls_client_ca has expired: no client's certificate is accepted"
            );
        } else {
            tracing::warn!(
                path,
                expired,
                all,
                "authorities of http.tls_client_ca have expired: certificates of theirs are not accepted"
            );
        }
    }
}

/// Returns the last second in which all authorities that have not expired yet still count.
fn end_of(authorities: &[Authority], now: u64) -> u64 {
    let lasts = authorities.iter().map(|authority| authority.last);
    lasts.filter(|last| *last >= now).min().unwrap_or(u64::MAX)
}

fn last_second(certificate: &CertificateDer<'_>) -> u64 {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return u64::MAX;
    };
    let validity = certificate.tbs_certificate.validity;
    validity.not_after.to_unix_duration().as_secs()
}

impl ClientCertVerifier for Clients {
    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if between.len() >= CHAIN_MAX {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        match self.counting_at(now.as_secs()).verifier {
            Some(verifier) => verifier.verify_client_cert(own, between, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn offer_client_auth(&self) -> bool {
        self.all.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.all.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.all.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.all.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.all.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.all.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    use rustls::crypto::ring;
    use std::time::Duration;

    /// Returns an authority that expires at the end of this year, in PEM, and a client certificate
    /// from it that remains valid.
    fn authority(year: i32) -> (String, CertificateDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year + 1, 1, 1);
        let name = format!("until {year}");
        let name = (rcgen::DnType::CommonName, name);
        params.distinguished_name.push(name.0, name.1);
        let certificate = params.self_signed(&key).expect("signed");
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let client = CertificateParams::new(vec!["client".into()]).expect("a name");
        let client = client.signed_by(&key, &issuer).expect("signed");
        (certificate.pem(), client.der().clone())
    }

    /// Returns a time near the middle of a year.
    fn time(year: u64) -> UnixTime {
        let days = (year - 1970) * 365 + (year - 1969) / 4 + 180;
        UnixTime::since_unix_epoch(Duration::from_hours(24 * days))
    }

    #[test]
    fn a_client_certificate_authority_is_trusted_until_it_expires() {
        let (first, of_first) = authority(2030);
        let (second, of_second) = authority(2040);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, first + &second).expect("written");
        for wanted in [ClientCertificates::Required, ClientCertificates::Optional] {
            let provider = Arc::new(ring::default_provider());
            let clients = Clients::load(&path, wanted, provider).expect("loaded");
            // The clock may also go backwards.
            for (year, first, second) in [
                (2029, true, true),
                (2030, true, true),
                (2031, false, true),
                (2040, false, true),
                (2041, false, false),
                (2035, false, true),
                (2025, true, true),
                (2090, false, false),
            ] {
                for (own, accepted) in [(&of_first, first), (&of_second, second)] {
                    let verified = clients.verify_client_cert(own, &[], time(year));
                    assert_eq!(verified.is_ok(), accepted, "{year} {verified:?}");
                }
            }
            let required = wanted == ClientCertificates::Required;
            assert_eq!(clients.client_auth_mandatory(), required);
        }
    }

    #[test]
    fn a_certificate_authority_is_trusted_through_its_last_second() {
        let (first, of_first) = authority(2030);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, first).expect("written");
        let provider = Arc::new(ring::default_provider());
        let clients = Clients::load(&path, ClientCertificates::Required, provider);
        let clients = clients.expect("loaded");
        // The beginning of 2031.
        let last = 1_924_992_000;
        for (seconds, accepted) in [(last, true), (last + 1, false), (last, true)] {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let verified = clients.verify_client_cert(&of_first, &[], now);
            assert_eq!(verified.is_ok(), accepted, "{verified:?}");
        }
    }
}
