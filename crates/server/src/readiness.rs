//! Whether operations would be applied, for the probes that everyone may send.
//!
//! The store is looked at by one probe at a time, and seldom: a look takes a place in the store's queue,
//! and thousands of probes would take them all. Every other probe is answered by what is known.
//!
//! A busy store is ready. A balancer that took busy replicas out would hand their load to the others,
//! until none was left.

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

/// What was seen is told for this long, from the beginning of the look.
const KNOWN_FOR: Duration = Duration::from_millis(250);

/// A probe waits so long for the look. Those who send probes wait a second, by custom.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// A store that takes longer than this for one look is stuck, and no longer busy.
const STUCK_AFTER: Duration = Duration::from_secs(15);

type Outcome = Result<(), Fault>;

/// What is known of the store. Shared by all workers.
#[derive(Default)]
pub(crate) struct Readiness {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What was seen last, and when that look began.
    seen: Option<(Duration, Outcome)>,
    under_way: Option<Look>,
}

/// A look at the store. It goes on when the probe that began it has gone.
#[derive(Clone)]
struct Look {
    began: Duration,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

impl Readiness {
    /// Whether operations would be applied: what is known, or what `look` says where that is too old and
    /// nobody looks. `Err` is the fault that they would meet.
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
            // Whoever comes in time has seen it; `take_in` tells of it in either case.
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
    /// Takes in what the look has seen, if it is over.
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

    /// What to say while a look is under way.
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
    async fn what_was_seen_is_told_until_it_is_too_old() {
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
        assert_eq!(ask(Ok(())).await, broken(), "still");
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

    /// Also where the probe that began the look has hung up.
    #[tokio::test(start_paused = true)]
    async fn there_is_one_look_at_a_time() {
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
            "it looks, and hangs up"
        );
        for _ in 0..1000 {
            assert_eq!(ask(Ok(())).await, Ok(()), "as it was");
        }
        assert_eq!(looks.load(Ordering::Relaxed), 2);
        clock.pass(STUCK_AFTER);
        let stuck = ask(Ok(())).await.expect_err("it is stuck").to_string();
        assert!(stuck.contains("it does not answer"), "{stuck}");
        over.add_permits(2);
        // What was seen then is too old now.
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
