//! The changes, page after page, for as long as one likes.

use crate::{Client, Error, answer::Asked, filter::escape};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{fmt::Write as _, thread, time::Duration};

/// So many changes are asked for at a time.
const PAGE_CHANGES_MAX: u32 = 1_000;

/// The wait before the service is asked again.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangesAfter {
    /// The oldest change that is kept.
    Oldest,
    /// What happens from here on.
    Now,
    /// What came after this position.
    Position(String),
}

/// What every change has. The rest depends on the operation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// Where in the history it stands.
    pub position: String,
    /// When it was committed.
    pub at: String,
    /// Who asked for it, where that is known.
    pub by: Option<String>,
    /// Which of the four operations.
    pub operation: String,
    /// The widget, of `add_widget` and `remove_widget`.
    pub widget_sn: Option<String>,
    /// Its name, of `add_widget`.
    pub widget_name: Option<String>,
    /// Its slots, of `add_widget`.
    pub slots: Option<Vec<String>>,
    /// The first widget of the other two.
    pub widget1_sn: Option<String>,
    /// The second one.
    pub widget2_sn: Option<String>,
    /// Which slot of the first one, counted from 1.
    pub slot1: Option<u8>,
    /// Which slot of the second one, counted from 1.
    pub slot2: Option<u8>,
    /// The port type between them.
    pub port: Option<String>,
    /// The slots of other widgets that a removal made free.
    pub freed: Option<Vec<Freed>>,
}

/// A slot that became free.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Freed {
    /// The serial number of its widget.
    pub widget_sn: String,
    /// Which slot, counted from 1.
    pub slot: u8,
}

/// The changes that come after a position, one page after the other.
#[derive(Debug)]
pub struct Changes<'a> {
    client: &'a Client,
    after: ChangesAfter,
    filters: String,
    advance: Advance,
}

/// Whether pages lead anywhere. Positions are the service's own, and their order is not known here. So one is
/// remembered, and a later one as soon as twice as many came since: positions that come again in a circle of any
/// length are met (Brent's algorithm).
#[derive(Debug, Default)]
struct Advance {
    remembered: Option<String>,
    since: u64,
    since_max: u64,
}

impl Advance {
    /// A page led from one position to another. Why that is no way on, if it is none.
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
    /// The changes from there on, of this widget alone and of these operations alone where they are
    /// given.
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
    /// The changes since the last call, each also as the service wrote it. Where there are none, the
    /// service is asked to wait so long for the next one. Pages that lead nowhere are an error, so that whoever asks
    /// until there are no more comes to an end.
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

    /// The same, and asks again where nobody answers or the answer is "later", as across a restart of the
    /// service: `patience` is for the waits in between, altogether. Nothing is missed and nothing comes
    /// twice, as it goes on after the last position.
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

    /// Where the next call goes on.
    #[must_use]
    pub fn after(&self) -> &ChangesAfter {
        &self.after
    }
}
