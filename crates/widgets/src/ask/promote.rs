//! `widgets promote`: a standby becomes the primary.

use super::{Credentials, EXIT_CODES, Failure, exit};
use crate::Outcome;
use std::{
    io::{self, Write as _},
    time::Duration,
};
use widgets_load::quantity;

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Promote {
    /// The standby: http:// or https://, host, and perhaps a port and a path before every route. The primary before it
    /// is told this address, and sends its callers there.
    #[arg(value_name = "URL")]
    standby: String,
    /// Lose nothing: the primary takes no operations any more, the standby catches up, and the two change roles. Operations wait
    /// meanwhile. Where the standby does not have everything in time, the primary goes on as before.
    #[arg(long)]
    switchover: bool,
    /// For how long the primary waits for the standby with --switchover.
    #[arg(long, default_value = "5s", value_parser = quantity::time, requires = "switchover")]
    within: Duration,
    /// Promote it although it is not the holder, which alone is sure to have every operation that was answered
    /// (replication.acknowledge = "standby"): your word that some may be lost. For when the primary and the holder are both gone for good; the
    /// holder must never be promoted afterwards. Without it such a standby is refused.
    #[arg(long, conflicts_with = "switchover")]
    force: bool,
    #[command(flatten)]
    credentials: Credentials,
    /// How long an answer may take.
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
        let (epoch, position) = (promoted.epoch, promoted.position);
        writeln!(
            io::stdout(),
            "{shown} {state}, in epoch {epoch}: it goes on after position {position}"
        )?;
        Ok(())
    }
}
