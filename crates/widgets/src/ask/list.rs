//! `widgets list`: lists widgets by their properties, in the order of their serial numbers.

use super::{EXIT_CODES, Failure, Service, exit, table, table::shown};
use crate::Outcome;
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};
use widgets_client::{Filter, Query};

/// How many widgets are shown by default.
const WIDGETS: u64 = 100;

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct List {
    /// Only widgets whose serial number begins with this text.
    #[arg(long, value_name = "TEXT", help_heading = "Which")]
    prefix: Option<String>,
    /// Only widgets with exactly this name.
    #[arg(long, help_heading = "Which")]
    name: Option<String>,
    /// Only widgets with a free slot of this port type. May be repeated.
    #[arg(long, value_name = "PORT", help_heading = "Which")]
    free: Vec<String>,
    /// Only widgets that are associated with this one.
    #[arg(long, value_name = "SERIAL_NUMBER", help_heading = "Which")]
    peer: Option<String>,
    /// Only widgets that match this filter of the API, such as `name=ilike.*pump*` or `or=(name.eq.a,name.eq.b)`. May be
    /// repeated.
    #[arg(long = "where", value_name = "FILTER", value_parser = parameter, help_heading = "Which")]
    parameters: Vec<(String, String)>,

    /// How many widgets to show at most.
    #[arg(long, default_value_t = WIDGETS, help_heading = "Pages")]
    limit: u64,
    /// Show every widget, a page at a time.
    #[arg(long, conflicts_with = "limit", help_heading = "Pages")]
    all: bool,
    /// Continue after this serial number, which the last line of a list names.
    #[arg(long, value_name = "SERIAL_NUMBER", help_heading = "Pages")]
    after: Option<String>,
    /// Sort from the highest serial number to the lowest.
    #[arg(long, help_heading = "Pages")]
    descending: bool,

    /// Print only the number of widgets.
    #[arg(long, conflicts_with_all = ["limit", "all", "after", "descending", "json"], help_heading = "Output")]
    count: bool,
    /// Print JSON Lines: one widget per line, as in the response of the service.
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    service: Service,
}

/// Splits `name=value` at the first equals sign.
fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name @ ("select" | "order" | "limit" | "offset"), _)) => Err(format!(
            "{name} is not a filter: other flags choose what is shown, its order and how much of it"
        )),
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("a filter is COLUMN=OPERATOR.VALUE, as in name=eq.pump".into()),
    }
}

impl List {
    pub(crate) fn run(self) -> Outcome {
        exit(self.print())
    }

    fn print(self) -> Result<(), Failure> {
        let client = self.service.client()?;
        let mut filters = Vec::new();
        filters.extend(self.prefix.map(Filter::Prefix));
        filters.extend(self.name.map(Filter::Name));
        filters.extend(self.free.into_iter().map(Filter::Free));
        filters.extend(self.peer.map(Filter::Peer));
        let parameters = self.parameters.into_iter();
        filters.extend(parameters.map(|(name, value)| Filter::Parameter(name, value)));
        let query = Query {
            filters,
            descending: self.descending,
        };
        let mut out = io::stdout().lock();
        if self.count {
            return Ok(writeln!(out, "{}", client.count(&query)?)?);
        }
        let limit = if self.all { u64::MAX } else { self.limit };
        let mut pages = client.list(query, self.after, limit);
        let mut shown_count = 0;
        let mut titles = Some(table::WIDGET_TITLES);
        loop {
            let page = pages.next_page()?;
            if page.is_empty() {
                break;
            }
            shown_count += page.len() as u64;
            if self.json {
                for (_, json) in &page {
                    writeln!(out, "{}", json.get())?;
                }
                continue;
            }
            let rows: Vec<_> = page
                .iter()
                .map(|(widget, _)| table::widget(widget))
                .collect();
            table::write(&mut out, titles.take(), &rows)?;
        }
        if !self.json && shown_count == 0 && limit > 0 {
            // This is not part of the list either, but an empty terminal would be confusing.
            writeln!(io::stderr(), "no widgets")?;
        }
        if !self.json
            && shown_count == limit
            && let Some(after) = pages.after()
        {
            // This is not part of the list, so it goes where a pipe does not carry it along.
            writeln!(
                io::stderr(),
                "there may be more: continue with --after={}",
                word(after)
            )?;
        }
        Ok(())
    }
}

/// Returns a text as one word for a shell. What a terminal would act on is written as bytes in octal
/// numbers, which not every shell reads in another form.
fn word(text: &str) -> String {
    if shown(text) == text {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = String::from("$'");
    for character in text.chars() {
        let mut bytes = [0; 4];
        let one: &str = character.encode_utf8(&mut bytes);
        if matches!(one, "'" | "\\") {
            word.extend(["\\", one]);
        } else if shown(one) == one {
            word.push_str(one);
        } else {
            for byte in one.bytes() {
                // Writing to a string does not fail.
                _ = write!(word, "\\{byte:03o}");
            }
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::word;
    use std::process::Command;

    #[test]
    fn a_serial_number_in_a_hint_is_one_word_of_a_shell() {
        for (text, written) in [
            ("E-1", "'E-1'"),
            ("-x", "'-x'"),
            ("it's $HOME `\\", r"'it'\''s $HOME `\'"),
            ("\u{1}7", r"$'\0017'"),
            ("a\tb\n", r"$'a\011b\012'"),
            ("it's \\\u{202e}", r"$'it\'s \\\342\200\256'"),
            ("日本", "'日本'"),
        ] {
            assert_eq!(word(text), written);
            let script = format!("printf %s {}", word(text));
            let read = Command::new("bash").args(["-c", &script]).output();
            assert_eq!(read.expect("bash runs").stdout, text.as_bytes(), "{script}");
        }
    }
}
