//! Migrations: the versions of the schema, embedded in the program, and how they are applied.
//!
//! All missing migrations are applied in one transaction, under a lock that only one migrator can
//! hold. Therefore several processes may start at once, and a failure leaves nothing behind. Each
//! applied migration is recorded with its checksum, and its text is never changed afterwards. Roles
//! and rights are granted last, in every run.
//!
//! A migration states which programs can work with the schema that it makes, and the schema records
//! that. A program keeps working with a newer schema, and can be started on it, unless a migration
//! rules it out. This allows replicas to be upgraded, and downgraded, one after the other.

use crate::{OpenError, Target, error::reason};
use std::{cmp::Ordering, time::Duration};
use tokio_postgres::{Client, GenericClient, Transaction, error::SqlState, types::Type};

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
    /// The oldest program that works with the schema after this migration, given by the version
    /// that it was made for. If it is the migration's own version, all earlier programs must be
    /// stopped first.
    oldest_program: i32,
}

const MIGRATIONS: [Migration; 13] = [
    Migration {
        version: 1,
        name: "tables",
        sql: include_str!("../migrations/0001_tables.sql"),
        oldest_program: 1,
    },
    Migration {
        version: 2,
        name: "functions",
        sql: include_str!("../migrations/0002_functions.sql"),
        oldest_program: 2,
    },
    Migration {
        version: 3,
        name: "batches",
        sql: include_str!("../migrations/0003_batches.sql"),
        oldest_program: 3,
    },
    Migration {
        version: 4,
        name: "locks",
        sql: include_str!("../migrations/0004_locks.sql"),
        // Earlier programs do not know the outcome 'locked'.
        oldest_program: 4,
    },
    Migration {
        version: 5,
        name: "lists",
        sql: include_str!("../migrations/0005_lists.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 6,
        name: "changes",
        sql: include_str!("../migrations/0006_changes.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 7,
        name: "free_slots",
        sql: include_str!("../migrations/0007_free_slots.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 8,
        name: "shares",
        sql: include_str!("../migrations/0008_shares.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 9,
        name: "rules",
        sql: include_str!("../migrations/0009_rules.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 10,
        name: "distributed",
        sql: include_str!("../migrations/0010_distributed.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 11,
        name: "batches",
        sql: include_str!("../migrations/0011_batches.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 12,
        name: "calls",
        sql: include_str!("../migrations/0012_calls.sql"),
        oldest_program: 4,
    },
    Migration {
        version: 13,
        name: "keys",
        sql: include_str!("../migrations/0013_keys.sql"),
        oldest_program: 4,
    },
];

const GRANTS: &str = include_str!("../migrations/grants.sql");

/// The version of the schema that this program was made for.
pub(crate) const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// The transaction-level advisory lock that a migrator takes while there is no table yet that it
/// could lock: "widgets" in ASCII. Any role that may connect can take this lock as well, and keep
/// it.
const LOCK: i64 = 0x0077_6964_6765_7473;

/// The first migration waits for the lock for this many times the connection timeout.
const FIRST_WAIT: u32 = 30;

/// How long an attempt to migrate waits for a lock of a table. Whoever comes after it, for a lookup as
/// well, waits behind it, so it must be shorter than callers wait.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The pause before another attempt, in which those who came after it have their turn.
const LOCK_AGAIN: Duration = Duration::from_secs(4);

/// Why an attempt to migrate failed.
enum Failed {
    /// Another transaction held a lock for longer than [`LOCK_WAIT`].
    Locked(OpenError),
    Other(OpenError),
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        Self::Other(error)
    }
}

/// The version of a database's schema, compared with the one wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// The version that the database had; 0 before the first migration.
    pub found: i32,
    /// The version that this program was made for.
    pub wanted: i32,
}

impl MigrationStatus {
    /// Reports whether no migration is missing. A newer schema lacks none.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.found >= self.wanted
    }
}

/// Applies the missing migrations, and grants roles and rights. Returns the status from before. A
/// newer schema that this program can work with is left unchanged.
///
/// Transactions that use the tables are waited for, however long they take, and hold up nobody else
/// meanwhile: each attempt waits for a second, and lets the others pass before the next one.
pub async fn migrate(target: &Target, timeout: Duration) -> Result<MigrationStatus, OpenError> {
    let mut connected = target.connect_to_write(timeout).await?;
    let status = loop {
        match migrate_on(&mut connected.client, timeout).await {
            Ok(status) => break status,
            Err(Failed::Other(error)) => return Err(error),
            Err(Failed::Locked(error)) => {
                let again_seconds = LOCK_AGAIN.as_secs();
                tracing::warn!(
                    %error,
                    again_seconds,
                    "waiting for transactions that use the tables (pg_stat_activity has them)"
                );
                tokio::time::sleep(LOCK_AGAIN).await;
            }
        }
    };
    if connected.is_unreplicated() {
        return Err(unreplicated("migrating the schema"));
    }
    Ok(status)
}

/// Turns the feed of changes on or off in a migrated database. Returns whether that changed
/// anything.
pub async fn keep_changes(target: &Target, on: bool, timeout: Duration) -> Result<bool, OpenError> {
    let connected = target.connect_to_write(timeout).await?;
    check_served(&connected.client).await?;
    let (what, statement) = if on {
        ("turning the feed on", "SELECT widgets.turn_on_changes()")
    } else {
        ("turning the feed off", "SELECT widgets.turn_off_changes()")
    };
    let rows = connected.client.query_typed(statement, &[]).await;
    let changed = rows.and_then(|rows| rows.first().map_or(Ok(false), |row| row.try_get(0)));
    if connected.is_unreplicated() {
        return Err(unreplicated(what));
    }
    changed.map_err(failed(what))
}

/// Returns the migration status and changes nothing. The role must be allowed to read
/// `widgets.migrations`, as the role that migrated is.
pub async fn check(target: &Target, timeout: Duration) -> Result<MigrationStatus, OpenError> {
    let connected = target.connect(timeout).await?;
    let found = found(&connected.client).await?;
    Ok(MigrationStatus {
        found,
        wanted: VERSION,
    })
}

/// Waits until no other migrator is running. It locks the table in which migrations are recorded,
/// which nobody else may lock. Before the very first migration there is only an advisory lock,
/// which anybody may hold, so the wait for it is limited to about the time that a migration takes.
async fn lock(transaction: &Transaction<'_>, timeout: Duration) -> Result<(), OpenError> {
    let failed = failed("waiting for other migrators");
    let exists = async || {
        let exists = "SELECT to_regclass('widgets.migrations') IS NOT NULL";
        let row = transaction.query_one(exists, &[]).await.map_err(failed)?;
        Ok::<bool, OpenError>(row.get(0))
    };
    if !exists().await? {
        let milliseconds = (timeout * FIRST_WAIT).as_millis();
        let wait = format!(
            "SET LOCAL lock_timeout = {milliseconds}; SELECT pg_advisory_xact_lock({LOCK});
            SET LOCAL lock_timeout = 0"
        );
        let held = format!(
            "waiting for other migrators (whoever has the advisory lock {LOCK}, see pg_locks)"
        );
        let waited = transaction.batch_execute(&wait).await;
        waited.map_err(self::failed(&held))?;
    }
    if exists().await? {
        // A role without the right to write there will change nothing, so it needs no lock.
        let alone = "DO $$ BEGIN
            IF has_table_privilege('widgets.migrations', 'UPDATE') THEN
                LOCK TABLE widgets.migrations IN SHARE ROW EXCLUSIVE MODE;
            END IF;
        END $$";
        transaction.batch_execute(alone).await.map_err(failed)?;
    }
    Ok(())
}

async fn migrate_on(client: &mut Client, timeout: Duration) -> Result<MigrationStatus, Failed> {
    let failed = attempted("migrating the schema");
    let transaction = client.transaction().await.map_err(failed)?;
    let prepare = "SET LOCAL search_path = pg_catalog, pg_temp";
    transaction.batch_execute(prepare).await.map_err(failed)?;
    lock(&transaction, timeout).await?;
    let status = MigrationStatus {
        found: found(&transaction).await?,
        wanted: VERSION,
    };
    if status.found > VERSION {
        // The newer program has already granted the rights.
        return Ok(status);
    }
    if !status.is_complete() {
        let wait = format!("SET LOCAL lock_timeout = {}", LOCK_WAIT.as_millis());
        transaction.batch_execute(&wait).await.map_err(failed)?;
        let foundation = transaction.batch_execute(FOUNDATION).await;
        foundation.map_err(failed)?;
    }
    for migration in MIGRATIONS.iter().filter(|each| each.version > status.found) {
        apply(&transaction, migration).await?;
    }
    let grants = transaction.batch_execute(GRANTS).await;
    grants.map_err(attempted("granting the rights"))?;
    transaction.commit().await.map_err(failed)?;
    Ok(status)
}

/// The table in which migrations are recorded. It cannot be created by one of them. Its last column
/// came with the fourth.
const FOUNDATION: &str = "
    CREATE SCHEMA IF NOT EXISTS widgets;
    CREATE TABLE IF NOT EXISTS widgets.migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
    ALTER TABLE widgets.migrations ADD COLUMN IF NOT EXISTS oldest_program integer;
    UPDATE widgets.migrations SET oldest_program = version WHERE oldest_program IS NULL;";

async fn apply(transaction: &Transaction<'_>, migration: &Migration) -> Result<(), Failed> {
    let Migration {
        version,
        name,
        sql,
        oldest_program,
    } = *migration;
    let what = format!("applying migration {version} ({name})");
    let failed = attempted(&what);
    transaction.batch_execute(sql).await.map_err(failed)?;
    let record = "INSERT INTO widgets.migrations (version, name, oldest_program, checksum)
        VALUES ($1, $2, $3, encode(sha256(convert_to($4, 'UTF8')), 'hex'))";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&version, &name, &oldest_program, &sql];
    let recorded = transaction.execute(record, &parameters).await;
    recorded.map_err(failed)?;
    tracing::info!(version, name, "migration applied");
    Ok(())
}

/// Returns the version of the database's schema. Checks that these same migrations made it, and
/// that this program works with migrations that it does not know.
async fn found(client: &impl GenericClient) -> Result<i32, OpenError> {
    let failed = failed("reading the schema's version");
    let exists = "SELECT to_regclass('widgets.migrations') IS NOT NULL";
    let exists = client.query_typed_one(exists, &[]).await;
    let exists: bool = exists.map_err(failed)?.get(0);
    if !exists {
        return Ok(0);
    }
    let (versions, texts): (Vec<i32>, Vec<&str>) = MIGRATIONS
        .iter()
        .map(|each| (each.version, each.sql))
        .unzip();
    // The row is converted to JSON because the column may not exist yet.
    let applied = "
        SELECT applied.version, applied.name, known.version IS NULL OR applied.checksum
            IS NOT DISTINCT FROM encode(sha256(convert_to(known.sql, 'UTF8')), 'hex'),
            coalesce((to_jsonb(applied)->>'oldest_program')::integer, applied.version)
        FROM widgets.migrations applied
        LEFT JOIN unnest($1::integer[], $2::text[]) AS known (version, sql) USING (version)
        ORDER BY version";
    let rows = client
        .query_typed(
            applied,
            &[(&versions, Type::INT4_ARRAY), (&texts, Type::TEXT_ARRAY)],
        )
        .await
        .map_err(failed)?;
    let (mut found, mut oldest_program) = (0, 0);
    for row in rows {
        let (version, name, same): (i32, String, bool) = (row.get(0), row.get(1), row.get(2));
        if !same {
            return Err(OpenError::Schema(format!(
                "migration {version} ({name}) was applied with a different text from this \
                 program's: the schema was made by another build, and this one cannot migrate it"
            )));
        }
        found = version;
        oldest_program = oldest_program.max(row.get(3));
    }
    check_program(found, oldest_program)?;
    Ok(found)
}

/// Checks that this program works with a schema of this version, given its oldest program.
fn check_program(version: i32, oldest_program: i32) -> Result<(), OpenError> {
    if oldest_program <= VERSION {
        return Ok(());
    }
    Err(OpenError::Schema(format!(
        "the schema has version {version}, which needs a program made for version {oldest_program} \
         or newer, and this one was made for {VERSION}: use a newer program"
    )))
}

/// Checks that this program works with the schema, through functions that any role with the
/// service's rights may call.
pub(crate) async fn check_served(client: &Client) -> Result<(), OpenError> {
    let version = ask(client, "SELECT widgets.schema_version()").await?;
    match version.cmp(&VERSION) {
        Ordering::Less => Err(OpenError::Schema(format!(
            "the schema has version {version}, and this program works with {VERSION}: run `widgets \
             migrate`"
        ))),
        Ordering::Equal => Ok(()),
        Ordering::Greater => {
            let oldest_program = ask(client, "SELECT widgets.oldest_program()").await?;
            check_program(version, oldest_program)
        }
    }
}

async fn ask(client: &Client, question: &str) -> Result<i32, OpenError> {
    let rows = client.query_typed(question, &[]).await;
    let answer = rows.and_then(|rows| rows.first().map_or(Ok(0), |row| row.try_get(0)));
    answer.map_err(|error| {
        // The schema or function is missing, or the role has no right to it: only a migration can
        // change that. Any other failure may be over at the next attempt.
        let class = error.code().and_then(|code| code.code().get(..2));
        if !matches!(class, Some("3F" | "42")) {
            return failed("reading the schema's version")(error);
        }
        OpenError::Schema(format!(
            "the database is not ready for this role: {}; has `widgets migrate` been run, and does \
             the role have the privileges?",
            reason(&error)
        ))
    })
}

/// Returns the error for a change that was committed, but perhaps only on this server.
pub(crate) fn unreplicated(what: &str) -> OpenError {
    OpenError::Statement {
        what: what.into(),
        reason: "the wait for synchronous replication was cancelled: it is committed on this \
                 server, and perhaps on no standby"
            .into(),
    }
}

fn attempted(what: &str) -> impl Fn(tokio_postgres::Error) -> Failed + Copy {
    let failed = failed(what);
    move |error| {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            Failed::Locked(failed(error))
        } else {
            Failed::Other(failed(error))
        }
    }
}

fn failed(what: &str) -> impl Fn(tokio_postgres::Error) -> OpenError + Copy {
    move |error| OpenError::Statement {
        what: what.into(),
        reason: reason(&error),
    }
}
