//! Lists of any length, fetched page by page from the last serial number on: each page costs the
//! same.
//!
//! Every widget must come after the one before it in the order of the list. Otherwise a faulty
//! server could return the same page forever.

use crate::{Client, Error, Query, Widget, answer::Asked};
use serde_json::value::RawValue;

/// The maximum number of widgets that one page is asked for. The service may return fewer.
const PAGE_WIDGETS_MAX: u64 = 1_000;

/// The pages of a list. Each page shows one moment. A widget that exists throughout is shown once.
#[derive(Debug)]
pub struct Pages<'a> {
    client: &'a Client,
    query: Query,
    after: Option<String>,
    /// How many widgets are still wanted.
    wanted: u64,
}

impl Client {
    /// Lists at most `widgets_max` widgets beyond the serial number `after`.
    #[must_use]
    pub fn list(&self, query: Query, after: Option<String>, widgets_max: u64) -> Pages<'_> {
        Pages {
            client: self,
            query,
            after,
            wanted: widgets_max,
        }
    }

    /// Counts the widgets for which these filters hold.
    pub fn count(&self, query: &Query) -> Result<u64, Error> {
        let answer = self.read(&Asked {
            target: &query.target(None, 1),
            head: true,
            headers: &[("Prefer", "count=exact")],
            ..Asked::default()
        })?;
        answer
            .header("Content-Range")
            .and_then(|range| range.rsplit('/').next())
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| answer.odd("there is no count in Content-Range"))
    }
}

impl Pages<'_> {
    /// Returns the next widgets, each with its JSON text as the service sent it. Empty at the end
    /// of the list.
    pub fn next_page(&mut self) -> Result<Vec<(Widget, Box<RawValue>)>, Error> {
        if self.wanted == 0 {
            return Ok(Vec::new());
        }
        let limit = self.wanted.min(PAGE_WIDGETS_MAX);
        let answer = self.client.read(&Asked {
            target: &self.query.target(self.after.as_deref(), limit),
            ..Asked::default()
        })?;
        let rows: Vec<Box<RawValue>> = answer.json()?;
        let mut page = Vec::with_capacity(rows.len());
        let mut after = self.after.clone();
        for row in rows {
            let widget: Widget =
                serde_json::from_str(row.get()).map_err(|error| answer.odd(&error.to_string()))?;
            if let Some(after) = &after
                && !self.query.is_beyond(&widget.serial_number, after)
            {
                let (shown, direction) = (&widget.serial_number, self.query.direction());
                return Err(answer.odd(&format!(
                    "the list does not go on: {shown:?} comes after {after:?}, in the order {direction}"
                )));
            }
            after = Some(widget.serial_number.clone());
            page.push((widget, row));
        }
        self.after = after;
        self.wanted = self.wanted.saturating_sub(page.len() as u64);
        // A page that is not full need not be the last one, because the service has its own limit.
        if page.is_empty() {
            self.wanted = 0;
        }
        Ok(page)
    }

    /// Returns the serial number beyond which the list continues.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }
}
