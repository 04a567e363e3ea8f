//! Readiness: whether the store would apply operations, for the probes that everyone may send.
//!
//! Only one probe at a time checks the store, and not often: a check takes a place in the store's
//! queue, and thousands of probes would take all of them. Every other probe is answered from the
//! last result.
//!
//! A busy store is ready. If a load balancer removed busy replicas, the remaining ones would get
//! their load until none was left.

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_clock::Clock;
use widgets_registry::{Fault, Reason};

/// How long a result is reported, from the beginning of the check.
const KNOWN_FOR: Duration = Duration::from_millis(250);

/// How long a probe waits for the check. Probes usually time out after a second.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// A store that takes longer than this for one check is stuck rather than busy.
const STUCK_AFTER: Duration = Duration::from_secs(15);

type Outcome = Result<(), Fault>;

/// What is known about the store. Shared by all workers.
#[derive(Default)]
pub(crate) struct Readiness {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The last result, and when its check began.
    seen: Option<(Duration, Outcome)>,
    under_way: Option<Look>,
}

/// A check of the store. It continues if the probe that began it disconnects.
#[derive(Clone)]
struct Look {
    began: Duration,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

impl Readiness {
    /// Reports whether operations would be applied: the last result or, if that is too old and no
    /// check is running, the result of `look`. `Err` is the fault that operations would meet.
    pub(crate) async fn ask<L>(&self, clock: &dyn Clock, look: impl FnOnce() -> L) -> Outcome
    where
        L: Future<Output = Outcome> + Send + 'static,
    {
        let now = clock.now();
        let look = {
            let mut known = self.lock();
            known.take_in();
            if let Some((began, outcome)) = &known.seen
                && now.saturating_sub(*began) < KNOWN_FOR
            {
                return outcome.clone();
            }
            if known.under_way.is_some() && known.seen.is_some() {
                return known.meanwhile(now);
            }
            let begin = || Look {
                began: now,
                outcome: look().map(ready_if_busy).boxed().shared(),
            };
            known.under_way.get_or_insert_with(begin).outcome.clone()
        };
        if look.clone().now_or_never().is_none() {
            // A probe that waits long enough sees the result; `take_in` records it in either case.
            drop(tokio::time::timeout(WAIT_MAX, look).await);
        }
        let mut known = self.lock();
        known.take_in();
        known.meanwhile(clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Records the result of the check if it has finished.
    fn take_in(&mut self) {
        let over = self.under_way.as_ref().and_then(|look| {
            let outcome = look.outcome.clone().now_or_never()?;
            Some((look.began, outcome))
        });
        if over.is_some() {
            self.seen = over;
            self.under_way = None;
        }
    }

    /// Returns the answer while a check is running.
    fn meanwhile(&self, now: Duration) -> Outcome {
        let took = self
            .under_way
            .as_ref()
            .map_or(Duration::ZERO, |look| now.saturating_sub(look.began));
        match &self.seen {
            Some((_, outcome)) if took < STUCK_AFTER => outcome.clone(),
            _ => Err(Fault::Unavailable {
                reason: Reason::new("it does not answer", format!("for {} ms", took.as_millis())),
            }),
        }
    }
}

fn ready_if_busy(outcome: Outcome) -> Outcome {
    match outcome {
        Err(Fault::Busy { .. }) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    };
    use tokio::sync::Semaphore;

    /// A clock that the test sets.
    #[derive(Clone, Default)]
    struct Set(Arc<AtomicU64>);

    impl Set {
        fn pass(&self, time: Duration) {
            let milliseconds = u64::try_from(time.as_millis()).expect("not for ever");
            self.0.fetch_add(milliseconds, Ordering::Relaxed);
        }
    }

    impl Clock for Set {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn unix_time(&self) -> Duration {
            self.now()
        }

        fn sleep(&self, _: Duration) {
            unreachable!("a probe waits for its store only");
        }

        fn timer(&self, _: Duration) -> widgets_clock::Timer {
            unreachable!("a probe waits for its store only");
        }
    }

    fn broken() -> Outcome {
        Err(Fault::Unavailable {
            reason: "the disk is full".into(),
        })
    }

    #[tokio::test]
    async fn a_readiness_result_is_reused_until_it_expires() {
        let (readiness, clock) = (Readiness::default(), Set::default());
        let looks = AtomicUsize::new(0);
        let ask = |outcome: Outcome| {
            readiness.ask(&clock, || {
                looks.fetch_add(1, Ordering::Relaxed);
                async { outcome }
            })
        };
        for _ in 0..1000 {
            assert_eq!(ask(Ok(())).await, Ok(()));
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        clock.pass(KNOWN_FOR);
        assert_eq!(ask(broken()).await, broken());
        assert_eq!(ask(Ok(())).await, broken(), "the last result");
        clock.pass(KNOWN_FOR);
        assert_eq!(ask(Ok(())).await, Ok(()));
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_busy_store_is_ready() {
        let (readiness, clock) = (Readiness::default(), Set::default());
        let busy = Err(Fault::Busy {
            limit: "queue_operations_max = 1".into(),
            retry_after_seconds: 1,
        });
        assert_eq!(readiness.ask(&clock, || async { busy }).await, Ok(()));
    }

    /// This also holds if the probe that began the check hangs up.
    #[tokio::test(start_paused = true)]
    async fn only_one_readiness_check_runs_at_a_time() {
        let (readiness, clock) = (Readiness::default(), Set::default());
        let (looks, over) = (AtomicUsize::new(0), Arc::new(Semaphore::new(0)));
        let ask = |outcome: Outcome| {
            readiness.ask(&clock, || {
                looks.fetch_add(1, Ordering::Relaxed);
                let over = over.clone();
                async move {
                    over.acquire().await.expect("not closed").forget();
                    outcome
                }
            })
        };
        over.add_permits(1);
        assert_eq!(ask(Ok(())).await, Ok(()));
        clock.pass(KNOWN_FOR);
        assert!(
            ask(broken()).now_or_never().is_none(),
            "it begins a check, and hangs up"
        );
        for _ in 0..1000 {
            assert_eq!(ask(Ok(())).await, Ok(()), "the last result");
        }
        assert_eq!(looks.load(Ordering::Relaxed), 2);
        clock.pass(STUCK_AFTER);
        let stuck = ask(Ok(())).await.expect_err("it is stuck").to_string();
        assert!(stuck.contains("it does not answer"), "{stuck}");
        over.add_permits(2);
        // That result is too old now.
        assert_eq!(ask(Ok(())).await, Ok(()));
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_has_never_answered_is_not_ready() {
        let (readiness, clock) = (Readiness::default(), Set::default());
        let never = || readiness.ask(&clock, std::future::pending);
        assert!(never().await.is_err());
        assert!(never().await.is_err());
    }
}
