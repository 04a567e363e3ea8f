//! How `widgets health` speaks TLS with the service on its own host.
//!
//! It accepts any certificate: it sends nothing secret, and the certificate is for the service's
//! public name, not for the address that is used here. A program in place of the service could
//! answer without TLS just as well.

use crate::config::Http;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{error::Error, path::Path, sync::Arc};
use widgets_files::read_file;

/// Returns the configuration of a TLS client if the service uses TLS. If every client must have a
/// certificate, the client presents the service's own.
pub(super) fn client(http: &Http) -> Result<Option<Arc<ClientConfig>>, Box<dyn Error>> {
    let Some(files) = http.tls_files() else {
        return Ok(None);
    };
    let mut config = widgets_tls::unverified()?;
    if http.requires_client_certificates() {
        let read =
            |path: &Path| read_file(path).map_err(|error| format!("{}: {error}", path.display()));
        let chain = CertificateDer::pem_slice_iter(&read(&files.certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{}: {error}", files.certificate.display()))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
            .map_err(|error| format!("{}: {error}", files.key.display()))?;
        let own = CertifiedKey::from_der(chain, key, config.crypto_provider())?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
    }
    Ok(Some(Arc::new(config)))
}
