//! A client for programs: sends requests to a running service over HTTP and interprets the
//! responses.
//!
//! [`Client`] has one method for each kind of request. Its methods block. Reads are repeated a few
//! times if the service cannot be reached or answers "later". Operations are not, because an
//! operation whose answer was lost may have been applied ([`Error::FateUnknown`] says so). An
//! operation that is sent [safely](Client::safely) has a key, is repeated, and is applied once. If
//! the service is a standby, operations go to the primary that it names.
//!
//! The client shares no rule with the service: only the service decides what is valid and what is
//! refused.

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
#[doc(hidden)]
pub use connection::port;
pub use connection::{Client, Settings};
pub use error::{Error, Refusal};
pub use filter::{Filter, Query};
pub use holder::{Copied, Holding};
pub use operations::Operation;
pub use pages::Pages;
pub use promotion::Promoted;
pub use reading::{Association, Neighbourhood, Slot, Widget};
