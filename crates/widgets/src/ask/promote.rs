//! `widgets promote`: makes a standby the primary.

use super::{Credentials, EXIT_CODES, Failure, exit, table};
use crate::Outcome;
use std::{
    io::{self, Write as _},
    time::Duration,
};
use widgets_load::quantity;

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Promote {
    /// The URL of the standby: http:// or https://, a host, and optionally a port and a path that precedes every route. The
    /// old primary refers its callers to this URL.
    #[arg(value_name = "URL")]
    standby: String,
    /// Lose nothing: the primary stops accepting operations, the standby catches up, and the two swap roles. Operations wait
    /// meanwhile. If the standby does not catch up in time, the primary carries on as before.
    #[arg(long)]
    switchover: bool,
    /// How long the primary waits for the standby with --switchover.
    #[arg(long, default_value = "5s", value_parser = quantity::time, requires = "switchover")]
    within: Duration,
    /// Promote the standby although it is not the holder, and accept that acknowledged operations may be lost: with
    /// replication.acknowledge = "standby", only the holder is certain to have them all. Use this only if the primary and the
    /// holder are both gone for good; the holder must never be promoted afterwards. Without this flag such a standby is
    /// refused.
    #[arg(long, conflicts_with = "switchover")]
    force: bool,
    #[command(flatten)]
    credentials: Credentials,
    /// How long a response may take.
    #[arg(long, default_value = "10s", value_parser = quantity::time, help_heading = "Connection")]
    timeout: Duration,
}

impl Promote {
    pub(crate) fn run(self) -> Outcome {
        exit(self.promote())
    }

    fn promote(self) -> Result<(), Failure> {
        let shown = self.standby.clone();
        let client = self.credentials.client(self.standby, self.timeout)?;
        let promoted = if self.switchover {
            client.switch_over(self.within)?
        } else if self.force {
            client.promote_by_force()?
        } else {
            client.promote()?
        };
        let state = if promoted.promoted {
            "is the primary now"
        } else {
            "was the primary already"
        };
        let epoch = promoted.epoch;
        // Another server than the service may have answered.
        let (shown, position) = (table::shown(&shown), table::shown(&promoted.position));
        writeln!(
            io::stdout(),
            "{shown} {state}, in epoch {epoch}: it continues after position {position}"
        )?;
        Ok(())
    }
}
