//! A registry distributed by Citus over the test's own servers. If PostgreSQL lacks the extension,
//! tests that need it are skipped with a message; `WIDGETS_TEST_CITUS=required` makes that a
//! failure.

use crate::server::Server;
use std::{
    io::{self, Write as _},
    sync::OnceLock,
    time::Duration,
};
use widgets_postgres::{Target, distribute, migrate};

pub(crate) const SHARDS: u32 = 4;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The settings that a server of a cluster needs. Some tests lower the number of prepared
/// transactions as a fault.
const SETTINGS: [&str; 8] = [
    "fsync=off",
    "max_connections=100",
    "shared_preload_libraries=citus",
    "max_prepared_transactions=100",
    "max_worker_processes=16",
    "citus.recover_2pc_interval=1s",
    "citus.node_conninfo=sslmode=disable",
    "citus.enable_statistics_collection=off",
];

/// The coordinator and its workers.
pub(crate) struct Nodes {
    pub(crate) coordinator: Server,
    pub(crate) workers: Vec<Server>,
}

/// Reports whether Citus is installed, and prints a message if it is not.
pub(crate) fn is_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    if *IS_THERE.get_or_init(|| {
        let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'";
        Server::start(&["fsync=off"]).psql("postgres", available) == "1"
    }) {
        return true;
    }
    let required = std::env::var("WIDGETS_TEST_CITUS").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "Citus is missing, and WIDGETS_TEST_CITUS=required"
    );
    drop(writeln!(io::stderr(), "skipped: no Citus"));
    false
}

impl Nodes {
    /// Starts a migrated registry that is not distributed yet. The servers have these additional
    /// settings, separate ones for each worker.
    pub(crate) async fn migrated(coordinator: &[&str], workers: &[&[&str]]) -> Self {
        let start = |more: &[&str]| {
            let server = Server::start(&[&SETTINGS, more].concat());
            server.database("registry", "postgres");
            server.psql("registry", "CREATE EXTENSION citus");
            server
        };
        let nodes = Self {
            coordinator: start(coordinator),
            workers: workers.iter().map(|more| start(more)).collect(),
        };
        let port = nodes.coordinator.port;
        let adding =
            |worker: &Server| format!("SELECT citus_add_node('127.0.0.1', {});", worker.port);
        let added: Vec<String> = nodes.workers.iter().map(adding).collect();
        let added = added.concat();
        let add = format!("SELECT citus_set_coordinator_host('127.0.0.1', {port}); {added}");
        nodes.coordinator.psql("registry", &add);
        let migrated = migrate(&nodes.owner(), TIMEOUT).await;
        migrated.expect("a migrated registry");
        nodes
    }

    /// Starts a distributed registry without widgets, on this many workers.
    pub(crate) async fn distributed(workers: usize) -> Self {
        Self::distributed_with(workers, "fsync=off").await
    }

    pub(crate) async fn distributed_with(workers: usize, setting: &str) -> Self {
        let setting: &[&str] = &[setting];
        let nodes = Self::migrated(setting, &vec![setting; workers]).await;
        let distributed = distribute(&nodes.owner(), SHARDS, false, TIMEOUT).await;
        assert!(distributed.expect("a distributed registry"), "it was not");
        nodes
    }

    pub(crate) fn owner(&self) -> Target {
        Target::parse(&self.coordinator.url("registry", "postgres")).expect("a URL")
    }

    pub(crate) fn service(&self) -> String {
        self.coordinator.url("registry", "authenticator")
    }

    /// Checks that each half of an association has its counterpart.
    pub(crate) fn assert_balanced(&self) {
        let balance = self
            .coordinator
            .psql("registry", "SELECT widgets.halves_balance()");
        assert_eq!(balance, "0", "halves of associations");
    }
}
