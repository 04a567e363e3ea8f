//! Keeps a store alive when its machine is lost: a standby on another machine follows it.
//!
//! [`Roles`] tracks whether a store is a primary or a standby, and changes that. [`Standbys`] is
//! the primary's side: it sends a copy of the state and then the journal, group by group, as each
//! becomes durable. `follow` is the standby's side: it asks for the journal, checks it, and hands
//! each group to the store's [`Follower`](widgets_engine::Follower), which makes the group durable
//! before anyone can see it. `wire` defines what passes between the two, and [`Outside`] is the
//! network, clock and threads that both use. Neither side knows the bytes on disk, which belong to
//! the engine, or who is authorised, which belongs to the server.
//!
//! The rules by which a primary acknowledges, a standby follows, and one of them is promoted are
//! pure: they take what is on a member's disk and the messages that it received, and return
//! decisions. [`Member`] is one member's side of these rules. It knows no log and no network: a
//! [`Tip`] identifies a member's history, and the caller reports what became durable. The tests put
//! three members into a network that loses, repeats and delays messages, and explore every order of
//! events within their bounds (`model.rs`, with the model checker stateright).
//!
//! `docs/decisions/0017-one-holder-beside-the-primary.md` explains why these are the rules, and
//! `docs/decisions/0018-what-a-standby-is-sent.md` describes what passes over the wire.

// Must come first, because it defines a macro.
#[macro_use]
mod planted;

mod acknowledge;
mod copy;
mod error;
mod follow;
mod link;
mod member;
mod metrics;
#[cfg(test)]
mod model;
mod outside;
mod promote;
mod roles;
mod serve;
mod status;
mod terms;
mod wire;
#[cfg(test)]
mod worlds;

pub use acknowledge::By;
pub use copy::{copy, empty_directory};
pub use error::Error;
pub use link::{Address, AddressError, Credentials, Primary};
pub use member::{Holder, Member, Refusal, Role};
pub use metrics::Metrics;
pub use outside::{Doing, Incoming, Outside, Real, Task};
pub use roles::{Roles, Store, Taker};
pub use serve::{Standbys, Unsendable};
pub use status::Status;
pub use terms::{Acknowledge, Epoch, MemberId, Record, Tip};
pub use wire::MEDIA_TYPE;
