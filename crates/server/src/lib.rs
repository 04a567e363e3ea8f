//! How it is asked: the operations over HTTP, for any [`Store`](widgets_registry::Store).
//!
//! Only this crate knows HTTP. It checks what a request says, hands a valid command to the store,
//! and gives each outcome its status, headers and body.
//!
//! The port enums are refused here before field limits, and those before the state is asked: the
//! order of the specification.

mod arguments;
mod connections;
mod error;
mod routes;

pub use connections::{Limits, serve};
pub use routes::router;
