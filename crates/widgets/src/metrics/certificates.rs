//! When the configured certificates expire.
//!
//! The files are read when the service starts and whenever it reloads them, not at each collection:
//! the metrics describe the certificates in use.

use prometheus::{IntGaugeVec, Opts, Registry};
use std::path::{Path, PathBuf};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_cert::{Certificate, der::Decode as _};

/// The files that contain certificates, each with its configuration key.
#[derive(Clone)]
pub(crate) struct Certificates {
    expiry: IntGaugeVec,
    files: Vec<(&'static str, PathBuf)>,
}

impl Certificates {
    /// Creates the metrics for these files. A key without a file is left out.
    pub(crate) fn new(
        files: impl IntoIterator<Item = (&'static str, Option<PathBuf>)>,
    ) -> prometheus::Result<Self> {
        let expiry = Opts::new(
            "widgets_certificate_expiry_timestamp_seconds",
            "When the first certificate of a file expires, in seconds since 1970 began, by the \
             configuration key that names the file; 0 if it cannot be parsed.",
        );
        let files = files.into_iter();
        let this = Self {
            expiry: IntGaugeVec::new(expiry, &["key"])?,
            files: files.filter_map(|(key, path)| Some((key, path?))).collect(),
        };
        this.read();
        Ok(this)
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.expiry.clone()))
    }

    /// Reads the files again. A file that cannot be parsed counts as expired, so that somebody
    /// looks at it.
    pub(crate) fn read(&self) {
        for (key, path) in &self.files {
            let expiry = self.expiry.with_label_values(&[*key]);
            expiry.set(first_expiry(path).unwrap_or_default());
        }
    }
}

/// Returns when the first of a file's certificates expires.
fn first_expiry(path: &Path) -> Option<i64> {
    let certificates = CertificateDer::pem_file_iter(path).ok()?;
    let expiries = certificates.filter_map(|certificate| {
        let certificate = Certificate::from_der(&certificate.ok()?).ok()?;
        let expiry = certificate.tbs_certificate.validity.not_after;
        i64::try_from(expiry.to_unix_duration().as_secs()).ok()
    });
    expiries.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn pem(year: i32) -> String {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").pem()
    }

    fn text(registry: &Registry) -> Vec<String> {
        let families = registry.gather();
        let text = prometheus::TextEncoder::new().encode_to_string(&families);
        let text = text.expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn the_earliest_expiry_is_reported_and_changed_files_are_reread() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("chain.pem");
        std::fs::write(&path, pem(2040) + &pem(2031)).expect("written");
        let files = [
            ("http.tls_certificate", Some(path.clone())),
            ("auth.jwks_ca", None),
        ];
        let certificates = Certificates::new(files).expect("a metric");
        let registry = Registry::new();
        certificates.register(&registry).expect("an empty registry");
        let line = |seconds: u64| {
            let name = "widgets_certificate_expiry_timestamp_seconds";
            format!("{name}{{key=\"http.tls_certificate\"}} {seconds}")
        };
        assert_eq!(text(&registry), [line(1_924_992_000)]);
        std::fs::write(&path, pem(2040)).expect("written");
        assert_eq!(text(&registry), [line(1_924_992_000)]);
        certificates.read();
        assert_eq!(text(&registry), [line(2_208_988_800)]);
        std::fs::write(&path, "nothing").expect("written");
        certificates.read();
        assert_eq!(text(&registry), [line(0)]);
    }
}
