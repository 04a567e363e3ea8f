//! The configuration file: which keys it sets, and on which lines.

use super::{
    Problem,
    keys::{KEYS, Key, SECTIONS},
    values::Kind,
};
use std::{ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A key that the file sets.
pub(super) struct Entry {
    /// The key's index in [`KEYS`].
    pub(super) key: usize,
    /// Its value, in the form that a flag would have.
    pub(super) text: String,
    /// Its line, counted from 1.
    pub(super) line: usize,
}

/// Reads the settings in `content`, and adds everything that is wrong with them to `problems`.
pub(super) fn read(path: &Path, content: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let place = |span: Range<usize>| {
        let before = content.get(..span.start).unwrap_or(content);
        before.matches('\n').count() + 1
    };
    let mut problem = |line, what: String| {
        let text = format!("{}:{line}: {what}", path.display());
        problems.push(Problem { line, text });
    };
    let mut entries = Vec::new();
    let (document, errors) = DeTable::parse_recoverable(content);
    for error in errors {
        let line = error.span().map_or(1, place);
        problem(line, error.message().into());
    }
    for (section, table) in document.get_ref() {
        let (name, line) = (section.get_ref().as_ref(), place(section.span()));
        if !SECTIONS.iter().any(|(section, _)| *section == name) {
            let sections: Vec<String> = SECTIONS
                .iter()
                .map(|(section, _)| format!("[{section}]"))
                .collect();
            let others = suggestion(name, SECTIONS.iter().map(|(section, _)| *section))
                .unwrap_or_else(|| format!("; the sections are {}", sections.join(", ")));
            problem(line, format!("unknown section {name:?}{others}"));
            continue;
        }
        let Some(table) = table.get_ref().as_table() else {
            problem(line, format!("{name} must be a section, [{name}]"));
            continue;
        };
        for (key, value) in table {
            let line = place(key.span());
            match entry(name, key.get_ref(), value) {
                Ok((key, text)) => entries.push(Entry { key, text, line }),
                Err(what) => problem(line, what),
            }
        }
    }
    entries
}

/// Suggests the name that was most likely meant, in words that follow the wrong one, if one is
/// similar.
fn suggestion<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    const ALIKE: f64 = 0.85;
    let alike = names.map(|each| (strsim::jaro_winkler(name, each), each));
    let best = alike
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, each)| format!("; did you mean {each:?}?"))
}

fn entry(
    section: &str,
    name: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<(usize, String), String> {
    let is_it = |key: &Key| key.section == section && key.name == name;
    let Some(place) = KEYS.iter().position(is_it) else {
        let keys = KEYS.iter().filter(|key| key.section == section);
        let keys: Vec<&str> = keys.map(|key| key.name).collect();
        let elsewhere = KEYS.iter().find(|key| key.name == name);
        let others = elsewhere
            .map(|key| format!("; did you mean {}?", key.path()))
            .or_else(|| suggestion(name, keys.iter().copied()))
            .unwrap_or_else(|| format!("; its keys are {}", keys.join(", ")));
        return Err(format!("[{section}] has no key {name:?}{others}"));
    };
    let key = &KEYS[place];
    let text = match (key.kind, value.get_ref()) {
        (Kind::Boolean, DeValue::Boolean(boolean)) => Some(boolean.to_string()),
        // An integer may be written as a quantity with a unit.
        (Kind::String | Kind::Integer, DeValue::String(text)) => Some(text.to_string()),
        // The radix may be any, and a value beyond all limits is reported as written.
        (Kind::Integer, DeValue::Integer(integer)) => Some(
            i128::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| integer.to_string(), |value| value.to_string()),
        ),
        _ => None,
    };
    let Some(text) = text else {
        let limits = (key.limits)();
        let quotes = match key.kind {
            Kind::Boolean | Kind::Integer => "",
            Kind::String => " in quotes",
        };
        let given = value.get_ref().type_str();
        return Err(format!(
            "{} must be {limits}{quotes}, a value of type {given} was given",
            key.path()
        ));
    };
    Ok((place, text))
}
