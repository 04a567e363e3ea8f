//! A whole database at once: filling an empty one, and reading all of one.
//!
//! [`fill`] is one transaction: everything is there after it, or nothing. It copies into tables
//! without keys and builds those afterwards, which sorts each once instead of growing it row by row;
//! the tables are emptied in the same transaction, so that rows are written as frozen and never again.

use crate::{OpenError, Target, error::reason, migrations};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use std::{pin::pin, time::Duration};
use tokio::sync::mpsc;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use widgets_registry::{Name, Port, Refusal, SerialNumber, Slot, Widget};

/// Rows travel in parts of about so many bytes.
const PART_BYTES: usize = 256 << 10;

/// Rows of both tables, in the text form of COPY.
#[derive(Debug, Default)]
pub struct Rows {
    widgets: Vec<u8>,
    slots: Vec<u8>,
}

impl Rows {
    /// Adds a widget and its slots.
    pub fn push(&mut self, widget: &Widget) {
        escape(&mut self.widgets, &widget.serial_number);
        self.widgets.push(b'\t');
        escape(&mut self.widgets, &widget.name);
        self.widgets.push(b'\n');
        for (ordinal, slot) in (b'0'..).zip(&widget.slots) {
            escape(&mut self.slots, &widget.serial_number);
            self.slots.extend_from_slice(&[b'\t', ordinal, b'\t']);
            self.slots.extend_from_slice(slot.port.as_str().as_bytes());
            self.slots.push(b'\t');
            match &slot.peer {
                Some(peer) => escape(&mut self.slots, peer),
                None => self.slots.extend_from_slice(b"\\N"),
            }
            self.slots.push(b'\n');
        }
    }

    /// Whether it is time to send them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.widgets.len() + self.slots.len() >= PART_BYTES
    }
}

/// COPY's text form: what ends a field or a row, and the backslash itself, behind a backslash.
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

/// A part of what a database is filled with.
#[derive(Debug)]
pub enum Part {
    /// More rows.
    Rows(Rows),
    /// That was all. Where this does not come, nothing is kept.
    End,
}

const CONSTRAINTS: &str = "\
SELECT relation.relname::text, con.conname::text, pg_get_constraintdef(con.oid)
FROM pg_constraint con
JOIN pg_class relation ON relation.oid = con.conrelid
JOIN pg_namespace space ON space.oid = relation.relnamespace
WHERE space.nspname = 'widgets' AND relation.relname IN ('widgets', 'slots')
    AND con.contype IN ('p', 'u', 'f')
ORDER BY con.contype = 'f', con.contype <> 'p', con.conname";

/// A key that is built after the rows are there.
struct Key {
    table: String,
    name: String,
    definition: String,
}

/// Fills a migrated database that holds no widgets. Slots are kept in memory until the widgets are
/// through: about 60 bytes a widget.
///
/// The role must own the tables, as the one that migrated does.
pub async fn fill(
    target: &Target,
    timeout: Duration,
    mut parts: mpsc::Receiver<Part>,
) -> Result<(), OpenError> {
    let status = migrations::check(target, timeout).await?;
    if status.found != status.wanted {
        return Err(OpenError::Schema(format!(
            "the database's schema has version {}, and {} is needed: run `widgets migrate`",
            status.found, status.wanted
        )));
    }
    let connected = target.connect(timeout).await?;
    let client = &connected.client;
    // The connection ends with this function: whatever was not committed is undone.
    run(client, "locking the tables", BEGIN).await?;
    let none = client
        .query_typed("SELECT NOT EXISTS (SELECT FROM widgets.widgets)", &[])
        .await;
    let none = none.map_err(failed("looking for widgets"))?;
    if !none.first().is_some_and(|row| row.get(0)) {
        let text = "the database holds widgets already: only an empty one is filled";
        return Err(OpenError::Schema(text.into()));
    }
    let keys = client.query_typed(CONSTRAINTS, &[]).await;
    let keys: Vec<Key> = keys
        .map_err(failed("reading the keys"))?
        .iter()
        .map(key)
        .collect();
    for Key { table, name, .. } in keys.iter().rev() {
        let sql = format!("ALTER TABLE widgets.{table} DROP CONSTRAINT {name}");
        run(client, "dropping a key", &sql).await?;
    }
    run(client, "emptying the tables", EMPTY).await?;
    let mut slots = Vec::new();
    let mut ended = false;
    let copy = "COPY widgets.widgets (serial_number, name) FROM STDIN WITH (FREEZE)";
    let sink = client.copy_in::<_, Bytes>(copy).await;
    let mut sink = pin!(sink.map_err(failed("copying widgets"))?);
    while let Some(part) = parts.recv().await {
        let Part::Rows(rows) = part else {
            ended = true;
            break;
        };
        slots.push(Bytes::from(rows.slots));
        let sent = sink.feed(Bytes::from(rows.widgets)).await;
        sent.map_err(failed("copying widgets"))?;
    }
    if !ended {
        // Whoever sends knows why.
        return Ok(());
    }
    sink.finish().await.map_err(failed("copying widgets"))?;
    let copy = "COPY widgets.slots (widget_sn, ordinal, port, peer_sn) FROM STDIN WITH (FREEZE)";
    let sink = client.copy_in::<_, Bytes>(copy).await;
    let mut sink = pin!(sink.map_err(failed("copying slots"))?);
    for part in slots {
        sink.feed(part).await.map_err(failed("copying slots"))?;
    }
    sink.finish().await.map_err(failed("copying slots"))?;
    // Before the foreign key, whose check joins the slots with themselves: by a plan for an empty
    // table it takes three times as long.
    run(client, "reading statistics", ANALYZE).await?;
    for Key {
        table,
        name,
        definition,
    } in &keys
    {
        let what = format!("building {name}");
        tracing::info!("{what}");
        let sql = format!("ALTER TABLE widgets.{table} ADD CONSTRAINT {name} {definition}");
        run(client, &what, &sql).await?;
    }
    run(client, "committing", END).await
}

/// Memory for sorting, where the server's default is a hundredth of it. The triggers that ask for
/// each new slot's widget have nothing to find: both rows are made of one widget here.
const BEGIN: &str = "\
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL maintenance_work_mem = '512MB';
SET LOCAL work_mem = '256MB';
LOCK TABLE widgets.widgets, widgets.slots IN ACCESS EXCLUSIVE MODE";

const EMPTY: &str = "\
ALTER TABLE widgets.slots DISABLE TRIGGER USER;
ALTER TABLE widgets.widgets DISABLE TRIGGER USER;
TRUNCATE widgets.widgets, widgets.slots";

const ANALYZE: &str = "ANALYZE widgets.widgets; ANALYZE widgets.slots";

const END: &str = "\
ALTER TABLE widgets.widgets ENABLE TRIGGER USER;
ALTER TABLE widgets.slots ENABLE TRIGGER USER;
COMMIT";

fn key(row: &Row) -> Key {
    Key {
        table: row.get(0),
        name: row.get(1),
        definition: row.get(2),
    }
}

async fn run(client: &Client, what: &str, sql: &str) -> Result<(), OpenError> {
    client.batch_execute(sql).await.map_err(failed(what))
}

fn failed(what: &str) -> impl FnOnce(tokio_postgres::Error) -> OpenError + use<'_> {
    move |error| OpenError::Statement {
        what: what.into(),
        reason: reason(&error),
    }
}

const ALL: &str = "\
SELECT widget.serial_number, widget.name, slot.port::text, slot.peer_sn
FROM widgets.widgets widget
LEFT JOIN widgets.slots slot ON slot.widget_sn = widget.serial_number
ORDER BY widget.serial_number, slot.ordinal";

/// Sends every widget, as of one moment, sorted by serial number. Ends early where nobody receives.
pub async fn read_all(
    target: &Target,
    timeout: Duration,
    widgets: mpsc::Sender<Widget>,
) -> Result<(), OpenError> {
    let connected = target.connect(timeout).await?;
    let none = Vec::<(&(dyn ToSql + Sync), Type)>::new();
    let rows = connected.client.query_typed_raw(ALL, none).await;
    let mut rows = pin!(rows.map_err(failed("reading widgets"))?);
    let mut widget: Option<Widget> = None;
    while let Some(row) = rows.next().await {
        let row = row.map_err(failed("reading widgets"))?;
        let (serial_number, name, port, peer) =
            (row.get::<_, &str>(0), row.get(1), row.get(2), row.get(3));
        if let Some(done) = widget.take_if(|widget| *widget.serial_number != *serial_number)
            && widgets.send(done).await.is_err()
        {
            return Ok(());
        }
        append(&mut widget, serial_number, name, port, peer).map_err(|refusal| {
            OpenError::Schema(format!("widget {serial_number} breaks a rule: {refusal}"))
        })?;
    }
    if let Some(widget) = widget {
        // Nobody has to receive.
        drop(widgets.send(widget).await);
    }
    Ok(())
}

/// Adds a row to the widget that it is of.
fn append(
    widget: &mut Option<Widget>,
    serial_number: &str,
    name: &str,
    port: Option<&str>,
    peer: Option<&str>,
) -> Result<(), Refusal> {
    let widget = match widget {
        Some(widget) => widget,
        None => widget.insert(Widget {
            serial_number: SerialNumber::new("serial_number", serial_number)?,
            name: Name::new("name", name)?,
            slots: Vec::new(),
        }),
    };
    if let Some(port) = port {
        let port = Port::parse(port)?;
        let peer = peer
            .map(|peer| SerialNumber::new("peer", peer))
            .transpose()?;
        widget.slots.push(Slot { port, peer });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_escaped_as_copy_reads_them() {
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
        assert_eq!(rows.widgets, b"a\\tb\tc\\\\d\\n\\r\n");
        assert_eq!(rows.slots, b"a\\tb\t0\tQ\t\\N\na\\tb\t1\tP\t\\\\N\n");
        assert!(!rows.is_full());
    }
}
