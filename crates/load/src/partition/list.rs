//! Lists of widgets that only one lane changes, so that the right answer is known.
//!
//! A list names some widgets, or is a page of the dataset: one of its blocks, which belongs to one
//! lane as a whole. A list may or may not show widgets whose state is unknown.

use super::{Observed, Partition, WidgetId, Wrong};
use crate::dataset::BLOCK_WIDGETS;

/// The maximum number of widgets that a list names.
const NAMED_MAX: usize = 8;

/// The widgets that are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// These widgets. Some may not exist or may be named twice.
    Named([WidgetId; NAMED_MAX]),
    /// The block of the dataset that contains this widget.
    Block(WidgetId),
}

impl Partition {
    /// Chooses a list of widgets that exist or may exist. Returns `None` if no widget has been
    /// named so far.
    pub(super) fn list(&mut self) -> Option<Listed> {
        let first = self.table.any(&mut self.random)?;
        if first.is_of_dataset() && self.random.chance(0.5) {
            return Some(Listed::Block(first));
        }
        let mut named = [first; NAMED_MAX];
        for place in &mut named {
            if let Some(id) = self.table.any(&mut self.random) {
                *place = id;
            }
        }
        Some(Listed::Named(named))
    }

    /// Returns every widget that a list may show.
    fn listed(&self, listed: Listed) -> Vec<WidgetId> {
        match listed {
            Listed::Named(ids) => ids.to_vec(),
            Listed::Block(id) => self.table.block_of(id).collect(),
        }
    }

    /// Appends the path and the query. The serial numbers need no escapes.
    pub(super) fn write_list(&self, listed: Listed, path: &mut String) {
        path.push_str("/widgets?serial_number=");
        match listed {
            Listed::Named(ids) => {
                path.push_str("in.(");
                for (place, &id) in ids.iter().enumerate() {
                    path.push_str(if place == 0 { "%22" } else { ",%22" });
                    self.table.write_serial_number(id, path);
                    path.push_str("%22");
                }
                path.push(')');
            }
            Listed::Block(id) => {
                let mut block = self.table.block_of(id);
                if let Some(first) = block.next() {
                    path.push_str("gte.");
                    self.table.write_serial_number(first, path);
                    path.push_str("&serial_number=lte.");
                    self.table
                        .write_serial_number(block.last().unwrap_or(first), path);
                }
            }
        }
        path.push_str("&limit=");
        path.push_str(&BLOCK_WIDGETS.to_string());
    }

    /// Describes the list.
    pub(super) fn describe_list(&self, listed: Listed) -> String {
        let mut path = String::new();
        self.write_list(listed, &mut path);
        format!("list {path}")
    }

    /// Checks the answer to a list while the load runs: it must show every widget that must exist,
    /// in the right state and in order, and no others.
    pub(super) fn check_list(&self, listed: Listed, body: &[u8]) -> Result<(), Wrong> {
        self.difference_of_list(listed, body)
            .map_err(|text| Wrong(format!("{}: {text}", self.describe_list(listed))))
    }

    fn difference_of_list(&self, listed: Listed, body: &[u8]) -> Result<(), String> {
        let rows: Vec<Observed<'_>> = serde_json::from_slice(body).map_err(|error| {
            let body = String::from_utf8_lossy(body);
            format!("the answer is not a list of widgets ({error}): {body}")
        })?;
        let mut wanted: Vec<(String, WidgetId)> = (self.listed(listed).into_iter())
            .map(|id| (self.serial_number(id), id))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut rows = rows.into_iter().peekable();
        for (serial_number, id) in wanted {
            let row = rows.next_if(|row| row.is(&serial_number));
            let in_doubt = self
                .table
                .get(id)
                .is_none_or(super::table::Record::quarantined);
            if in_doubt {
                continue;
            }
            if let Some(difference) = self.difference(id, row.as_ref()) {
                return Err(format!("{serial_number}: {}", difference.describe()));
            }
        }
        match rows.next() {
            None => Ok(()),
            Some(row) => Err(format!(
                "{row:?} is in it, where another widget or the end must be"
            )),
        }
    }
}
