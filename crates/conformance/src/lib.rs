//! What every store must do: an independent model of the rules, and one suite that each store runs.
//!
//! - [`Model`] states sections 1 to 3 of the specification a second time, naively and without any
//!   code of [`widgets_registry::decide`], so that neither can hide a mistake in the other.
//! - [`commands`] makes commands: individual ones for scripted cases, and random ones for
//!   histories.
//! - [`lists`] makes random lists, and states a second time what each of them must show.
//! - [`linearizability`] decides whether the observations of concurrent callers can have happened
//!   one by one.
//! - [`witness`] decides the same for histories of any length, if a feed gives their order.
//! - [`check_store`] runs every case on a store, and [`check_changes`] those of its feed.
//!   [`check_free_slots`] compares its counts, and [`check_key_shares`] uses more keys than the
//!   store keeps. A new store adds one test that calls them.
//!
//! This crate is a dependency of tests only. It does not depend on how a store keeps its state: it
//! knows no file and no SQL, and does not need an empty store.

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
