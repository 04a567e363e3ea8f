//! `widgets migrate`: prepares the database of the PostgreSQL store, or reports which migrations
//! are missing.

use crate::{
    Misuse, Outcome,
    config::{Given, Migrating, StoreKind},
    log,
};
use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};
use widgets_postgres::{Index, MigrationStatus, OpenError, SHARDS_MAX, Target};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    given: Given<Migrating>,
    /// Change nothing. Say what is missing, and exit with 1 if something is. For a distributed registry, also list the nodes,
    /// their transactions in doubt, and what is wrong with them.
    #[arg(long)]
    check: bool,
    /// Turn the feed of changes on, or off with --changes=off, which deletes the changes that were kept. Without this
    /// flag the feed stays as it is. Waits for the transactions in progress.
    #[arg(
        long,
        value_name = "on|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        conflicts_with = "check"
    )]
    changes: Option<Turn>,
    /// Create an index of names, so that listing the widgets of one exact name reads no others, or drop it with
    /// --index-names=off. With the index, adding and removing widgets costs more. Without this flag nothing changes. The
    /// index is built while reads and writes continue; it waits for the transactions in progress.
    #[arg(
        long,
        value_name = "on|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        conflicts_with = "check"
    )]
    index_names: Option<Turn>,
    /// Create or drop an index of free slots by port type in the same way, which helps if few widgets have a free slot. With
    /// the index, associations cost more.
    #[arg(
        long,
        value_name = "on|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        conflicts_with = "check"
    )]
    index_free_slots: Option<Turn>,
    /// Distribute the registry over the nodes of a Citus cluster, once and for all. Run this at the coordinator, after the
    /// workers have been added. If something is wrong with the cluster, this is reported and nothing is done.
    #[arg(long, requires = "shards", conflicts_with = "check")]
    citus: bool,
    /// How many shards to distribute over: one or two for each worker that the cluster will have.
    #[arg(
        long,
        value_name = "N",
        requires = "citus",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_MAX))
    )]
    shards: Option<u32>,
    /// Let --citus move the existing widgets to the workers. Operations wait meanwhile, and `widgets` cannot undo it.
    #[arg(long, requires = "citus")]
    move_widgets: bool,
}

/// Whether to turn something on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Turn {
    On,
    Off,
}

pub(crate) fn run(
    Arguments {
        given,
        check,
        changes,
        index_names,
        index_free_slots,
        citus,
        shards,
        move_widgets,
    }: Arguments,
) -> Outcome {
    let configuration = given.resolve()?.configuration;
    let _log = log::start(&configuration.log);
    if configuration.store.url == StoreKind::Embedded {
        let why = "only the PostgreSQL store has migrations: give its URL with --store";
        return Err(Misuse(why.into()).into());
    }
    let target = configuration.store.reachable_database()?;
    let connect_timeout_ms = configuration.postgres.connect_timeout_ms;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if !check {
        runtime.block_on(migrate(&target, connect_timeout_ms))?;
        if let Some(turn) = changes {
            runtime.block_on(turn_changes(&target, turn, connect_timeout_ms))?;
        }
        for (index, turn) in [
            (Index::Names, index_names),
            (Index::FreeSlots, index_free_slots),
        ] {
            if let Some(turn) = turn {
                runtime.block_on(turn_index(&target, index, turn, connect_timeout_ms))?;
            }
        }
        if let Some(shards) = shards.filter(|_| citus) {
            let done = distribute(&target, shards, move_widgets, connect_timeout_ms);
            runtime.block_on(done)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let timeout = Duration::from_millis(connect_timeout_ms);
    let status = runtime.block_on(widgets_postgres::check(&target, timeout))?;
    writeln!(io::stdout(), "{target} {}", text(status))?;
    let cluster = runtime.block_on(widgets_postgres::cluster(&target, timeout))?;
    if let Some(cluster) = &cluster {
        writeln!(
            io::stdout(),
            "the registry is distributed over {} shards:",
            cluster.shards
        )?;
        for node in &cluster.nodes {
            writeln!(io::stdout(), "{node}")?;
        }
    }
    let is_sound = cluster.is_none_or(|cluster| cluster.is_sound());
    Ok(if status.is_complete() && is_sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Migrates the database, and logs what was done.
pub(crate) async fn migrate(target: &Target, connect_timeout_ms: u64) -> Result<(), OpenError> {
    let timeout = Duration::from_millis(connect_timeout_ms);
    let status = widgets_postgres::migrate(target, timeout).await?;
    if status.is_complete() {
        tracing::info!(version = status.found, "the schema was already up to date");
    } else {
        let (from, to) = (status.found, status.wanted);
        tracing::info!(from, to, "the schema was migrated");
    }
    Ok(())
}

async fn turn_changes(
    target: &Target,
    turn: Turn,
    connect_timeout_ms: u64,
) -> Result<(), OpenError> {
    let timeout = Duration::from_millis(connect_timeout_ms);
    let changed = widgets_postgres::keep_changes(target, turn == Turn::On, timeout).await?;
    match (turn, changed) {
        (Turn::On, true) => tracing::info!("the feed of changes is on: it begins here"),
        (Turn::On, false) => tracing::info!("the feed of changes was already on"),
        (Turn::Off, true) => {
            tracing::info!("the feed of changes is off, and nothing of it is kept");
        }
        (Turn::Off, false) => tracing::info!("the feed of changes was already off"),
    }
    Ok(())
}

async fn turn_index(
    target: &Target,
    index: Index,
    turn: Turn,
    connect_timeout_ms: u64,
) -> Result<(), OpenError> {
    let timeout = Duration::from_millis(connect_timeout_ms);
    let of = match index {
        Index::Names => "names",
        Index::FreeSlots => "free slots",
    };
    let changed = widgets_postgres::keep_index(target, index, turn == Turn::On, timeout).await?;
    match (turn, changed) {
        (Turn::On, true) => tracing::info!(of, "the index was created"),
        (Turn::On, false) => tracing::info!(of, "the index already existed"),
        (Turn::Off, true) => tracing::info!(of, "the index was dropped"),
        (Turn::Off, false) => tracing::info!(of, "there was no index"),
    }
    Ok(())
}

async fn distribute(
    target: &Target,
    shards: u32,
    may_move: bool,
    connect_timeout_ms: u64,
) -> Result<(), OpenError> {
    let timeout = Duration::from_millis(connect_timeout_ms);
    if widgets_postgres::distribute(target, shards, may_move, timeout).await? {
        tracing::info!(shards, "the registry is distributed");
    } else {
        tracing::info!(shards, "the registry was already distributed");
    }
    Ok(())
}

fn text(MigrationStatus { found, wanted }: MigrationStatus) -> String {
    match found {
        0 => format!("has no schema yet: version {wanted} is needed"),
        found if found == wanted => format!("has version {wanted} of the schema: up to date"),
        found => format!("has version {found} of the schema, {wanted} is needed"),
    }
}
