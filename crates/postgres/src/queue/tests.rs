//! Checks the queue's promises with random requests, batches and releases.

use super::*;
use crate::changes::{PostgresFeed, Tail};
use futures_util::FutureExt as _;
use proptest::{collection::vec, prelude::*};
use std::{
    mem,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Wake, Waker},
};
use tokio::sync::oneshot::{self, error::TryRecvError};
use widgets_clock::Timer;
use widgets_conformance::commands::{add_widget, commands, few_serial_numbers, serial_number};
use widgets_queue::Queue as _;
use widgets_registry::{Applied, Rejection};

/// A clock that stands still until it is advanced.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        self.now()
    }

    fn sleep(&self, _: Duration) {
        unreachable!("the store waits in tasks");
    }

    fn timer(&self, _: Duration) -> Timer {
        Box::pin(std::future::pending())
    }
}

/// Returns a feed without changes.
fn feed() -> Arc<dyn Feed> {
    Arc::new(PostgresFeed(Arc::new(Tail::new().0)))
}

/// An event in the life of a queue.
#[derive(Clone, Debug)]
enum Event {
    Push(Command),
    /// A connection asks for a batch of at most this many operations.
    Take(usize),
    /// One of the batches in flight is answered: this number modulo how many there are.
    Release(usize),
    Advance(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => commands(few_serial_numbers("widget-", 12)).prop_map(Event::Push),
        3 => (1..12usize).prop_map(Event::Take),
        2 => any::<usize>().prop_map(Event::Release),
        1 => (1..30u64).prop_map(Event::Advance),
    ]
}

/// Returns the serial numbers that a command names.
fn names(command: &Command) -> Vec<SerialNumber> {
    match command {
        Command::AddWidget { serial_number, .. } | Command::RemoveWidget { serial_number } => {
            vec![serial_number.clone()]
        }
        Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair) => {
            vec![pair.widget1().clone(), pair.widget2().clone()]
        }
    }
}

fn share_a_name(one: &Command, two: &Command) -> bool {
    let two = names(two);
    names(one).iter().any(|name| two.contains(name))
}

// Either of them may be reached first.
const REQUESTS_MAX: usize = 20;
const BYTES_MAX: usize = 300;

/// A queue, with a model of what is waiting, in order of arrival, and of the batches in flight.
struct Rig {
    queue: Queue,
    clock: ManualClock,
    waiting: Vec<(Command, Duration)>,
    in_flight: Vec<Vec<Command>>,
}

impl Rig {
    fn new() -> Self {
        let settings = Settings {
            queue_operations_max: REQUESTS_MAX,
            queue_bytes_max: BYTES_MAX,
            ..Settings::default()
        };
        Self {
            queue: Queue::new(&settings, feed()),
            clock: ManualClock::default(),
            waiting: Vec::new(),
            in_flight: Vec::new(),
        }
    }

    fn bytes(&self) -> usize {
        let bytes = |(command, _): &(Command, Duration)| command.text_bytes();
        self.waiting.iter().map(bytes).sum()
    }

    fn push(&mut self, command: Command) {
        let arrived = self.clock.now();
        let pushed = push(&self.queue, &self.clock, command.clone()).try_recv();
        let limit = if self.waiting.len() == REQUESTS_MAX {
            Some(format!("queue_operations_max = {REQUESTS_MAX}"))
        } else if self.bytes() + command.text_bytes() > BYTES_MAX {
            Some(format!("queue_bytes_max = {BYTES_MAX}"))
        } else {
            None
        };
        match (pushed, limit) {
            (Err(TryRecvError::Empty), None) => self.waiting.push((command, arrived)),
            (Ok(Err(Rejection::Fault(Fault::Busy { limit, .. }))), Some(expected)) => {
                assert_eq!(limit, expected);
            }
            (pushed, limit) => panic!("{pushed:?} where the limit is {limit:?}"),
        }
    }

    /// Asks for a batch and checks it. Returns how many operations it has.
    fn take(&mut self, most: usize) -> usize {
        let mut batch = Vec::new();
        let taken = self.queue.take(&mut batch, most, &self.clock);
        if taken.now_or_never().is_none() {
            assert!(batch.is_empty(), "a batch that nobody knows of");
            self.check_that_it_may_wait(most);
            return 0;
        }
        assert!(
            (1..=most).contains(&batch.len()),
            "{} of {most}",
            batch.len()
        );
        let batch: Vec<Command> = batch
            .into_iter()
            .map(|taken| taken.attempt.command)
            .collect();
        // Equal commands are interchangeable, so the first equal one counts as taken.
        let mut passed_over: Vec<(Command, Duration)> = Vec::new();
        let mut expected = batch.iter().peekable();
        for (command, arrived) in mem::take(&mut self.waiting) {
            if expected.next_if(|&taken| *taken == command).is_some() {
                for (earlier, _) in &passed_over {
                    assert!(
                        !share_a_name(earlier, &command),
                        "{command:?} overtook {earlier:?}"
                    );
                }
            } else {
                passed_over.push((command, arrived));
            }
        }
        assert_eq!(
            expected.next(),
            None,
            "taken, but not waiting in this order"
        );
        self.waiting = passed_over;
        let all = self.in_flight.iter().flatten().chain(&batch);
        let mut named: Vec<SerialNumber> = all.flat_map(names).collect();
        let count = named.len();
        named.sort();
        named.dedup();
        assert_eq!(named.len(), count, "a widget is named twice in flight");
        let taken = batch.len();
        self.in_flight.push(batch);
        if taken < most {
            self.check_that_nothing_could_go();
        }
        taken
    }

    /// Checks that there was a reason for no batch: the queue is waiting for more operations, or
    /// none can be taken.
    fn check_that_it_may_wait(&self, most: usize) {
        let named = self
            .in_flight
            .iter()
            .flatten()
            .map(|each| names(each).len());
        let gathers = named.sum::<usize>() > FEW
            && self.waiting.len() < most.div_ceil(FULL_ENOUGH)
            && self
                .waiting
                .first()
                .is_some_and(|(_, arrived)| self.clock.now().saturating_sub(*arrived) < GATHERING);
        if !gathers {
            self.check_that_nothing_could_go();
        }
    }

    /// Checks that every waiting operation is held up by one in flight or by one that has waited
    /// longer.
    fn check_that_nothing_could_go(&self) {
        for (place, (command, _)) in self.waiting.iter().enumerate() {
            let earlier = self.waiting[..place].iter().map(|(command, _)| command);
            let mut before = self.in_flight.iter().flatten().chain(earlier);
            assert!(
                before.any(|before| share_a_name(before, command)),
                "{command:?} waits for nothing"
            );
        }
    }

    fn release(&mut self, number: usize) {
        if self.in_flight.is_empty() {
            return;
        }
        let batch = self.in_flight.remove(number % self.in_flight.len());
        let attempts: Vec<Attempt> = batch.iter().cloned().map(Attempt::from).collect();
        self.queue.release(attempts.iter());
    }

    fn check_depth(&self) {
        let Depth { requests, bytes } = self.queue.depth();
        assert_eq!((requests, bytes), (self.waiting.len(), self.bytes()));
    }
}

proptest! {
    #[test]
    fn batches_name_each_widget_once_keep_its_order_and_starve_no_operation(
        events in vec(event(), 1..200)
    ) {
        let mut rig = Rig::new();
        for event in events {
            match event {
                Event::Push(command) => rig.push(command),
                Event::Take(most) => drop(rig.take(most)),
                Event::Release(number) => rig.release(number),
                Event::Advance(milliseconds) => rig.clock.advance(milliseconds),
            }
            rig.check_depth();
        }
        // Once all others are answered, the operation that has waited longest is always in the next
        // batch.
        while !rig.waiting.is_empty() {
            while !rig.in_flight.is_empty() {
                rig.release(0);
            }
            let oldest = rig.waiting[0].0.clone();
            rig.take(1);
            prop_assert_eq!(rig.in_flight.last(), Some(&vec![oldest]));
        }
        rig.check_depth();
    }
}

type Answer = oneshot::Receiver<Result<Applied, Rejection>>;

/// Requests the addition of a widget.
fn add(queue: &Queue, clock: &ManualClock, name: &str) -> Answer {
    push(queue, clock, add_widget(&serial_number(name), "", "P"))
}

/// Requests an operation.
fn push(queue: &Queue, clock: &ManualClock, command: Command) -> Answer {
    let (reply, answer) = oneshot::channel();
    queue.push_all(&mut vec![Submission {
        request: Request::Operation(command.into(), reply),
        arrived: clock.now(),
        reply_to: Address::Task,
    }]);
    answer
}

#[test]
fn a_closed_queue_delivers_waiting_operations_and_refuses_new_ones() {
    let mut rig = Rig::new();
    rig.push(add_widget(&serial_number("A"), "", "P"));
    rig.queue.close();
    let refused = add(&rig.queue, &rig.clock, "B").try_recv();
    assert!(
        matches!(
            refused,
            Ok(Err(Rejection::Fault(Fault::Unavailable { .. })))
        ),
        "{refused:?}"
    );
    assert_eq!(rig.take(9), 1);
    let mut batch = Vec::new();
    let taken = rig.queue.take(&mut batch, 9, &rig.clock);
    assert_eq!(taken.now_or_never(), Some(false), "closed and empty");
}

/// Counts wake-ups.
#[derive(Default)]
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waiting connection is woken by whatever lets it start: by any operation while few are in
/// flight or no connection is gathering operations, and otherwise once there are enough operations.
#[test]
fn a_waiting_connection_is_woken_when_it_can_start_a_batch() {
    const MOST: usize = 12;
    let settings = Settings {
        batch_operations_max: MOST,
        ..Settings::default()
    };
    let queue = Queue::new(&settings, feed());
    let clock = ManualClock::default();
    let push = |name: &str| drop(add(&queue, &clock, name));
    let counted = Arc::new(Wakes::default());
    let waker = Waker::from(counted.clone());
    let mut context = Context::from_waker(&waker);
    let woken = || counted.0.swap(0, Ordering::Relaxed) > 0;

    // Few operations are in flight, so one is enough.
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for number in 0..=FEW {
        let mut taken = Vec::new();
        {
            let mut take = pin!(queue.take(&mut taken, MOST, &clock));
            assert!(take.as_mut().poll(&mut context).is_pending());
            push(&format!("A{number}"));
            assert!(woken());
            assert_eq!(take.as_mut().poll(&mut context), Poll::Ready(true));
        }
        first.append(&mut taken);
    }
    {
        let mut take = pin!(queue.take(&mut second, MOST, &clock));
        assert!(take.as_mut().poll(&mut context).is_pending());
        for (name, wakes) in [("B", true), ("C", false), ("D", true)] {
            push(name);
            assert_eq!(woken(), wakes, "{name}");
            let polled = take.as_mut().poll(&mut context);
            assert_eq!(polled.is_ready(), name == "D", "{name}");
        }
    }
    assert_eq!((first.len(), second.len()), (FEW + 1, 3));
    // An operation in flight holds up one that names the same widget until it is released, but no
    // other operation.
    push("A0");
    let mut third = Vec::new();
    {
        let mut take = pin!(queue.take(&mut third, MOST, &clock));
        clock.advance(100);
        assert!(take.as_mut().poll(&mut context).is_pending());
        woken();
        push("E");
        assert!(woken());
        assert_eq!(take.as_mut().poll(&mut context), Poll::Ready(true));
    }
    assert_eq!(third.len(), 1);
    let mut fourth = Vec::new();
    let mut take = pin!(queue.take(&mut fourth, MOST, &clock));
    assert!(take.as_mut().poll(&mut context).is_pending());
    woken();
    let answered = first.iter().map(|taken| &taken.attempt);
    queue.release(answered);
    assert!(woken());
    assert_eq!(take.as_mut().poll(&mut context), Poll::Ready(true));
}

/// A connection that gives up waiting is no longer counted as gathering.
#[test]
fn a_connection_that_stops_waiting_no_longer_counts_as_gathering() {
    let queue = Queue::new(&Settings::default(), feed());
    let clock = ManualClock::default();
    let mut context = Context::from_waker(Waker::noop());
    let push = |name: &str| drop(add(&queue, &clock, name));
    for number in 0..=FEW {
        push(&format!("A{number}"));
    }
    let mut first = Vec::new();
    let taken = queue.take(&mut first, FEW + 1, &clock).now_or_never();
    assert_eq!(taken, Some(true));
    push("B");
    {
        let mut batch = Vec::new();
        let mut take = pin!(queue.take(&mut batch, 9, &clock));
        assert!(take.as_mut().poll(&mut context).is_pending());
        assert_eq!(queue.lock().gathering, 1);
    }
    assert_eq!(queue.lock().gathering, 0);
}

/// An operation that is retried outside the queue names no widget that a batch in flight names.
#[test]
fn an_operation_outside_of_the_queue_claims_its_widgets() {
    let queue = Queue::new(&Settings::default(), feed());
    let clock = ManualClock::default();
    drop(add(&queue, &clock, "A"));
    let mut batch = Vec::new();
    let taken = queue.take(&mut batch, 9, &clock).now_or_never();
    assert_eq!(taken, Some(true));
    let again = add_widget(&serial_number("A"), "", "Q");
    let again = Attempt::from(again);
    assert!(!queue.claim(&again));
    queue.release(batch.iter().map(|taken| &taken.attempt));
    assert!(queue.claim(&again));
    assert!(!queue.claim(&again));
}

/// A retry waits for the first attempt, whichever widgets it names. The same key of another caller
/// is a different key.
#[test]
fn a_key_is_in_one_batch_at_a_time() {
    let queue = Queue::new(&Settings::default(), feed());
    let attempt = |name: &str, author: &str| Attempt {
        command: add_widget(&serial_number(name), "", "Q"),
        author: widgets_registry::Author::new(author),
        key: widgets_registry::IdempotencyKey::new("key"),
        asker: Asker::default(),
    };
    assert!(queue.claim(&attempt("A", "ann")));
    assert!(!queue.claim(&attempt("B", "ann")));
    assert!(queue.claim(&attempt("C", "bob")));
    queue.release([attempt("A", "ann")].iter());
    assert!(queue.claim(&attempt("B", "ann")));
}
