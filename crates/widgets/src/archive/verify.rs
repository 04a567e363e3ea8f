//! `widgets archive verify`, and `widgets verify` for a directory.

use super::{Url, bytes_text, entries_text, progress::Shown, wait};
use crate::{Outcome, stores};
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};
use widgets_archive::{time_text, verify};
use widgets_engine::Settings;

#[derive(clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    url: Url,
}

impl Verify {
    pub(super) fn of(url: Url) -> Self {
        Self { url }
    }

    pub(super) fn run(self) -> Outcome {
        let bucket = self.url.open()?;
        let mut bar = Shown::new();
        let told = |done, total| bar.set("verifying", false, done, total);
        let verified = wait(verify(&bucket, told))?;
        bar.finish();
        let (manifest, report) = verified?;
        let mut out = io::stdout().lock();
        for problem in &report.problems {
            writeln!(out, "{}: {}", problem.object, problem.defect)?;
        }
        let read = format!("{} objects of {}", report.objects, bytes_text(report.bytes));
        if !report.problems.is_empty() {
            let problems = report.problems.len();
            return Err(format!("{read} read, {problems} problems found").into());
        }
        let newest = manifest.moments().last().map(|moments| moments.newest);
        match newest {
            Some(newest) => writeln!(out, "{read} are intact, up to {}", time_text(newest))?,
            None => writeln!(out, "{read} are intact: the archive is empty")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Verifies a data directory that no service is running on.
///
/// Reads what a start reads, and the changes that are kept for subscribers, and changes nothing. Names whatever is damaged,
/// and exits with 1 if anything is.
#[derive(clap::Args)]
pub(crate) struct VerifyStore {
    /// The data directory.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

impl VerifyStore {
    pub(super) fn of(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    pub(crate) fn run(self) -> Outcome {
        let verified = widgets_engine::verify(&self.data_dir, &Settings::default());
        let verified = verified.map_err(|error| stores::explained(&self.data_dir, &error))?;
        let (counts, end) = (verified.counts, verified.end);
        let entries = entries_text(verified.oldest, end.next_sequence);
        let journal = if verified.oldest < end.next_sequence {
            format!("{entries}, the last of {}", time_text(end.at))
        } else {
            format!("{entries} in its journal")
        };
        writeln!(
            io::stdout(),
            "{} is intact: {} widgets and {} associations, {journal}",
            self.data_dir.display(),
            counts.widgets,
            counts.associations,
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
