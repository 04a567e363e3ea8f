//! Lists: pages whose rows all show one moment, without keeping writes waiting.
//!
//! Owns what a list needs between its turns, and the choice of an index. A list begins at a moment
//! at which everything is durable, and shows the state of that moment however long it takes: before
//! a widget changes that a list has not reached yet, the list keeps the widget's old version.
//! docs/decisions/0008 says why that is right.
//!
//! It deliberately knows nothing of time: its caller says how much each step may do.

mod plan;
mod reads;
mod scan;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use reads::{Read, Reads, Turn};
pub(crate) use scan::Scan;
