//! What every store must do: an independent model of the rules, and one suite that each store runs.
//!
//! - [`Model`] states sections 1 to 3 of the specification a second time, naively and without any
//!   code of [`widgets_registry::decide`], so that neither can hide the other's mistake.
//! - [`commands`] makes commands: by hand for conversations, at random for histories.
//! - [`lists`] makes lists at random, and says a second time what each of them must show.
//! - [`linearizability`] says whether what concurrent callers saw can have happened one by one.
//! - [`witness`] says the same of histories of any length, where a feed tells in which order they were.
//! - [`check_store`] runs every case on a store, [`check_changes`] those of its feed, [`check_free_slots`]
//!   compares what it counts, and [`check_key_shares`] uses more keys than are kept. A new store adds one test that calls them.
//!
//! It is a dependency of tests only, and knows nothing of how any store keeps its state: no file, no
//! SQL, and no store that is empty before.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "this crate is only used by tests, where a panic is the failed test"
)]

pub mod commands;
pub mod linearizability;
pub mod lists;
mod model;
mod suite;
pub mod witness;

pub use model::Model;
pub use suite::{
    check_changes, check_distributed, check_free_slots, check_key_shares, check_store,
};
