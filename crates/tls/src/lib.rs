//! Whom our own clients trust when they use TLS: the PostgreSQL store and the load generator alike.
//!
//! There is one way to trust certain certificates and one way to trust anyone. The crate
//! deliberately knows no protocol above TLS, and nothing about servers.

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, WantsVerifier,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use widgets_files::{read_authorities, read_file};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of certificates cannot be used.
    #[error("the certificates in {}: {defect}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        defect: String,
    },
    /// The system provides no trusted certificates.
    #[error("the system has no trusted certificates")]
    System,
    /// The cryptography library supports no safe version of TLS.
    #[error("setting TLS up: {0}")]
    Versions(rustls::Error),
}

/// Returns the text of a connection error with all its causes, which the libraries' own texts omit.
#[must_use]
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut all = text(error);
    let mut next = error.source();
    while let Some(cause) = next {
        all = format!("{all}: {}", text(cause));
        next = cause.source();
    }
    all
}

/// The library's name for the rule that an authority's certificate is not a server's own. It shows
/// nothing else.
const AUTHORITY_AS_SERVER: &str = "CaUsedAsEndEntity";

/// Returns the text of an error without its causes. If a server presents the certificate of an
/// authority, which is how openssl makes a self-signed one, the text says so and what to do.
#[must_use]
pub fn text(error: &(dyn std::error::Error + 'static)) -> String {
    // An error of a stream contains that of TLS, which is not its cause.
    let inside = error.downcast_ref().and_then(io::Error::get_ref);
    let tls = match inside {
        Some(inside) => inside.downcast_ref(),
        None => error.downcast_ref(),
    };
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(rule)))
            if rule.to_string() == AUTHORITY_AS_SERVER =>
        {
            "invalid peer certificate: it is that of an authority (CA:TRUE, as `openssl req -x509` \
             makes it), which cannot be the server's own: issue one for the server with \
             basicConstraints CA:FALSE"
                .into()
        }
        _ => error.to_string(),
    }
}

/// Reads the certificates to trust from a PEM file; there must be at least one.
pub fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let failed = |defect: String| Error::Certificates {
        path: path.into(),
        defect,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| failed(error.to_string()))?;
    }
    Ok(roots)
}

/// Reads the same as plain certificates, for a client that makes its own configuration.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |defect: String| Error::Certificates {
        path: path.into(),
        defect,
    };
    let text = read_authorities(path).map_err(|error| failed(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("there are none".into()));
    }
    Ok(certificates)
}

/// Returns the certificates that the operating system trusts, or those that `SSL_CERT_FILE` names.
pub fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_certificates()?);
    if roots.is_empty() {
        return Err(Error::System);
    }
    Ok(roots)
}

/// Returns the same as plain certificates.
pub fn system_certificates() -> Result<Vec<CertificateDer<'static>>, Error> {
    // Some may be unreadable; the rest are still useful.
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return Err(Error::System);
    }
    Ok(found)
}

/// Trusts a server whose certificate is signed by one of these roots and matches its name.
pub fn verified(roots: RootCertStore) -> Result<ClientConfig, Error> {
    let (builder, _) = builder()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Does the same, and presents a client certificate from PEM files: one with the certificate and
/// its intermediate authorities, one with its key.
pub fn certified(
    roots: RootCertStore,
    certificate: &Path,
    key: &Path,
) -> Result<ClientConfig, Error> {
    let failed = |path: &Path, defect: String| Error::Certificates {
        path: path.into(),
        defect,
    };
    let text = read_file(certificate).map_err(|error| failed(certificate, error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(certificate, error.to_string()))?;
    let text = read_file(key).map_err(|error| failed(key, error.to_string()))?;
    let private =
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| failed(key, error.to_string()))?;
    let (builder, _) = builder()?;
    builder
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private)
        .map_err(|error| failed(certificate, error.to_string()))
}

/// Encrypts without verifying the peer: this protects against eavesdroppers but not against
/// impostors. The peer holds the key of the certificate that it presents, which may be anyone's.
pub fn unverified() -> Result<ClientConfig, Error> {
    let (builder, provider) = builder()?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth())
}

type Builder = ConfigBuilder<ClientConfig, WantsVerifier>;

fn builder() -> Result<(Builder, Arc<CryptoProvider>), Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Error::Versions)?;
    Ok((builder, provider))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_and_named_in_the_error() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let refused = roots(&path).expect_err("holds none").to_string();
        assert!(refused.ends_with("Cargo.toml: there are none"), "{refused}");
        let missing = roots(Path::new("no/such/file")).expect_err("is not there");
        let missing = missing.to_string();
        assert!(
            missing.starts_with("the certificates in no/such/file: "),
            "{missing}"
        );
        let endless = roots(Path::new("/dev/zero")).expect_err("has no end");
        assert!(endless.to_string().contains("not a regular file"));
    }
}
