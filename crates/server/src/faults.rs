//! Logs the faults that callers met, in full, because callers see only a part of them.
//!
//! A fault may last, and every request meanwhile meets it. So a lasting fault is logged once per
//! period, with the number of requests that met it.

use crate::Code;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use widgets_registry::Fault;

/// How often a lasting fault is logged.
const PERIOD: Duration = Duration::from_secs(10);

/// The faults that were logged most recently. Shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct FaultLog(Mutex<Vec<Told>>);

#[derive(Debug)]
struct Told {
    fault: Fault,
    at: Duration,
    /// How many requests have met it since.
    left_out: u64,
}

/// How many faults are distinguished at a time. There are few kinds, and several at once are rare.
const FAULTS_MAX: usize = 8;

impl FaultLog {
    /// Logs that a request met `fault`. A busy service is not logged, because the metrics count it.
    pub(crate) fn tell(&self, fault: &Fault, request_id: &str, now: Duration) {
        let (Fault::Unavailable { reason } | Fault::FateUnknown { reason }) = fault else {
            return;
        };
        if let Some(left_out) = self.due(fault, now) {
            let code = Code::from(fault).as_str();
            tracing::error!(code, %reason, request_id, left_out, "a request could not be served");
        }
    }

    /// Returns `None` if the fault is not due to be logged now, or else how many requests were not
    /// logged meanwhile.
    fn due(&self, fault: &Fault, now: Duration) -> Option<u64> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = faults.iter_mut().find(|told| told.fault == *fault) {
            if now.saturating_sub(told.at) < PERIOD {
                told.left_out += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.left_out));
        }
        if faults.len() == FAULTS_MAX {
            let (recent, oldest) = (faults.iter().map(|told| told.at)).zip(0..).min()?;
            if now.saturating_sub(recent) < PERIOD {
                // The texts differ each time: the fault that would be replaced counts the request.
                faults[oldest].left_out += 1;
                return None;
            }
            faults.swap_remove(oldest);
        }
        faults.push(Told {
            fault: fault.clone(),
            at: now,
            left_out: 0,
        });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(details: &str) -> Fault {
        Fault::Unavailable {
            reason: details.to_owned().into(),
        }
    }

    #[test]
    fn a_lasting_fault_is_logged_once_per_period() {
        let log = FaultLog::default();
        let due = |details: &str, seconds| log.due(&fault(details), Duration::from_secs(seconds));
        assert_eq!(due("a", 0), Some(0));
        assert_eq!(due("a", 0), None);
        assert_eq!(due("b", 1), Some(0), "another fault is logged at once");
        assert_eq!(due("a", 9), None);
        assert_eq!(due("a", 10), Some(2));
        assert_eq!(due("a", 11), None);
    }

    #[test]
    fn distinct_faults_are_logged_up_to_a_limit_per_period() {
        let log = FaultLog::default();
        let told = |from: u64, seconds| {
            let faults = (from..from + 1000).map(|number| fault(&number.to_string()));
            let now = Duration::from_secs(seconds);
            faults.filter(|fault| log.due(fault, now).is_some()).count()
        };
        assert_eq!(told(0, 0), FAULTS_MAX);
        assert_eq!(told(1000, 9), 0);
        assert_eq!(told(2000, 10), FAULTS_MAX);
    }
}
