//! The binary as its users experience it: processes, signals, HTTP over real connections.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "in the helpers of tests a panic is the failed test"
)]
#![expect(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots with them"
)]

mod acknowledge;
mod ask;
mod asking;
mod backup;
mod citus;
mod client;
mod command_line;
mod documents;
mod failed_sync;
mod http_store;
mod jwks;
mod kill;
mod load;
mod metrics;
#[path = "../../../postgres/tests/suite/nodes.rs"]
mod nodes;
mod notify;
mod postgres;
mod postgres_log;
#[path = "../../../postgres/tests/suite/server.rs"]
mod postgres_server;
mod profiles;
mod readme;
mod releases;
mod replication;
mod security;
mod service;
mod shells;
mod shutdown;
mod spelling;
mod standby_restore;
mod start;
mod strangers;
mod streams;
mod switchover;
mod unread;

// The name under which the fixtures of the other crate refer to it.
use postgres_server as server;
