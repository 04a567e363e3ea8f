//! How a store outlives its machine: a standby on another one follows it.
//!
//! [`Roles`] says which side a store is on at present, and changes that. [`Standbys`] is the primary's side: it sends a copy of the state
//! and then the journal, group by group, as it becomes durable. `follow` is the standby's: it asks, checks, and hands each group to
//! the store's [`Follower`](widgets_engine::Follower), which makes it durable before it is shown. `wire` is what passes
//! between the two, and [`Outside`] what both have around them. Neither knows bytes on disk, nor who may ask: the one is the engine's to know, the other the server's.
//!
//! The rules by which a primary acknowledges, a standby follows, and one of them is promoted are pure: what stands on a
//! member's disk and what it was told go in, decisions come out. [`Member`] is one member's side of them. It knows no log and no
//! network: a member's history is named by its [`Tip`], and whoever keeps it reports what became durable. The tests put three members into a
//! network that loses, repeats and delays messages, and look at every order of events within their bounds
//! (`model.rs`, by the model checker stateright).
//!
//! `docs/decisions/0017-one-holder-beside-the-primary.md` says why the rules are these, and
//! `docs/decisions/0018-what-a-standby-is-sent.md` what passes over the wire.

// First: it has a macro.
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
pub use link::{Address, Credentials, Primary};
pub use member::{Holder, Member, Refusal, Role};
pub use metrics::Metrics;
pub use outside::{Doing, Incoming, Outside, Real, Task};
pub use roles::{Roles, Store, Taker};
pub use serve::{Standbys, Unsendable};
pub use status::Status;
pub use terms::{Acknowledge, Epoch, MemberId, Record, Tip};
pub use wire::MEDIA_TYPE;
