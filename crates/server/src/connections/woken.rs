//! A future that is polled only after it was woken.
//!
//! The task of a connection waits for several things, of which one happens at a time. In addition,
//! hyper wakes its own task while it works: taking a body from it wakes whatever read that body
//! from the socket. If all of this used the task's own waker, each request would cost a turn in
//! which there is nothing to do, after all other connections had theirs. With a thousand
//! connections, the data of this one has left the CPU caches by then. So each future here has its
//! own waker, which knows its task and whether the future is being polled. A future that wakes
//! itself is polled again at once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// How many times in a row a future that wakes itself is polled before other tasks run.
const POLLS_MAX: usize = 2;

/// The future must be polled.
const WOKEN: u8 = 1;
/// The future is being polled, so waking it need not wake its task.
const POLLED: u8 = 2;

/// A future with its own waker.
pub(super) struct Woken<'a, F> {
    future: Pin<&'a mut F>,
    /// The waker in two forms, for this code and for the future. Made at the first poll.
    waker: Option<(Arc<OwnWaker>, Waker)>,
}

struct OwnWaker {
    task: Waker,
    state: AtomicU8,
}

impl Wake for OwnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) == 0 {
            self.task.wake_by_ref();
        }
    }
}

impl<'a, F: Future> Woken<'a, F> {
    pub(super) fn new(future: Pin<&'a mut F>) -> Self {
        let waker = None;
        Self { future, waker }
    }

    /// Does something to the future other than polling it. The next poll reaches it in any case.
    pub(super) fn tell(&mut self, tell: impl FnOnce(Pin<&mut F>)) {
        tell(self.future.as_mut());
        self.waker = None;
    }

    /// Polls the future if it was woken since the last poll, or was never polled. Must not be
    /// called after it has completed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        let known = self.waker.take();
        // A task keeps one waker for its whole life, but other callers may not.
        let known = known.filter(|(own, _)| own.task.will_wake(context.waker()));
        let (own, waker) = known.unwrap_or_else(|| {
            let own = Arc::new(OwnWaker {
                task: context.waker().clone(),
                state: AtomicU8::new(WOKEN),
            });
            let waker = Waker::from(own.clone());
            (own, waker)
        });
        let polled = self.poll_woken(&own.state, &waker);
        if polled.is_pending() && own.state.load(Ordering::Acquire) & WOKEN != 0 {
            own.task.wake_by_ref();
        }
        self.waker = Some((own, waker));
        polled
    }

    fn poll_woken(&mut self, state: &AtomicU8, waker: &Waker) -> Poll<F::Output> {
        for _ in 0..POLLS_MAX {
            if state.load(Ordering::Acquire) & WOKEN == 0 {
                break;
            }
            // A wake from here on counts for the next poll.
            state.swap(POLLED, Ordering::AcqRel);
            let polled = self.future.as_mut().poll(&mut Context::from_waker(waker));
            state.fetch_and(!POLLED, Ordering::AcqRel);
            if polled.is_ready() {
                return polled;
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::{Cell, RefCell},
        future::poll_fn,
        pin::pin,
        sync::atomic::AtomicUsize,
    };

    /// Counts how often a task was woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn woken(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    /// Scripts a future that never completes.
    #[derive(Default)]
    struct Script {
        polls: Cell<usize>,
        /// The number of further polls at which it wakes itself.
        wakes_itself: Cell<usize>,
        waker: RefCell<Option<Waker>>,
    }

    impl Script {
        async fn run(&self) {
            poll_fn(|context| {
                self.polls.set(self.polls.get() + 1);
                self.waker.replace(Some(context.waker().clone()));
                if self.wakes_itself.get() > 0 {
                    self.wakes_itself.set(self.wakes_itself.get() - 1);
                    context.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            })
            .await;
        }

        fn wake(&self) {
            self.waker.borrow().as_ref().expect("polled").wake_by_ref();
        }
    }

    #[test]
    fn a_future_is_not_polled_unless_woken() {
        let (task, script) = (Arc::new(Task::default()), Script::default());
        let waker = Waker::from(task.clone());
        let context = &mut Context::from_waker(&waker);
        let mut future = pin!(script.run());
        let mut woken = Woken::new(future.as_mut());
        assert!(woken.poll(context).is_pending());
        assert!(woken.poll(context).is_pending());
        assert_eq!((script.polls.get(), task.woken()), (1, 0));
        script.wake();
        script.wake();
        assert_eq!(task.woken(), 1, "once for both");
        assert!(woken.poll(context).is_pending());
        assert!(woken.poll(context).is_pending());
        assert_eq!(script.polls.get(), 2);
        woken.tell(|_| ());
        assert!(woken.poll(context).is_pending());
        assert_eq!(
            (script.polls.get(), task.woken()),
            (3, 0),
            "`tell` causes a poll"
        );
    }

    #[test]
    fn a_self_waking_future_is_polled_again_up_to_a_limit() {
        let (task, script) = (Arc::new(Task::default()), Script::default());
        let waker = Waker::from(task.clone());
        let context = &mut Context::from_waker(&waker);
        let mut future = pin!(script.run());
        let mut woken = Woken::new(future.as_mut());
        script.wakes_itself.set(1);
        assert!(woken.poll(context).is_pending());
        assert_eq!((script.polls.get(), task.woken()), (2, 0));
        script.wakes_itself.set(POLLS_MAX + 1);
        script.wake();
        assert_eq!(task.woken(), 1);
        assert!(woken.poll(context).is_pending());
        assert_eq!((script.polls.get(), task.woken()), (2 + POLLS_MAX, 1));
        assert!(woken.poll(context).is_pending());
        assert_eq!((script.polls.get(), task.woken()), (4 + POLLS_MAX, 0));
    }

    #[test]
    fn the_task_that_polled_last_is_woken() {
        let (one, other) = (Arc::new(Task::default()), Arc::new(Task::default()));
        let (script, wakers) = (
            Script::default(),
            [one.clone().into(), other.clone().into()],
        );
        let mut future = pin!(script.run());
        let mut woken = Woken::new(future.as_mut());
        for waker in &wakers {
            assert!(woken.poll(&mut Context::from_waker(waker)).is_pending());
        }
        script.wake();
        assert_eq!((script.polls.get(), one.woken(), other.woken()), (2, 0, 1));
    }

    /// If a wake were lost, this test would never end.
    #[tokio::test]
    async fn wakes_from_another_thread_are_not_lost() {
        let (sender, mut numbers) = tokio::sync::mpsc::channel(1);
        let sending = std::thread::spawn(move || {
            for number in 0..20_000 {
                sender.blocking_send(number).expect("somebody receives");
            }
        });
        let mut counted = pin!(async {
            let mut next = 0;
            while let Some(number) = numbers.recv().await {
                assert_eq!(number, next);
                next += 1;
            }
            next
        });
        let mut counted = Woken::new(counted.as_mut());
        assert_eq!(poll_fn(|context| counted.poll(context)).await, 20_000);
        sending.join().expect("no panic");
    }
}
