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
        let admits_anyone = !self.is_on() || self.anonymous_role.is_some();
        let asked = !admits_anyone || http.requires_client_certificates();
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
        let claim = auth.jwt_role_claim.as_deref().unwrap_or_default();
        check(
            !is_claim(claim),
            format!(
                "auth.jwt_role_claim = {claim:?} is not a JSON Pointer: in one, ~ is followed by 0 \
                 (for ~) or 1 (for /)"
            ),
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

    /// Returns which settings about access have no effect because others are missing, so that the
    /// service would admit more than they say. `names_certificates` says whether a flag or a
    /// variable sets `http.tls_client_certificates`: a file may have every key with its default.
    pub(super) fn check_effects(&self, names_certificates: bool) -> Vec<String> {
        let Self { http, auth, .. } = self;
        let (no_http, no_auth) = (Http::default(), Auth::default());
        let certificates =
            names_certificates || http.tls_client_certificates != no_http.tls_client_certificates;
        let has_keys = auth.jwt_secret.0.is_some()
            || auth.jwt_secret_file.is_some()
            || auth.jwks_url.is_some();
        let role_claim = auth.jwt_role_claim.is_some();
        let keys = "keys that verify tokens: auth.jwt_secret_file or auth.jwks_url";
        let callers = "callers who identify themselves: auth.jwt_secret_file, auth.jwks_url or \
                       auth.certificate_role";
        let needs = [
            (
                "http.tls_client_certificates",
                certificates && http.tls_client_ca.is_none(),
                "http.tls_client_ca",
            ),
            (
                "auth.jwt_audience",
                !has_keys && auth.jwt_audience != no_auth.jwt_audience,
                keys,
            ),
            (
                "auth.jwt_issuer",
                !has_keys && auth.jwt_issuer != no_auth.jwt_issuer,
                keys,
            ),
            (
                "auth.jwt_require",
                !has_keys && auth.jwt_require != no_auth.jwt_require,
                keys,
            ),
            (
                "auth.jwt_role_claim",
                !has_keys && role_claim && auth.jwt_role_claim != no_auth.jwt_role_claim,
                keys,
            ),
            (
                "auth.read_roles",
                !auth.is_on() && auth.read_roles != no_auth.read_roles,
                callers,
            ),
            (
                "auth.write_roles",
                !auth.is_on() && auth.write_roles != no_auth.write_roles,
                callers,
            ),
            (
                "auth.admin_roles",
                !auth.is_on() && auth.admin_roles != no_auth.admin_roles,
                callers,
            ),
        ];
        let missing = needs.iter().filter(|(_, missing, _)| *missing);
        missing
            .map(|(key, _, needed)| format!("{key} needs {needed}"))
            .collect()
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

/// Reports whether the text names a claim: a JSON Pointer (RFC 6901) if it begins with a slash, and
/// otherwise any name.
fn is_claim(text: &str) -> bool {
    let mut escapes = text.split('~').skip(1);
    !text.starts_with('/') || escapes.all(|after| after.starts_with(['0', '1']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Given,
        given::Everything,
        optional::{Names, RequiredClaims},
    };
    use clap::{Args as _, FromArgMatches as _};

    /// A key, what it needs, and a value of it.
    type Case = (&'static str, &'static str, fn(&mut Auth));

    fn with(change: impl FnOnce(&mut Http, &mut Auth)) -> Configuration {
        let mut configuration = Configuration::default();
        change(&mut configuration.http, &mut configuration.auth);
        configuration
    }

    #[test]
    fn settings_of_access_without_effect_are_refused() {
        let secret = |auth: &mut Auth| auth.jwt_secret_file = Some("keys".into());
        let keys = "needs keys that verify tokens";
        let callers = "needs callers who identify themselves";
        let cases: [Case; 7] = [
            ("jwt_audience", keys, |auth| {
                auth.jwt_audience = Some("us".into());
            }),
            ("jwt_issuer", keys, |auth| {
                auth.jwt_issuer = Some("us".into());
            }),
            ("jwt_require", keys, |auth| {
                auth.jwt_require = RequiredClaims::Named(Names::of(&["sub"]));
            }),
            ("jwt_role_claim", keys, |auth| {
                auth.jwt_role_claim = Some("/app/role".into());
            }),
            ("read_roles", callers, |auth| {
                auth.read_roles = Names::of(&["ops"]);
            }),
            ("write_roles", callers, |auth| {
                auth.write_roles = Names::of(&["ops"]);
            }),
            ("admin_roles", callers, |auth| {
                auth.admin_roles = Names::of(&["ops"]);
            }),
        ];
        for (key, needs, set) in cases {
            let problems = with(|_, auth| set(auth)).check_effects(false);
            assert_eq!(problems.len(), 1, "{key}: {problems:?}");
            let expected = format!("auth.{key} {needs}");
            assert!(problems[0].starts_with(&expected), "{problems:?}");
            let complete = with(|_, auth| {
                set(auth);
                secret(auth);
            });
            assert_eq!(complete.check_effects(false), [""; 0], "{key}");
        }
        assert_eq!(Configuration::default().check_effects(false), [""; 0]);
    }

    /// The default in a file says nothing, but a flag asks for certificates.
    #[test]
    fn client_certificates_need_their_authorities() {
        let problem = ["http.tls_client_certificates needs http.tls_client_ca"];
        assert_eq!(Configuration::default().check_effects(true), problem);
        let optional =
            |http: &mut Http| http.tls_client_certificates = ClientCertificates::Optional;
        assert_eq!(with(|http, _| optional(http)).check_effects(false), problem);
        let complete = with(|http, _| {
            optional(http);
            http.tls_client_ca = Some("ca".into());
        });
        assert_eq!(complete.check_effects(true), [""; 0]);
        let command = Given::<Everything>::augment_args(clap::Command::new("widgets"));
        let arguments = ["widgets", "--tls-client-certificates", "required"];
        let matches = command.try_get_matches_from(arguments);
        let given = Given::<Everything>::from_arg_matches(&matches.expect("a flag"));
        let problems = given
            .expect("a text")
            .resolve()
            .expect_err("no authorities");
        assert_eq!(problems.to_string(), problem[0]);
    }

    #[test]
    fn the_role_claim_is_a_name_or_a_valid_json_pointer() {
        for claim in [
            "role",
            "https://example.org/role",
            "a~2",
            "/a/b",
            "/a~0b~1c",
            "/",
        ] {
            assert!(is_claim(claim), "{claim}");
        }
        for claim in ["/a~2", "/a~", "/~/b", "/a~0/~b"] {
            let problems = with(|_, auth| auth.jwt_role_claim = Some(claim.into())).check_access();
            assert_eq!(problems.len(), 1, "{claim}: {problems:?}");
            assert!(
                problems[0].contains("is not a JSON Pointer"),
                "{problems:?}"
            );
        }
    }
}
