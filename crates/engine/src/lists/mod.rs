//! Lists: pages of rows that are all of one moment, without keeping the writer waiting.
//!
//! Owns what a list needs between its turns, and the choice of an index. A list begins at a moment at
//! which everything is durable, and shows the state of that moment however long it takes: before a
//! change touches a widget that a list has still to look at, the list keeps how it was.
//! docs/decisions/0008 says why that is right.
//!
//! It deliberately knows nothing of time: whoever has it step says how much it may do.

mod plan;
mod reads;
mod scan;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use reads::{Read, Reads, Turn};
pub(crate) use scan::Scan;
