//! Readers of lists: whatever crashes or changes, a list shows one moment between its request and
//! its answer.
//!
//! The world records the state after each turn of the owner, as lookups show it. A list must be
//! what the model makes of one of these moments. In addition, each of its widgets is a lookup in
//! the history of the clients, and must fit what they were told, also after the next start.

use super::{
    client::{self, Responding},
    process::Process,
    tally::Tally,
};
use crate::tests::disk::Chance;
use hyper::{Response, header::CONTENT_RANGE};
use serde_json::Value;
use std::task::Poll;
use widgets_conformance::Model;
use widgets_registry::{
    Ordinal, Port, SerialNumber, Widget,
    query::{
        Asker, Column, Comparison, Contained, Direction, Filter, List, Pattern, Rows, SlotPattern,
        SlotRow, Table, Test,
    },
};
use widgets_server::AnswerBody;

/// The most lists that are under way, which is more than the service accepts.
const READERS: usize = 3;

/// The most turns of the owner after which a list must be answered.
const TURNS_MAX: usize = 400;

/// All readers of lists.
pub(super) struct Readers {
    chance: Chance,
    /// Whether this world has readers. Worlds without them are the same as before there were lists.
    is_on: bool,
    pending: Vec<Pending>,
    /// The state after each turn since the start of the process.
    moments: Vec<Model>,
}

struct Pending {
    list: List,
    responding: Responding,
    /// The index of the first moment that the list may show.
    asked_at: usize,
    invoked: u64,
    turns: usize,
}

/// What a list showed of widgets, between its request and its answer.
pub(super) struct Shown {
    pub(super) invoked: u64,
    /// `None` if the widget would have been shown, but was not.
    pub(super) widgets: Vec<(SerialNumber, Option<Widget>)>,
}

impl Readers {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance(!seed),
            is_on: seed.is_multiple_of(4),
            pending: Vec::new(),
            moments: Vec::new(),
        }
    }

    /// Forgets the pending lists and the moments, because a process began or ended.
    pub(super) fn begin(&mut self, tally: &mut Tally) {
        tally.lists_unanswered += self.pending.len() as u64;
        self.pending.clear();
        self.moments.clear();
    }

    /// Reports whether it is time for a request.
    pub(super) fn is_due(&mut self) -> bool {
        self.is_on && self.chance.below(4) == 0
    }

    /// Reports whether a reader waits for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends a request, or hangs up.
    pub(super) fn ask(
        &mut self,
        process: &Process,
        serial_numbers: usize,
        now: u64,
        tally: &mut Tally,
    ) {
        if self.pending.len() == READERS {
            if self.chance.below(4) == 0 {
                let gone = self.chance.below(READERS);
                drop(self.pending.swap_remove(gone));
                tally.lists_unanswered += 1;
            }
            return;
        }
        let (path, list) = self.list(serial_numbers);
        tally.lists += 1;
        self.pending.push(Pending {
            responding: process.get(&path, list.count),
            list,
            asked_at: self.moments.len().saturating_sub(1),
            invoked: now,
            turns: 0,
        });
    }

    /// Returns the query string of a list, and the list.
    fn list(&mut self, serial_numbers: usize) -> (String, List) {
        let table = Table::ALL[self.chance.below(2)];
        let [column, other] = [table.order()[0], Column::Name];
        let named = format!("s{}", self.chance.below(serial_numbers));
        let (filter, spelled) = match self.chance.below(8) {
            0..3 => (Filter::EVERYTHING, String::new()),
            3 => (
                Filter::Test(
                    column,
                    Test::Text(Comparison::GreaterOrEqual, named.as_str().into()),
                ),
                format!("&{}=gte.{named}", column.as_str()),
            ),
            4 => (
                Filter::Test(
                    column,
                    Test::Text(Comparison::NotEqual, named.as_str().into()),
                ),
                format!("&{}=neq.{named}", column.as_str()),
            ),
            5 if table == Table::Widgets => (
                Filter::Test(
                    other,
                    Test::Like(Pattern::new("%a%", false).expect("a pattern")),
                ),
                format!("&{}=like.*a*", other.as_str()),
            ),
            _ => self.by_slots(table, &named),
        };
        let direction = [Direction::Ascending, Direction::Descending][self.chance.below(2)];
        let sense = ["asc", "desc"][usize::from(direction == Direction::Descending)];
        let order = table.order().iter();
        let order: Vec<_> = order
            .map(|column| format!("{}.{sense}", column.as_str()))
            .collect();
        let count = self.chance.below(2) == 0;
        // No offset beyond the end, where that would be an error.
        let offset = if count { 0 } else { self.chance.below(3) };
        let limit = [1, 3, 1000][self.chance.below(3)];
        let order = order.join(",");
        let path = format!(
            "/{}?order={order}&limit={limit}&offset={offset}{spelled}",
            table.as_str()
        );
        let list = List {
            table,
            filter,
            direction,
            offset: offset as u64,
            limit,
            count,
            asker: Asker::default(),
        };
        (path, list)
    }

    fn by_slots(&mut self, table: Table, peer: &str) -> (Filter, String) {
        let port = Port::ALL[self.chance.below(Port::ALL.len())];
        let is_free = self.chance.below(2) == 0;
        match table {
            Table::Slots if is_free => {
                let free = Filter::Test(Column::PeerSn, Test::Null);
                let of_type = Test::Text(Comparison::Equal, port.as_str().into());
                (
                    Filter::All(vec![free, Filter::Test(Column::Port, of_type)]),
                    format!("&peer_sn=is.null&port=eq.{port}"),
                )
            }
            Table::Slots => (
                Filter::Test(Column::PeerSn, Test::Text(Comparison::Equal, peer.into())),
                format!("&peer_sn=eq.{peer}"),
            ),
            Table::Widgets => {
                let (pattern, spelled) = if is_free {
                    let pattern = SlotPattern {
                        port: Some(port),
                        peer: Some(None),
                    };
                    (pattern, format!(r#"[{{"port":"{port}","peer":null}}]"#))
                } else {
                    let pattern = SlotPattern {
                        port: None,
                        peer: Some(Some(peer.into())),
                    };
                    (pattern, format!(r#"[{{"peer":"{peer}"}}]"#))
                };
                let contained = Contained(vec![pattern]);
                let escaped = spelled
                    .replace('"', "%22")
                    .replace('{', "%7B")
                    .replace('}', "%7D");
                (
                    Filter::Test(Column::Slots, Test::Contains(contained)),
                    format!("&slots=cs.{escaped}"),
                )
            }
        }
    }

    /// Records the state after a turn of the owner.
    pub(super) fn moment(&mut self, process: &Process, all: impl Iterator<Item = SerialNumber>) {
        if !self.is_on {
            return;
        }
        let state = process.engine.owner.state();
        let widgets = all.filter_map(|serial_number| state.lookup(&serial_number));
        // Inconsistencies are found when everything is read back.
        if let Ok(moment) = Model::from_lookups(widgets)
            && self.moments.last() != Some(&moment)
        {
            self.moments.push(moment);
        }
        for pending in &mut self.pending {
            pending.turns += 1;
        }
    }

    /// Takes the answers that have arrived, and returns what they showed.
    pub(super) fn take(
        &mut self,
        all: &[SerialNumber],
        tally: &mut Tally,
    ) -> Result<Vec<Shown>, String> {
        let mut shown = Vec::new();
        for mut pending in std::mem::take(&mut self.pending) {
            let Poll::Ready(response) = super::world::poll(&mut pending.responding) else {
                if pending.turns > TURNS_MAX {
                    return Err(format!("{:?} got no answer", pending.list));
                }
                self.pending.push(pending);
                continue;
            };
            let Some((rows, total)) = read(&pending.list, response)? else {
                tally.lists_refused += 1;
                continue;
            };
            tally.lists_answered += 1;
            let moments = self.moments.get(pending.asked_at..).unwrap_or_default();
            let expected = |moment: &Model| {
                let (rows, total) = moment.list(&pending.list);
                (rows, pending.list.count.then_some(total))
            };
            let seen = (rows, total);
            if !moments.iter().any(|moment| expected(moment) == seen) {
                return Err(format!(
                    "{:?} was answered {seen:?}, which was at none of the moments {moments:?}",
                    pending.list
                ));
            }
            tally.lists_beside_changes += u64::from(moments.len() > 1);
            if let (Rows::Widgets(rows), _) = seen {
                let is_whole = pending.list.filter == Filter::EVERYTHING
                    && pending.list.offset == 0
                    && rows.len() < pending.list.limit as usize;
                let mut widgets: Vec<_> = rows
                    .into_iter()
                    .map(|widget| (widget.serial_number.clone(), Some(widget)))
                    .collect();
                if is_whole {
                    let missing = |each: &&SerialNumber| !widgets.iter().any(|it| it.0 == **each);
                    let missing: Vec<_> = all.iter().filter(missing).cloned().collect();
                    widgets.extend(missing.into_iter().map(|each| (each, None)));
                }
                shown.push(Shown {
                    invoked: pending.invoked,
                    widgets,
                });
            }
        }
        Ok(shown)
    }
}

/// Reads the rows of an answer and their number. Returns `None` if the answer says that the service
/// has no time for it.
fn read(
    list: &List,
    response: Response<AnswerBody>,
) -> Result<Option<(Rows, Option<u64>)>, String> {
    let status = response.status().as_u16();
    let range = response.headers().get(CONTENT_RANGE);
    let range = range
        .and_then(|range| range.to_str().ok())
        .map(str::to_owned);
    let body = client::collect(response);
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let wrong = || {
        let body = String::from_utf8_lossy(&body);
        format!("{list:?} was answered {status} {range:?} {body}")
    };
    if status == 503
        && ["WG503", "WG504"]
            .map(Some)
            .contains(&value["code"].as_str())
    {
        return Ok(None);
    }
    let values = value.as_array().filter(|_| [200, 206].contains(&status));
    let values = values.ok_or_else(wrong)?;
    let rows = match list.table {
        Table::Widgets => {
            let rows = values.iter().map(client::widget).collect::<Option<_>>();
            Rows::Widgets(rows.ok_or_else(wrong)?)
        }
        Table::Slots => {
            let rows = values.iter().map(slot).collect::<Option<_>>();
            Rows::Slots(rows.ok_or_else(wrong)?)
        }
    };
    let total = range.as_deref().and_then(|range| range.split_once('/'));
    let total = total.map(|(_, total)| total).ok_or_else(wrong)?;
    match (list.count, total) {
        (false, "*") => Ok(Some((rows, None))),
        (true, total) => Ok(Some((rows, Some(total.parse().map_err(|_| wrong())?)))),
        (false, _) => Err(wrong()),
    }
}

fn slot(value: &Value) -> Option<SlotRow> {
    let peer_sn = match &value["peer_sn"] {
        Value::Null => None,
        peer => Some(SerialNumber::new("peer_sn", peer.as_str()?).ok()?),
    };
    let ordinal = u8::try_from(value["ordinal"].as_u64()?)
        .ok()?
        .checked_sub(1)?;
    Some(SlotRow {
        widget_sn: SerialNumber::new("widget_sn", value["widget_sn"].as_str()?).ok()?,
        ordinal: Ordinal::new(ordinal)?,
        port: Port::parse(value["port"].as_str()?).ok()?,
        peer_sn,
    })
}
