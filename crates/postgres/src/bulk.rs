//! Operations on a whole database: filling an empty one, and reading all its widgets.
//!
//! [`fill`] is one transaction: afterwards everything is there, or nothing. It copies into the
//! table without its primary key and builds the key afterwards, which sorts once instead of growing
//! the index row by row. The table is truncated in the same transaction, so that its rows are
//! written frozen and need not be rewritten later.

use crate::{OpenError, Target, citus::is_distributed, error::reason, migrations};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use std::{pin::pin, time::Duration};
use tokio::sync::mpsc;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use widgets_registry::{Name, Port, Refusal, SLOTS_MAX, SerialNumber, Slot, Widget};

/// The approximate size in bytes of the parts in which rows are sent.
const PART_BYTES: usize = 256 << 10;

/// Rows of the table in COPY's text format.
#[derive(Debug, Default)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// Adds a widget.
    pub fn push(&mut self, widget: &Widget) {
        let row = &mut self.0;
        escape(row, &widget.serial_number);
        row.push(b'\t');
        escape(row, &widget.name);
        for number in 0..SLOTS_MAX {
            row.push(b'\t');
            match widget.slots.get(number) {
                Some(slot) => row.extend_from_slice(slot.port.as_str().as_bytes()),
                None => row.extend_from_slice(NULL),
            }
        }
        for number in 0..SLOTS_MAX {
            row.push(b'\t');
            match widget.slots.get(number).and_then(|slot| slot.peer.as_ref()) {
                Some(peer) => escape(row, peer),
                None => row.extend_from_slice(NULL),
            }
        }
        row.push(b'\n');
    }

    /// Reports whether the rows are large enough to be sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() >= PART_BYTES
    }
}

const NULL: &[u8] = b"\\N";

/// Appends a text in COPY's text format: a backslash precedes whatever would end a field or a row,
/// and the backslash itself.
fn escape(row: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => {
                row.push(byte);
                continue;
            }
        };
        row.extend_from_slice(&[b'\\', escaped]);
    }
}

/// A part of the data that a database is filled with.
#[derive(Debug)]
pub enum Part {
    /// More rows.
    Rows(Rows),
    /// The end. If it never arrives, nothing is kept.
    End,
}

/// Fills a migrated database that holds no widgets.
///
/// The role must own the table, as the role that migrated does.
pub async fn fill(
    target: &Target,
    timeout: Duration,
    parts: mpsc::Receiver<Part>,
) -> Result<(), OpenError> {
    let status = migrations::check(target, timeout).await?;
    if !status.is_complete() {
        return Err(OpenError::Schema(format!(
            "the database's schema has version {}, and {} is needed: run `widgets migrate`",
            status.found, status.wanted
        )));
    }
    let connected = target.connect_to_write(timeout).await?;
    let client = &connected.client;
    // The connection ends with this function, which rolls back whatever was not committed.
    run(client, "locking the table", BEGIN).await?;
    let none = client
        .query_typed(
            "SELECT NOT EXISTS (SELECT serial_number FROM widgets.widgets)",
            &[],
        )
        .await;
    let none = none.map_err(failed("looking for widgets"))?;
    if !none.first().is_some_and(|row| row.get(0)) {
        let text = "the database already holds widgets: only an empty database can be filled";
        return Err(OpenError::Schema(text.into()));
    }
    let is_whole = if is_distributed(client).await? {
        fill_distributed(client, parts).await?
    } else {
        fill_in_one_place(client, parts).await?
    };
    if !is_whole {
        return Ok(());
    }
    run(client, "committing", END).await?;
    if connected.is_unreplicated() {
        return Err(migrations::unreplicated("committing"));
    }
    Ok(())
}

/// Fills the locked, empty table and checks that no half associations remain. Returns false if not
/// all parts arrived.
async fn fill_in_one_place(
    client: &Client,
    parts: mpsc::Receiver<Part>,
) -> Result<bool, OpenError> {
    let key = client.query_typed(KEY, &[]).await;
    let key = key.map_err(failed("reading the primary key"))?;
    let Some(key) = key.first() else {
        let text = "the table widgets.widgets has no primary key";
        return Err(OpenError::Schema(text.into()));
    };
    let (name, definition): (&str, &str) = (key.get(0), key.get(1));
    let sql = format!("ALTER TABLE widgets.widgets DROP CONSTRAINT {name}");
    run(client, "dropping the primary key", &sql).await?;
    run(client, "emptying the table", EMPTY).await?;
    if !copy(client, COPY, parts).await? {
        return Ok(false);
    }
    let sql = format!("ALTER TABLE widgets.widgets ADD CONSTRAINT {name} {definition}");
    tracing::info!("building the primary key");
    run(client, "building the primary key", &sql).await?;
    // The check for half associations is a join, which is planned from these statistics.
    run(client, "reading statistics", "ANALYZE widgets.widgets").await?;
    tracing::info!("checking the associations");
    let half = client.query_typed(HALF, &[]).await;
    let half = half.map_err(failed("checking the associations"))?;
    if let Some(half) = half.first() {
        let (widget, peer, port): (&str, &str, &str) = (half.get(0), half.get(1), half.get(2));
        return Err(OpenError::Schema(format!(
            "half an association: {widget} names {peer} on port {port}, which does not name it"
        )));
    }
    Ok(true)
}

/// Does the same on several nodes. Rows are sent to their shards with the primary key in place. No
/// node sees all rows, so a sum over all shards shows whether each half has its counterpart.
async fn fill_distributed(client: &Client, parts: mpsc::Receiver<Part>) -> Result<bool, OpenError> {
    run(client, "emptying the table", EMPTY_SHARDS).await?;
    run(client, "emptying the table", EMPTY).await?;
    if !copy(client, COPY_TO_SHARDS, parts).await? {
        return Ok(false);
    }
    tracing::info!("checking the associations");
    let balance = "SELECT widgets.halves_balance() = 0";
    let balance = client.query_typed(balance, &[]).await;
    let balance = balance.map_err(failed("checking the associations"))?;
    if !balance.first().is_some_and(|row| row.get(0)) {
        let text = "half an association: a widget names a peer that does not name it";
        return Err(OpenError::Schema(text.into()));
    }
    Ok(true)
}

/// Copies the parts into the table. Returns false if the end did not arrive.
async fn copy(
    client: &Client,
    statement: &str,
    mut parts: mpsc::Receiver<Part>,
) -> Result<bool, OpenError> {
    let sink = client.copy_in::<_, Bytes>(statement).await;
    let mut sink = pin!(sink.map_err(failed("copying widgets"))?);
    let mut ended = false;
    while let Some(part) = parts.recv().await {
        let Part::Rows(rows) = part else {
            ended = true;
            break;
        };
        let sent = sink.feed(Bytes::from(rows.0)).await;
        sent.map_err(failed("copying widgets"))?;
    }
    if !ended {
        // The sender knows why.
        return Ok(false);
    }
    sink.finish().await.map_err(failed("copying widgets"))?;
    Ok(true)
}

/// Begins the transaction and locks the table. Sorting and joining get more memory than by default,
/// which is a hundredth of this.
const BEGIN: &str = "\
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL maintenance_work_mem = '512MB';
SET LOCAL work_mem = '256MB';
LOCK TABLE widgets.widgets IN ACCESS EXCLUSIVE MODE";

const KEY: &str = "\
SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'widgets.widgets'::regclass AND contype = 'p'";

/// Disables the triggers that check associations row by row, because [`HALF`] checks all of them at
/// once. Meanwhile the constraint `widgets_peers_fit` checks new rows as the trigger of that name
/// otherwise checks changed ones.
const EMPTY: &str = "\
ALTER TABLE widgets.widgets DISABLE TRIGGER USER;
TRUNCATE widgets.widgets;
ALTER TABLE widgets.widgets ADD CONSTRAINT widgets_peers_fit CHECK (
    (peer1 IS NULL OR port1 IS NOT NULL) AND (peer2 IS NULL OR port2 IS NOT NULL)
    AND (peer3 IS NULL OR port3 IS NOT NULL)
    AND peer1 <> serial_number AND peer2 <> serial_number AND peer3 <> serial_number
    AND NOT (port1 = port2 AND peer1 = peer2) AND NOT (port1 = port3 AND peer1 = peer3)
    AND NOT (port2 = port3 AND peer2 = peer3))";

const COPY: &str = "\
COPY widgets.widgets (serial_number, name, port1, port2, port3, peer1, peer2, peer3)
FROM STDIN WITH (FREEZE)";

/// Uses one connection to each node, because the table is changed before its rows are copied in the
/// same transaction.
const EMPTY_SHARDS: &str = "\
SET LOCAL citus.enable_unsafe_triggers = on;
SET LOCAL citus.multi_shard_modify_mode = 'sequential'";

const COPY_TO_SHARDS: &str = "\
COPY widgets.widgets (serial_number, name, port1, port2, port3, peer1, peer2, peer3) FROM STDIN";

/// Finds slots whose peer has no slot that names the widget back.
const HALF: &str = "\
WITH half AS NOT MATERIALIZED (
    SELECT serial_number AS widget, port1 AS port, peer1 AS peer FROM widgets.widgets
        WHERE peer1 IS NOT NULL
    UNION ALL SELECT serial_number, port2, peer2 FROM widgets.widgets WHERE peer2 IS NOT NULL
    UNION ALL SELECT serial_number, port3, peer3 FROM widgets.widgets WHERE peer3 IS NOT NULL
)
SELECT one.widget, one.peer, one.port::text FROM half one
WHERE NOT EXISTS (SELECT FROM half other
    WHERE other.widget = one.peer AND other.peer = one.widget AND other.port = one.port)";

const END: &str = "\
ALTER TABLE widgets.widgets DROP CONSTRAINT widgets_peers_fit;
ALTER TABLE widgets.widgets ENABLE TRIGGER USER;
COMMIT";

async fn run(client: &Client, what: &str, sql: &str) -> Result<(), OpenError> {
    // Statements are sent one by one, because Citus forwards to the nodes everything that it
    // receives in one message.
    for statement in sql.split_inclusive(";\n") {
        let done = client.batch_execute(statement).await;
        done.map_err(failed(what))?;
    }
    Ok(())
}

fn failed(what: &str) -> impl Fn(tokio_postgres::Error) -> OpenError + Copy + use<'_> {
    move |error| OpenError::Statement {
        what: what.into(),
        reason: reason(&error),
    }
}

const ALL: &str = "\
SELECT serial_number, name, port1::text, port2::text, port3::text, peer1, peer2, peer3
FROM widgets.widgets ORDER BY serial_number";

/// Sends every widget in order of serial number, all from one snapshot. Ends early if the receiver
/// is gone.
pub async fn read_all(
    target: &Target,
    timeout: Duration,
    widgets: mpsc::Sender<Widget>,
) -> Result<(), OpenError> {
    let connected = target.connect(timeout).await?;
    let none = Vec::<(&(dyn ToSql + Sync), Type)>::new();
    let rows = connected.client.query_typed_raw(ALL, none).await;
    let mut rows = pin!(rows.map_err(failed("reading widgets"))?);
    while let Some(row) = rows.next().await {
        let row = row.map_err(failed("reading widgets"))?;
        let widget = widget(&row).map_err(|refusal| {
            let serial_number: &str = row.get(0);
            OpenError::Schema(format!("widget {serial_number} breaks a rule: {refusal}"))
        })?;
        if widgets.send(widget).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn widget(row: &Row) -> Result<Widget, Refusal> {
    let mut slots = Vec::new();
    for number in 0..SLOTS_MAX {
        let (port, peer): (Option<&str>, Option<&str>) =
            (row.get(2 + number), row.get(2 + SLOTS_MAX + number));
        if let Some(port) = port {
            let port = Port::parse(port)?;
            let peer = peer
                .map(|peer| SerialNumber::new("peer", peer))
                .transpose()?;
            slots.push(Slot { port, peer });
        }
    }
    Ok(Widget {
        serial_number: SerialNumber::new("serial_number", row.get::<_, &str>(0))?,
        name: Name::new("name", row.get::<_, &str>(1))?,
        slots,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_escaped_in_the_text_format_of_copy() {
        let text = |text: &str| SerialNumber::new("", text).expect("within the limits");
        let mut rows = Rows::default();
        rows.push(&Widget {
            serial_number: text("a\tb"),
            name: Name::new("", "c\\d\n\r").expect("within the limits"),
            slots: vec![
                Slot {
                    port: Port::Q,
                    peer: None,
                },
                Slot {
                    port: Port::P,
                    peer: Some(text("\\N")),
                },
            ],
        });
        let row = b"a\\tb\tc\\\\d\\n\\r\tQ\tP\t\\N\t\\N\t\\\\N\t\\N\n";
        assert_eq!(rows.0, row);
        assert!(!rows.is_full());
    }
}
