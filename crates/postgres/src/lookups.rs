//! A connection that answers reads: many lookups with one statement, and every other
//! [query](crate::Query) with its own.
//!
//! A statement sees one snapshot, with everything that was committed, and therefore everything that
//! was acknowledged, before it was sent. It changes nothing, so if its connection breaks, it is
//! sent again.

use crate::{
    connected::Connected,
    error::{reason, unavailable},
    link::Link,
    metrics::Metrics,
    nodes::Nodes,
    placement::{Home, Placement},
    query::Reading,
    queue::{Lane, Read, Reads},
    send::{NODE_LOST, is_node_lost},
    shared::{Bounded, CANCELLED, Connection, Shared},
    worker::{HELD_UP, LOST},
};
use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type},
};
use widgets_clock::Clock;
use widgets_queue::{Answered, Asked};
use widgets_registry::{Fault, Lookup, Name, Port, Reason, Refusal, SerialNumber, Slot, Widget};

/// This returns at least one row, because it also reports whether the server is a standby: behind a
/// pooler, the server may have changed a moment ago.
const CALL: &str = "
    SELECT serial_number, name, ports, peers, pg_is_in_recovery()
    FROM (SELECT) once LEFT JOIN widgets.lookup_widgets($1) ON true";

/// The numbers of widgets, associations, and free slots in the order of [`Port::ALL`].
const ESTIMATE: &str = "
    SELECT widgets, associations, p, q, r
    FROM widgets.estimated_counts(), widgets.estimated_free_slots()";

/// How often the statistics are read for the metrics. The database does not update them more often.
const ESTIMATE_EVERY: Duration = Duration::from_secs(30);

/// Answers lookups until the queue is closed and empty. One connection of each store also reads the
/// statistics: the one with `estimates` set.
pub(crate) async fn run<C: Clock>(shared: Arc<Shared<C>>, estimates: bool) {
    let mut link = Link::new(shared.clone(), Lane::Reads);
    let mut batch = Reads::default();
    let mut next_estimate = Duration::ZERO;
    loop {
        let connected = match link.connected().await {
            Ok(connected) => connected,
            Err(error) => {
                let reason = error.reason();
                let fault = Fault::Unavailable { reason };
                answer_all(&shared, &mut batch.lookups, &fault);
                answer_all(&shared, &mut batch.queries, &fault);
                if shared.queue.is_closed() {
                    return;
                }
                link.pause().await;
                continue;
            }
        };
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
                reason = connected.broken() => {
                    link.lose(&reason);
                    continue;
                }
                () = shared.clock.timer(until_estimate) => {
                    next_estimate = shared.clock.now() + ESTIMATE_EVERY;
                    let mut connection = estimate(&shared, connected).await;
                    if connection == Connection::Keep {
                        connection = place(&shared, connected).await;
                    }
                    if let Connection::Drop(reason) = connection {
                        link.lose(&reason);
                        continue;
                    }
                }
                () = shared.queue.moved(), if estimates => {
                    if let Connection::Drop(reason) = place(&shared, connected).await {
                        link.lose(&reason);
                        continue;
                    }
                }
            }
        }
        if let Connection::Drop(reason) = apply(&shared, connected, &mut batch).await {
            link.lose(&reason);
        }
    }
}

/// Answers a batch. If the connection broke, `batch` keeps the reads that were not answered;
/// otherwise it is empty.
async fn apply<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Reads,
) -> Connection {
    answer_late(shared, &mut batch.lookups);
    answer_late(shared, &mut batch.queries);
    let mut connection = look_up(shared, connected, &mut batch.lookups).await;
    while connection == Connection::Keep
        && let Some(mut query) = batch.queries.pop()
    {
        let statement = query.asked.ask(&connected.client);
        let outcome;
        (outcome, connection) = ask(shared, connected, statement).await;
        match outcome {
            Some(Ok(rows)) => query.asked.answer(&rows),
            Some(Err(Unread { fault, .. })) => query.asked.refuse(fault),
            None => {
                batch.queries.push(query);
                break;
            }
        }
        let answer = (query.reply_to, Answered::Other(query.asked));
        shared.queue.answer([answer].into_iter());
    }
    connection
}

/// Answers a batch of lookups and empties it. If the connection broke, leaves it as it was.
async fn look_up<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &mut Vec<Read<Box<Asked<Lookup>>>>,
) -> Connection {
    if batch.is_empty() {
        return Connection::Keep;
    }
    if let Some(placement) = shared.queue.apart()
        && workers(&placement, batch).len() > 1
    {
        return look_up_apart(shared, connected, &placement, batch).await;
    }
    let lookups = batch.iter().filter_map(|read| read.asked.request());
    let serial_numbers: Vec<&str> = lookups
        .map(|Lookup(serial_number)| &**serial_number)
        .collect();
    let parameter: (&(dyn ToSql + Sync), Type) = (&serial_numbers, Type::TEXT_ARRAY);
    let parameters = [parameter];
    let query = connected.client.query_typed(CALL, &parameters);
    let (outcome, connection) = ask(shared, connected, query).await;
    let rows = match outcome {
        Some(Ok(rows)) => rows,
        Some(Err(Unread { fault, met })) => {
            let Some(placement) = shared.queue.placement() else {
                answer_all(shared, batch, &fault);
                return connection;
            };
            let workers = workers(&placement, batch);
            let now = shared.clock.now();
            match (met, &workers[..]) {
                (Met::LostNode, [worker]) => {
                    shared.lose(Home(*worker, *worker), now, LOST);
                }
                (Met::LostNode, _) if connection == Connection::Keep => {
                    // Lookups that concern the other nodes are answered.
                    return look_up_apart(shared, connected, &placement, batch).await;
                }
                (Met::Silence, [worker]) => {
                    shared.lose(Home(*worker, *worker), now, HELD_UP);
                    // The fault concerns that node and not the whole store.
                    let fault = unavailable(NODE_LOST, fault.to_string());
                    answer_all(shared, batch, &fault);
                    return connection;
                }
                (Met::Silence, _) => {
                    // The lookups of each worker will be sent again separately.
                    let homes = workers.iter().map(|worker| Home(*worker, *worker));
                    shared.queue.suspect(homes, now);
                    return connection;
                }
                (Met::LostNode | Met::Nothing, _) => {}
            }
            answer_all(shared, batch, &fault);
            return connection;
        }
        None => return connection,
    };
    if !shared.target.may_read_from_standby() && rows.iter().any(is_standby) {
        return Connection::Drop("the server is a standby".into());
    }
    if let Some(placement) = shared.queue.apart() {
        for worker in workers(&placement, batch) {
            shared.queue.reached(Home(worker, worker));
        }
    }
    let mut widgets = HashMap::with_capacity(rows.len());
    for row in rows.iter().filter(|row| has_widget(row)) {
        match widget(row) {
            Ok(widget) => {
                widgets.insert(widget.serial_number.clone(), widget);
            }
            Err(defect) => {
                tracing::error!(defect, "the database holds an impossible widget");
                let reason = Reason::new("the database holds an impossible widget", defect);
                answer_all(shared, batch, &Fault::Unavailable { reason });
                return connection;
            }
        }
    }
    shared.queue.answer(batch.drain(..).map(|mut read| {
        let found = |Lookup(serial_number)| Ok(widgets.get(&serial_number).cloned());
        read.asked.answer(found);
        (read.reply_to, Answered::Other(read.asked))
    }));
    connection
}

/// Does the same separately for each worker, and refuses the lookups that concern a lost one.
async fn look_up_apart<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    placement: &Placement,
    batch: &mut Vec<Read<Box<Asked<Lookup>>>>,
) -> Connection {
    let mut connection = Connection::Keep;
    let mut rest = mem::take(batch);
    for worker in workers(placement, &rest) {
        let is_there = |read: &mut Read<Box<Asked<Lookup>>>| {
            let lookup = read.asked.request();
            lookup.is_none_or(|Lookup(sn)| placement.worker(sn) == worker)
        };
        let mut part: Vec<_> = rest.extract_if(.., is_there).collect();
        if shared
            .queue
            .is_lost(Home(worker, worker), shared.clock.now())
        {
            let fault = unavailable(NODE_LOST, "it was away a moment ago");
            answer_all(shared, &mut part, &fault);
        } else if connection == Connection::Keep {
            connection = Box::pin(look_up(shared, connected, &mut part)).await;
        }
        // Lookups that were not sent may be sent elsewhere.
        batch.append(&mut part);
    }
    connection
}

/// Returns the workers that these lookups concern.
fn workers(placement: &Placement, batch: &[Read<Box<Asked<Lookup>>>]) -> Vec<usize> {
    let lookups = batch.iter().filter_map(|read| read.asked.request());
    let workers = lookups.map(|Lookup(serial_number)| placement.worker(serial_number));
    let workers: BTreeSet<usize> = workers.collect();
    workers.into_iter().collect()
}

fn is_standby(row: &Row) -> bool {
    row.try_get(4).unwrap_or(false)
}

fn has_widget(row: &Row) -> bool {
    !matches!(row.try_get::<_, Option<&str>>(0), Ok(None))
}

/// Why a statement returned no rows.
pub(crate) struct Unread {
    /// The answer to the caller.
    pub(crate) fault: Fault,
    /// Whether the failure may concern only one node of a distributed registry.
    pub(crate) met: Met,
}

/// A failure that concerns one node of a distributed registry, rather than all.
#[derive(Clone, Copy)]
pub(crate) enum Met {
    Nothing,
    LostNode,
    /// The statement timed out, perhaps because a node does not answer.
    Silence,
}

/// Returns the rows of a statement or its fault, and whether the connection can be used again. The
/// first is `None` if the connection broke, perhaps because its server is gone.
pub(crate) async fn ask<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    statement: impl Future<Output = Result<Vec<Row>, tokio_postgres::Error>>,
) -> (Option<Result<Vec<Row>, Unread>>, Connection) {
    let (outcome, connection) = match shared.heard(connected, statement).await {
        Bounded::Done(outcome) => (outcome, Connection::Keep),
        Bounded::Cancelled(outcome) => (outcome, Connection::Drop(CANCELLED.into())),
        Bounded::Silent(reason) => return (None, Connection::Drop(reason)),
    };
    let error = match outcome {
        Ok(rows) => return (Some(Ok(rows)), connection),
        Err(error) => error,
    };
    let reason = connected.why(&error).await;
    let Some(database) = error
        .as_db_error()
        .filter(|_| !connected.is_ended_by(&error))
    else {
        return (None, Connection::Drop(reason));
    };
    let (fault, met) = if *database.code() == SqlState::QUERY_CANCELED {
        let by_us = connection != Connection::Keep;
        let met = if by_us { Met::Silence } else { Met::Nothing };
        (shared.cancelled(by_us), met)
    } else if is_node_lost(database) {
        (unavailable(NODE_LOST, reason), Met::LostNode)
    } else {
        tracing::error!(reason, "the database answers nothing that reads");
        let public = "the database answers nothing that reads";
        (unavailable(public, reason), Met::Nothing)
    };
    (Some(Err(Unread { fault, met })), connection)
}

pub(crate) fn widget(row: &Row) -> Result<Widget, String> {
    let (serial_number, slots) = slots(row)?;
    let name: &str = row.try_get(1).map_err(|error| reason(&error))?;
    Ok(Widget {
        serial_number,
        name: Name::new("name", name).map_err(|refusal| refusal.to_string())?,
        slots,
    })
}

/// Reads a row's serial number and slots.
pub(crate) fn slots(row: &Row) -> Result<(SerialNumber, Vec<Slot>), String> {
    let refused = |refusal: Refusal| refusal.to_string();
    let serial_number: &str = row.try_get(0).map_err(|error| reason(&error))?;
    let serial_number = SerialNumber::new("serial_number", serial_number).map_err(refused)?;
    let ports: Vec<&str> = row.try_get(2).map_err(|error| reason(&error))?;
    let peers: Vec<Option<&str>> = row.try_get(3).map_err(|error| reason(&error))?;
    let slots = ports.into_iter().zip(peers).map(|(port, peer)| {
        let peer = peer.map(|peer| SerialNumber::new("peer", peer));
        Ok(Slot {
            port: Port::parse(port)?,
            peer: peer.transpose()?,
        })
    });
    let slots = slots.collect::<Result<_, _>>().map_err(refused)?;
    Ok((serial_number, slots))
}

async fn estimate<C: Clock>(shared: &Shared<C>, connected: &Connected) -> Connection {
    let query = connected.client.query_typed(ESTIMATE, &[]);
    match shared.heard(connected, query).await {
        Bounded::Done(Ok(rows)) => {
            let Metrics {
                widgets,
                associations,
                free_slots_of,
                ..
            } = &shared.metrics;
            for row in rows {
                let gauges = [widgets, associations].into_iter().chain(free_slots_of);
                for (index, gauge) in gauges.enumerate() {
                    if let Ok(value) = row.try_get(index) {
                        gauge.set(value);
                    }
                }
            }
        }
        Bounded::Done(Err(error)) => {
            tracing::debug!(error = reason(&error), "the statistics could not be read");
            if connected.is_ended_by(&error) {
                return Connection::Drop(connected.why(&error).await);
            }
        }
        Bounded::Cancelled(_) => return Connection::Drop(CANCELLED.into()),
        Bounded::Silent(reason) => return Connection::Drop(reason),
    }
    Connection::Keep
}

/// Reads the placement of a distributed registry's widgets.
async fn place<C: Clock>(shared: &Shared<C>, connected: &Connected) -> Connection {
    let asked = Placement::of(&connected.client);
    match shared.heard(connected, asked).await {
        Bounded::Done(Ok(placement)) => {
            if let Some(placement) = placement
                .as_ref()
                .filter(|placement| placement.has_several())
            {
                let are_connected = shared.settings.nodes != Nodes::Off;
                shared.metrics.know(&placement.workers, are_connected);
            }
            shared.queue.set_placement(placement);
        }
        Bounded::Done(Err(error)) => {
            tracing::warn!(
                error = reason(&error),
                "where the widgets are could not be read"
            );
        }
        Bounded::Cancelled(_) => return Connection::Drop(CANCELLED.into()),
        Bounded::Silent(reason) => return Connection::Drop(reason),
    }
    Connection::Keep
}

fn answer_late<C: Clock, A: Reading>(shared: &Shared<C>, batch: &mut Vec<Read<A>>) {
    let late = batch.extract_if(.., |read| shared.is_late(read.arrived));
    answer_all(shared, &mut late.collect(), &shared.late());
}

pub(crate) fn answer_all<C: Clock, A: Reading>(
    shared: &Shared<C>,
    batch: &mut Vec<Read<A>>,
    fault: &Fault,
) {
    shared.queue.answer(
        batch
            .drain(..)
            .map(|read| (read.reply_to, read.asked.refused(fault.clone()))),
    );
}
