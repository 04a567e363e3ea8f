//! How fast is it, and is it right? The load generator, which checks every answer, and the
//! datasets.
//!
//! It knows HTTP as a client, and the rules as an independent model (`partition`). It depends on
//! none of our stores or servers, and can be pointed at any server that speaks the API. It follows
//! changes with `widgets-client`, as all our programs do.

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
