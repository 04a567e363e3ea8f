//! Which server has the later history: a primary that was replaced may come back, and takes itself for
//! the primary until somebody tells it.
//!
//! Every promotion begins a timeline with a higher number. A target remembers the highest one that it has met
//! of each cluster, makes no connection to a server of an earlier one, and tells connections to such a one, which
//! are there already, as soon as it meets a later one. So what was answered by the new primary is never
//! looked up in, and no operation is sent to, the old one by this process. A process that has met neither cannot
//! know: that is for whoever fences the old primary. A standby has no timeline of its own, and some services of
//! PostgreSQL do not tell theirs: those are taken as they are.

use std::{collections::BTreeMap, future::pending};
use tokio::sync::watch;
use tokio_postgres::Client;

/// Which cluster it is, and the timeline that it writes; none of a standby.
const QUESTION: &str = "
    SELECT system_identifier,
        CASE WHEN NOT pg_is_in_recovery() THEN
            ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint
        END
    FROM pg_control_system()";

/// The history that a server goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct History {
    system: i64,
    timeline: i64,
}

impl History {
    /// Asks a server for it.
    pub(crate) async fn of(client: &Client) -> Result<Option<Self>, tokio_postgres::Error> {
        let rows = match client.query_typed(QUESTION, &[]).await {
            Ok(rows) => rows,
            Err(error) if error.as_db_error().is_some() => {
                tracing::debug!(%error, "the server does not tell its timeline");
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

/// The latest timeline that was met of each cluster.
#[derive(Debug, Default)]
pub(crate) struct Histories(watch::Sender<BTreeMap<i64, i64>>);

impl Histories {
    /// Takes in what a server goes on with, or says what replaced it.
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

/// A connection's server among all that were met.
#[derive(Debug)]
pub(crate) struct Place {
    history: Option<History>,
    latest: watch::Receiver<BTreeMap<i64, i64>>,
}

impl Place {
    /// By what the server was replaced, if it was.
    pub(crate) fn replaced(&self) -> Option<String> {
        by_a_later(self.history?, &self.latest.borrow())
    }

    /// Waits until it was replaced, and says by what.
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
                // Nobody connects any more.
                return pending().await;
            }
        }
    }
}

fn by_a_later(history: History, latest: &BTreeMap<i64, i64>) -> Option<String> {
    let History { system, timeline } = history;
    let later = latest.get(&system).filter(|&&later| later > timeline)?;
    Some(format!(
        "it was replaced: it is at timeline {timeline}, and timeline {later} was met (where that was given up \
         for an older backup, restart this service)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn history(system: i64, timeline: i64) -> History {
        History { system, timeline }
    }

    #[test]
    fn the_latest_timeline_of_a_cluster_counts() {
        let histories = Histories::default();
        let meet = |system, timeline| histories.meet(Some(history(system, timeline)));
        let first = meet(7, 3).expect("the first one");
        let same = meet(7, 3).expect("the same one");
        let standby = histories.meet(None).expect("a standby");
        let elsewhere = meet(8, 1).expect("another cluster");
        assert_eq!(first.replaced(), None);
        let second = meet(7, 4).expect("a later one");
        let reason = first.replaced().expect("replaced");
        assert!(reason.contains("at timeline 3, and timeline 4"), "{reason}");
        assert!(same.replaced().is_some());
        assert!(meet(7, 3).is_err(), "it comes back");
        for place in [second, standby, elsewhere] {
            assert_eq!(place.replaced(), None, "{place:?}");
        }
    }
}
