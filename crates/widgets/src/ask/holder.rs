//! `widgets holder`: shows or changes which member must have an operation before its caller is
//! answered.

use super::{Credentials, EXIT_CODES, Failure, exit, table};
use crate::Outcome;
use std::{
    io::{self, Write as _},
    time::Duration,
};
use widgets_load::quantity;

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Holder {
    /// The URL of the primary: http:// or https://, a host, and optionally a port and a path that precedes every route.
    #[arg(value_name = "URL")]
    primary: String,
    /// Make this standby the holder, by the name that the command lists. The current holder must be connected, because it
    /// has to be told first.
    #[arg(long, value_name = "MEMBER", conflicts_with = "alone")]
    member: Option<String>,
    /// Let the primary's own disk suffice until a standby has everything. Use this only if the holder is gone for good: you
    /// vouch that it will never be promoted.
    #[arg(long)]
    alone: bool,
    /// Print the response of the service, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    credentials: Credentials,
    /// How long a response may take.
    #[arg(long, default_value = "10s", value_parser = quantity::time, help_heading = "Connection")]
    timeout: Duration,
}

impl Holder {
    pub(crate) fn run(self) -> Outcome {
        exit(self.print())
    }

    fn print(self) -> Result<(), Failure> {
        let client = self.credentials.client(self.primary, self.timeout)?;
        let wanted = if self.alone {
            Some("alone".to_owned())
        } else {
            self.member
        };
        let (told, json) = client.holder(wanted.as_deref())?;
        let mut out = io::stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{json}")?);
        }
        let holder = told.holder.as_deref().unwrap_or("nobody");
        let has = format!("{}, entries before {}", told.member, told.next_sequence);
        let mut rows: Vec<[String; 2]> = vec![
            ["acknowledged by".into(), told.acknowledged_by.clone()],
            ["holder".into(), holder.into()],
            ["primary".into(), has],
        ];
        if let Some(leaving) = &told.leaving {
            let waits = format!(
                "{leaving}, which has yet to be told that it is no longer the \
            holder"
            );
            rows.insert(2, ["leaving".into(), waits]);
        }
        for standby in &told.standbys {
            let has = format!(
                "{}, entries before {}",
                standby.member, standby.next_sequence
            );
            rows.push(["standby".into(), has]);
        }
        // Another server than the service may have answered.
        let rows: Vec<_> = rows
            .iter()
            .map(|[name, value]| [name.clone(), table::shown(value).into_owned()])
            .collect();
        Ok(table::write(&mut out, None, &rows)?)
    }
}
