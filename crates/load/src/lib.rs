//! How fast, and right? The load generator that checks what it is answered, and the datasets.
//!
//! It knows HTTP as a client and the rules as an independent model (`partition`); it depends on no
//! store and on no server of ours, and can be pointed at anything that speaks the API. Changes it follows
//! as every program of ours does, by `widgets-client`.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "statistics: counts and times become floating point numbers and back, well within range"
)]

mod audit;
mod client;
mod clock;
pub mod compare;
pub mod dataset;
mod error;
mod feed;
mod find_max;
mod interrupt;
pub mod mix;
mod objective;
pub mod os_error;
pub mod output;
mod partition;
pub mod quantity;
pub mod random;
mod redacted;
pub mod report;
pub mod run;
pub mod schedule;
pub mod session;
mod shown;
pub mod stats;
pub mod transfer;
mod watch;
mod worker;

pub use audit::Findings;
pub use client::{Protocol, TargetSettings};
pub use error::Error;
pub use feed::FeedFindings;
pub use objective::Objective;
pub use redacted::redacted;
pub use shown::{shown, shown_lines};
