//! The address of the database and how to connect to it: the URL, TLS and timeouts.
//!
//! A URL may name several hosts, one of which is the primary. Each is tried in turn with the full
//! timeout, so that a host that does not answer hides no other. A server that was
//! [replaced](crate::histories) is not used any more.
//!
//! A connection keeps no state between statements, so PgBouncer in transaction mode may be in
//! between: there are no named prepared statements, no SET, no session locks, and no startup
//! options.

use crate::{
    OpenError,
    bounded::{Bounded, Encryption, bound},
    connected::Connected,
    error::reason,
    histories::{Histories, History},
    password::Password,
    system_random,
};
use percent_encoding::percent_decode_str;
use std::{fmt, path::Path, str::FromStr, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_postgres::{
    Client, Config,
    config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs},
};

/// When TCP keepalive first probes an idle connection, how often it probes it, and how many probes
/// may remain unanswered. The URL can override each.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;

/// A database, given by a URL: `postgres://user:password@host:port/database?sslmode=…`.
///
/// `sslmode` is `disable`, `prefer`, `require` or `verify-full`, as in libpq. `verify-full` needs
/// `sslrootcert`, the file with the trusted certificates. As in libpq, `prefer` and `require` check
/// no certificate.
///
/// Whatever the URL says, writes go only to a server that takes them. A server that does not is
/// used for reads only if `target_session_attrs` is `any` or `read-only`; unlike in libpq, the
/// default is `read-write`. `Debug` and `Display` omit the password.
#[derive(Clone)]
pub struct Target {
    /// How to reach each host, in the order in which hosts are tried.
    hosts: Vec<Config>,
    streams: Bounded,
    /// A password that is given separately from the URL.
    password: Option<Password>,
    /// What a server must be to be read from.
    reads: TargetSessionAttrs,
    histories: Arc<Histories>,
}

impl Target {
    /// Reports whether this is the URL of a PostgreSQL database at all.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    }

    /// Parses a URL and reads the certificates that it names.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let defect = |defect: &str| OpenError::Url {
            defect: defect.into(),
        };
        if !Self::is_url(url) {
            return Err(defect("must begin with postgres:// or postgresql://"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut rest = Vec::new();
        let mut mode = None;
        let mut root = None;
        let mut reads = TargetSessionAttrs::ReadWrite;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => {
                    let path = percent_decode_str(value)
                        .decode_utf8()
                        .map_err(|_| defect("has an sslrootcert that is not UTF-8"))?;
                    root = Some(path.into_owned());
                }
                Some(("target_session_attrs", value)) => {
                    reads = match value {
                        "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                        "any" => TargetSessionAttrs::Any,
                        "read-only" => TargetSessionAttrs::ReadOnly,
                        other => {
                            return Err(defect(&format!(
                                "has target_session_attrs={other}; it must be read-write, \
                                 primary, any or read-only"
                            )));
                        }
                    }
                }
                _ => rest.push(pair),
            }
        }
        let mut config = Config::from_str(&format!("{base}?{}", rest.join("&")))
            .map_err(|error| defect(&format!("cannot be parsed: {}", reason(&error))))?;
        if config.get_application_name().is_none() {
            config.application_name("widgets");
        }
        // By default the operating system probes after two hours. If the other end of an idle
        // connection is gone, we want to know before somebody waits for it.
        if !rest.iter().any(|pair| pair.starts_with("keepalives_idle=")) {
            config.keepalives_idle(KEEPALIVES_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVES_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVES_RETRIES);
        }
        let verify = match mode.unwrap_or("prefer") {
            "disable" => {
                config.ssl_mode(SslMode::Disable);
                false
            }
            "prefer" => {
                config.ssl_mode(SslMode::Prefer);
                false
            }
            "require" => {
                config.ssl_mode(SslMode::Require);
                false
            }
            "verify-full" => {
                config.ssl_mode(SslMode::Require);
                true
            }
            other => {
                return Err(defect(&format!(
                    "has sslmode={other}; it must be disable, prefer, require or verify-full"
                )));
            }
        };
        let tls = match (verify, root) {
            (false, None) => widgets_tls::unverified()?,
            (false, Some(_)) => {
                return Err(defect("has an sslrootcert, which only verify-full uses"));
            }
            (true, Some(path)) => widgets_tls::verified(widgets_tls::roots(Path::new(&path))?)?,
            (true, None) => {
                return Err(defect(
                    "has sslmode=verify-full, which needs sslrootcert=FILE, the certificates to trust",
                ));
            }
        };
        let encryption = Encryption::of(&config).map_err(defect)?;
        Ok(Self {
            hosts: hosts(&config).map_err(defect)?,
            streams: Bounded::new(tls, encryption),
            password: None,
            reads,
            histories: Arc::default(),
        })
    }

    /// Returns a target for the same database on another server, with the same role, password and
    /// TLS.
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        let mut there = self.hosts.first().map_or_else(Config::new, without_hosts);
        there.host(host).port(port);
        bound(&mut there);
        Self {
            hosts: vec![there],
            streams: self.streams.clone(),
            password: self.password.clone(),
            reads: TargetSessionAttrs::ReadWrite,
            histories: Arc::default(),
        }
    }

    /// Uses this password instead of the URL's.
    #[must_use]
    pub fn with_password(mut self, password: Password) -> Self {
        self.password = Some(password);
        self
    }

    /// Reports whether the URL contains a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        let has = |host: &Config| host.get_password().is_some();
        self.hosts.iter().any(has)
    }

    /// Checks that the password can be read. Otherwise returns why not: a file may be missing or
    /// unreadable.
    pub fn check_password(&self) -> Result<(), String> {
        match &self.password {
            Some(password) => password.read().map(drop),
            None => Ok(()),
        }
    }

    /// Makes a connection for reads, with this timeout for each host. Dropping the connection ends
    /// its task.
    pub(crate) async fn connect(&self, timeout: Duration) -> Result<Connected, OpenError> {
        self.connect_to(self.reads, timeout).await
    }

    /// Makes a connection to a server that takes writes.
    pub(crate) async fn connect_to_write(&self, timeout: Duration) -> Result<Connected, OpenError> {
        self.connect_to(TargetSessionAttrs::ReadWrite, timeout)
            .await
    }

    /// Reports whether a standby may be read from.
    pub(crate) fn may_read_from_standby(&self) -> bool {
        self.reads != TargetSessionAttrs::ReadWrite
    }

    async fn connect_to(
        &self,
        wanted: TargetSessionAttrs,
        timeout: Duration,
    ) -> Result<Connected, OpenError> {
        let mut reasons = Vec::new();
        let failed = |reason| OpenError::Connect {
            target: self.to_string(),
            reason,
        };
        let password = match &self.password {
            Some(password) => {
                let read = password.read_aside().await;
                Some(read.map_err(|why| failed(format!("its password: {why}")))?)
            }
            None => None,
        };
        for host in self.hosts_in_turn() {
            let mut host = host.clone();
            if let Some(password) = &password {
                host.password(password);
            }
            host.target_session_attrs(wanted);
            let reason = match tokio::time::timeout(timeout, self.connect_host(&host)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {} ms", timeout.as_millis()),
            };
            reasons.push(if self.hosts.len() == 1 {
                reason
            } else {
                format!("{}: {reason}", At(&host))
            });
        }
        Err(failed(reasons.join("; ")))
    }

    /// Reports whether a server that may be read from answers at all. Refusing the connection with
    /// an error message counts as an answer.
    pub(crate) async fn is_answered(&self, timeout: Duration) -> bool {
        let mut asked = JoinSet::new();
        for host in &self.hosts {
            let (mut host, streams) = (host.clone(), self.streams.clone());
            host.target_session_attrs(self.reads);
            asked.spawn(async move {
                match tokio::time::timeout(timeout, host.connect(streams)).await {
                    Ok(Ok(_)) => true,
                    Ok(Err(error)) => error.as_db_error().is_some(),
                    Err(_) => false,
                }
            });
        }
        while let Some(answered) = asked.join_next().await {
            if matches!(answered, Ok(true)) {
                return true;
            }
        }
        false
    }

    async fn connect_host(&self, host: &Config) -> Result<Connected, String> {
        let connecting = host.connect(self.streams.clone()).await;
        let (client, connection) = connecting.map_err(|error| reason(&error))?;
        let mut connected = Connected::new(client, connection);
        let history = History::of(&connected.client).await;
        let history = history.map_err(|error| reason(&error))?;
        connected.place = Some(self.histories.meet(history)?);
        Ok(connected)
    }

    /// Returns the hosts in order, beginning with the first, or with a random one if
    /// `load_balance_hosts` is `random`.
    fn hosts_in_turn(&self) -> impl Iterator<Item = &Config> {
        let spread = |host: &Config| host.get_load_balance_hosts() == LoadBalanceHosts::Random;
        let first = if self.hosts.iter().any(spread) {
            usize::try_from(system_random() % self.hosts.len() as u64).unwrap_or_default()
        } else {
            0
        };
        let (last, rest) = self.hosts.split_at(first);
        rest.iter().chain(last)
    }

    /// Asks the server to cancel the statement of `client`.
    pub(crate) async fn cancel(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client
            .cancel_token()
            .cancel_query(self.streams.clone())
            .await
    }
}

/// Returns a separate configuration for each host, or what is wrong with the hosts.
fn hosts(config: &Config) -> Result<Vec<Config>, &'static str> {
    let (names, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let count = names.len().max(addresses.len());
    if count == 0 {
        return Err("names no host");
    }
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err("has a different number of hosts and hostaddrs");
    }
    let ports = config.get_ports();
    if ports.len() > 1 && ports.len() != count {
        return Err("has a different number of ports and hosts");
    }
    let alone = |number: usize| {
        let mut host = without_hosts(config);
        match names.get(number) {
            Some(Host::Tcp(name)) => drop(host.host(name)),
            #[cfg(unix)]
            Some(Host::Unix(path)) => drop(host.host_path(path)),
            None => {}
        }
        if let Some(address) = addresses.get(number) {
            host.hostaddr(*address);
        }
        if let Some(port) = ports.get(number).or_else(|| ports.first()) {
            host.port(*port);
        }
        bound(&mut host);
        host
    };
    Ok((0..count).map(alone).collect())
}

/// Copies a configuration without its hosts and ports.
fn without_hosts(config: &Config) -> Config {
    let mut rest = Config::new();
    if let Some(user) = config.get_user() {
        rest.user(user);
    }
    if let Some(password) = config.get_password() {
        rest.password(password);
    }
    if let Some(name) = config.get_dbname() {
        rest.dbname(name);
    }
    if let Some(options) = config.get_options() {
        rest.options(options);
    }
    if let Some(name) = config.get_application_name() {
        rest.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        rest.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        rest.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        rest.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        rest.keepalives_retries(retries);
    }
    rest.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    rest
}

/// Displays a host and its port.
struct At<'a>(&'a Config);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.get_hosts().first(), self.0.get_hostaddrs().first()) {
            (Some(Host::Tcp(name)), _) => f.write_str(name)?,
            #[cfg(unix)]
            (Some(Host::Unix(path)), _) => write!(f, "{}", path.display())?,
            (None, Some(address)) => write!(f, "{address}")?,
            (None, None) => {}
        }
        if let Some(port) = self.0.get_ports().first() {
            write!(f, ":{port}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        let first = self.hosts.first();
        if let Some(user) = first.and_then(Config::get_user) {
            write!(f, "{user}@")?;
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            At(host).fmt(f)?;
        }
        write!(
            f,
            "/{}",
            first.and_then(Config::get_dbname).unwrap_or_default()
        )
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Target::parse(url).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_target_is_displayed_without_its_password() {
        let target =
            Target::parse("postgres://ann:secret@db.example:5433/registry?sslmode=require")
                .expect("a URL");
        assert_eq!(
            target.to_string(),
            "postgres://ann@db.example:5433/registry"
        );
        assert_eq!(format!("{target:?}"), target.to_string());
        let target = Target::parse("postgres://ann@%2Frun%2Fpg/registry").expect("a URL");
        assert_eq!(target.to_string(), "postgres://ann@/run/pg:5432/registry");
    }

    #[test]
    fn invalid_urls_are_refused_without_showing_the_password() {
        assert_eq!(
            refused("mysql://ann:secret@db/registry"),
            "the URL of the database must begin with postgres:// or postgresql://"
        );
        assert_eq!(
            refused("postgres://ann:secret@db/registry?sslmode=maybe"),
            "the URL of the database has sslmode=maybe; it must be disable, prefer, require or \
             verify-full"
        );
        assert_eq!(
            refused("postgres://ann:secret@db/registry?sslnegotiation=direct"),
            "the URL of the database has sslnegotiation=direct, which needs sslmode=require or \
             verify-full"
        );
        assert_eq!(
            refused("postgres:///registry"),
            "the URL of the database names no host"
        );
        let wrong = refused("postgres://ann:secret@db:port/registry");
        assert!(wrong.contains("cannot be parsed"), "{wrong}");
        assert!(!wrong.contains("secret"), "{wrong}");
    }

    #[test]
    fn idle_connections_use_tcp_keepalives() {
        let kept_alive = |more: &str| {
            let target = Target::parse(&format!("postgres://one,two/registry{more}"));
            let host = target.expect("a URL").hosts.pop().expect("two hosts");
            let interval = host.get_keepalives_interval();
            let seconds = |time: Duration| time.as_secs();
            (
                seconds(host.get_keepalives_idle()),
                interval.map(seconds),
                host.get_keepalives_retries(),
            )
        };
        assert_eq!(kept_alive(""), (10, Some(5), Some(3)));
        assert_eq!(
            kept_alive("?keepalives_idle=60&keepalives_interval=7&keepalives_retries=9"),
            (60, Some(7), Some(9))
        );
    }

    #[test]
    fn verifying_a_certificate_requires_a_root_certificate_file() {
        assert!(refused("postgres://db/registry?sslmode=verify-full").contains("sslrootcert"));
        let missing = refused("postgres://db/r?sslmode=verify-full&sslrootcert=/no%20such/file");
        assert!(
            missing.starts_with("the certificates in /no such/file:"),
            "{missing}"
        );
    }
}
