//! How clients ask: the operations of any [`Store`](widgets_registry::Store) over HTTP.
//!
//! Only this crate knows HTTP. It checks each request, hands a valid command to the store, and
//! gives each outcome its status, headers and body.
//!
//! A request is checked in PostgREST's order: CORS preflight, authentication, path, profile,
//! method, query string, body, names of the arguments, `Accept`, strict `Prefer`, values of the
//! arguments. The store decides the rest.

mod api;
mod arguments;
mod askers;
mod auth;
mod authority;
mod backup;
mod body;
mod browsers;
mod budget;
mod caller;
mod calls;
mod changes;
mod code;
mod connections;
mod console;
mod cors;
mod document;
mod error;
mod faults;
mod given;
mod head;
mod hint;
mod idempotency;
mod json;
mod lists;
mod making;
mod metrics;
mod negotiation;
mod pieces;
mod proxies;
mod rate;
mod readiness;
mod reading;
mod replication;
mod request_id;
mod responses;
mod routes;
mod settings;
mod signature;
mod tls;
mod watch;

pub use api::{AnswerBody, Api, REQUESTS};
pub use auth::{
    Authentication, AuthenticationSettings, KeyRequest, KeyRequests, KeySet, KeySetError, Roles,
};
pub use backup::Backup;
pub use browsers::{BrowserSettings, Origins};
pub use caller::Caller;
pub use code::Code;
pub use connections::{ConnectionMetrics, EXCESS_MAX, Limits, Listener, answer_bytes_max, serve};
pub use pieces::Pieces;
pub use rate::{RateLimit, RateLimitSettings};
pub use replication::{Replication, Sending, Settled, Taker, Tell, Told, Unsent};
pub use settings::{SettingError, Settings};
pub use tls::{ClientCertificates, Tls, TlsError, TlsFiles};
pub use watch::Watch;

/// The schemas that profile headers may name. Messages use the first, which is where the functions
/// are in PostgreSQL; clients use the second by default.
pub(crate) const SCHEMAS: [&str; 2] = ["widgets", "public"];
