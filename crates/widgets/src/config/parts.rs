//! Converts the configuration into the settings of each component.

use super::keys::{
    Archive, Auth, Changes, Engine, Http, Idempotency, Log, Postgres, Replication, Store,
};
use super::optional::RequiredClaims;
use super::values::StoreKind;
use std::{num::NonZero, time::Duration};
use widgets_engine::NoStore;
use widgets_postgres::{Password, Target};
use widgets_server::{
    AuthenticationSettings, RateLimitSettings, Roles, TlsFiles, answer_bytes_max,
};

/// How many responses with many rows are produced at a time, in addition to the slow ones.
const MAKING_BESIDE_SCANS: usize = 8;

impl Http {
    /// Returns the limits of connections.
    pub(crate) fn limits(&self) -> widgets_server::Limits {
        let defaults = widgets_server::Limits::default();
        widgets_server::Limits {
            connections_max: self.connections_max,
            connections_per_client_max: self.connections_per_client_max,
            trusted_proxies: self.trusted_proxies.0.clone(),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            answer_timeout: Duration::from_millis(self.answer_timeout_ms),
            unread_bytes_max: self.unread_bytes_max,
            heads_bytes_max: self.heads_bytes_max,
            shutdown_timeout: Duration::from_millis(self.shutdown_timeout_ms),
            workers: NonZero::new(self.workers).unwrap_or(defaults.workers),
        }
    }

    /// Returns the settings of the API.
    pub(crate) fn settings(&self, changes: &Changes, log: &Log) -> widgets_server::Settings {
        widgets_server::Settings {
            body_bytes_max: self.body_bytes_max,
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            bodies_bytes_max: self.bodies_bytes_max,
            rows_max: self.rows_max,
            answer_bytes_max: answer_bytes_max(self.unread_bytes_max),
            // The lists that no index serves are the slow ones.
            making_max: self.scans_max + MAKING_BESIDE_SCANS,
            read_timeout: Duration::from_millis(self.read_timeout_ms),
            changes_subscribers_max: changes.subscribers_max,
            log_requests: log.requests,
        }
    }

    /// Returns the certificate files, if TLS is on.
    pub(crate) fn tls_files(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_certificate.clone()?, self.tls_key.clone()?);
        let wanted = self.tls_client_certificates;
        let clients = self.tls_client_ca.clone().map(|path| (path, wanted));
        Some(TlsFiles {
            certificate,
            key,
            clients,
        })
    }

    /// Returns the rate limit of a client, if there is one.
    pub(crate) fn rate_limit(&self) -> Option<RateLimitSettings> {
        Some(RateLimitSettings {
            requests_per_second: NonZero::new(self.rate_limit_per_second)?,
            burst_requests: NonZero::new(self.rate_limit_burst)?,
        })
    }
}

impl Auth {
    /// Returns what decides who gets in, apart from the keys.
    pub(crate) fn settings(&self) -> AuthenticationSettings {
        AuthenticationSettings {
            audience: self.jwt_audience.clone(),
            issuer: self.jwt_issuer.clone(),
            required_claims: match &self.jwt_require {
                RequiredClaims::Named(names) => names.0.clone(),
                // A provider issues tokens to many people, and nobody revokes a token that never
                // expires.
                RequiredClaims::Default if self.jwks_url.is_some() => vec!["exp".into()],
                RequiredClaims::Default => Vec::new(),
            },
            role_claim: self.jwt_role_claim.clone().unwrap_or_default(),
            roles: Roles {
                read: self.read_roles.0.clone(),
                write: self.write_roles.0.clone(),
                admin: self.admin_roles.0.clone(),
            },
            anonymous_role: self.anonymous_role.clone(),
            certificate_role: self.certificate_role.clone(),
        }
    }
}

impl Store {
    /// Returns what to do if there is no store.
    pub(crate) const fn no_store(&self) -> NoStore {
        if self.must_exist {
            NoStore::Refuse
        } else {
            NoStore::Make
        }
    }

    /// Returns the database, if widgets are kept in one. The error says what is wrong with its
    /// settings.
    pub(crate) fn database(&self) -> Result<Option<Target>, String> {
        let Self {
            url,
            password,
            password_file,
            ..
        } = self;
        let keys = [
            ("store.password", password.0.is_some()),
            ("store.password_file", password_file.is_some()),
        ];
        let given: Vec<&str> = keys
            .iter()
            .filter_map(|&(key, given)| given.then_some(key))
            .collect();
        let StoreKind::Postgres(url) = url else {
            return match given.first() {
                None => Ok(None),
                Some(key) => Err(format!(
                    "{key} is for a PostgreSQL database: name it by store.url"
                )),
            };
        };
        let target = Target::parse(url).map_err(|problem| format!("store.url: {problem}"))?;
        let password = match (&password.0, password_file) {
            (None, None) => return Ok(Some(target)),
            (Some(password), None) => Password::Text(password.clone()),
            (None, Some(path)) => Password::File(path.clone()),
            (Some(_), Some(_)) => {
                return Err(format!(
                    "{} must not be given together",
                    given.join(" and ")
                ));
            }
        };
        if target.has_password() {
            return Err(format!(
                "{} and a password in store.url must not be given together",
                given.join("")
            ));
        }
        Ok(Some(target.with_password(password)))
    }

    /// Returns the database to connect to. A missing password file is reported now, not by each
    /// connection later.
    pub(crate) fn reachable_database(&self) -> Result<Target, String> {
        let target = self.database()?.ok_or("store.url names no database")?;
        let checked = target.check_password();
        checked.map_err(|problem| format!("store.password_file: {problem}"))?;
        Ok(target)
    }
}

impl Engine {
    /// Returns the settings of the engine, for a service with these components.
    pub(crate) fn settings(
        &self,
        http: &Http,
        changes: &Changes,
        idempotency: &Idempotency,
        archive: &Archive,
        replication: &Replication,
    ) -> widgets_engine::Settings {
        let Self {
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            segment_bytes,
            checkpoint_journal_bytes,
        } = *self;
        widgets_engine::Settings {
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            scans_max: http.scans_max,
            segment_bytes,
            checkpoint_journal_bytes,
            changes_retention_hours: changes.retention_hours,
            changes_retention_bytes: changes.retention_bytes,
            held_bytes_max: archive.held_bytes_max(),
            idempotency_retention_hours: idempotency.retention_hours,
            idempotency_keys_max: idempotency.keys_max,
            standby_timeout_ms: replication.waits_ms(),
        }
    }
}

impl Archive {
    /// Returns how many bytes of the journal are held for the archive.
    fn held_bytes_max(&self) -> u64 {
        self.url.as_ref().map_or(0, |_| self.backlog_bytes_max)
    }

    /// Returns the settings of the archive.
    pub(crate) fn settings(&self) -> widgets_archive::Settings {
        widgets_archive::Settings {
            interval: Duration::from_millis(self.interval_ms),
            checkpoint_age: Duration::from_hours(self.checkpoint_hours.into()),
            checkpoint_journal_bytes: self.checkpoint_journal_bytes,
        }
    }
}

impl Postgres {
    /// Returns the settings of the store, for a service with this component.
    pub(crate) fn settings(
        &self,
        http: &Http,
        changes: &Changes,
        idempotency: &Idempotency,
    ) -> widgets_postgres::Settings {
        let Self {
            connections,
            lookup_connections,
            ref nodes,
            batch_operations_max,
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            connect_timeout_ms,
            statement_timeout_ms,
        } = *self;
        widgets_postgres::Settings {
            connections,
            lookup_connections,
            list_connections: http.scans_max,
            nodes: nodes.clone(),
            batch_operations_max,
            queue_operations_max,
            queue_bytes_max,
            queue_wait_ms_max,
            connect_timeout_ms,
            statement_timeout_ms,
            changes_retention_hours: changes.retention_hours,
            changes_retention_bytes: changes.retention_bytes,
            idempotency_retention_hours: idempotency.retention_hours,
            idempotency_keys_max: idempotency.keys_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{Configuration, KEYS};

    #[test]
    fn configuration_defaults_match_those_of_the_components() {
        let Configuration {
            http,
            engine,
            postgres,
            ..
        } = Configuration::default();
        assert_eq!(http.limits(), widgets_server::Limits::default());
        let (changes, idempotency) = (Changes::default(), Idempotency::default());
        assert_eq!(
            http.settings(&changes, &Log::default()),
            widgets_server::Settings::default()
        );
        let archive = Archive::default();
        let settings = engine.settings(
            &http,
            &changes,
            &idempotency,
            &archive,
            &Replication::default(),
        );
        assert_eq!(settings, widgets_engine::Settings::default());
        assert_eq!(archive.settings(), widgets_archive::Settings::default());
        assert_eq!(
            postgres.settings(&http, &changes, &idempotency),
            widgets_postgres::Settings::default()
        );
    }

    /// Every component checks its own settings. It must accept whatever the key accepts, and refuse
    /// the next value beyond the key's limits.
    #[test]
    fn configuration_limits_match_those_of_the_components() {
        let http = |body_bytes_max| {
            let http = Http {
                body_bytes_max,
                ..Http::default()
            };
            http.settings(&Changes::default(), &Log::default())
                .check()
                .is_ok()
        };
        let engine = |operations, bytes| {
            let engine = Engine {
                queue_operations_max: operations,
                queue_bytes_max: bytes,
                segment_bytes: u32::MAX.into(),
                ..Engine::default()
            };
            let (changes, idempotency) = (Changes::default(), Idempotency::default());
            engine
                .settings(
                    &Http::default(),
                    &changes,
                    &idempotency,
                    &Archive::default(),
                    &Replication::default(),
                )
                .check()
                .is_ok()
        };
        let in_parts: [(&str, &dyn Fn(usize) -> bool); 3] = [
            ("http.body_bytes_max", &http),
            ("engine.queue_operations_max", &|value| {
                engine(value, 1 << 20)
            }),
            ("engine.queue_bytes_max", &|value| engine(1, value)),
        ];
        for (path, part) in in_parts {
            let key = KEYS.iter().find(|key| key.path() == path).expect("the key");
            let limits = (key.limits)();
            let limits = limits.strip_prefix("an integer from ").expect("an integer");
            let (least, most) = limits.split_once(" to ").expect("two limits");
            let (least, most): (usize, usize) = (
                least.parse().expect("a limit"),
                most.parse().expect("a limit"),
            );
            assert!(part(least) && part(most), "{path}");
            assert!(!part(least - 1), "{path}");
            // Memory has an upper limit only in the configuration, not in the engine.
            assert!(
                path == "engine.queue_bytes_max" || !part(most + 1),
                "{path}"
            );
        }
    }
}
