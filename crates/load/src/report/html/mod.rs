//! The report as a single HTML file, without scripts, fonts or pictures from elsewhere.

mod page;
mod search;
mod stretch;

use super::{Report, count_text};
use crate::{audit::Findings, feed::FeedFindings};
use page::Page;
use std::fmt::Write as _;

const CSS: &str = include_str!("page.css");

/// Returns the whole page. Fails only if a plot cannot be drawn.
pub(super) fn page(report: &Report) -> Result<String, String> {
    let mut page = Page::default();
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw("<title>widgets load</title><style>");
    page.raw(CSS);
    page.raw("</style></head><body>");
    head(&mut page, report);
    if let Some(search) = &report.search {
        search::curve(&mut page, report, search)?;
    } else if let Some(stretch) = report.stretches.first() {
        stretch::tiles(&mut page, report, stretch);
        stretch::rate_plot(&mut page, stretch)?;
        stretch::latency_plot(&mut page, stretch)?;
        stretch::errors_plot(&mut page, stretch)?;
        stretch::distribution_plot(&mut page, stretch)?;
        stretch::kinds(&mut page, stretch);
        stretch::outcomes(&mut page, stretch);
    }
    if let Some(audit) = &report.audit {
        findings(&mut page, audit);
    }
    if let Some(found) = &report.changes {
        changes(&mut page, found);
    }
    conditions(&mut page, report);
    page.raw("</body></html>\n");
    Ok(page.html)
}

fn setting<'a>(report: &'a Report, name: &str) -> &'a str {
    let found = report.settings.iter().find(|(each, _)| each == name);
    found.map_or("", |(_, value)| value)
}

fn head(page: &mut Page, report: &Report) {
    let title = match report.search {
        Some(_) => "widgets load: the highest rate",
        None => "widgets load",
    };
    page.element("h1", "", title);
    let line = format!(
        "{} · run {} · {}",
        setting(report, "url"),
        setting(report, "run"),
        report.ended_at()
    );
    page.element("p", "quiet", &line);
    let (class, verdict) = match (report.failures.is_empty(), &report.audit) {
        (false, _) => ("bad", "Failed"),
        (true, Some(_)) => (
            "good",
            "Passed: every answer was right, and the audit found what was acknowledged",
        ),
        (true, None) => (
            "good",
            "Passed: every answer was right (there was no audit)",
        ),
    };
    let _ = write!(page.html, "<div class=\"verdict {class}\">");
    page.raw(&format!("<strong class=\"{class}\">{verdict}.</strong>"));
    for text in report.failures.iter().chain(&report.remarks) {
        page.element("p", "", text);
    }
    page.raw("</div>\n");
}

fn findings(page: &mut Page, audit: &Findings) {
    page.element("h2", "", "Audit");
    let line = format!(
        "{} widgets and {} operations of unknown fate were read back and compared.",
        count_text(audit.widgets_checked),
        count_text(audit.unknown_fates_checked)
    );
    page.element("p", "", &line);
    counted(page, &audit.rows(), &audit.examples);
}

fn changes(page: &mut Page, changes: &FeedFindings) {
    page.element("h2", "", "Changes");
    let line = format!(
        "{} changes of this run were held against the answers.",
        count_text(changes.changes_checked)
    );
    page.element("p", "", &line);
    counted(page, &changes.rows(), &changes.examples);
}

fn counted(page: &mut Page, rows: &[(&'static str, u64)], examples: &[String]) {
    page.table("findings", &["finding", "count"]);
    for &(name, count) in rows {
        page.row("", &[name, &count_text(count)]);
    }
    page.end_table();
    for text in examples.iter().take(20) {
        page.element("p", "bad", text);
    }
}

fn conditions(page: &mut Page, report: &Report) {
    page.element("h2", "", "Conditions");
    page.table("words", &["setting", "value"]);
    for (name, value) in report.settings.iter().chain(&report.labels) {
        page.row("", &[name, value]);
    }
    let host = &report.host;
    page.row("rule", &["version", &report.version]);
    page.row(
        "",
        &[
            "processor",
            &format!("{}, {} cores for the generator", host.processor, host.cores),
        ],
    );
    page.row(
        "",
        &["memory", &format!("{} MiB", count_text(host.memory_mib))],
    );
    page.row("", &["kernel", &host.kernel]);
    page.end_table();
}
