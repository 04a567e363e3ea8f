//! The report that a scenario prints and writes: a table with its conditions, for
//! `docs/performance.md`.

use std::{
    error::Error,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where a scenario keeps its data and writes its report.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// The directory for datasets and the report.
    #[arg(
        long = "output",
        default_value = "target/bench",
        value_name = "DIRECTORY"
    )]
    directory: PathBuf,
}

impl Output {
    /// Creates the directory if it does not exist, and returns it.
    pub(crate) fn directory(&self) -> Result<PathBuf, Box<dyn Error>> {
        let path = &self.directory;
        let made = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
        made.map_err(|error| format!("--output {}: {error}", path.display()).into())
    }
}

/// A table in Markdown.
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|", self.heads.join(" | "));
        text.push_str(&"---|".repeat(self.heads.len()));
        for row in &self.rows {
            text.push_str("\n| ");
            text.push_str(&row.join(" | "));
            text.push_str(" |");
        }
        text.push('\n');
        text
    }

    /// Prints the table below its conditions and a sentence about the method, and writes the same to
    /// `NAME.md`.
    pub(crate) fn write(
        &self,
        directory: &Path,
        name: &str,
        method: &str,
        more: &[String],
    ) -> Result<(), Box<dyn Error>> {
        let mut text = format!("{}\n\n{method}\n\n{}", conditions()?, self.markdown());
        for line in more {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{line}\n");
        }
        let path = directory.join(format!("{name}.md"));
        std::fs::write(&path, &text)?;
        say(&format!("\n{text}\nwritten to {}", path.display()))
    }
}

/// Formats a number with a useful number of digits; NaN becomes an empty text.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => String::new(),
        0.0 => "0".into(),
        size if size >= 1000.0 => {
            let mut digits = format!("{value:.0}");
            let mut at = digits.len();
            while at > 3 && digits.as_bytes()[at - 4].is_ascii_digit() {
                at -= 3;
                digits.insert(at, ',');
            }
            digits
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints a line about the progress.
pub(crate) fn say(line: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Describes the machine and the software with which the figures were measured.
fn conditions() -> Result<String, Box<dyn Error>> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let processor = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let gib = memory
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1_048_576.0;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let build = if cfg!(debug_assertions) {
        " A DEBUG BUILD: figures mean nothing."
    } else {
        ""
    };
    Ok(format!(
        "`cargo run --release -p widgets-bench -- {}`, version {} at commit {}, {cores} cores of \
         {processor}, {gib:.0} GiB, Linux {}; client, server and disk share them.{build}",
        arguments.join(" "),
        env!("CARGO_PKG_VERSION"),
        commit(),
        kernel.trim(),
    ))
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_and_have_thousands_separators() {
        let texts = [0.0, 0.5, 12.34, 123.4, 1234.5, 1_234_567.0, f64::NAN].map(number);
        assert_eq!(
            texts,
            ["0", "0.50", "12.3", "123", "1,234", "1,234,567", ""]
        );
    }

    #[test]
    fn a_table_is_written_as_markdown() {
        let mut table = Table::new(&["a", "b"]);
        table.row(["1".into(), "2".into()]);
        assert_eq!(table.markdown(), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
