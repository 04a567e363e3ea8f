//! How a request reaches a store and how its answer returns: what all stores have in common.
//!
//! A [`Client`] makes a [`Submission`] of a request and pushes it to the store's [`Queue`], through
//! the mailbox of its runtime if it has one. The waiting requests, in a [`Bounded`], are limited in
//! number and in bytes; a request beyond the limits is answered immediately. How a queue wakes the
//! threads that take from it, and which requests they take together, is up to each store.
//!
//! A store declares what it [`Takes`]. The queue itself knows no kind of request: an operation
//! travels as it is, and every other request travels in a box, [`Asked`], which returns with the
//! answer in it.

mod bounded;
mod client;
mod depth;
mod reply;

pub use bounded::{Bounded, Limits, RETRY_AFTER_SECONDS_MAX, too_long};
pub use client::{Client, Queue, Takes};
pub use depth::{Depth, DepthMetrics};
pub use reply::{Answered, Asked, DeliverBoxed, Mailbox, Outbox, Reply, Submission, Waits};
