//! `widgets archive list` and `prune`.

use super::{Url, bytes_text, entries_text, progress::Shown, wait};
use crate::Outcome;
use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};
use widgets_archive::{Manifest, list, prune, time_text};
use widgets_clock::{Clock as _, SystemClock};

#[derive(clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    url: Url,
}

impl List {
    pub(super) fn run(self) -> Outcome {
        let bucket = self.url.open()?;
        let manifest = wait(list(&bucket))??;
        show(&manifest, &mut io::stdout().lock())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn show(manifest: &Manifest, out: &mut impl io::Write) -> io::Result<()> {
    writeln!(
        out,
        "the archive of the store {:016x}, written by its writer {}",
        manifest.store.0, manifest.writer
    )?;
    for moments in manifest.moments() {
        let entries = entries_text(moments.first, moments.last + 1);
        let from = match moments.oldest {
            Some(0) => time_text(0),
            Some(oldest) => time_text(oldest),
            None => {
                writeln!(out, "{entries}: no checkpoint yet, nothing can be restored")?;
                continue;
            }
        };
        writeln!(
            out,
            "every moment from {from} to {} ({entries}, epoch {})",
            time_text(moments.newest),
            moments.epoch
        )?;
        for checkpoint in moments.checkpoints {
            writeln!(
                out,
                "  checkpoint of {}: {}, in {} objects of {}",
                time_text(checkpoint.usable_at),
                bytes_text(checkpoint.raw_bytes),
                checkpoint.parts,
                bytes_text(checkpoint.bytes)
            )?;
        }
    }
    Ok(())
}

#[derive(clap::Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    url: Url,
    /// Keep every moment that is not older than this, such as `14days` or `36h`.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    keep: Duration,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    pub(super) fn run(self) -> Outcome {
        let bucket = self.url.open()?;
        let now = SystemClock::new().unix_time();
        let keep_from = u64::try_from(now.saturating_sub(self.keep).as_micros())?;
        let mut bar = Shown::new();
        let told = |done, total| bar.set("removing", false, done, total);
        let pruned = wait(prune(&bucket, keep_from, self.dry_run, told))?;
        bar.finish();
        let pruned = pruned?;
        let verb = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{verb} {} checkpoints and {} objects",
            pruned.checkpoints, pruned.objects
        )?;
        match pruned.oldest {
            Some(oldest) => writeln!(
                out,
                "every moment from {} on can be restored",
                time_text(oldest)
            )?,
            None => writeln!(out, "nothing is older than what the kept moments need")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
