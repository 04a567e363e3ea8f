//! Distributes the table over the nodes of a Citus cluster, and checks what the cluster needs for
//! that.
//!
//! Citus manages the cluster. This module distributes the table once, and reports every setting of
//! the cluster that would lose operations or hold them up.

use crate::{
    OpenError, Target,
    error::reason,
    migrations::{self, check_served, unreplicated},
};
use std::{fmt, time::Duration};
use tokio_postgres::{Client, Row};

/// The maximum number of shards. Each shard costs a batch two thirds of a millisecond of CPU time.
pub const SHARDS_MAX: u32 = 1024;

/// A distributed registry, as its coordinator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The number of shards.
    pub shards: i64,
    /// The coordinator and the workers.
    pub nodes: Vec<Node>,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The host and port at which the other nodes reach it.
    pub address: String,
    /// The number of shards on this node.
    pub shards: i64,
    /// What is wrong with the node; empty if nothing is.
    pub defects: Vec<String>,
    /// How many transactions are prepared on this node and neither committed nor rolled back.
    /// `None` if the node does not report it.
    pub in_doubt: Option<i64>,
}

impl Cluster {
    /// Reports whether no node has a defect.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.nodes.iter().all(|node| node.defects.is_empty())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: shards {}", self.address, self.shards)?;
        if let Some(in_doubt) = self.in_doubt {
            write!(f, ", transactions in doubt {in_doubt}")?;
        }
        for defect in &self.defects {
            write!(f, "; {defect}")?;
        }
        Ok(())
    }
}

const DISTRIBUTE: &str = include_str!("../migrations/distribute.sql");

const LOCAL: &str = "SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = 0;
";

/// The least that `max_prepared_transactions` may be: each connection of each process has one
/// prepared transaction on each node.
const PREPARED_LEAST: i64 = 32;

/// The longest interval, in milliseconds, between two searches for transactions in doubt.
const RECOVERY_MOST: i64 = 5000;

/// Distributes a migrated registry over this many shards. Returns whether it was not distributed
/// before. Refuses a registry that is distributed over another number of shards. Also refuses one
/// that holds widgets, unless `may_move` is set, because that cannot be undone.
pub async fn distribute(
    target: &Target,
    shards: u32,
    may_move: bool,
    timeout: Duration,
) -> Result<bool, OpenError> {
    let status = migrations::check(target, timeout).await?;
    if !status.is_complete() {
        return Err(OpenError::Schema(format!(
            "the database's schema has version {}, and {} is needed: run `widgets migrate`",
            status.found, status.wanted
        )));
    }
    let mut connected = target.connect_to_write(timeout).await?;
    let client = &mut connected.client;
    check_served(client).await?;
    if !has_citus(client).await? {
        return Err(OpenError::Schema(
            "the database has no Citus: install it on every node, set shared_preload_libraries = 'citus', \
             CREATE EXTENSION citus in this database on each, and add the workers with citus_add_node"
                .into(),
        ));
    }
    if let Some(cluster) = cluster_of(client).await? {
        if cluster.shards == i64::from(shards) {
            return Ok(false);
        }
        return Err(OpenError::Schema(format!(
            "the registry is distributed over {} shards already, and {shards} were asked for: Citus' \
             alter_distributed_table changes their number",
            cluster.shards
        )));
    }
    refuse_defects(&nodes(client).await?)?;
    let what = "distributing the registry";
    let transaction = client.transaction().await.map_err(failed(what))?;
    // So that neither widgets nor the feed can come in between.
    let locked = "LOCK TABLE widgets.widgets IN SHARE ROW EXCLUSIVE MODE";
    let locked = transaction.batch_execute(locked).await;
    locked.map_err(failed(what))?;
    let facts = "SELECT EXISTS (SELECT FROM widgets.widgets), widgets.keeps_changes()";
    let facts = transaction.query_typed_one(facts, &[]).await;
    let facts = facts.map_err(failed("looking for widgets"))?;
    let (is_filled, has_feed): (bool, bool) = (facts.get(0), facts.get(1));
    if has_feed {
        return Err(OpenError::Schema(
            "the feed of changes is on, and a distributed registry has none: turn it off with \
             `widgets migrate --changes=off`, which deletes the changes that were kept"
                .into(),
        ));
    }
    if is_filled && !may_move {
        return Err(OpenError::Schema(
            "the registry holds widgets: distributing moves them to the workers, makes every \
             operation wait meanwhile, and cannot be undone by `widgets`; --move-widgets allows it"
                .into(),
        ));
    }
    let sql = DISTRIBUTE.replace("$shards", &shards.to_string());
    // Statements are sent one by one, because Citus forwards to the nodes everything that it
    // receives in one message.
    for statement in [LOCAL, &sql]
        .iter()
        .flat_map(|part| part.split_inclusive(";\n"))
    {
        let done = transaction.batch_execute(statement).await;
        done.map_err(failed(what))?;
    }
    transaction.commit().await.map_err(failed(what))?;
    if is_filled {
        // The rows that were copied to the shards are also still in the local table, where nobody
        // sees them.
        let truncate = "SELECT truncate_local_data_after_distributing_table('widgets.widgets')";
        let truncated = client.batch_execute(truncate).await;
        truncated.map_err(failed("emptying the table that was distributed"))?;
    }
    if connected.is_unreplicated() {
        return Err(unreplicated(what));
    }
    Ok(true)
}

/// Describes a database's cluster. Returns `None` if its registry is not distributed.
pub async fn cluster(target: &Target, timeout: Duration) -> Result<Option<Cluster>, OpenError> {
    let connected = target.connect(timeout).await?;
    cluster_of(&connected.client).await
}

async fn cluster_of(client: &Client) -> Result<Option<Cluster>, OpenError> {
    if !is_distributed(client).await? {
        return Ok(None);
    }
    let shards =
        "SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = 'widgets.widgets'::regclass";
    let rows = client.query_typed(shards, &[]).await;
    let rows = rows.map_err(failed("counting the shards"))?;
    Ok(Some(Cluster {
        shards: rows.first().map_or(0, |row| row.get(0)),
        nodes: nodes(client).await?,
    }))
}

/// Reports whether the table is distributed. An old schema without the function is not.
pub(crate) async fn is_distributed(client: &Client) -> Result<bool, OpenError> {
    let what = "asking whether the registry is distributed";
    let known = "SELECT to_regprocedure('widgets.is_distributed()') IS NOT NULL";
    for question in [known, "SELECT widgets.is_distributed()"] {
        let rows = client.query_typed(question, &[]).await;
        let rows = rows.map_err(failed(what))?;
        if !rows.first().is_some_and(|row| row.get(0)) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn has_citus(client: &Client) -> Result<bool, OpenError> {
    let citus = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')";
    let rows = client.query_typed(citus, &[]).await;
    let rows = rows.map_err(failed("looking for Citus"))?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// What each node reports about itself (nothing if it cannot be reached), and what the coordinator
/// knows about it.
const NODES: &str = "
    SELECT node.nodename || ':' || node.nodeport AS address, node.isactive,
        node.hasmetadata AND node.metadatasynced AS is_synced, node.shouldhaveshards, node.groupid = 0,
        (SELECT count(*) FROM pg_dist_placement placement JOIN pg_dist_shard shard USING (shardid)
            WHERE placement.groupid = node.groupid
                AND shard.logicalrelid = 'widgets.widgets'::regclass) AS shards,
        told.success, told.result
    FROM pg_dist_node node
    LEFT JOIN run_command_on_all_nodes($told$
        SELECT concat_ws(' ', current_setting('max_prepared_transactions'),
            (SELECT setting FROM pg_settings WHERE name = 'citus.recover_2pc_interval'),
            (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()),
            (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND backend_type LIKE 'Citus Maintenance Daemon%'))
    $told$, give_warning_for_connection_errors := false) told USING (nodeid)
    WHERE node.noderole = 'primary' AND node.nodecluster = current_setting('citus.cluster_name')
    ORDER BY node.groupid";

async fn nodes(client: &Client) -> Result<Vec<Node>, OpenError> {
    let rows = client.query_typed(NODES, &[]).await;
    let rows = rows.map_err(failed("asking the nodes"))?;
    let mut nodes: Vec<Node> = rows.iter().map(node).collect();
    let takes_shards = |row: &Row| row.get(1) && row.get(3);
    if !rows.iter().any(takes_shards) {
        let defect = "no node takes shards: add workers with citus_add_node".to_owned();
        match nodes.first_mut() {
            Some(coordinator) => coordinator.defects.push(defect),
            None => nodes.push(Node {
                address: "the coordinator".into(),
                shards: 0,
                defects: vec![format!(
                    "{defect}, after citus_set_coordinator_host of this one"
                )],
                in_doubt: None,
            }),
        }
    }
    Ok(nodes)
}

fn node(row: &Row) -> Node {
    let (is_active, is_synced): (bool, bool) = (row.get(1), row.get(2));
    let mut defects = Vec::new();
    if !is_active {
        defects.push("it is not active: citus_activate_node".into());
    }
    if !is_synced {
        defects.push("its metadata is not synced: start_metadata_sync_to_node".into());
    }
    let (success, told): (Option<bool>, Option<&str>) = (row.get(6), row.get(7));
    let told = told.unwrap_or_default();
    let mut in_doubt = None;
    if success == Some(true) {
        let numbers: Vec<i64> = told.split(' ').flat_map(str::parse).collect();
        let [prepared_max, recovery, prepared, daemons] = numbers[..] else {
            defects.push(format!("its answer is invalid: {told:?}"));
            return made(row, defects, None);
        };
        in_doubt = Some(prepared);
        if prepared_max < PREPARED_LEAST {
            defects.push(format!(
                "max_prepared_transactions must be at least {PREPARED_LEAST}, but it is \
                 {prepared_max}"
            ));
        }
        if !(0..=RECOVERY_MOST).contains(&recovery) {
            defects.push(format!(
                "citus.recover_2pc_interval must be 0 to {RECOVERY_MOST} ms, but it is {recovery}: \
                 a transaction in doubt holds its widgets for that long"
            ));
        }
        if daemons == 0 {
            defects.push(
                "the maintenance daemon of this database, which ends transactions in doubt and \
                 deadlocks, is not running: raise max_worker_processes"
                    .into(),
            );
        }
    } else {
        defects.push(format!("it does not answer: {told}"));
    }
    made(row, defects, in_doubt)
}

fn made(row: &Row, defects: Vec<String>, in_doubt: Option<i64>) -> Node {
    Node {
        address: row.get(0),
        shards: row.get(5),
        defects,
        in_doubt,
    }
}

/// Returns an error that lists every defect, if there are any.
fn refuse_defects(nodes: &[Node]) -> Result<(), OpenError> {
    let mut defects = nodes.iter().flat_map(|node| {
        let defects = node.defects.iter();
        defects.map(move |defect| format!("{}: {defect}", node.address))
    });
    let Some(first) = defects.next() else {
        return Ok(());
    };
    let all = defects.fold(first, |all, defect| format!("{all}\n{defect}"));
    Err(OpenError::Schema(format!(
        "the cluster is not ready for a registry:\n{all}"
    )))
}

fn failed(what: &str) -> impl Fn(tokio_postgres::Error) -> OpenError + Copy {
    move |error| OpenError::Statement {
        what: what.into(),
        reason: reason(&error),
    }
}
