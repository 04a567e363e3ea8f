//! The binary as its users meet it: processes, signals, HTTP over real connections.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod command_line;
mod http_store;
mod kill;
mod readme;
mod service;
mod shutdown;
mod start;
