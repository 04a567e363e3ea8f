//! What is allowed: the rules of the widget registry.
//!
//! This crate owns the terms of the domain ([`Widget`], [`Port`], [`Command`], [`Refusal`]), the
//! one decision function ([`decide`]) and the interface to whatever keeps the state ([`Store`]). It
//! promises that a decision depends only on the state and the command.
//!
//! It deliberately does no I/O, reads no clock, and depends on no other crate of ours, so that
//! every store and every test can share it.

mod author;
mod command;
mod decide;
mod digested;
mod digits;
mod event;
mod feed;
mod limits;
mod port;
pub mod query;
mod refusal;
mod store;
mod text;
mod widget;

pub use author::{AUTHOR_BYTES_MAX, Author, IDEMPOTENCY_KEY_BYTES_MAX, IdempotencyKey};
pub use command::{Command, Operation, Pair};
pub use decide::{Change, Endpoint, State, decide};
pub use digits::hex;
pub use event::{Event, Happened, Moment, NoPosition, Place, Position};
pub use feed::{ChangeFilter, Changes, Feed, FeedError, Promised};
pub use limits::{NAME_BYTES_MAX, SERIAL_NUMBER_BYTES_MAX, SERIAL_NUMBER_BYTES_MIN, SLOTS_MAX};
pub use port::{Ordinal, Port, PortCounts, Ports};
pub use refusal::{Defect, Refusal};
pub use store::{
    Applied, Ask, Attempt, Distributed, Fault, Kinds, Lookup, Reason, Rejection, Request, Store,
};
pub use text::{Name, SerialNumber};
pub use widget::{Slot, Widget};
