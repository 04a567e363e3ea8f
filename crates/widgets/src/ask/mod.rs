//! The commands that send requests to a running service, for which people would otherwise write
//! `curl` and JSON.
//!
//! They know none of the rules: the service decides what is valid and what is refused.

mod holder;
mod list;
mod near;
mod operations;
mod promote;
mod show;
mod table;
mod watch;

pub(crate) use {
    holder::Holder,
    list::List,
    near::Near,
    operations::{Add, Associate, Dissociate, Remove},
    promote::Promote,
    show::Get,
    watch::Watch,
};

use crate::{Misuse, Outcome};
use std::{
    env::{self, VarError},
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use widgets_client::{Client, Error, Settings};
use widgets_files::read_short;
use widgets_load::quantity;

/// What `--help` says about the exit codes of these commands.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the service could not be reached or cannot do it now; 2 the input is wrong: the \
command line, a variable, or the file of the token or of the certificates; 3 the service refused it and nothing was \
changed; 4 it may or may not have been applied.";

const REFUSED: u8 = 3;
const FATE_UNKNOWN: u8 = 4;

/// The credentials for a service, and the certificates to trust.
#[derive(clap::Args)]
pub(crate) struct Credentials {
    /// A file with the bearer token to send. The token itself may be in the variable `WIDGETS_TOKEN`.
    #[arg(
        long,
        env = "WIDGETS_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    token_file: Option<PathBuf>,
    /// Trust the certificates in this PEM file instead of the system's.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "insecure",
        help_heading = "Connection"
    )]
    ca: Option<PathBuf>,
    /// Trust any certificate.
    #[arg(long, help_heading = "Connection")]
    insecure: bool,
}

/// The URL of the service, and the credentials for it.
#[derive(clap::Args)]
pub(crate) struct Service {
    /// The URL of the service: http:// or https://, a host, and optionally a port and a path that precedes every route.
    #[arg(
        long,
        env = "WIDGETS_URL",
        default_value = "http://127.0.0.1:3000",
        help_heading = "Connection"
    )]
    url: String,
    #[command(flatten)]
    credentials: Credentials,
    /// How long a response may take. Without one, a few more attempts follow.
    #[arg(long, default_value = "10s", value_parser = quantity::time, help_heading = "Connection")]
    timeout: Duration,
}

impl Service {
    fn client(self) -> Result<Client, Error> {
        self.credentials.client(self.url, self.timeout)
    }
}

impl Credentials {
    /// Creates a client for the service at a URL.
    pub(crate) fn client(self, url: String, timeout: Duration) -> Result<Client, Error> {
        let token = match self.token_file {
            Some(path) => {
                let failed =
                    |why| Error::Settings(format!("the token in {}: {why}", path.display()));
                let text = read_short(&path).and_then(crate::config::text);
                let text = text.map_err(|error| failed(error.to_string()))?;
                Some(text.trim().to_owned())
            }
            // There is no flag for it, because every user of the machine can read command lines.
            None => match env::var("WIDGETS_TOKEN") {
                Ok(token) => Some(token),
                Err(VarError::NotPresent) => None,
                Err(VarError::NotUnicode(_)) => {
                    let why = "the token in WIDGETS_TOKEN is not UTF-8 text";
                    return Err(Error::Settings(why.into()));
                }
            },
        };
        Client::new(&Settings {
            url,
            token,
            ca: self.ca,
            insecure: self.insecure,
            timeout,
        })
    }
}

/// Turns the outcome into an exit code, and reports an error.
pub(crate) fn exit(outcome: Result<(), Failure>) -> Outcome {
    let error = match outcome {
        Ok(()) => return Ok(ExitCode::SUCCESS),
        // The reader has seen enough, as `head` has.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::Output(error)) => return Err(format!("writing the output: {error}").into()),
        Err(Failure::Asking(error)) => error,
    };
    // The message may contain text from any server or from the arguments, which must not control
    // the terminal.
    let told = table::shown(&error.to_string()).into_owned();
    let code = match &error {
        Error::Refused(_) => REFUSED,
        Error::FateUnknown(_) => FATE_UNKNOWN,
        Error::Settings(_) => return Err(Misuse(told).into()),
        _ => return Err(told.into()),
    };
    // If even that cannot be written, there is nobody to report to.
    drop(writeln!(io::stderr(), "error: {told}"));
    Ok(code.into())
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    Asking(Error),
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Asking(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
