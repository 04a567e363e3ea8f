//! A connection that answers lookups, many in one statement.
//!
//! A statement sees one moment, and everything that was committed, and so answered, before it was
//! sent. A lookup changes nothing, so one whose connection broke is sent again.

use crate::{
    Clock,
    connect::Connected,
    error::reason,
    queue::{Lane, Lookup},
    worker::{Connection, Shared, Up, busy},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type},
};
use widgets_mailbox::Letter;
use widgets_registry::{Fault, Name, Port, Reason, Refusal, SerialNumber, Slot, Widget};

const CALL: &str = "
    SELECT serial_number, name, ports, peers FROM widgets.lookup_widgets($1)";

const ESTIMATE: &str = "
    SELECT widgets, free_slots, associations FROM widgets.estimated_counts()";

/// How often the statistics are read for the metrics. They change no faster.
const ESTIMATE_EVERY: Duration = Duration::from_secs(30);

/// Answers lookups until the queue is closed and empty. One connection of a store also reads the
/// statistics: the one that `estimates`.
pub(crate) async fn run<C: Clock>(shared: Arc<Shared<C>>, estimates: bool) {
    let mut up: Option<Up<C>> = None;
    let mut batch = Vec::new();
    let mut attempt = 0;
    let mut next_estimate = Duration::ZERO;
    loop {
        let open = match up.take() {
            Some(open) => open,
            None => match shared.connect(Lane::Lookups).await {
                Ok(open) => open,
                Err(error) => {
                    let reason = error.reason();
                    answer_all(&shared, &mut batch, &Fault::Unavailable { reason });
                    if shared.queue.is_closed() {
                        return;
                    }
                    shared.pause(attempt).await;
                    attempt += 1;
                    continue;
                }
            },
        };
        attempt = 0;
        if batch.is_empty() {
            let until_estimate = if estimates {
                next_estimate.saturating_sub(shared.clock.now())
            } else {
                Duration::MAX
            };
            let most = shared.settings.batch_operations_max;
            tokio::select! {
                taken = shared.queue.take_lookups(&mut batch, most) => {
                    if !taken {
                        return;
                    }
                }
                () = open.connected.broken() => continue,
                () = shared.clock.sleep(until_estimate) => {
                    next_estimate = shared.clock.now() + ESTIMATE_EVERY;
                    estimate(&shared, &open.connected).await;
                }
            }
        }
        if apply(&shared, &open.connected, &mut batch).await == Connection::Keep {
            up = Some(open);
        }
    }
}

/// Answers a batch. It is left empty, or untouched where the connection broke.
async fn apply<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Vec<Lookup>,
) -> Connection {
    let (mut late, in_time) = batch
        .drain(..)
        .partition(|lookup: &Lookup| shared.is_late(lookup.arrived));
    *batch = in_time;
    answer_all(shared, &mut late, &shared.late());
    if batch.is_empty() {
        return Connection::Keep;
    }
    let serial_numbers: Vec<&str> = batch.iter().map(|lookup| &*lookup.serial_number).collect();
    let parameter: (&(dyn ToSql + Sync), Type) = (&serial_numbers, Type::TEXT_ARRAY);
    let parameters = [parameter];
    let query = connected.client.query_typed(CALL, &parameters);
    let Some(answer) = shared.bounded(connected, query).await else {
        // It may have been sent to a server that is gone.
        return Connection::Drop;
    };
    let rows = match answer {
        Ok(rows) => rows,
        Err(error) => {
            let Some(database) = error
                .as_db_error()
                .filter(|_| !connected.client.is_closed())
            else {
                return Connection::Drop;
            };
            let fault = if *database.code() == SqlState::QUERY_CANCELED {
                busy("statement_timeout_ms", shared.settings.statement_timeout_ms)
            } else {
                let reason = reason(&error);
                tracing::error!(reason, "the database answers no lookups");
                let reason = Reason::new("the database answers no lookups", reason);
                Fault::Unavailable { reason }
            };
            answer_all(shared, batch, &fault);
            return Connection::Keep;
        }
    };
    let mut widgets = HashMap::with_capacity(rows.len());
    for row in rows {
        match widget(&row) {
            Ok(widget) => {
                widgets.insert(widget.serial_number.clone(), widget);
            }
            Err(defect) => {
                tracing::error!(defect, "the database holds a widget that cannot be");
                let reason = Reason::new("the database holds a widget that cannot be", defect);
                answer_all(shared, batch, &Fault::Unavailable { reason });
                return Connection::Keep;
            }
        }
    }
    shared.post(batch.drain(..).map(|lookup| {
        let answer = Ok(widgets.get(&lookup.serial_number).cloned());
        (lookup.reply_to, Letter::Lookup(lookup.reply, answer))
    }));
    Connection::Keep
}

fn widget(row: &Row) -> Result<Widget, String> {
    let text = |index: usize| -> Result<&str, String> {
        row.try_get(index).map_err(|error| reason(&error))
    };
    let refused = |refusal: Refusal| refusal.to_string();
    let ports: Vec<&str> = row.try_get(2).map_err(|error| reason(&error))?;
    let peers: Vec<Option<&str>> = row.try_get(3).map_err(|error| reason(&error))?;
    let slots = ports.into_iter().zip(peers).map(|(port, peer)| {
        let peer = peer.map(|peer| SerialNumber::new("peer", peer));
        Ok(Slot {
            port: Port::parse(port)?,
            peer: peer.transpose()?,
        })
    });
    Ok(Widget {
        serial_number: SerialNumber::new("serial_number", text(0)?).map_err(refused)?,
        name: Name::new("name", text(1)?).map_err(refused)?,
        slots: slots.collect::<Result<_, _>>().map_err(refused)?,
    })
}

async fn estimate<C: Clock>(shared: &Shared<C>, connected: &Connected) {
    let query = connected.client.query_typed(ESTIMATE, &[]);
    match shared.bounded(connected, query).await {
        Some(Ok(rows)) => {
            let gauges = [
                &shared.metrics.widgets,
                &shared.metrics.free_slots,
                &shared.metrics.associations,
            ];
            for row in rows {
                for (index, gauge) in gauges.iter().enumerate() {
                    if let Ok(value) = row.try_get(index) {
                        gauge.set(value);
                    }
                }
            }
        }
        Some(Err(error)) => {
            tracing::debug!(error = reason(&error), "the statistics could not be read");
        }
        None => {}
    }
}

fn answer_all<C: Clock>(shared: &Shared<C>, batch: &mut Vec<Lookup>, fault: &Fault) {
    shared.post(batch.drain(..).map(|lookup| {
        let letter = Letter::Lookup(lookup.reply, Err(fault.clone()));
        (lookup.reply_to, letter)
    }));
}
