//! Who gets in according to the configuration, and which combinations cannot be meant.

use super::keys::{Auth, Configuration, Http};
use super::url::HttpUrl;
use std::path::Path;
use widgets_server::{BrowserSettings, ClientCertificates, KeySet};

impl Http {
    /// Returns whether nobody gets in without a certificate.
    pub(crate) fn requires_client_certificates(&self) -> bool {
        let required = self.tls_client_certificates == ClientCertificates::Required;
        self.tls_client_ca.is_some() && required
    }
}

impl Auth {
    /// Returns whether callers must identify themselves.
    pub(crate) fn is_on(&self) -> bool {
        self.jwt_secret.0.is_some()
            || self.jwt_secret_file.is_some()
            || self.jwks_url.is_some()
            || self.anonymous_role.is_some()
            || self.certificate_role.is_some()
    }

    /// Returns which web pages may send requests, and under which names of the service.
    pub(crate) fn browsers(&self, http: &Http) -> BrowserSettings {
        let asked = self.is_on() || http.requires_client_certificates();
        BrowserSettings {
            origins: http.cors_origins.clone(),
            loopback_names_only: !asked && http.listen.ip().to_canonical().is_loopback(),
        }
    }
}

impl Configuration {
    /// Returns what is wrong with the settings about access although every value is valid in
    /// itself.
    pub(super) fn check_access(&self) -> Vec<String> {
        let Self { http, auth, .. } = self;
        let mut problems = Vec::new();
        let mut check = |wrong: bool, problem: String| {
            if wrong {
                problems.push(problem);
            }
        };
        let tls = http.tls_certificate.is_some();
        check(
            tls != http.tls_key.is_some(),
            "http.tls_certificate and http.tls_key must be given together".into(),
        );
        check(
            !tls && http.tls_client_ca.is_some(),
            "http.tls_client_ca needs http.tls_certificate and http.tls_key".into(),
        );
        check(
            auth.certificate_role.is_some() && http.tls_client_ca.is_none(),
            "auth.certificate_role needs http.tls_client_ca".into(),
        );
        let keys = [
            ("auth.jwt_secret", auth.jwt_secret.0.is_some()),
            ("auth.jwt_secret_file", auth.jwt_secret_file.is_some()),
            ("auth.jwks_url", auth.jwks_url.is_some()),
        ];
        let given: Vec<&str> = keys
            .iter()
            .filter_map(|&(key, given)| given.then_some(key))
            .collect();
        check(
            given.len() > 1,
            format!("{} must not be given together", given.join(" and ")),
        );
        let secure = auth.jwks_url.as_ref().is_some_and(HttpUrl::is_secure);
        check(
            auth.jwks_ca.is_some() && !secure,
            "auth.jwks_ca needs an auth.jwks_url that begins with https://".into(),
        );
        let secret = auth.jwt_secret.0.as_deref();
        check(
            secret.is_some_and(|secret| Path::new(secret).is_file()),
            "auth.jwt_secret is the path of a file: give it as auth.jwt_secret_file".into(),
        );
        if let Some(Err(error)) = secret.map(KeySet::parse) {
            check(true, format!("auth.jwt_secret: {error}"));
        }
        check(
            auth.jwt_role_claim.is_none(),
            "auth.jwt_role_claim must not be empty".into(),
        );
        let roles = auth.settings().roles;
        let named = [
            ("anonymous_role", &auth.anonymous_role),
            ("certificate_role", &auth.certificate_role),
        ];
        for (key, role) in named {
            if let Some(role) = role {
                check(
                    !roles.contains(role),
                    format!(
                        "auth.{key} = {role:?} has no permissions: add it to auth.read_roles, \
                         auth.write_roles or auth.admin_roles"
                    ),
                );
            }
        }
        problems
    }

    /// Refuses to listen on an address that other machines can reach if callers need not identify
    /// themselves, unless that is allowed. Only for commands that listen: others use the address
    /// only to send requests to it.
    pub(crate) fn check_public(&self) -> Result<(), String> {
        let Self { http, auth, .. } = self;
        let asked = auth.is_on() || http.requires_client_certificates();
        let loopback = http.listen.ip().to_canonical().is_loopback();
        if asked || loopback || auth.allow_public_without_auth {
            return Ok(());
        }
        Err(format!(
            "http.listen = {} can be reached from other machines, and anyone may do everything: \
             set auth.jwt_secret_file (or another key of [auth]) or http.tls_client_ca, or listen \
             on 127.0.0.1; if something in front of the service controls access, give \
             --allow-public-without-auth",
            http.listen
        ))
    }
}
