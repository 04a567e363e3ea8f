//! Sends a batch to the database and interprets the errors.

use crate::{
    batch::{CALL, Call, Outcomes},
    connected::{Connected, severity},
    error::{reason, unavailable},
    queue::{Lane, Operation},
    shared::{Bounded, CANCELLED, Connection, Shared},
};
use futures_util::TryStreamExt as _;
use std::pin::pin;
use tokio_postgres::{
    Row,
    error::{DbError, Severity, SqlState},
};
use widgets_clock::Clock;
use widgets_registry::{Fault, Reason};

/// Why a batch was not applied, or may not have been.
pub(crate) enum Failure {
    /// Nothing was applied, because of a conflict with another transaction.
    Conflict(String),
    /// Nothing was applied. Every operation gets this fault as its answer.
    Rejected(Fault),
    /// Nothing was applied, and a single operation may be the cause.
    Culprit(Culprit),
    /// The batch may have been applied.
    Lost(Reason),
}

/// The failure of a batch that a single operation may have caused.
pub(crate) struct Culprit {
    /// What the caller of that operation is told.
    pub(crate) public: &'static str,
    /// What the log says.
    pub(crate) reason: String,
}

/// A failure, and whether the connection can be used again.
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) connection: Connection,
}

/// What callers are told if the function returns an outcome that no version of it defines.
pub(crate) const NO_MEANING: &str = "the database returned an invalid answer";

/// The SQLSTATE that says that another transaction held a lock for longer than a batch waits.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What callers are told if their widgets are on a node of a distributed registry that cannot be
/// reached.
pub(crate) const NODE_LOST: &str = "a node of the database cannot be reached";

/// Reports whether an error says that the server has lost another server, rather than that it is
/// shutting down itself. Nodes of a distributed registry come and go, and operations that do not
/// concern a lost node continue.
pub(crate) fn is_node_lost(error: &DbError) -> bool {
    let code = error.code().code();
    severity(error) == Some(Severity::Error)
        && (code.starts_with("08") || ["57P01", "57P02", "57P03"].contains(&code))
}

/// Sends a batch and returns its outcomes. With `lock_first`, the database skips operations whose
/// widgets others have locked.
pub(crate) async fn send<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    batch: &[Operation],
    lock_first: bool,
) -> Result<Outcomes, Failed> {
    let attempts = batch.iter().map(|operation| &operation.attempt);
    let call = Call::new(attempts, lock_first);
    let mut row: Option<Row> = None;
    let work = async {
        let rows = connected.client.query_typed_raw(CALL, call.parameters());
        let mut rows = pin!(rows.await?);
        while let Some(next) = rows.try_next().await? {
            row = Some(next);
        }
        // The stream ends only after the server has reported the end of the transaction.
        Ok(())
    };
    let lost = |public, details: String| Failed {
        failure: Failure::Lost(Reason::new(public, details.clone())),
        connection: Connection::Drop(details),
    };
    let (done, cancelled) = match shared.heard(connected, work).await {
        Bounded::Done(done) => (done, false),
        Bounded::Cancelled(done) => (done, true),
        Bounded::Silent(reason) => {
            let silent = "the database did not answer";
            // Another batch would get no answer either, unless another server has replaced this
            // one.
            if connected.replaced().is_none() {
                let silence = Some(Reason::new(silent, reason.clone()));
                shared.set_failing_by(connected, silence);
            }
            return Err(lost(silent, reason));
        }
    };
    match (done, row) {
        (Err(error), row) => {
            let by_us = cancelled;
            let reason = connected.why(&error).await;
            let seen = row.is_some();
            let mut failed = failed(shared, connected, &error, reason, seen, lock_first, by_us);
            if connected.is_unreplicated() || connected.is_node_untold() {
                // The warning was about this batch; it must not be attributed to the next one.
                failed.connection = Connection::Drop("the database warned of a server".into());
            }
            Err(failed)
        }
        (Ok(()), _) if connected.is_node_untold() => Err(lost(
            "the database decided it, and a node of it could not be told yet",
            "a node was lost during the commit".into(),
        )),
        (Ok(()), _) if connected.is_unreplicated() => {
            let unreplicated = "the database applied it, and perhaps not on its standbys: the wait for \
                                them was cancelled";
            let waited = "synchronous replication";
            // The next batch would wait as long for its standbys.
            shared.set_failing_by(connected, Some(Reason::new(unreplicated, waited)));
            Err(lost(unreplicated, waited.into()))
        }
        (Ok(()), _) if cancelled => Err(lost(
            "it took longer than statement_timeout_ms, and the database applied it though it was told \
             to cancel it",
            CANCELLED.into(),
        )),
        (Ok(()), Some(row)) => {
            Outcomes::read(&row).map_err(|error| lost(NO_MEANING, reason(&error)))
        }
        (Ok(()), None) => Err(lost(NO_MEANING, "no outcomes".into())),
    }
}

/// Interprets an error that a batch met. `reason` describes the error, `row_seen` says whether the
/// outcomes had arrived before it, and `by_us` whether we had cancelled the statement.
fn failed<C: Clock>(
    shared: &Shared<C>,
    connected: &Connected,
    error: &tokio_postgres::Error,
    reason: String,
    row_seen: bool,
    lock_first: bool,
    by_us: bool,
) -> Failed {
    let broke = "the connection to the database broke before it answered";
    let lost = Failure::Lost(Reason::new(broke, reason.clone()));
    let Some(database) = error.as_db_error() else {
        let connection = Connection::Drop(reason);
        return Failed {
            failure: lost,
            connection,
        };
    };
    let code = database.code();
    if severity(database) != Some(Severity::Error) {
        // The server is closing the connection. It sends the row before it commits the transaction,
        // so without a row there was no commit. But a pooler uses the same severity, with other
        // codes, for a server that it has lost.
        let rolled_back = !row_seen
            && [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::TOO_MANY_CONNECTIONS,
            ]
            .contains(code);
        let failure = if rolled_back {
            Failure::Rejected(unavailable(
                "the database ended the connection",
                reason.clone(),
            ))
        } else {
            lost
        };
        let connection = Connection::Drop(reason);
        return Failed {
            failure,
            connection,
        };
    }
    if row_seen && (is_node_lost(database) || *code == SqlState::INTERNAL_ERROR) {
        // The transaction was being committed, perhaps by one node alone, which may have done it.
        let public = "the database failed while it committed";
        return Failed {
            failure: Failure::Lost(Reason::new(public, reason)),
            connection: Connection::Keep,
        };
    }
    let mut connection = if by_us {
        Connection::Drop(CANCELLED.into())
    } else {
        Connection::Keep
    };
    let failure = match code.code() {
        // 23505: a concurrent transaction added the serial number after the batch had looked for
        // it.
        code @ ("40001" | "40P01" | LOCK_NOT_AVAILABLE | "23505") => Failure::Conflict(code.into()),
        // One of two halves was as the batch had read it, and the other had changed.
        "23503" if !lock_first => Failure::Conflict("23503".into()),
        "57014" => Failure::Rejected(shared.cancelled(by_us)),
        // Only some operations in the batch may concern that node; the others can continue.
        _ if is_node_lost(database) => Failure::Culprit(Culprit {
            public: NODE_LOST,
            reason,
        }),
        // The server became a standby in a failover: another host may be the primary by now.
        "25006" => {
            if connected.beside.is_none() {
                shared.links[Lane::Operations as usize].leave();
            }
            connection = Connection::Drop(reason.clone());
            Failure::Rejected(unavailable("the database accepts no writes", reason))
        }
        other => match other.get(..2) {
            // Data, constraints, and unknown errors.
            Some("22" | "23" | "XX") | None => Failure::Culprit(Culprit {
                public: "the database refused it",
                reason,
            }),
            // Rights, resources, an administrator: the cause is not a single operation.
            Some(class) => {
                tracing::error!(reason, "the database applies no operations");
                let public = match class {
                    "42" => "the database refuses the service's role",
                    "53" => "the database has no room",
                    _ => "the database applies no operations",
                };
                Failure::Rejected(unavailable(public, reason))
            }
        },
    };
    Failed {
        failure,
        connection,
    }
}
