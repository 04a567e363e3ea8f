//! Migrations: the schema's versions, embedded in the program, and how they are applied.
//!
//! All that are missing are applied in one transaction, under a lock that only one migrator can
//! have: several processes may start at once, and a failure leaves nothing behind. What was applied
//! is recorded with its checksum, and never edited afterwards. Roles and rights come last, every
//! time.

use crate::{OpenError, Target, error::reason};
use std::time::Duration;
use tokio_postgres::{Client, GenericClient, Transaction};

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 3] = [
    Migration {
        version: 1,
        name: "tables",
        sql: include_str!("../migrations/0001_tables.sql"),
    },
    Migration {
        version: 2,
        name: "functions",
        sql: include_str!("../migrations/0002_functions.sql"),
    },
    Migration {
        version: 3,
        name: "batches",
        sql: include_str!("../migrations/0003_batches.sql"),
    },
];

const GRANTS: &str = include_str!("../migrations/grants.sql");

/// The schema's version that this program works with.
pub(crate) const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Which transaction-level advisory lock a migrator takes: "widgets" in ASCII.
const LOCK: i64 = 0x0077_6964_6765_7473;

/// How far a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// The version that the database had, 0 before the first migration.
    pub found: i32,
    /// The version that this program works with.
    pub wanted: i32,
}

/// Applies what is missing, and the roles and rights. Says what it found before.
pub async fn migrate(target: &Target, timeout: Duration) -> Result<MigrationStatus, OpenError> {
    let mut connected = target.connect(timeout).await?;
    migrate_on(&mut connected.client).await
}

/// Says how far the database is, and changes nothing. The role must be allowed to read
/// `widgets.migrations`, as the one that migrated is.
pub async fn check(target: &Target, timeout: Duration) -> Result<MigrationStatus, OpenError> {
    let connected = target.connect(timeout).await?;
    let found = found(&connected.client).await?;
    Ok(MigrationStatus {
        found,
        wanted: VERSION,
    })
}

async fn migrate_on(client: &mut Client) -> Result<MigrationStatus, OpenError> {
    let failed = failed("migrating the schema");
    let transaction = client.transaction().await.map_err(failed)?;
    let prepare = format!(
        "SET LOCAL search_path = pg_catalog, pg_temp; SELECT pg_advisory_xact_lock({LOCK})"
    );
    transaction.batch_execute(&prepare).await.map_err(failed)?;
    let found = found(&transaction).await?;
    if found == 0 {
        transaction
            .batch_execute(FOUNDATION)
            .await
            .map_err(failed)?;
    }
    for migration in MIGRATIONS.iter().filter(|each| each.version > found) {
        apply(&transaction, migration).await?;
    }
    let grants = transaction.batch_execute(GRANTS).await;
    grants.map_err(self::failed("granting the rights"))?;
    transaction.commit().await.map_err(failed)?;
    Ok(MigrationStatus {
        found,
        wanted: VERSION,
    })
}

/// Where migrations are recorded. It cannot be one of them.
const FOUNDATION: &str = "
    CREATE SCHEMA IF NOT EXISTS widgets;
    CREATE TABLE widgets.migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    );";

async fn apply(transaction: &Transaction<'_>, migration: &Migration) -> Result<(), OpenError> {
    let Migration { version, name, sql } = *migration;
    let what = format!("applying migration {version} ({name})");
    let failed = failed(&what);
    transaction.batch_execute(sql).await.map_err(failed)?;
    let record = "INSERT INTO widgets.migrations (version, name, checksum)
        VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'))";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&version, &name, &sql];
    let recorded = transaction.execute(record, &parameters).await;
    recorded.map_err(failed)?;
    tracing::info!(version, name, "migration applied");
    Ok(())
}

/// The version of the database, after a look whether it was made by these very migrations.
async fn found(client: &impl GenericClient) -> Result<i32, OpenError> {
    let failed = failed("reading the schema's version");
    let exists = "SELECT to_regclass('widgets.migrations') IS NOT NULL";
    let exists: bool = client.query_one(exists, &[]).await.map_err(failed)?.get(0);
    if !exists {
        return Ok(0);
    }
    let (versions, texts): (Vec<i32>, Vec<&str>) = MIGRATIONS
        .iter()
        .map(|each| (each.version, each.sql))
        .unzip();
    let applied = "
        SELECT applied.version, applied.name, applied.checksum
            IS NOT DISTINCT FROM encode(sha256(convert_to(known.sql, 'UTF8')), 'hex')
        FROM widgets.migrations applied
        LEFT JOIN unnest($1::integer[], $2::text[]) AS known (version, sql) USING (version)
        ORDER BY version";
    let rows = client
        .query(applied, &[&versions, &texts])
        .await
        .map_err(failed)?;
    let mut found = 0;
    for row in rows {
        let (version, name, same): (i32, String, bool) = (row.get(0), row.get(1), row.get(2));
        check_version(version)?;
        if !same {
            return Err(OpenError::Schema(format!(
                "migration {version} ({name}) was applied with another text than this program \
                 has: the schema was made by another build, and cannot be migrated by this one"
            )));
        }
        found = version;
    }
    Ok(found)
}

fn check_version(version: i32) -> Result<(), OpenError> {
    if version <= VERSION {
        return Ok(());
    }
    Err(OpenError::Schema(format!(
        "the schema has version {version}, newer than {VERSION}, which this program works with: use \
         a newer program"
    )))
}

/// Whether the schema is the one that this program works with, as any role may ask that has the
/// service's rights.
pub(crate) async fn check_served(client: &Client) -> Result<(), OpenError> {
    let version = client
        .query_typed("SELECT widgets.schema_version()", &[])
        .await
        .and_then(|rows| rows.first().map_or(Ok(0), |row| row.try_get(0)));
    let version: i32 = version.map_err(|error| {
        OpenError::Schema(format!(
            "the database is not ready for this role: {}; has `widgets migrate` been run, and has \
             the role the rights?",
            reason(&error)
        ))
    })?;
    check_version(version)?;
    if version < VERSION {
        return Err(OpenError::Schema(format!(
            "the schema has version {version}, and this program works with {VERSION}: run `widgets \
             migrate`"
        )));
    }
    Ok(())
}

fn failed(what: &str) -> impl Fn(tokio_postgres::Error) -> OpenError + Copy {
    move |error| OpenError::Statement {
        what: what.into(),
        reason: reason(&error),
    }
}
