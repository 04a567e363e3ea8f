//! Every key: its section, type, default, limits and purpose. The flags, the variables, the help,
//! the example file and `docs/configuration.md` are all made from this one list.

#![expect(
    clippy::doc_markdown,
    reason = "what is said of a key is its help as well, which is plain text"
)]
#![expect(
    clippy::struct_field_names,
    reason = "a key is also a flag, and `--allow-public` would not say what it allows"
)]

use super::optional::{Names, Networks, RequiredClaims, Secret};
use super::quantities::plain;
use super::url::HttpUrl;
use super::values::{Acknowledge, Anything, Filter, Kind, LogFormat, StoreKind, Value};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use widgets_archive::ArchiveUrl;
use widgets_pacing::Mode;
use widgets_postgres::Nodes;
use widgets_server::{ClientCertificates, Origins};

/// A configuration key.
pub(crate) struct Key {
    /// The section of the file.
    pub(crate) section: &'static str,
    /// The key in its section.
    pub(crate) name: &'static str,
    /// The word in its flag and variable, if it differs from the name.
    alias: Option<&'static str>,
    /// Its description, in lines.
    doc: &'static [&'static str],
    /// Its TOML type in a file.
    pub(super) kind: Kind,
    /// Describes the valid values, in words that follow "must be".
    pub(super) limits: fn() -> String,
    /// Sets it from text. The error says what it must be and what was given.
    pub(super) set: fn(&mut Configuration, &str) -> Result<(), String>,
    /// Returns its value in the syntax of a file, with secrets redacted.
    pub(super) get: fn(&Configuration) -> String,
}

impl Key {
    /// Returns `section.name`.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Returns the flag, without the dashes.
    pub(crate) fn flag(&self) -> String {
        self.alias.unwrap_or(self.name).replace('_', "-")
    }

    /// Returns the environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("WIDGETS_{}", self.alias.unwrap_or(self.name).to_uppercase())
    }

    /// Returns its description and its limits as one paragraph.
    pub(crate) fn help(&self) -> String {
        let doc: Vec<&str> = self.doc.iter().map(|line| line.trim()).collect();
        let limits = (self.limits)();
        format!("{} The value must be {limits}.", doc.join(" "))
    }
}

macro_rules! limit {
    () => {
        Anything
    };
    ($limit:expr) => {
        $limit
    };
}

macro_rules! alias {
    () => {
        None
    };
    ($alias:literal) => {
        Some($alias)
    };
}

macro_rules! configuration {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident $(as $alias:literal)?: $Type:ty = $default:expr $(, within $limit:expr)?;
            )+
        }
    )+) => {
        /// All settings, by section.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct Configuration {
            $( $(#[doc = $section_doc])+ pub(crate) $section: $Section, )+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub(crate) struct $Section {
                $( $(#[doc = $doc])+ pub(crate) $name: $Type, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $name: $default, )+ }
                }
            }
        )+

        /// The sections in order, each with its description.
        pub(crate) const SECTIONS: &[(&str, &str)] =
            &[$( (stringify!($section), concat!($($section_doc),+)), )+];

        /// Every key, in the order of the sections.
        pub(crate) const KEYS: &[Key] = &[$($(
            Key {
                section: stringify!($section),
                name: stringify!($name),
                alias: alias!($($alias)?),
                doc: &[$($doc),+],
                kind: <$Type as Value>::KIND,
                limits: || <$Type as Value>::describe(&limit!($($limit)?)),
                set: |configuration, text| {
                    let limit = limit!($($limit)?);
                    let text = &plain(stringify!($name), <$Type as Value>::KIND, text);
                    match <$Type as Value>::parse(text, &limit) {
                        Some(value) => configuration.$section.$name = value,
                        None => return Err(format!(
                            "must be {}, {} was given",
                            <$Type as Value>::describe(&limit),
                            <$Type as Value>::quote(text),
                        )),
                    }
                    Ok(())
                },
                get: |configuration| configuration.$section.$name.toml(),
            },
        )+)+];
    };
}

configuration! {
    /// The HTTP service.
    http: Http {
        /// The address to listen on. An address that other machines can reach needs the section
        /// `auth` or client certificates.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 3000));
        /// How many connections may be open at once. When there are that many, a new connection
        /// replaces another, usually the longest idle one of the clients with the most connections.
        /// If none can be replaced, the new connection is answered with 503 WG503 and closed. If the
        /// limit on open files allows fewer connections, that limit applies, and the log says so.
        connections_max: usize = 16_384, within 1..=1_000_000;
        /// How many of these connections one client may have: an IPv4 address or an IPv6 /64 that
        /// is not in trusted_proxies. The limit is never more than three quarters of
        /// connections_max.
        connections_per_client_max: usize = 4096, within 1..=1_000_000;
        /// How long a connection may be idle. It is closed after one to two times this.
        idle_timeout_ms: u64 = 75_000, within 100..=86_400_000;
        /// How long a request may take to arrive. If its body is still incomplete this long after
        /// its head, the request is answered with 408 WG408. Any other late request has its connection
        /// closed, within twice this time, and so has a client that sends nothing after connecting.
        request_timeout_ms: u64 = 15_000, within 100..=3_600_000;
        /// How long a client may read nothing of its response. After that, and within twice this
        /// time, it is disconnected, whatever else it sends.
        answer_timeout_ms: u64 = 30_000, within 100..=3_600_000;
        /// How many bytes of responses may wait to be read by their clients, over all connections
        /// together. One connection may take at most a sixteenth of what is left. A response that
        /// does not fit is replaced by 503 WG503, or its connection is closed.
        unread_bytes_max: usize = 64 << 20, within 32 << 20..=1 << 40;
        /// How many bytes the heads of requests that are not yet read to the end may take, over all
        /// connections together. One head of ordinary length on each connection does not count. One
        /// connection may take at most a sixteenth of what is left. A request that does not fit is
        /// answered with 503 WG503.
        heads_bytes_max: usize = 32 << 20, within 1 << 20..=1 << 40;
        /// How long a shutdown waits for requests in progress to be answered.
        shutdown_timeout_ms: u64 = 25_000, within 0..=3_600_000;
        /// How many bytes a request body may have. A request with a longer one is answered with
        /// 413.
        body_bytes_max: usize = 64 << 10, within 8 << 10..=16 << 20;
        /// How many bytes of incomplete request bodies may be held, over all requests together.
        /// Beyond its first body, one connection may take at most a sixteenth of what is left. A
        /// request that does not fit is answered with 503 WG503. A body that arrives in one piece
        /// does not count.
        bodies_bytes_max: usize = 256 << 20, within 16 << 20..=1 << 40;
        /// How many rows a response may have. A request for more rows gets this many.
        rows_max: u32 = 1000, within 1..=10_000;
        /// How long a list may take. One that takes longer is answered with 57014. One that is
        /// still waiting for its turn by then is answered with 503 WG503, and so is a request with
        /// `Read-After` if the standby has not caught up that far.
        read_timeout_ms: u64 = 5000, within 1..=600_000;
        /// How many lists that no index serves may run at a time. One caller may have three
        /// quarters of them. Any more are answered with 503 WG503. With PostgreSQL, this many
        /// connections serve lists of any kind, and further lists wait.
        scans_max: usize = 4, within 1..=64;
        /// How many threads serve connections. 0 means one fewer than there are cores, and at least
        /// one.
        workers: usize = 0, within 0..=1024;
        /// The TLS certificate, followed by its intermediate certificates, in PEM. The file is read
        /// again when it changes and on SIGHUP. TLS is on when both this and tls_key are set.
        tls_certificate: Option<PathBuf> = None;
        /// The private key of the certificate, in PEM. The file is read again when tls_certificate
        /// is.
        tls_key: Option<PathBuf> = None;
        /// The certificate authorities that client certificates must come from, in PEM. The file is
        /// read again when tls_certificate is.
        tls_client_ca: Option<PathBuf> = None;
        /// Whether a client certificate from tls_client_ca is required or optional.
        tls_client_certificates: ClientCertificates = ClientCertificates::Required;
        /// How many requests per second one client may send on average. 0 means no limit. Any more
        /// are answered with 429 WG429.
        rate_limit_per_second: u32 = 0, within 0..=1_000_000;
        /// How many requests one client may send at once after a pause.
        rate_limit_burst: u32 = 100, within 1..=1_000_000;
        /// The proxies in front of the service. Their X-Forwarded-For is trusted to name the
        /// client, and connections_per_client_max does not apply to them.
        trusted_proxies: Networks = Networks::default();
        /// The origins whose web pages may call the service without a token. With a token, pages of
        /// any origin may. A service on loopback that admits callers without a token also answers to
        /// the host names of these origins.
        cors_origins: Origins = Origins::default();
    }
    /// Authentication and roles. Unless jwt_secret, jwt_secret_file, jwks_url, anonymous_role or
    /// certificate_role is set, everyone may do everything.
    auth: Auth {
        /// What tokens (JWT) are verified with: a secret, a JWK or a JWKS. Other users of the
        /// machine can read flags, so prefer the variable or jwt_secret_file.
        jwt_secret: Secret = Secret::default();
        /// A file with the value for jwt_secret. It is read again when it changes and on SIGHUP.
        jwt_secret_file: Option<PathBuf> = None;
        /// The URL of an identity provider's keys (a JWKS), which tokens are verified with. The
        /// keys are fetched at the start, on SIGHUP, every jwks_refresh_ms, and, at most once in 10
        /// s, when a token names an unknown key. If fetching them fails, the keys fetched last
        /// remain in use.
        jwks_url: Option<HttpUrl> = None;
        /// The certificate authorities trusted for jwks_url, in PEM. Empty means those of the
        /// system.
        jwks_ca: Option<PathBuf> = None;
        /// How often the keys of jwks_url are fetched. A key that the provider withdraws stays
        /// valid for at most this long.
        jwks_refresh_ms: u64 = 300_000, within 1000..=86_400_000;
        /// How long fetching the keys of jwks_url may take, from resolving the host to the last
        /// byte.
        jwks_timeout_ms: u64 = 5000, within 100..=60_000;
        /// The audience that a token's aud claim must name. Empty accepts any audience, and tokens
        /// without one.
        jwt_audience: Option<String> = None;
        /// The issuer that a token's iss claim must name. Empty accepts any issuer, and tokens
        /// without one.
        jwt_issuer: Option<String> = None;
        /// The claims that a token must have, whatever their values. The default is exp if jwks_url
        /// is set, and none otherwise.
        jwt_require: RequiredClaims = RequiredClaims::Default;
        /// The claim that names the role: a top-level claim, or a JSON Pointer such as
        /// /app_metadata/role.
        jwt_role_claim: Option<String> = Some("role".into());
        /// The roles that may read widgets and their changes.
        read_roles: Names = Names::of(&["reader", "writer", "admin"]);
        /// The roles that may call the four operations.
        write_roles: Names = Names::of(&["writer", "admin"]);
        /// The roles that may read /metrics, take backups and use replication.
        admin_roles: Names = Names::of(&["admin"]);
        /// The role of requests without a token. Empty refuses them.
        anonymous_role: Option<String> = None;
        /// The role of requests without a token from clients that presented a certificate. Empty
        /// makes them anonymous.
        certificate_role: Option<String> = None;
        /// Allows the service to listen on an address that other machines can reach although it
        /// authenticates nobody. Set it only if something in front of the service controls access.
        allow_public_without_auth: bool = false;
    }
    /// Where widgets are kept.
    store: Store {
        /// Which store to use.
        url as "store": StoreKind = StoreKind::Embedded;
        /// The password of the database, if url has none. It is taken literally, whereas a URL
        /// needs some characters escaped. Other users of the machine can read flags, so prefer the
        /// variable or password_file.
        password as "store_password": Secret = Secret::default();
        /// A file with the password of the database. It is read again for each connection.
        password_file as "store_password_file": Option<PathBuf> = None;
        /// The directory of the embedded store. It is created if it does not exist.
        data_dir: PathBuf = PathBuf::from("widgets-data");
        /// Refuses to start if the embedded store has no files yet, instead of creating a new
        /// store. Set it after the first start, so that a mistyped path or an unmounted volume is
        /// reported rather than served as an empty registry.
        must_exist: bool = false;
        /// Whether commits and workers wait briefly for more requests to arrive, which uses less
        /// CPU time for each request but takes longer. "auto" waits only as far as the service
        /// measures that CPU time is short.
        pacing: Mode = Mode::Auto;
    }
    /// The embedded store.
    engine: Engine {
        /// How many requests may wait, and so how many a batch may have. Any more are answered with
        /// 503 WG503.
        queue_operations_max: usize = 2048, within 1..=65_536;
        /// How many bytes of text the waiting requests may have together.
        queue_bytes_max: usize = 4 << 20, within 4096..=1 << 30;
        /// How long a request may wait before it is refused.
        queue_wait_ms_max: u64 = 5000, within 1..=600_000;
        /// The size of a segment of the journal. A whole batch must fit into one segment. With the
        /// default queue_operations_max that takes 3233840 bytes, and with any other proportionally
        /// more or less.
        segment_bytes: u64 = 64 << 20,
            within widgets_engine::Settings::segment_bytes_min(1)..=u32::MAX.into();
        /// A checkpoint starts after this much journal, or after half the size of the last
        /// checkpoint if that is more. A restart replays little more than that.
        checkpoint_journal_bytes: u64 = 256 << 20, within 4096..=1 << 40;
    }
    /// The feed of changes. The embedded store keeps it in its journal; PostgreSQL keeps it in
    /// tables once `widgets migrate --changes` has turned it on.
    changes: Changes {
        /// How long changes are kept, in hours. 0 keeps only what a restart needs.
        retention_hours as "changes_retention_hours": u32 = 72, within 0..=1_000_000;
        /// How many bytes the journal, or the tables, may have for the changes. Beyond that, the
        /// oldest changes are dropped early.
        retention_bytes as "changes_retention_bytes": u64 = 4 << 30, within 0..=1 << 50;
        /// How many subscribers may follow the changes at a time. One caller may have three
        /// quarters of them. Any more are answered with 503 WG503.
        subscribers_max as "changes_subscribers_max": usize = 1000, within 0..=1_000_000;
    }
    /// Idempotency keys, which make operations safe to retry.
    idempotency: Idempotency {
        /// How long a key is kept, in hours.
        retention_hours as "idempotency_retention_hours": u32 = 24, within 1..=1_000_000;
        /// How many keys are kept. Beyond that, the oldest keys of the callers with the most keys
        /// are dropped early. A million keys take 65 MB of memory, or 110 MB of the database.
        keys_max as "idempotency_keys_max": u64 = 1_000_000, within 1..=100_000_000;
    }
    /// The archive: copies of the embedded store, from which it can be restored after its disk
    /// fails.
    archive: Archive {
        /// The URL of the archive. Each store needs an archive of its own. Credentials come from
        /// the variables of the provider.
        url as "archive_url": Option<ArchiveUrl> = None;
        /// How old an operation may become before it is in the archive. A shorter interval writes
        /// more objects.
        interval_ms as "archive_interval_ms": u64 = 1000, within 10..=3_600_000;
        /// How many bytes of journal are kept for the archive while it cannot be reached. Beyond
        /// that, the oldest are dropped, and the moments in them can no longer be restored.
        backlog_bytes_max as "archive_backlog_bytes_max": u64 = 16 << 30, within 64 << 20..=1 << 50;
        /// A checkpoint is copied at least this often, in hours, if anything has changed.
        checkpoint_hours as "archive_checkpoint_hours": u32 = 24, within 1..=8760;
        /// A checkpoint is also copied after this much journal, or after half the size of the last
        /// checkpoint if that is more. A restore replays little more than that.
        checkpoint_journal_bytes as "archive_checkpoint_journal_bytes": u64 = 1 << 30, within 1 << 20..=1 << 50;
    }
    /// A second machine for the embedded store: a standby that follows a primary
    /// (docs/operations.md).
    replication: Replication {
        /// The URL of the primary to follow, such as https://primary:3000, which makes this service
        /// a standby. It copies the primary's store into an empty data directory and then follows
        /// its changes. It answers reads, and refuses operations with 503 WG507, which names the
        /// primary.
        follow: Option<HttpUrl> = None;
        /// When an operation is acknowledged: with "local", once it is on this store's disk; with
        /// "standby", once it is on a standby's disk as well, so that no acknowledged operation is
        /// lost with this machine. Set it to the same value on every member (docs/operations.md).
        acknowledge: Acknowledge = Acknowledge::Local;
        /// How long the answer to an operation waits for a standby if acknowledge is "standby", in
        /// milliseconds. After that, the operation may or may not have been applied (WG505), and
        /// further ones are refused until a standby is connected (WG504).
        standby_timeout_ms: u64 = 5000, within 100..=600_000;
        /// A file with the bearer token that a standby sends to its primary, whose auth.admin_roles
        /// must have the role of the token. It is read again for each connection.
        token_file as "replication_token_file": Option<PathBuf> = None;
        /// The certificate authorities that a standby trusts for its primary instead of those of
        /// the system, in PEM.
        ca as "replication_ca": Option<PathBuf> = None;
        /// The client certificate that a standby presents to its primary, in PEM.
        certificate as "replication_certificate": Option<PathBuf> = None;
        /// The private key of that certificate, in PEM.
        key as "replication_key": Option<PathBuf> = None;
    }
    /// The store in a PostgreSQL database.
    postgres: Postgres {
        /// How many connections apply operations, and so how many batches may be in flight.
        connections as "postgres_connections": usize = 2, within 1..=64;
        /// How many connections answer lookups.
        lookup_connections as "postgres_lookup_connections": usize = 1, within 1..=64;
        /// How to reach the workers of a registry distributed by Citus. Statements that concern one
        /// or two workers are sent to them directly: at the addresses in the catalogs of Citus, or
        /// at others given here. With "off", everything goes through the coordinator. On a single
        /// server this has no effect.
        nodes as "postgres_nodes": Nodes = Nodes::default();
        /// How many operations one commit may have.
        batch_operations_max as "postgres_batch_operations_max": usize = 256, within 1..=4096;
        /// How many requests may wait. Any more are answered with 503 WG503.
        queue_operations_max as "postgres_queue_operations_max": usize = 2048, within 1..=65_536;
        /// How many bytes of text the waiting requests may have together.
        queue_bytes_max as "postgres_queue_bytes_max": usize = 4 << 20, within 4096..=1 << 30;
        /// How long a request may wait to be sent, or to be sent again after a conflict.
        queue_wait_ms_max as "postgres_queue_wait_ms_max": u64 = 5000, within 1..=600_000;
        /// How long opening a connection may take.
        connect_timeout_ms as "postgres_connect_timeout_ms": u64 = 2000, within 1..=600_000;
        /// How long a statement may take before it is cancelled.
        statement_timeout_ms as "postgres_statement_timeout_ms": u64 = 5000, within 1..=600_000;
    }
    /// Logging, on standard error.
    log: Log {
        /// The format of log lines: text for people, or a JSON object per line for programs.
        format as "log_format": LogFormat = LogFormat::Text;
        /// What is logged. Each place in the program logs at most 10 lines of the levels error,
        /// warn and info in 10 seconds, and then how many it left out.
        filter as "log_filter": Filter = Filter::default();
        /// Logs a line for each request, as a JSON object whatever log.format is: method, route,
        /// status, code, duration, caller and X-Request-Id. It never contains bodies, serial
        /// numbers or tokens.
        requests as "log_requests": bool = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn flags_and_variables_are_unique() {
        let flags: BTreeSet<String> = KEYS.iter().map(Key::flag).collect();
        assert_eq!(flags.len(), KEYS.len());
    }

    #[test]
    fn every_default_is_accepted_in_the_form_it_is_shown() {
        let defaults = Configuration::default();
        for key in KEYS {
            let toml = (key.get)(&defaults);
            let text = toml.trim_matches('"');
            let mut configuration = defaults.clone();
            assert_eq!(
                (key.set)(&mut configuration, text),
                Ok(()),
                "{}",
                key.path()
            );
            assert_eq!(configuration, defaults);
        }
    }

    #[test]
    fn limits_are_inclusive_and_errors_show_the_given_value() {
        let connections_max = |text| {
            let mut configuration = Configuration::default();
            let key = KEYS.iter().find(|key| key.name == "connections_max");
            (key.expect("the key").set)(&mut configuration, text)
                .map(|()| configuration.http.connections_max)
        };
        assert_eq!(connections_max("1"), Ok(1));
        assert_eq!(connections_max("1000000"), Ok(1_000_000));
        let refused = [
            ("0", "0"),
            ("1000001", "1000001"),
            ("-1", "-1"),
            ("99999999999999999999", "99999999999999999999"),
            ("1.5", "\"1.5\""),
            ("", "\"\""),
        ];
        for (given, shown) in refused {
            let refused = format!("must be an integer from 1 to 1000000, {shown} was given");
            assert_eq!(connections_max(given), Err(refused));
        }
    }

    #[test]
    fn the_help_of_segment_bytes_states_the_minimum_of_the_engine() {
        let mut keys = KEYS.iter();
        let key = keys.find(|key| key.path() == "engine.segment_bytes");
        let help = key.expect("the key").help();
        let operations = Engine::default().queue_operations_max;
        let least = widgets_engine::Settings::segment_bytes_min(operations);
        assert!(help.contains(&format!(" {least} bytes,")), "{help}");
    }
}
