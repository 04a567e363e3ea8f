//! Where the database is and how a connection to it is made: the URL, TLS, timeouts.
//!
//! A connection keeps no state of its own between statements, so PgBouncer may stand in between,
//! in transaction mode: no prepared statements by name, no SET, no session locks, no startup
//! options.

use crate::{OpenError, error::reason};
use percent_encoding::percent_decode_str;
use std::{fmt, future::poll_fn, path::Path, str::FromStr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinHandle,
};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, config::Host, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A database, as a URL says it: `postgres://user:password@host:port/database?sslmode=…`.
///
/// Besides what libpq knows of `sslmode` (`disable`, `prefer`, `require`, `verify-full`) it takes
/// `sslrootcert`, the file of the certificates to trust, which `verify-full` needs. As in libpq,
/// `prefer` and `require` check no certificate. `Debug` and `Display` leave the password out.
#[derive(Clone)]
pub struct Target {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Target {
    /// Whether this is the URL of a PostgreSQL database at all.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    }

    /// Reads a URL, and the certificates that it names.
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
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => {
                    let path = percent_decode_str(value)
                        .decode_utf8()
                        .map_err(|_| defect("has an sslrootcert that is not UTF-8"))?;
                    root = Some(path.into_owned());
                }
                _ => rest.push(pair),
            }
        }
        let mut config = Config::from_str(&format!("{base}?{}", rest.join("&")))
            .map_err(|error| defect(&format!("is not understood: {}", reason(&error))))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(defect("names no host"));
        }
        if config.get_application_name().is_none() {
            config.application_name("widgets");
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
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls),
        })
    }

    /// Makes a connection within this time. Its task ends with it.
    pub(crate) async fn connect(&self, timeout: Duration) -> Result<Connected, OpenError> {
        let failed = |reason| OpenError::Connect {
            target: self.to_string(),
            reason,
        };
        let connecting = self.config.connect(self.tls.clone());
        let (client, connection) = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| failed(format!("no answer within {} ms", timeout.as_millis())))?
            .map_err(|error| failed(reason(&error)))?;
        let (alive, broken) = watch::channel(());
        let task = tokio::spawn(async move {
            drive(connection).await;
            drop(alive);
        });
        Ok(Connected {
            client,
            task,
            broken,
        })
    }

    /// Asks the server to cancel what `client` is doing.
    pub(crate) async fn cancel(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.cancel_token().cancel_query(self.tls.clone()).await
    }
}

/// A connection and the task that moves its bytes.
pub(crate) struct Connected {
    pub(crate) client: Client,
    task: JoinHandle<()>,
    broken: watch::Receiver<()>,
}

impl Connected {
    /// Waits until the connection has ended.
    pub(crate) async fn broken(&self) {
        // The only news is that the sender is gone.
        drop(self.broken.clone().changed().await);
    }
}

/// Moves the bytes of a connection until it ends, and logs what the server has to say.
async fn drive<S, T>(mut connection: Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if notice.severity() == "WARNING" => {
                let hint = notice.hint().unwrap_or_default();
                tracing::warn!(hint, "the database warns: {}", notice.message());
            }
            Ok(_) => {}
            // Whoever waits for an answer learns of the failure as well.
            Err(error) => {
                tracing::debug!(error = reason(&error), "a connection to the database broke");
                return;
            }
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        // It may hang on a peer that is gone.
        self.task.abort();
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                #[cfg(unix)]
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
            let ports = self.config.get_ports();
            if let Some(port) = ports.get(index).or_else(|| ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
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
    fn a_target_shows_everything_but_the_password() {
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
    fn wrong_urls_are_refused_without_their_password() {
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
            refused("postgres:///registry"),
            "the URL of the database names no host"
        );
        let wrong = refused("postgres://ann:secret@db:port/registry");
        assert!(wrong.contains("is not understood"), "{wrong}");
        assert!(!wrong.contains("secret"), "{wrong}");
    }

    #[test]
    fn verifying_needs_certificates_to_trust() {
        assert!(refused("postgres://db/registry?sslmode=verify-full").contains("sslrootcert"));
        let missing = refused("postgres://db/r?sslmode=verify-full&sslrootcert=/no%20such/file");
        assert!(
            missing.starts_with("the certificates in /no such/file:"),
            "{missing}"
        );
    }
}
