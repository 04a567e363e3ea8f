//! Optional indexes. A database has them only if somebody asks for them, because each makes writes
//! slower.

use crate::{
    OpenError, Target,
    error::reason,
    migrations::{check_served, unreplicated},
};
use std::time::Duration;
use tokio_postgres::{Client, types::Type};

/// An optional index, named for the lists that it speeds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Widgets by their complete name.
    Names,
    /// Widgets with a free slot of a port type.
    FreeSlots,
}

/// An index's name in the schema, and what it indexes.
type Definition = (&'static str, &'static str);

const NAMES: [Definition; 1] = [("widgets_by_name", "(name, serial_number)")];

/// The conditions are the ones that `widgets.condition` writes, so that PostgreSQL recognises that
/// they match.
const FREE_SLOTS: [Definition; 3] = [
    (
        "widgets_free_p",
        "(serial_number) WHERE (port1 = 'P' AND peer1 IS NULL) OR (port2 = 'P' AND peer2 IS NULL)
            OR (port3 = 'P' AND peer3 IS NULL)",
    ),
    (
        "widgets_free_q",
        "(serial_number) WHERE (port1 = 'Q' AND peer1 IS NULL) OR (port2 = 'Q' AND peer2 IS NULL)
            OR (port3 = 'Q' AND peer3 IS NULL)",
    ),
    (
        "widgets_free_r",
        "(serial_number) WHERE (port1 = 'R' AND peer1 IS NULL) OR (port2 = 'R' AND peer2 IS NULL)
            OR (port3 = 'R' AND peer3 IS NULL)",
    ),
];

impl Index {
    const fn definitions(self) -> &'static [Definition] {
        match self {
            Self::Names => &NAMES,
            Self::FreeSlots => &FREE_SLOTS,
        }
    }
}

/// Creates or drops an index in a migrated database, while reads and writes continue. Returns
/// whether that changed anything. An index that an earlier attempt left unfinished is created
/// again.
pub async fn keep_index(
    target: &Target,
    index: Index,
    on: bool,
    timeout: Duration,
) -> Result<bool, OpenError> {
    let connected = target.connect_to_write(timeout).await?;
    check_served(&connected.client).await?;
    let mut changed = false;
    for &(name, definition) in index.definitions() {
        changed |= keep(&connected.client, name, definition, on).await?;
    }
    if connected.is_unreplicated() {
        return Err(unreplicated("making indexes"));
    }
    Ok(changed)
}

async fn keep(client: &Client, name: &str, definition: &str, on: bool) -> Result<bool, OpenError> {
    let failed = |error: tokio_postgres::Error| OpenError::Statement {
        what: format!("the index {name}"),
        reason: reason(&error),
    };
    let found =
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('widgets.' || $1::text)";
    let found = client.query_typed(found, &[(&name, Type::TEXT)]).await;
    let found = found.map_err(failed)?;
    let is_whole = found.first().map(|row| row.get::<_, bool>(0));
    if is_whole == on.then_some(true) {
        return Ok(false);
    }
    // Creating an index may take very long, but blocks no write.
    let mut statements = vec!["SET statement_timeout = 0".to_owned()];
    if is_whole.is_some() {
        statements.push(format!("DROP INDEX CONCURRENTLY IF EXISTS widgets.{name}"));
    }
    if on {
        statements.push(format!(
            "CREATE INDEX CONCURRENTLY {name} ON widgets.widgets {definition}"
        ));
    }
    // The statements are sent separately: together they would form a transaction, in which these
    // are not allowed.
    for statement in statements {
        client.batch_execute(&statement).await.map_err(failed)?;
    }
    Ok(true)
}
