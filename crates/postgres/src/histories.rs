//! Finds out which server has the later history. A primary that was replaced may come back and act
//! as the primary until somebody stops it.
//!
//! Each promotion begins a timeline with a higher number. A target remembers the highest timeline
//! that it has met of each cluster. It makes no connection to a server with an earlier timeline,
//! and notifies existing connections to such a server as soon as it meets a later one. Therefore
//! this process never looks up on the old primary what the new one has answered, and sends it no
//! operation. A process that has met neither primary cannot know: whoever promotes must fence the
//! old primary. A standby has no timeline, and some managed PostgreSQL services do not reveal
//! theirs; such servers are accepted.

use std::{collections::BTreeMap, future::pending};
use tokio::sync::watch;
use tokio_postgres::Client;

/// The cluster's identifier and the timeline that the server writes, which is null on a standby.
const QUESTION: &str = "
    SELECT system_identifier,
        CASE WHEN NOT pg_is_in_recovery() THEN
            ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint
        END
    FROM pg_control_system()";

/// The history that a server continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct History {
    system: i64,
    timeline: i64,
}

impl History {
    /// Queries a server for its history. Returns `None` if it is a standby or does not reveal its
    /// timeline.
    pub(crate) async fn of(client: &Client) -> Result<Option<Self>, tokio_postgres::Error> {
        let rows = match client.query_typed(QUESTION, &[]).await {
            Ok(rows) => rows,
            Err(error) if error.as_db_error().is_some() => {
                tracing::debug!(%error, "the server does not report its timeline");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let (system, timeline) = (row.try_get(0)?, row.try_get::<_, Option<i64>>(1)?);
        Ok(timeline.map(|timeline| Self { system, timeline }))
    }
}

/// The latest timeline met, by cluster.
#[derive(Debug, Default)]
pub(crate) struct Histories(watch::Sender<BTreeMap<i64, i64>>);

impl Histories {
    /// Records the history that a server continues. Returns why the server must not be used if it
    /// has been replaced.
    pub(crate) fn meet(&self, history: Option<History>) -> Result<Place, String> {
        if let Some(History { system, timeline }) = history {
            self.0.send_if_modified(|latest| {
                let known = latest.entry(system).or_insert(0);
                let is_later = *known < timeline;
                *known = timeline.max(*known);
                is_later
            });
        }
        let place = Place {
            history,
            latest: self.0.subscribe(),
        };
        place.replaced().map_or(Ok(place), Err)
    }
}

/// The position of a connection's server among all servers that were met.
#[derive(Debug)]
pub(crate) struct Place {
    history: Option<History>,
    latest: watch::Receiver<BTreeMap<i64, i64>>,
}

impl Place {
    /// Returns how the server was replaced, if it was.
    pub(crate) fn replaced(&self) -> Option<String> {
        by_a_later(self.history?, &self.latest.borrow())
    }

    /// Waits until the server is replaced, and returns how.
    pub(crate) async fn until_replaced(&self) -> String {
        let Some(history) = self.history else {
            return pending().await;
        };
        let mut latest = self.latest.clone();
        loop {
            if let Some(reason) = by_a_later(history, &latest.borrow_and_update()) {
                return reason;
            }
            if latest.changed().await.is_err() {
                // No more connections are made, so no later timeline can be met.
                return pending().await;
            }
        }
    }
}

fn by_a_later(history: History, latest: &BTreeMap<i64, i64>) -> Option<String> {
    let History { system, timeline } = history;
    let later = latest.get(&system).filter(|&&later| later > timeline)?;
    Some(format!(
        "it was replaced: it is at timeline {timeline}, and a server at timeline {later} was found \
         (if that one was abandoned for an older backup, restart this service)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn history(system: i64, timeline: i64) -> History {
        History { system, timeline }
    }

    #[test]
    fn a_server_on_an_older_timeline_of_its_cluster_counts_as_replaced() {
        let histories = Histories::default();
        let meet = |system, timeline| histories.meet(Some(history(system, timeline)));
        let first = meet(7, 3).expect("the first one");
        let same = meet(7, 3).expect("the same one");
        let standby = histories.meet(None).expect("a standby");
        let elsewhere = meet(8, 1).expect("another cluster");
        assert_eq!(first.replaced(), None);
        let second = meet(7, 4).expect("a later one");
        let reason = first.replaced().expect("replaced");
        assert!(
            reason.contains("at timeline 3, and a server at timeline 4"),
            "{reason}"
        );
        assert!(same.replaced().is_some());
        assert!(meet(7, 3).is_err(), "it comes back");
        for place in [second, standby, elsewhere] {
            assert_eq!(place.replaced(), None, "{place:?}");
        }
    }
}
