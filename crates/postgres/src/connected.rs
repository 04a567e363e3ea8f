//! An established connection: the task that moves its bytes, the server's messages, and whether it
//! is still usable.

use crate::{
    Target,
    error::{cut, reason},
    histories::Place,
};
use std::{
    future::{pending, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_postgres::{
    AsyncMessage, Client, Connection,
    error::{DbError, Severity, SqlState},
};

/// A connection and the task that moves its bytes.
pub(crate) struct Connected {
    pub(crate) client: Client,
    /// Its server's position among all servers that were met. `None` before the server was asked.
    pub(crate) place: Option<Place>,
    /// The worker of a distributed registry that this connection goes to. `None` if it goes to the
    /// coordinator, which decides whether a node is lost.
    pub(crate) beside: Option<Target>,
    task: JoinHandle<()>,
    /// Why the connection ended. It is final once the sender is gone.
    end: watch::Receiver<Option<String>>,
    unreplicated: Arc<AtomicBool>,
    node_untold: Arc<AtomicBool>,
    notified: Arc<Notify>,
}

impl Connected {
    pub(crate) fn new<S, T>(client: Client, connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (ends, end) = watch::channel(None);
        let unreplicated = Arc::new(AtomicBool::new(false));
        let node_untold = Arc::new(AtomicBool::new(false));
        let warned = (unreplicated.clone(), node_untold.clone());
        let notified = Arc::new(Notify::new());
        let bell = notified.clone();
        let task = tokio::spawn(async move {
            let reason = drive(connection, (&warned.0, &warned.1), &bell).await;
            ends.send_replace(reason);
        });
        Self {
            client,
            place: None,
            beside: None,
            task,
            end,
            unreplicated,
            node_untold,
            notified,
        }
    }

    /// Waits until the connection is no longer usable, and returns why.
    pub(crate) async fn broken(&self) -> String {
        tokio::select! {
            biased;
            reason = self.until_replaced() => reason,
            reason = self.ended() => reason,
        }
    }

    async fn ended(&self) -> String {
        let mut end = self.end.clone();
        // No more values arrive once the sender is gone.
        while end.changed().await.is_ok() {}
        let reason = end.borrow().clone();
        reason.unwrap_or_else(|| "the server closed the connection".into())
    }

    /// Returns why a statement failed. If the connection had already ended, the statement's error
    /// says only that it is closed; the reason is then why the connection ended.
    pub(crate) async fn why(&self, error: &tokio_postgres::Error) -> String {
        if error.is_closed() {
            self.ended().await
        } else {
            reason(error)
        }
    }

    /// Reports whether a statement's failure means the end of the connection. If a statement is in
    /// flight when the server closes the connection, the statement gets the server's last message,
    /// and the connection learns only that it has ended.
    pub(crate) fn is_ended_by(&self, error: &tokio_postgres::Error) -> bool {
        let said = error.as_db_error();
        self.client.is_closed() || said.is_none_or(|said| severity(said) != Some(Severity::Error))
    }

    /// Reports whether the connection is no longer usable.
    pub(crate) fn is_broken(&self) -> bool {
        self.client.is_closed() || self.replaced().is_some()
    }

    /// Returns how its server was replaced, if it was.
    pub(crate) fn replaced(&self) -> Option<String> {
        self.place.as_ref()?.replaced()
    }

    /// Waits until its server is replaced, and returns how.
    pub(crate) async fn until_replaced(&self) -> String {
        match &self.place {
            Some(place) => place.until_replaced().await,
            None => pending().await,
        }
    }

    /// Waits until the server sends a notification on a channel that this connection listens to.
    pub(crate) async fn notified(&self) {
        self.notified.notified().await;
    }

    /// Reports whether the server has ever warned on this connection that a commit may be missing
    /// on a standby that should have it. The warning arrives before the success of the commit.
    pub(crate) fn is_unreplicated(&self) -> bool {
        self.unreplicated.load(Ordering::Acquire)
    }

    /// Reports whether the server has ever warned on this connection that a node of a distributed
    /// registry may not know of a commit yet. This warning, too, arrives before the success of the
    /// commit.
    pub(crate) fn is_node_untold(&self) -> bool {
        self.node_untold.load(Ordering::Acquire)
    }
}

/// Moves the bytes of a connection until it ends, and logs the server's warnings. Returns the
/// failure that ended it, if any.
async fn drive<S, T>(
    mut connection: Connection<S, T>,
    (unreplicated, node_untold): (&AtomicBool, &AtomicBool),
    notified: &Notify,
) -> Option<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if severity(&notice) == Some(Severity::Warning) => {
                if may_be_unreplicated(&notice) {
                    unreplicated.store(true, Ordering::Release);
                } else if may_be_untold(&notice) {
                    node_untold.store(true, Ordering::Release);
                }
                let hint = cut(notice.hint().unwrap_or_default());
                tracing::warn!(%hint, "the database warns: {}", cut(notice.message()));
            }
            Ok(AsyncMessage::Notification(_)) => notified.notify_one(),
            Ok(_) => {}
            // Callers who wait for an answer learn of the failure as well.
            Err(error) => return Some(reason(&error)),
        }
    }
    None
}

/// Returns the severity of a message, whatever language the server uses. A pooler's messages are in
/// English and lack the field that is meant for programs.
pub(crate) fn severity(message: &DbError) -> Option<Severity> {
    message
        .parsed_severity()
        .or_else(|| match message.severity() {
            "ERROR" => Some(Severity::Error),
            "FATAL" => Some(Severity::Fatal),
            "PANIC" => Some(Severity::Panic),
            "WARNING" => Some(Severity::Warning),
            _ => None,
        })
}

/// Reports whether a warning says that a wait for synchronous replication was given up. The server
/// has no special code for that, and uses its own language. A warning raised by a trigger of the
/// database's owner does not count.
fn may_be_unreplicated(warning: &DbError) -> bool {
    *warning.code() == SqlState::WARNING
        && warning
            .routine()
            .is_none_or(|routine| routine == "SyncRepWaitForLSN")
}

/// Reports whether a warning may say that another node was not told of a commit. Citus has no
/// special code for it, so this is any warning that is neither about standbys nor raised by a
/// trigger.
fn may_be_untold(warning: &DbError) -> bool {
    let code = warning.code();
    (*code == SqlState::WARNING || code.code().starts_with("08"))
        && !matches!(
            warning.routine(),
            None | Some("SyncRepWaitForLSN" | "exec_stmt_raise")
        )
}

impl Drop for Connected {
    fn drop(&mut self) {
        // The task may be stuck on a peer that is gone.
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_postgres::{Config, NoTls};

    /// Encodes a message from the server: its type, its length and its content.
    fn message(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).expect("a short message");
        [&[kind], length.to_be_bytes().as_slice(), content].concat()
    }

    /// Returns a connection and the server's end of it.
    async fn connected() -> (Connected, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let server = async {
            theirs.read_u8().await.expect("a greeting");
            let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
            theirs.write_all(&welcome).await.expect("a welcome");
            theirs
        };
        let mut config = Config::new();
        let config = config.user("ann");
        let (made, theirs) = tokio::join!(config.connect_raw(ours, NoTls), server);
        let (client, connection) = made.expect("a connection");
        (Connected::new(client, connection), theirs)
    }

    async fn say_farewell(theirs: &mut DuplexStream) {
        let farewell = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
        theirs.write_all(&farewell).await.expect("a farewell");
    }

    #[tokio::test]
    async fn a_statement_on_a_closed_connection_reports_why_it_closed() {
        let (connected, mut theirs) = connected().await;
        say_farewell(&mut theirs).await;
        drop(theirs);
        assert_eq!(connected.ended().await, "terminating connection (57P01)");
        let outcome = connected.client.batch_execute("SELECT 1").await;
        let error = outcome.expect_err("it is closed");
        assert_eq!(reason(&error), "connection closed");
        assert_eq!(
            connected.why(&error).await,
            "terminating connection (57P01)"
        );
    }

    #[tokio::test]
    async fn a_fatal_error_in_response_to_a_statement_ends_the_connection() {
        let (connected, mut theirs) = connected().await;
        let statement = connected.client.batch_execute("SELECT 1");
        let last_word = async {
            // Reads the query, not the rest of the greeting.
            while theirs.read_u8().await.expect("a query") != b'Q' {}
            say_farewell(&mut theirs).await;
        };
        let (outcome, ()) = tokio::join!(statement, last_word);
        let error = outcome.expect_err("a farewell");
        // The server has not closed the connection yet.
        assert!(connected.is_ended_by(&error));
        let why = connected.why(&error).await;
        assert_eq!(why, "terminating connection (57P01)");
    }
}
