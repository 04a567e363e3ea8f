//! The credentials that a caller needs, as the document describes them: a token, a client
//! certificate, both, or none.

use crate::{ClientCertificates, auth::Proofs};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};

/// The names of the schemes, to which requirements refer.
const BEARER: &str = "bearer";
const MUTUAL_TLS: &str = "mutualTLS";

/// The requirements of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Security {
    /// The credentials that admit a request.
    pub(crate) proofs: Proofs,
    /// Whether connections have client certificates.
    pub(crate) client_certificates: Option<ClientCertificates>,
}

impl Security {
    fn certificate_required(self) -> bool {
        self.client_certificates == Some(ClientCertificates::Required)
    }

    /// Returns the alternatives, of which a request must satisfy one; `None` if no credentials are
    /// needed or possible.
    pub(super) fn ways_in(self) -> Option<Vec<SecurityRequirement>> {
        let Proofs {
            token,
            certificate,
            nothing,
        } = self.proofs;
        let required = self.certificate_required();
        let certificate = certificate && self.client_certificates.is_some();
        let mut ways: Vec<_> = [
            (token, way(true, required)),
            (certificate, way(false, true)),
            (nothing, way(false, required)),
        ]
        .into_iter()
        .filter_map(|(open, way)| open.then_some(way))
        .collect();
        ways.dedup();
        (ways != [way(false, false)]).then_some(ways)
    }

    /// Returns the requirements for probes, which need no credentials in their requests.
    pub(super) fn of_probes(self) -> Vec<SecurityRequirement> {
        if self.certificate_required() {
            return vec![way(false, true)];
        }
        Vec::new()
    }

    /// Returns the schemes that the alternatives refer to.
    pub(super) fn schemes(self) -> Vec<(&'static str, SecurityScheme)> {
        let mut schemes = Vec::new();
        if self.proofs.token {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("JWT")
                .description(Some(
                    "Signed by a key that the service trusts. Its role determines what the caller may do. Without a \
                     token, the role is that of the client certificate or the anonymous one, if there is one.",
                ));
            schemes.push((BEARER, SecurityScheme::Http(scheme.build())));
        }
        if self.certificate_required()
            || self.client_certificates.is_some() && self.proofs.certificate
        {
            let scheme = SecurityScheme::MutualTls {
                description: Some(
                    "A client certificate signed by an authority that the service trusts.".into(),
                ),
                deprecated: None,
                extensions: None,
            };
            schemes.push((MUTUAL_TLS, scheme));
        }
        schemes
    }
}

fn way(token: bool, certificate: bool) -> SecurityRequirement {
    let none = || Vec::<String>::new();
    let mut way = SecurityRequirement::default();
    if token {
        way = way.add(BEARER, none());
    }
    if certificate {
        way = way.add(MUTUAL_TLS, none());
    }
    way
}
