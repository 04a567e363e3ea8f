//! The arithmetic of `widgets plan`: how many machines of a given size hold so many widgets and
//! take so many operations per second. Everything is in proportion to measurements on two cores;
//! docs/scale.md says what that leaves out.

use super::figures::{
    BUSY, CITUS, CITUS_BATCH, CITUS_BY_COORDINATOR, CITUS_COORDINATOR, CITUS_PARTICIPANT,
    CITUS_ROUTED, CITUS_SHARD, CITUS_WORKERS_LEAST, CITUS_WORKERS_MOST, EMBEDDED_CHECKPOINT,
    EMBEDDED_DISK, EMBEDDED_MEMORY, EMBEDDED_SPARE, EMBEDDED_START, HTTP, OWNER, POSTGRES,
    POSTGRES_DISK, POSTGRES_INDEX, POSTGRES_MEMORY, WAL_BYTES,
};
use serde::Serialize;
use widgets_load::report::count_text;

/// What is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Wanted {
    pub(super) widgets: u64,
    pub(super) rate: f64,
    pub(super) machine: Machine,
}

/// What a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Machine {
    pub(super) cores: u64,
    pub(super) memory_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Store {
    /// The embedded store of the service, with a standby.
    Embedded,
    /// One PostgreSQL under Patroni: a primary and two standbys.
    Postgres,
    /// PostgreSQL, distributed over workers by Citus.
    Citus,
}

/// Machines with the same task. The figures are for each of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Machines {
    pub(super) role: &'static str,
    pub(super) count: u64,
    pub(super) cores: f64,
    pub(super) memory_bytes: u64,
    pub(super) disk_bytes: u64,
}

/// The plan for one store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Plan {
    pub(super) store: Store,
    pub(super) fits: bool,
    pub(super) machines_total: u64,
    pub(super) machines: Vec<Machines>,
    pub(super) shards: u64,
    /// CPU time per operation, on all machines together.
    pub(super) microseconds_an_operation: f64,
    /// What limits the plan first, and how much of it is used.
    pub(super) limit: String,
    pub(super) limit_used: f64,
    pub(super) notes: Vec<String>,
}

/// Makes the plan for a store.
pub(super) fn plan(store: Store, wanted: &Wanted) -> Plan {
    match store {
        Store::Embedded => embedded(wanted),
        Store::Postgres => postgres(wanted),
        Store::Citus => citus(wanted),
    }
}

/// Returns how many cores are busy if an operation takes this many microseconds.
fn cores(wanted: &Wanted, microseconds: f64) -> f64 {
    wanted.rate * microseconds / 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a plan needs no more than fifty bits"
)]
fn real(number: u64) -> f64 {
    number as f64
}

/// Rounds up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the command line bounds what goes in, so that it is far below 2^64"
)]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

/// Returns the highest of these shares, with what it is a share of.
fn nearest(shares: impl IntoIterator<Item = (f64, String)>) -> (f64, String) {
    let first = (0.0, String::new());
    shares.into_iter().fold(
        first,
        |most, each| if each.0 > most.0 { each } else { most },
    )
}

fn embedded(wanted: &Wanted) -> Plan {
    let widgets = real(wanted.widgets);
    let memory = widgets * EMBEDDED_MEMORY.value * EMBEDDED_SPARE;
    let writer = cores(wanted, OWNER.value);
    let all = cores(wanted, HTTP.value + OWNER.value);
    let machine = wanted.machine;
    let (used, limit) = nearest([
        (
            memory / real(machine.memory_bytes),
            "the memory of one machine, which holds all widgets".into(),
        ),
        (
            writer / BUSY,
            format!(
                "the one thread that writes: {:.0} % of a core",
                BUSY * 100.0
            ),
        ),
        (
            all / BUSY / real(machine.cores),
            format!("the cores of one machine, {:.0} % of them", BUSY * 100.0),
        ),
    ]);
    Plan {
        store: Store::Embedded,
        fits: used <= 1.0,
        machines_total: 2,
        machines: vec![Machines {
            role: "service, and its standby",
            count: 2,
            cores: all / BUSY,
            memory_bytes: whole(memory),
            disk_bytes: whole(widgets * EMBEDDED_CHECKPOINT.value * EMBEDDED_DISK),
        }],
        shards: 1,
        microseconds_an_operation: HTTP.value + OWNER.value,
        limit,
        limit_used: used,
        notes: vec![format!(
            "a start reads all widgets: about {:.0} s",
            widgets / 1e6 * EMBEDDED_START.value
        )],
    }
}

/// Returns the machines that serve HTTP in front of a database. One of them may be down.
fn services(wanted: &Wanted) -> Machines {
    let busy = cores(wanted, HTTP.value) / BUSY;
    let needed = whole(busy / real(wanted.machine.cores)).max(1);
    Machines {
        role: "service",
        count: needed + 1,
        cores: busy / real(needed),
        memory_bytes: 512 << 20,
        disk_bytes: 0,
    }
}

/// Returns a database machine that has one part of the widgets, and which limit it is nearest to.
fn database(
    wanted: &Wanted,
    parts: u64,
    microseconds: f64,
    role: &'static str,
) -> (Machines, f64, String) {
    let widgets = real(wanted.widgets) / real(parts);
    let busy = cores(wanted, microseconds) / BUSY / real(parts);
    let memory = widgets * POSTGRES_INDEX.value * POSTGRES_MEMORY;
    let (used, limit) = nearest([
        (
            memory / real(wanted.machine.memory_bytes),
            format!("the memory of a {role}, of which its indexes are a quarter at most"),
        ),
        (
            busy / real(wanted.machine.cores),
            format!("the cores of a {role}, {:.0} % of them", BUSY * 100.0),
        ),
    ]);
    let machines = Machines {
        role,
        count: parts,
        cores: busy,
        memory_bytes: whole(memory),
        disk_bytes: whole(widgets * POSTGRES_DISK.value + WAL_BYTES),
    };
    (machines, used, limit)
}

fn postgres(wanted: &Wanted) -> Plan {
    let (mut primary, used, limit) = database(wanted, 1, POSTGRES.value, "database");
    // The primary, its synchronous standby, and a third for when either is down.
    primary.count = 3;
    let services = services(wanted);
    Plan {
        store: Store::Postgres,
        fits: used <= 1.0,
        machines_total: services.count + primary.count,
        microseconds_an_operation: HTTP.value + POSTGRES.value,
        machines: vec![services, primary],
        shards: 1,
        limit,
        limit_used: used,
        notes: vec!["etcd runs on the three machines of the database".into()],
    }
}

/// Returns the CPU time per operation in a batch, given its operations, shards and participating
/// workers.
pub(super) fn citus_microseconds(batch: f64, shards: f64, participants: f64) -> f64 {
    CITUS.value + (CITUS_SHARD.value * shards + CITUS_PARTICIPANT.value * participants) / batch
}

fn citus(wanted: &Wanted) -> Plan {
    let microseconds = citus_microseconds(CITUS_BATCH, CITUS_ROUTED, CITUS_ROUTED);
    let on = |workers| database(wanted, workers, microseconds, "worker");
    let workers = (CITUS_WORKERS_LEAST..CITUS_WORKERS_MOST)
        .find(|&workers| on(workers).1 <= 1.0)
        .unwrap_or(CITUS_WORKERS_MOST);
    let (mut machines, used, limit) = on(workers);
    // Each worker has a standby, because its widgets would be lost with it.
    machines.role = "worker, and its standby";
    machines.count = 2 * workers;
    // There is only one, however many workers there are.
    let coordinator = Machines {
        role: "coordinator, and its standby",
        count: 2,
        cores: (cores(wanted, CITUS_COORDINATOR.value) / BUSY).max(1.0),
        memory_bytes: 4 << 30,
        disk_bytes: whole(WAL_BYTES),
    };
    let machine_cores = real(wanted.machine.cores);
    let (used, limit) = nearest([
        (used, limit),
        (
            coordinator.cores / machine_cores,
            format!(
                "the cores of the one coordinator, {:.0} % of them",
                BUSY * 100.0
            ),
        ),
    ]);
    let by_coordinator = machine_cores * BUSY * 1e6 / CITUS_BY_COORDINATOR.value;
    let services = services(wanted);
    Plan {
        store: Store::Citus,
        fits: used <= 1.0,
        machines_total: services.count + machines.count + coordinator.count,
        machines: vec![services, machines, coordinator],
        shards: workers,
        microseconds_an_operation: HTTP.value + microseconds,
        limit,
        limit_used: used,
        notes: vec![
            "batches are routed by pair of workers; unrouted ones touch every worker, and gain little from more".into(),
            format!(
                "operations with an idempotency key go through the coordinator, which handles at \
                 most {} of them a second",
                count_text(whole(by_coordinator.floor()))
            ),
            "lists and neighbourhoods are consistent within each shard only".into(),
        ],
    }
}
