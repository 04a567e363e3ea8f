//! How does a program of ours ask? Requests to a running service over HTTP, and what its answers mean.
//!
//! [`Client`] has one method for each thing that can be asked. It blocks: a command asks one thing at a
//! time. Reads that nobody answered, or that were answered "later", are repeated a few times; an operation is
//! not, because one whose answer was lost may have been applied ([`Error::FateUnknown`] says so). Sent
//! [safely](Client::safely), with a key, it is repeated and applied once. Where a standby is asked, operations go to
//! the primary that it names.
//!
//! It shares no rule with the service: what is valid and what is refused, the service says.

mod answer;
mod backup;
mod changes;
mod connection;
mod error;
mod filter;
mod holder;
mod operations;
mod pages;
mod primary;
mod promotion;
mod reading;
mod safely;
#[cfg(test)]
mod tests;

pub use backup::Backup;
pub use changes::{Change, Changes, ChangesAfter, Freed};
pub use connection::{Client, Settings};
pub use error::{Error, Refusal};
pub use filter::{Filter, Query};
pub use holder::{Copied, Holding};
pub use operations::Operation;
pub use pages::Pages;
pub use promotion::Promoted;
pub use reading::{Association, Neighbourhood, Slot, Widget};
