//! The feed of changes, page after page without end.

use crate::{Client, Error, answer::Asked, filter::escape};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{fmt::Write as _, thread, time::Duration};

/// How many changes are requested at a time.
const PAGE_CHANGES_MAX: u32 = 1_000;

/// The pause before the service is asked again.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangesAfter {
    /// At the oldest change that is kept.
    Oldest,
    /// After the newest change at present.
    Now,
    /// After this position.
    Position(String),
}

/// A change. Which optional fields are present depends on the operation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// Its position in the history.
    pub position: String,
    /// When it was committed.
    pub at: String,
    /// The caller who requested it, if known.
    pub by: Option<String>,
    /// The name of the operation, one of four.
    pub operation: String,
    /// The widget; for `add_widget` and `remove_widget`.
    pub widget_sn: Option<String>,
    /// The widget's name; for `add_widget`.
    pub widget_name: Option<String>,
    /// The port types of the widget's slots; for `add_widget`.
    pub slots: Option<Vec<String>>,
    /// The first widget; for the other two operations.
    pub widget1_sn: Option<String>,
    /// The second widget; for the other two operations.
    pub widget2_sn: Option<String>,
    /// The slot of the first widget, counted from 1.
    pub slot1: Option<u8>,
    /// The slot of the second widget, counted from 1.
    pub slot2: Option<u8>,
    /// The port type of the association.
    pub port: Option<String>,
    /// The slots of other widgets that a removal freed.
    pub freed: Option<Vec<Freed>>,
}

/// A slot that became free.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Freed {
    /// The serial number of its widget.
    pub widget_sn: String,
    /// The slot, counted from 1.
    pub slot: u8,
}

/// The changes after a position, one page after the other.
#[derive(Debug)]
pub struct Changes<'a> {
    client: &'a Client,
    after: ChangesAfter,
    filters: String,
    advance: Advance,
}

/// Detects pages that lead nowhere. The order of positions is known only to the service. So the
/// client remembers one position, and replaces it with a later one each time twice as many pages
/// have followed: a cycle of any length is found (Brent's algorithm).
#[derive(Debug, Default)]
struct Advance {
    remembered: Option<String>,
    since: u64,
    since_max: u64,
}

impl Advance {
    /// Checks that a page led from one position to a new one. The error says why it did not.
    fn check(&mut self, from: &ChangesAfter, to: &str, is_empty: bool) -> Result<(), String> {
        if matches!(from, ChangesAfter::Position(from) if from == to) {
            return if is_empty {
                Ok(())
            } else {
                Err(format!("changes came, and Next-Position stays at {to:?}"))
            };
        }
        if self.remembered.as_deref() == Some(to) {
            return Err(format!("Next-Position leads back to {to:?}"));
        }
        self.since += 1;
        if self.since >= self.since_max {
            self.remembered = Some(to.to_owned());
            self.since_max = self.since.saturating_mul(2);
            self.since = 0;
        }
        Ok(())
    }
}

impl Client {
    /// Returns the changes after a position: only those of this widget and of these operations, if
    /// they are given.
    #[must_use]
    pub fn changes(
        &self,
        after: ChangesAfter,
        widget_sn: Option<&str>,
        operations: &[String],
    ) -> Changes<'_> {
        let mut filters = String::new();
        if let Some(widget_sn) = widget_sn {
            // Writing to a string does not fail.
            let _ = write!(filters, "&widget_sn=eq.{}", escape(widget_sn));
        }
        if !operations.is_empty() {
            let list = escape(&operations.join(",")).to_string();
            let _ = write!(filters, "&operation=in.({list})");
        }
        Changes {
            client: self,
            after,
            filters,
            advance: Advance::default(),
        }
    }
}

impl Changes<'_> {
    /// Returns the changes since the last call, each with its JSON text as the service sent it. If
    /// there are none, the service waits for the next one, for at most `wait`. Pages that lead
    /// nowhere are an error, so every position is reached in the end.
    ///
    /// While operations continue, no page need ever be empty. To read the changes up to now, read
    /// one page after [`ChangesAfter::Now`] to learn its [position](Self::position), and read from
    /// elsewhere until that position is reached.
    pub fn next_page(&mut self, wait: Duration) -> Result<Vec<(Change, Box<RawValue>)>, Error> {
        let mut target = format!(
            "/changes?limit={PAGE_CHANGES_MAX}&wait_ms={}",
            wait.as_millis()
        );
        match &self.after {
            ChangesAfter::Oldest => {}
            ChangesAfter::Now => target.push_str("&after=now"),
            ChangesAfter::Position(position) => {
                target.extend(["&after=", &escape(position).to_string()]);
            }
        }
        target.push_str(&self.filters);
        let answer = self.client.read(&Asked {
            target: &target,
            wait,
            ..Asked::default()
        })?;
        let next = answer
            .header("Next-Position")
            .ok_or_else(|| answer.odd("there is no Next-Position"))?;
        let rows: Vec<Box<RawValue>> = answer.json()?;
        let read = |row: Box<RawValue>| match serde_json::from_str(row.get()) {
            Ok(change) => Ok((change, row)),
            Err(error) => Err(answer.odd(&error.to_string())),
        };
        let page: Vec<_> = rows.into_iter().map(read).collect::<Result<_, _>>()?;
        self.advance
            .check(&self.after, next, page.is_empty())
            .map_err(|why| answer.odd(&why))?;
        self.after = ChangesAfter::Position(next.to_owned());
        Ok(page)
    }

    /// Like [`Self::next_page`], but asks again if the service cannot be reached or answers
    /// "later", for instance during a restart. `patience` limits the sum of the pauses in between.
    /// No change is missed or repeated, because each attempt continues after the last position.
    pub fn next_page_patiently(
        &mut self,
        wait: Duration,
        patience: Duration,
    ) -> Result<Vec<(Change, Box<RawValue>)>, Error> {
        let mut left = patience;
        loop {
            let error = match self.next_page(wait) {
                Err(error @ (Error::Unreachable { .. } | Error::Unavailable(_))) => error,
                outcome => return outcome,
            };
            left = left.checked_sub(RETRY_WAIT).ok_or(error)?;
            thread::sleep(RETRY_WAIT);
        }
    }

    /// Returns where the next call continues.
    #[must_use]
    pub fn after(&self) -> &ChangesAfter {
        &self.after
    }

    /// Returns the position where the next call continues, or `None` if no page has been read yet.
    /// The positions of one store sort by age.
    #[must_use]
    pub fn position(&self) -> Option<&str> {
        match &self.after {
            ChangesAfter::Position(position) => Some(position),
            ChangesAfter::Oldest | ChangesAfter::Now => None,
        }
    }
}
