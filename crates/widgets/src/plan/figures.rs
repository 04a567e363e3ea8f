//! The measured figures, in one place: `widgets plan` calculates with them, and a test compares
//! them with docs/scale.md, which shows them.

use serde::Serialize;

/// A figure, and the page that says how it was measured.
#[derive(Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// The page in docs/, with the anchor of its heading.
    pub(super) source: &'static str,
}

const fn figure(
    name: &'static str,
    value: f64,
    unit: &'static str,
    source: &'static str,
) -> Figure {
    Figure {
        name,
        value,
        unit,
        source,
    }
}

/// All HTTP work for one operation: the kernel's end of the connection, checks, and handing the
/// operation to the store.
pub(super) const HTTP: Figure = figure(
    "HTTP, an operation",
    13.3,
    "µs",
    "performance.md#the-embedded-store-beside-the-do-nothing-route",
);
/// The one thread that decides and journals; more threads do not speed it up.
pub(super) const OWNER: Figure = figure(
    "embedded: the one writing thread, an operation",
    3.4,
    "µs",
    "performance.md#the-embedded-store-beside-the-do-nothing-route",
);
pub(super) const EMBEDDED_MEMORY: Figure = figure(
    "embedded: memory, a widget of two slots",
    98.3,
    "bytes",
    "performance.md#lists",
);
pub(super) const EMBEDDED_CHECKPOINT: Figure = figure(
    "embedded: a checkpoint, a widget",
    48.1,
    "bytes",
    "performance.md#memory-and-start",
);
pub(super) const EMBEDDED_START: Figure = figure(
    "embedded: a start, a million widgets",
    0.121,
    "s",
    "performance.md#lists",
);
/// Adds, associations and removals in batches: 40, 40 and 20 of every 100.
pub(super) const POSTGRES: Figure = figure(
    "PostgreSQL: an operation of the mix, in a batch",
    25.0,
    "µs",
    "postgres.md#measured",
);
pub(super) const POSTGRES_DISK: Figure = figure(
    "PostgreSQL: table and index, a widget",
    150.0,
    "bytes",
    "postgres.md#sizing",
);
/// Grown by random changes, like the table's figure.
pub(super) const POSTGRES_INDEX: Figure = figure(
    "PostgreSQL: of that the index",
    48.0,
    "bytes",
    "postgres.md#sizing",
);
pub(super) const CITUS: Figure = figure(
    "Citus: an operation, without what a batch costs",
    15.5,
    "µs",
    "scale.md#citus",
);
pub(super) const CITUS_SHARD: Figure = figure(
    "Citus: each shard of a batch",
    600.0,
    "µs",
    "scale.md#citus",
);
pub(super) const CITUS_PARTICIPANT: Figure = figure(
    "Citus: each worker that a batch commits on",
    600.0,
    "µs",
    "scale.md#citus",
);

/// For operations that are sent to the workers, and then for those that are not.
pub(super) const CITUS_COORDINATOR: Figure = figure(
    "Citus: the coordinator, an operation sent to the workers",
    0.1,
    "µs",
    "citus.md#what-it-costs",
);
pub(super) const CITUS_BY_COORDINATOR: Figure = figure(
    "Citus: the coordinator, an operation sent by it",
    14.4,
    "µs",
    "citus.md#what-it-costs",
);

/// All figures, in the order of docs/scale.md.
pub(super) const ALL: [&Figure; 13] = [
    &HTTP,
    &OWNER,
    &EMBEDDED_MEMORY,
    &EMBEDDED_CHECKPOINT,
    &EMBEDDED_START,
    &POSTGRES,
    &POSTGRES_DISK,
    &POSTGRES_INDEX,
    &CITUS,
    &CITUS_SHARD,
    &CITUS_PARTICIPANT,
    &CITUS_COORDINATOR,
    &CITUS_BY_COORDINATOR,
];

// Planning assumptions, which are not measured.

/// The share of the cores to use, which leaves room for bursts and for the time in which one
/// machine of two is down.
pub(super) const BUSY: f64 = 0.7;
/// Memory in addition to the widgets while a checkpoint is written, plus a reserve of one third.
pub(super) const EMBEDDED_SPARE: f64 = 1.2 * 4.0 / 3.0;
/// The newest checkpoint, the journal since, and the next checkpoint.
pub(super) const EMBEDDED_DISK: f64 = 3.0;
/// `shared_buffers` holds all indexes and is a quarter of the memory.
pub(super) const POSTGRES_MEMORY: f64 = 4.0;
/// Twice `max_wal_size`.
pub(super) const WAL_BYTES: f64 = 16e9;
/// The operations in a batch that is routed by pair of workers.
pub(super) const CITUS_BATCH: f64 = 256.0;
/// The shards, and the workers, of a batch that is routed by pair of workers, with one shard per
/// worker.
pub(super) const CITUS_ROUTED: f64 = 2.0;
/// With fewer workers, a bigger machine, or PostgreSQL alone, does as much.
pub(super) const CITUS_WORKERS_LEAST: u64 = 4;
/// Nobody has analysed more workers than this.
pub(super) const CITUS_WORKERS_MOST: u64 = 64;
