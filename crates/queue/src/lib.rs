//! How a request reaches a store and its answer comes back: what all stores do alike.
//!
//! A [`Client`] makes a [`Submission`] of a request and pushes it to the store's [`Queue`], by the
//! mailbox of its runtime if it has one. What waits there, in a [`Bounded`], is bounded in number
//! and in bytes; what would pass a bound is answered at once. How a queue wakes those who take from
//! it, and what they take together, is each store's own.
//!
//! A store says what it [`Takes`]. It knows no kind of request by itself: an operation travels as it
//! is, every other request in a box, [`Asked`], which goes back with the answer in it.

mod bounded;
mod client;
mod depth;
mod reply;

pub use bounded::{Bounded, Limits, RETRY_AFTER_SECONDS_MAX, too_long};
pub use client::{Client, Queue, Takes};
pub use depth::{Depth, DepthMetrics};
pub use reply::{Answered, Asked, DeliverBoxed, Mailbox, Outbox, Reply, Submission, Waits};
