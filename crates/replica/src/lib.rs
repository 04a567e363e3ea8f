//! How a store outlives its machine: the rules by which a primary acknowledges, a standby follows, and one of
//! them is promoted.
//!
//! The rules are pure: what stands on a member's disk and what it was told go in, decisions come out.
//! [`Member`] is one member's side of them. It knows no log and no network: a member's
//! history is named by its [`Tip`], and whoever keeps it reports what became durable. The tests put three members into a
//! network that loses, repeats and delays messages, and look at every order of events within their bounds
//! (`model.rs`, by the model checker stateright).
//!
//! `docs/decisions/0017-one-holder-beside-the-primary.md` says why the rules are these.

mod member;
#[cfg(test)]
mod model;
#[cfg(test)]
mod planted;
mod terms;

pub use member::{Holder, Member, Refusal, Role};
pub use terms::{Acknowledge, Epoch, MemberId, Record, Tip};
