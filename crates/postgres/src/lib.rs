//! A registry kept in PostgreSQL: schema, functions, migrations, and a store that groups commits.
//!
//! The rules live in SQL functions in the schema `widgets` (see `migrations/`), so that `psql`,
//! PostgREST and the service obey the same ones. The [store](Postgres) takes the waiting
//! operations, forms a batch in which no widget is named twice, and applies it with one call of
//! `widgets.apply_batch`: one statement, one transaction and one commit for the whole batch. That
//! function returns a separate outcome for each operation. The messages come from
//! [`Refusal`](widgets_registry::Refusal), as in every store.
//!
//! Any number of processes may share one database. They cache only the placement of a distributed
//! registry's widgets, on which nothing but speed depends. Correctness depends on the locks and
//! guards in the functions. Only this crate knows SQL. It does not know HTTP.

mod backoff;
mod batch;
mod bounded;
mod bulk;
mod changes;
mod citus;
mod connect;
mod connected;
mod error;
mod filter;
mod follow;
mod histories;
mod indexes;
mod keys;
mod link;
mod lists;
mod locked;
mod lookups;
mod metrics;
mod migrations;
mod nodes;
mod password;
mod placement;
mod query;
mod queue;
mod send;
mod settings;
mod shared;
mod store;
mod worker;

pub use backoff::{Random, system_random};
pub use bulk::{Part, Rows, fill, read_all};
pub use citus::{Cluster, Node, SHARDS_MAX, cluster, distribute};
pub use connect::Target;
pub use error::OpenError;
pub use indexes::{Index, keep_index};
pub use metrics::Metrics;
pub use migrations::{MigrationStatus, check, keep_changes, migrate};
pub use nodes::Nodes;
pub use password::Password;
pub use query::{Parameter, Query};
pub use settings::Settings;
pub use store::{Client, Postgres};
