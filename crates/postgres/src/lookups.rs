//! A connection that answers what reads: lookups, many in one statement, and any other
//! [query](crate::Query) in one of its own.
//!
//! A statement sees one moment, and everything that was committed, and so answered, before it was
//! sent. It changes nothing, so one whose connection broke is sent again.

use crate::{
    connect::Connected,
    error::reason,
    query::Reading,
    queue::{Lane, Read, Reads},
    worker::{Connection, Shared, Up, busy},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type},
};
use widgets_clock::Clock;
use widgets_queue::{Answered, Asked};
use widgets_registry::{Fault, Lookup, Name, Port, Reason, Refusal, SerialNumber, Slot, Widget};

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
    let mut batch = Reads::default();
    let mut attempt = 0;
    let mut next_estimate = Duration::ZERO;
    loop {
        let open = match up.take() {
            Some(open) => open,
            None => match shared.connect(Lane::Reads).await {
                Ok(open) => open,
                Err(error) => {
                    let reason = error.reason();
                    let fault = Fault::Unavailable { reason };
                    answer_all(&shared, &mut batch.lookups, &fault);
                    answer_all(&shared, &mut batch.queries, &fault);
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
                taken = shared.queue.take_reads(&mut batch, most) => {
                    if !taken {
                        return;
                    }
                }
                () = open.connected.broken() => continue,
                () = shared.clock.timer(until_estimate) => {
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

/// Answers a batch. It is left empty, or without what was answered where the connection broke.
async fn apply<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Reads,
) -> Connection {
    answer_late(shared, &mut batch.lookups);
    answer_late(shared, &mut batch.queries);
    if look_up(shared, connected, &mut batch.lookups).await == Connection::Drop {
        return Connection::Drop;
    }
    while let Some(mut query) = batch.queries.pop() {
        let statement = query.asked.ask(&connected.client);
        match outcome(shared, connected, statement).await {
            Some(Ok(rows)) => query.asked.answer(&rows),
            Some(Err(fault)) => query.asked.refuse(fault),
            None => {
                batch.queries.push(query);
                return Connection::Drop;
            }
        }
        let answer = (query.reply_to, Answered::Other(query.asked));
        shared.queue.answer([answer].into_iter());
    }
    Connection::Keep
}

/// Looks up what a batch of lookups names. It is left empty, or untouched where the connection broke.
async fn look_up<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Vec<Read<Box<Asked<Lookup>>>>,
) -> Connection {
    if batch.is_empty() {
        return Connection::Keep;
    }
    let lookups = batch.iter().filter_map(|read| read.asked.request());
    let serial_numbers: Vec<&str> = lookups
        .map(|Lookup(serial_number)| &**serial_number)
        .collect();
    let parameter: (&(dyn ToSql + Sync), Type) = (&serial_numbers, Type::TEXT_ARRAY);
    let parameters = [parameter];
    let query = connected.client.query_typed(CALL, &parameters);
    let rows = match outcome(shared, connected, query).await {
        Some(Ok(rows)) => rows,
        Some(Err(fault)) => {
            answer_all(shared, batch, &fault);
            return Connection::Keep;
        }
        None => return Connection::Drop,
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
    shared.queue.answer(batch.drain(..).map(|mut read| {
        let found = |Lookup(serial_number)| Ok(widgets.get(&serial_number).cloned());
        read.asked.answer(found);
        (read.reply_to, Answered::Other(read.asked))
    }));
    Connection::Keep
}

/// The rows of a statement, or the fault that it met; `None` where the connection broke: it may have
/// been sent to a server that is gone.
async fn outcome<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    statement: impl Future<Output = Result<Vec<Row>, tokio_postgres::Error>>,
) -> Option<Result<Vec<Row>, Fault>> {
    let error = match shared.bounded(connected, statement).await? {
        Ok(rows) => return Some(Ok(rows)),
        Err(error) => error,
    };
    let database = error.as_db_error();
    let database = database.filter(|_| !connected.client.is_closed())?;
    if *database.code() == SqlState::QUERY_CANCELED {
        let limit = shared.settings.statement_timeout_ms;
        return Some(Err(busy("statement_timeout_ms", limit)));
    }
    let reason = reason(&error);
    tracing::error!(reason, "the database answers nothing that reads");
    let reason = Reason::new("the database answers nothing that reads", reason);
    Some(Err(Fault::Unavailable { reason }))
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

fn answer_late<C: Clock, A: Reading>(shared: &Shared<C>, batch: &mut Vec<Read<A>>) {
    let late = batch.extract_if(.., |read| shared.is_late(read.arrived));
    answer_all(shared, &mut late.collect(), &shared.late());
}

fn answer_all<C: Clock, A: Reading>(shared: &Shared<C>, batch: &mut Vec<Read<A>>, fault: &Fault) {
    shared.queue.answer(
        batch
            .drain(..)
            .map(|read| (read.reply_to, read.asked.refused(fault.clone()))),
    );
}
