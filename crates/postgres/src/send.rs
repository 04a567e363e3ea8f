//! A batch on its way to the database, and what an error says of it.

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

/// What came of sending a batch.
pub(crate) enum Failure {
    /// Nothing was applied: another transaction was in the way.
    Conflict(String),
    /// Nothing was applied, and this is the answer to each operation.
    Rejected(Fault),
    /// Nothing was applied, and one operation may be the cause.
    Culprit(Culprit),
    /// It may be applied.
    Lost(Reason),
}

/// What was wrong with a batch, of which one operation may be the cause.
pub(crate) struct Culprit {
    /// What the caller of that one is told,
    pub(crate) public: &'static str,
    /// and what the log has.
    pub(crate) reason: String,
}

/// The same, and what is left of the connection.
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) connection: Connection,
}

/// What callers are told of an answer that no version of the function gives.
pub(crate) const NO_MEANING: &str = "the database gave an answer that has no meaning";

/// Another transaction held a lock for longer than a batch waits for one.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What callers are told whose widgets are on a node of a distributed registry that is away.
pub(crate) const NODE_LOST: &str = "a node of the database cannot be reached";

/// Whether an error says that the server has lost another one, and not that it ends itself: the nodes of a
/// distributed registry come and go, and operations that concern others go on.
pub(crate) fn is_node_lost(error: &DbError) -> bool {
    let code = error.code().code();
    severity(error) == Some(Severity::Error)
        && (code.starts_with("08") || ["57P01", "57P02", "57P03"].contains(&code))
}

/// Sends a batch, and hears its outcomes. With `lock_first` it passes over what others have locked.
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
        // The stream ends with the server's word that the transaction has ended.
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
            // The next one would hear as little, but for another server.
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
                // What it warned of is over with this batch; the next one must not be taken for the same.
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
            // The next one would wait as long.
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

/// What an error, and its reason in words, says of a batch that was sent, when its row was seen or not, and
/// when it was cancelled by us or not.
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
        // The server ends the connection. A row comes before its transaction's commit, so without
        // one there was none; but a pooler says the same of a server that it has lost, under other
        // codes.
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
        // It was under way to be committed, perhaps by one node alone, which may have done it.
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
        // 23505: a serial number was taken while the batch looked.
        code @ ("40001" | "40P01" | LOCK_NOT_AVAILABLE | "23505") => Failure::Conflict(code.into()),
        // Of two halves one was as the batch had read it, and the other had changed.
        "23503" if !lock_first => Failure::Conflict("23503".into()),
        "57014" => Failure::Rejected(shared.cancelled(by_us)),
        // Of the operations of a batch some may concern that node, and others go on.
        _ if is_node_lost(database) => Failure::Culprit(Culprit {
            public: NODE_LOST,
            reason,
        }),
        // A standby after a failover: another host may be the primary by now.
        "25006" => {
            if connected.beside.is_none() {
                shared.links[Lane::Operations as usize].leave();
            }
            connection = Connection::Drop(reason.clone());
            Failure::Rejected(unavailable("the database takes no writes", reason))
        }
        other => match other.get(..2) {
            // Data, constraints, and whatever is unheard of.
            Some("22" | "23" | "XX") | None => Failure::Culprit(Culprit {
                public: "the database refused it",
                reason,
            }),
            // Rights, resources, an administrator: it has nothing to do with one operation.
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
