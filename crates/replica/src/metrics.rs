//! The metrics of primaries and standbys.

use crate::{By, Status};
use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::sync::{Arc, Mutex, PoisonError};

const DONE: &str = "done";
const GIVEN_UP: &str = "given_up";

/// The metrics of replication. Clones share their state.
#[derive(Clone)]
pub struct Metrics {
    standbys: IntGauge,
    follows: IntGauge,
    connected: IntGauge,
    behind_seconds: IntGauge,
    behind_bytes: IntGauge,
    handing_over: IntGauge,
    hand_overs: IntCounterVec,
    acknowledged_by: IntGaugeVec,
    status: Arc<Mutex<Option<Status>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates the metrics of a primary.
    #[must_use]
    pub fn new() -> Self {
        let gauge = |name: &str, help: &str| match IntGauge::new(name, help) {
            Ok(gauge) => gauge,
            Err(error) => unreachable!("every metric here is well-formed: {error}"),
        };
        let opts = Opts::new(
            "widgets_replication_hand_overs_total",
            "Switchovers that this store handed over in: done, or given_up because the standby did \
             not take over in time.",
        );
        let hand_overs = match IntCounterVec::new(opts, &["outcome"]) {
            Ok(counter) => counter,
            Err(error) => unreachable!("every metric here is well-formed: {error}"),
        };
        for outcome in [DONE, GIVEN_UP] {
            // Makes the series exist from the start.
            drop(hand_overs.with_label_values(&[outcome]));
        }
        let by = Opts::new(
            "widgets_acknowledged_by",
            "1 for who must have an operation before it is acknowledged: local, as it is \
             configured; standby; alone, this store since a promotion; nobody, so that nothing is \
             acknowledged.",
        );
        let acknowledged_by = match IntGaugeVec::new(by, &["by"]) {
            Ok(gauge) => gauge,
            Err(error) => unreachable!("every metric here is well-formed: {error}"),
        };
        Self {
            acknowledged_by,
            standbys: gauge(
                "widgets_replication_standbys",
                "Standbys that this store is sent to now.",
            ),
            follows: gauge(
                "widgets_replication_follows",
                "1 if this store follows a primary, 0 if it accepts operations itself.",
            ),
            connected: gauge(
                "widgets_replication_connected",
                "1 while a standby is connected with its primary.",
            ),
            behind_seconds: gauge(
                "widgets_replication_behind_seconds",
                "For how long a standby has not had everything that its primary has, also while it cannot reach it.",
            ),
            behind_bytes: gauge(
                "widgets_replication_behind_bytes",
                "About how much journal a standby lacked when it last heard of its primary.",
            ),
            handing_over: gauge(
                "widgets_replication_handing_over",
                "1 while this primary accepts no operations because it is handing over to a \
                 standby.",
            ),
            hand_overs,
            status: Arc::default(),
        }
    }

    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.clone()))
    }

    /// Sets that this store is a standby with this status from here on, or a primary if `None`.
    pub fn set_status(&self, status: Option<Status>) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Sets which disks have an operation before its caller is answered; `None` for a standby,
    /// which takes no operations.
    pub(crate) fn set_acknowledged_by(&self, by: Option<By>) {
        for each in By::ALL {
            let gauge = self.acknowledged_by.with_label_values(&[each.as_str()]);
            gauge.set((by == Some(each)).into());
        }
    }

    /// Returns the number of standbys that are being sent the journal.
    #[must_use]
    pub fn standbys(&self) -> IntGauge {
        self.standbys.clone()
    }

    /// Returns whether this store is handing over.
    #[must_use]
    pub(crate) const fn handing_over(&self) -> &IntGauge {
        &self.handing_over
    }

    /// Counts a hand-over that was completed, or given up.
    pub(crate) fn handed_over(&self, is_done: bool) {
        let outcome = if is_done { DONE } else { GIVEN_UP };
        self.hand_overs.with_label_values(&[outcome]).inc();
    }

    fn refresh(&self) {
        let set =
            |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(status) = &*status else {
            for gauge in &self.parts()[1..] {
                gauge.set(0);
            }
            return;
        };
        set(&self.follows, 1);
        set(&self.connected, status.is_connected().into());
        set(&self.behind_seconds, status.behind().as_secs());
        set(&self.behind_bytes, status.behind_bytes());
    }

    fn parts(&self) -> [&IntGauge; 5] {
        [
            &self.standbys,
            &self.follows,
            &self.connected,
            &self.behind_seconds,
            &self.behind_bytes,
        ]
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        let parts = self.parts().into_iter().flat_map(Collector::desc);
        parts
            .chain(self.handing_over.desc())
            .chain(self.hand_overs.desc())
            .chain(self.acknowledged_by.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let parts = self.parts().into_iter().flat_map(Collector::collect);
        parts
            .chain(self.handing_over.collect())
            .chain(self.hand_overs.collect())
            .chain(self.acknowledged_by.collect())
            .collect()
    }
}
