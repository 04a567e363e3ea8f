//! Every key: its section, type, default and limits, and what it is for. The flags, the variables,
//! the help, the example file and `docs/configuration.md` are all made from this one list.

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

/// One thing that can be set.
pub(crate) struct Key {
    /// The section of the file.
    pub(crate) section: &'static str,
    /// The key in its section.
    pub(crate) name: &'static str,
    /// The word that its flag and variable are made of, where that is not the name.
    alias: Option<&'static str>,
    /// What it is for, in lines.
    doc: &'static [&'static str],
    /// What the file has for it.
    pub(super) kind: Kind,
    /// What it may be, in words that follow "must be".
    pub(super) limits: fn() -> String,
    /// Sets it from text, or says what it must be and what was given.
    pub(super) set: fn(&mut Configuration, &str) -> Result<(), String>,
    /// Its value as the file has it, secrets redacted.
    pub(super) get: fn(&Configuration) -> String,
}

impl Key {
    /// `section.name`
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The flag, without the dashes.
    pub(crate) fn flag(&self) -> String {
        self.alias.unwrap_or(self.name).replace('_', "-")
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("WIDGETS_{}", self.alias.unwrap_or(self.name).to_uppercase())
    }

    /// What it is for, with its limits, as one paragraph.
    pub(crate) fn help(&self) -> String {
        let doc: Vec<&str> = self.doc.iter().map(|line| line.trim()).collect();
        let limits = (self.limits)();
        format!("{} It must be {limits}.", doc.join(" "))
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
        /// All that can be set, by section.
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

        /// The sections in their order, each with what it is about.
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
    /// How the service is asked.
    http: Http {
        /// The address to listen on. One that other machines reach needs the section `auth`, or client
        /// certificates.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 3000));
        /// How many connections may be open at once. For one more the longest idle one is closed, of those
        /// clients that have most; where something is asked on all, it is answered 503 WG503 and closed.
        /// Where the limit of open files leaves fewer, it is those, and the log says so.
        connections_max: usize = 16_384, within 1..=1_000_000;
        /// How many of them one client may have, an IPv4 address or an IPv6 /64, unless it is one of
        /// trusted_proxies. It is never more than three quarters of connections_max.
        connections_per_client_max: usize = 4096, within 1..=1_000_000;
        /// An idle connection is closed after one to two times this.
        idle_timeout_ms: u64 = 75_000, within 100..=86_400_000;
        /// How long a request may take to arrive. A body that takes longer after its head is answered
        /// 408 WG408. Any other late request has its connection closed, within twice this time, and so has
        /// a client that asks nothing at first.
        request_timeout_ms: u64 = 15_000, within 100..=3_600_000;
        /// A client that takes nothing of an answer for so long is cut off, after at most twice as long,
        /// whatever else it sends.
        answer_timeout_ms: u64 = 30_000, within 100..=3_600_000;
        /// How many bytes of answers may wait until their clients read them, on all connections
        /// together. One connection gets a sixteenth of what is left at most; what has no room is
        /// answered 503 WG503, or its connection is cut.
        unread_bytes_max: usize = 64 << 20, within 32 << 20..=1 << 40;
        /// How many bytes the heads of requests may take until these are read to their end, on all
        /// connections together, beside one of ordinary length on each. One connection gets a sixteenth
        /// of what is left at most; what has no room is answered 503 WG503.
        heads_bytes_max: usize = 32 << 20, within 1 << 20..=1 << 40;
        /// How long a shutdown waits for answers that are under way.
        shutdown_timeout_ms: u64 = 25_000, within 0..=3_600_000;
        /// How many bytes a request's body may have. A longer one is answered 413.
        body_bytes_max: usize = 64 << 10, within 8 << 10..=16 << 20;
        /// How many bytes of bodies that are not whole yet may be held, of all requests together; of one
        /// connection, beside its first, a sixteenth of what is left. More is answered 503 WG503; a
        /// body that comes in one piece does not count.
        bodies_bytes_max: usize = 256 << 20, within 16 << 20..=1 << 40;
        /// How many rows an answer may have. What asks for more gets so many.
        rows_max: u32 = 1000, within 1..=10_000;
        /// How long a list may take. One that takes longer is answered 57014, and one that has not
        /// had its turn by then 503 WG503; so is `Read-After` of a standby that has not come so far.
        read_timeout_ms: u64 = 5000, within 1..=600_000;
        /// How many lists that no index serves may be under way at a time, of one caller three
        /// quarters of them. One more is answered 503 WG503. In PostgreSQL so many connections
        /// answer lists of any kind, and more of them wait.
        scans_max: usize = 4, within 1..=64;
        /// How many threads serve connections; 0 stands for one less than there are cores, and at
        /// least one.
        workers: usize = 0, within 0..=1024;
        /// The certificate for TLS, then those of the authorities between it and a root, in PEM.
        /// Read again when it changes, and at SIGHUP. With tls_key it turns TLS on.
        tls_certificate: Option<PathBuf> = None;
        /// The certificate's private key, in PEM. Read again as tls_certificate is.
        tls_key: Option<PathBuf> = None;
        /// The authorities whose certificates clients may show, in PEM. Read again as
        /// tls_certificate is.
        tls_client_ca: Option<PathBuf> = None;
        /// Whether clients must show a certificate of tls_client_ca, or may.
        tls_client_certificates: ClientCertificates = ClientCertificates::Required;
        /// How many requests a second one client may send, on average; 0 for any number. More are
        /// answered 429 WG429.
        rate_limit_per_second: u32 = 0, within 0..=1_000_000;
        /// How many requests one client may send at once after a pause.
        rate_limit_burst: u32 = 100, within 1..=1_000_000;
        /// Proxies in front of the service whose X-Forwarded-For says which client asks, and which may
        /// have as many connections as there are.
        trusted_proxies: Networks = Networks::default();
        /// The web pages of other sites that may ask without a token, by their origins. With a token
        /// any page may. The service on loopback that asks nobody who they are answers to these names
        /// as well.
        cors_origins: Origins = Origins::default();
    }
    /// Who gets in. While none of jwt_secret, jwt_secret_file, jwks_url, anonymous_role and
    /// certificate_role is set, everyone may do everything.
    auth: Auth {
        /// What tokens (JWT) are checked with: a secret, a JWK or a JWKS. Others on the machine can
        /// read flags: the variable or jwt_secret_file is better.
        jwt_secret: Secret = Secret::default();
        /// A file that has what jwt_secret would have. Read again when it changes, and at SIGHUP.
        jwt_secret_file: Option<PathBuf> = None;
        /// Where the keys of an identity provider are (a JWKS) that tokens are checked with. Fetched at
        /// the start, at SIGHUP and every jwks_refresh_ms. An unknown key in a token triggers a fetch
        /// as well, at most once in 10 s. When fetching fails, the keys that were fetched last go on.
        jwks_url: Option<HttpUrl> = None;
        /// The authorities whose certificates jwks_url may show, in PEM. Empty takes the system's.
        jwks_ca: Option<PathBuf> = None;
        /// How often the keys of jwks_url are fetched. A withdrawn key stays valid this long at most.
        jwks_refresh_ms: u64 = 300_000, within 1000..=86_400_000;
        /// How long fetching the keys of jwks_url may take, from looking up the host to the last byte.
        jwks_timeout_ms: u64 = 5000, within 100..=60_000;
        /// What a token's claim aud must name. Empty accepts every audience, and none.
        jwt_audience: Option<String> = None;
        /// What a token's claim iss must be. Empty accepts every issuer, and none.
        jwt_issuer: Option<String> = None;
        /// The claims that a token must have, whatever they say. The default is exp where jwks_url is
        /// set, and none elsewhere.
        jwt_require: RequiredClaims = RequiredClaims::Default;
        /// The claim that names the role: a member of the claims, or a JSON Pointer such as
        /// /app_metadata/role.
        jwt_role_claim: Option<String> = Some("role".into());
        /// The roles that may look widgets up.
        read_roles: Names = Names::of(&["reader", "writer", "admin"]);
        /// The roles that may call the four operations.
        write_roles: Names = Names::of(&["writer", "admin"]);
        /// The roles that may read /metrics and take backups.
        admin_roles: Names = Names::of(&["admin"]);
        /// The role of requests without a token. Empty refuses them.
        anonymous_role: Option<String> = None;
        /// The role of requests without a token from clients that showed a certificate. Empty makes
        /// them anonymous.
        certificate_role: Option<String> = None;
        /// Lets the service listen where other machines reach it although nobody is asked who they
        /// are: for when something in front of it decides who gets in.
        allow_public_without_auth: bool = false;
    }
    /// Where widgets are kept.
    store: Store {
        /// The store.
        url as "store": StoreKind = StoreKind::Embedded;
        /// The password of the database, where url has none, as it is: in a URL some letters must be written
        /// otherwise. Others on the machine can read flags: the variable or password_file is better.
        password as "store_password": Secret = Secret::default();
        /// A file that has what password would have. Read anew for each connection.
        password_file as "store_password_file": Option<PathBuf> = None;
        /// The directory of the embedded store. Made where it is missing.
        data_dir: PathBuf = PathBuf::from("widgets-data");
        /// Refuses to start where the embedded store has no files yet, instead of making a new one.
        /// From the second start on: a mistyped path or a volume that is not mounted is then told, and
        /// not served as an empty registry.
        must_exist: bool = false;
        /// Whether commits and workers wait a moment for more to come, which makes more of the
        /// processor's time and takes longer for each request: only as far as the service measures
        /// that processor time is short (auto), always or never.
        pacing: Mode = Mode::Auto;
    }
    /// The embedded store.
    engine: Engine {
        /// How many requests may wait, and so how many a batch can have. One more is answered 503
        /// WG503.
        queue_operations_max: usize = 2048, within 1..=65_536;
        /// How many bytes of text the waiting requests may have together.
        queue_bytes_max: usize = 4 << 20, within 4096..=1 << 30;
        /// How long a request may wait before it is refused.
        queue_wait_ms_max: u64 = 5000, within 1..=600_000;
        /// The size of a segment of the journal. A whole batch must fit into one: with the default of
        /// queue_operations_max that takes 3233840 bytes, with another one proportionally more or fewer.
        segment_bytes: u64 = 64 << 20,
            within widgets_engine::Settings::segment_bytes_min(1)..=u32::MAX.into();
        /// A checkpoint starts after this much journal, or half the last checkpoint's size if that is
        /// more. A restart replays little more than that.
        checkpoint_journal_bytes: u64 = 256 << 20, within 4096..=1 << 40;
    }
    /// The changes that were made, for those who ask for them. The embedded store keeps them in its
    /// journal, PostgreSQL in tables once `widgets migrate --changes` has turned that on.
    changes: Changes {
        /// How long changes are kept, in hours. 0 keeps what a restart needs anyway.
        retention_hours as "changes_retention_hours": u32 = 72, within 0..=1_000_000;
        /// How many bytes the journal, or the tables, may have for that. Where there are more, older changes go early.
        retention_bytes as "changes_retention_bytes": u64 = 4 << 30, within 0..=1 << 50;
        /// How many may follow the changes at a time, of one caller three quarters of them. One more
        /// is answered 503 WG503.
        subscribers_max as "changes_subscribers_max": usize = 1000, within 0..=1_000_000;
    }
    /// Idempotency keys, which make operations safe to repeat.
    idempotency: Idempotency {
        /// How long a key is kept, in hours.
        retention_hours as "idempotency_retention_hours": u32 = 24, within 1..=1_000_000;
        /// How many keys are kept. Where there are more, the oldest of the callers that have most go
        /// early. A million takes 65 MB of memory, or 110 MB of the database.
        keys_max as "idempotency_keys_max": u64 = 1_000_000, within 1..=100_000_000;
    }
    /// Copies of the embedded store, from which it is restored when its disk dies.
    archive: Archive {
        /// Where they are: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER.
        /// Each store needs one of its own. Credentials come by the provider's own variables.
        url as "archive_url": Option<ArchiveUrl> = None;
        /// How old an operation may become before it is in the archive. A shorter one writes more objects.
        interval_ms as "archive_interval_ms": u64 = 1000, within 10..=3_600_000;
        /// How many bytes the journal may have while the archive cannot be reached. Where it has more, the
        /// oldest goes: moments in it cannot be restored then.
        backlog_bytes_max as "archive_backlog_bytes_max": u64 = 16 << 30, within 64 << 20..=1 << 50;
        /// A checkpoint is copied at least so often, in hours, if anything changed.
        checkpoint_hours as "archive_checkpoint_hours": u32 = 24, within 1..=8760;
        /// And after this much journal, or half the last checkpoint's size if that is more. A restore replays
        /// little more than that.
        checkpoint_journal_bytes as "archive_checkpoint_journal_bytes": u64 = 1 << 30, within 1 << 20..=1 << 50;
    }
    /// A second machine for the embedded store: a standby that follows a primary (docs/operations.md).
    replication: Replication {
        /// The address of the primary that this store follows, as in https://primary:3000. It copies the primary's
        /// store into an empty data directory, takes over what happens there, answers whatever reads, and sends operations away.
        follow: Option<HttpUrl> = None;
        /// When an operation is answered: "local", once it is on this store's disk; "standby", once it is on a standby's as well, so
        /// that nothing answered is lost with this machine. Set it alike on every member (docs/operations.md).
        acknowledge: Acknowledge = Acknowledge::Local;
        /// For how long an answer waits for a standby with acknowledge = "standby", in milliseconds. Past it an operation may or may not
        /// have been applied (WG505), and further ones are refused until a standby is there (WG504).
        standby_timeout_ms: u64 = 5000, within 100..=600_000;
        /// A file with the bearer token that a standby shows its primary, of a role in auth.admin_roles there. It is
        /// read anew for each connection.
        token_file as "replication_token_file": Option<PathBuf> = None;
        /// A file in PEM with the certificates by which a standby knows its primary, in place of the system's.
        ca as "replication_ca": Option<PathBuf> = None;
        /// A file in PEM with the client certificate that a standby shows its primary.
        certificate as "replication_certificate": Option<PathBuf> = None;
        /// A file in PEM with its private key.
        key as "replication_key": Option<PathBuf> = None;
    }
    /// The store in a PostgreSQL database.
    postgres: Postgres {
        /// How many connections apply operations, and so how many batches are in flight.
        connections as "postgres_connections": usize = 2, within 1..=64;
        /// How many connections answer lookups.
        lookup_connections as "postgres_lookup_connections": usize = 1, within 1..=64;
        /// How the workers of a registry that Citus distributes are reached: what concerns one of them,
        /// or two, is sent there. By the addresses of Citus' catalogs, or others in their place; or by
        /// the coordinator alone. On one server it means nothing.
        nodes as "postgres_nodes": Nodes = Nodes::default();
        /// How many operations one commit may have.
        batch_operations_max as "postgres_batch_operations_max": usize = 256, within 1..=4096;
        /// How many requests may wait. One more is answered 503 WG503.
        queue_operations_max as "postgres_queue_operations_max": usize = 2048, within 1..=65_536;
        /// How many bytes of text the waiting requests may have together.
        queue_bytes_max as "postgres_queue_bytes_max": usize = 4 << 20, within 4096..=1 << 30;
        /// How long a request may wait to be sent, or to be sent again after a conflict.
        queue_wait_ms_max as "postgres_queue_wait_ms_max": u64 = 5000, within 1..=600_000;
        /// How long making a connection may take.
        connect_timeout_ms as "postgres_connect_timeout_ms": u64 = 2000, within 1..=600_000;
        /// How long a statement may take before it is cancelled.
        statement_timeout_ms as "postgres_statement_timeout_ms": u64 = 5000, within 1..=600_000;
    }
    /// What the service tells of itself, on its standard error.
    log: Log {
        /// For people, or a JSON object a line for programs.
        format as "log_format": LogFormat = LogFormat::Text;
        /// What is logged. One place in the program writes 10 lines of the levels error, warn and info
        /// in 10 seconds, and then how many it has left out.
        filter as "log_filter": Filter = Filter::default();
        /// Each request a line, as a JSON object whatever log.format is: method, route, status, code,
        /// duration, caller and X-Request-Id. No bodies, no serial numbers, no tokens.
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
    fn a_value_that_is_shown_can_be_given() {
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
    fn limits_are_inclusive_and_told_with_what_was_given() {
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
    fn what_a_segment_must_take_is_what_the_engine_asks_for() {
        let mut keys = KEYS.iter();
        let key = keys.find(|key| key.path() == "engine.segment_bytes");
        let help = key.expect("the key").help();
        let operations = Engine::default().queue_operations_max;
        let least = widgets_engine::Settings::segment_bytes_min(operations);
        assert!(help.contains(&format!(" {least} bytes,")), "{help}");
    }
}
