//! Lists and neighbourhoods. Each is one statement, which sees one snapshot, on a connection of a
//! separate lane. If the caller disconnects, the statement is cancelled. One caller gets at most
//! three quarters of the connections, so that others always find one, however long its lists take.

use crate::{
    connected::Connected,
    filter::Encoded,
    link::Link,
    lookups::{Unread, answer_all, ask, slots, widget},
    query::{Parameter, Query, Question},
    queue::{Lane, Listing, Read},
    shared::{Connection, Shared},
};
use std::{future::poll_fn, pin::pin, sync::Arc};
use tokio_postgres::{Row, types::Type};
use widgets_clock::Clock;
use widgets_queue::Answered;
use widgets_registry::{
    Fault, Ordinal, Reason,
    query::{
        Asker, Direction, List, Neighbourhood, NeighbourhoodQuery, Page, Rows, SlotRow, Table,
    },
};

/// The reason for dropping a connection whose statement was [cancelled](Shared::cancel).
const GIVEN_UP: &str = "a list was cancelled because its caller has gone";

impl Query for List {
    const STATEMENT: &str = "
        SELECT serial_number, name, ports, peers, ordinal, total
        FROM widgets.list_rows($1, $2::text::jsonb, $3, $4, $5, $6, $7)";
    const READS_MANY: bool = true;

    fn asker(&self) -> Asker {
        self.asker
    }

    fn parameters(&self) -> Vec<Parameter> {
        let filter = Encoded::new(&self.filter);
        vec![
            (Box::new(self.table.as_str()), Type::TEXT),
            (Box::new(filter.json), Type::TEXT),
            (Box::new(filter.texts), Type::TEXT_ARRAY),
            (
                Box::new(self.direction == Direction::Descending),
                Type::BOOL,
            ),
            (
                Box::new(i64::try_from(self.offset).unwrap_or(i64::MAX)),
                Type::INT8,
            ),
            (
                Box::new(i32::try_from(self.limit).unwrap_or(i32::MAX)),
                Type::INT4,
            ),
            (Box::new(self.count), Type::BOOL),
        ]
    }

    fn answer(self, rows: &[Row]) -> Result<Result<Page, Fault>, tokio_postgres::Error> {
        let (rows, total) = match rows.split_last() {
            Some((last, rows)) if self.count => {
                let total: Option<i64> = last.try_get(5)?;
                (rows, total.and_then(|total| u64::try_from(total).ok()))
            }
            _ => (rows, None),
        };
        let shown = match self.table {
            Table::Widgets => rows
                .iter()
                .map(widget)
                .collect::<Result<_, _>>()
                .map(Rows::Widgets),
            Table::Slots => rows
                .iter()
                .map(slot)
                .collect::<Result<_, _>>()
                .map(Rows::Slots),
        };
        // The database does not report how many rows it has examined: at least those that it
        // skipped, counted or returned.
        Ok(shown.map_err(impossible).map(|shown| {
            let passed = match shown.len() as u64 {
                0 => 0,
                given => self.offset.saturating_add(given),
            };
            Page {
                scanned: passed.max(total.unwrap_or(0)),
                rows: shown,
                total,
            }
        }))
    }
}

/// Reads a row of the slots table, which has exactly one slot.
fn slot(row: &Row) -> Result<SlotRow, String> {
    let ordinal: i32 = row.try_get(4).map_err(|error| error.to_string())?;
    let index = u8::try_from(ordinal - 1).ok().and_then(Ordinal::new);
    let ordinal = index.ok_or_else(|| format!("the ordinal {ordinal}"))?;
    let (widget_sn, slots) = slots(row)?;
    let [slot] =
        <[_; 1]>::try_from(slots).map_err(|slots| format!("{} slots in one", slots.len()))?;
    Ok(SlotRow {
        widget_sn,
        ordinal,
        port: slot.port,
        peer_sn: slot.peer,
    })
}

impl Query for NeighbourhoodQuery {
    const STATEMENT: &str = "
        SELECT serial_number, name, ports, peers, truncated
        FROM widgets.neighbourhood($1, $2, $3)";
    const READS_MANY: bool = true;

    fn asker(&self) -> Asker {
        self.asker
    }

    fn parameters(&self) -> Vec<Parameter> {
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        vec![
            (Box::new(self.serial_number.to_string()), Type::TEXT),
            (Box::new(number(self.depth)), Type::INT4),
            (Box::new(number(self.widgets_max)), Type::INT4),
        ]
    }

    fn answer(
        self,
        rows: &[Row],
    ) -> Result<Result<Option<Neighbourhood>, Fault>, tokio_postgres::Error> {
        let Some(first) = rows.first() else {
            return Ok(Ok(None));
        };
        let truncated: bool = first.try_get(4)?;
        let widgets = rows.iter().map(widget).collect::<Result<_, _>>();
        Ok(widgets
            .map_err(impossible)
            .map(|widgets| Some(Neighbourhood::of(widgets, truncated))))
    }
}

fn impossible(defect: String) -> Fault {
    tracing::error!(defect, "the database holds an impossible widget");
    let reason = Reason::new("the database holds an impossible widget", defect);
    Fault::Unavailable { reason }
}

/// Answers lists and neighbourhoods one after the other until the queue is closed and empty.
pub(crate) async fn run<C: Clock>(shared: Arc<Shared<C>>) {
    let mut link = Link::new(shared.clone(), Lane::Lists);
    let mut read: Option<(Read<Box<dyn Question>>, Listing)> = None;
    loop {
        let connected = match link.connected().await {
            Ok(connected) => connected,
            Err(error) => {
                let reason = error.reason();
                let mut reads = read.take().into_iter().map(|(read, _)| read).collect();
                answer_all(&shared, &mut reads, &Fault::Unavailable { reason });
                if shared.queue.is_closed() {
                    return;
                }
                link.pause().await;
                continue;
            }
        };
        if read.is_none() {
            tokio::select! {
                taken = shared.queue.take_list() => {
                    let Some(taken) = taken else { return };
                    read = Some(taken);
                }
                reason = connected.broken() => {
                    link.lose(&reason);
                    continue;
                }
            }
        }
        if let Some((taken, listing)) = read.take() {
            let (again, connection) = answer(&shared, connected, taken).await;
            read = again.map(|again| (again, listing));
            if let Connection::Drop(reason) = connection {
                link.lose(&reason);
            }
        }
    }
}

/// Answers a read. If the connection broke, returns the read to be sent again, because it changes
/// nothing.
async fn answer<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    mut read: Read<Box<dyn Question>>,
) -> (Option<Read<Box<dyn Question>>>, Connection) {
    if shared.is_late(read.arrived) {
        answer_all(shared, &mut vec![read], &shared.late());
        return (None, Connection::Keep);
    }
    let statement = read.asked.ask(&connected.client);
    let mut answer = pin!(ask(shared, connected, statement));
    let done = tokio::select! {
        done = &mut answer => Some(done),
        () = poll_fn(|context| read.asked.poll_given_up(context)) => None,
    };
    let Some((outcome, connection)) = done else {
        // Nobody waits for the answer, so the database should not go on working on it.
        shared.cancel(connected, answer).await;
        return (None, Connection::Drop(GIVEN_UP.into()));
    };
    match outcome {
        Some(Ok(rows)) => read.asked.answer(&rows),
        Some(Err(Unread { fault, .. })) => read.asked.refuse(fault),
        None => return (Some(read), connection),
    }
    let answer = (read.reply_to, Answered::Other(read.asked));
    shared.queue.answer([answer].into_iter());
    (None, connection)
}
