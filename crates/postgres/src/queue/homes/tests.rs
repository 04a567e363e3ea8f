//! Batches by worker, and what happens while a worker cannot be reached.

use super::*;
use crate::{
    Settings,
    changes::{PostgresFeed, Tail},
    queue::{Request, homes::parts},
};
use futures_util::FutureExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;
use widgets_clock::{Clock, Timer};
use widgets_conformance::commands::{add_widget, associate_widgets, remove_widget, serial_number};
use widgets_mailbox::Address;
use widgets_queue::Queue as _;
use widgets_registry::{Applied, Attempt, Port, Rejection, SerialNumber};

/// A clock that stands still until it is advanced.
#[derive(Default)]
struct ManualClock(AtomicU64);

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

const WORKERS: usize = 4;

/// Returns a placement on four workers with a quarter of all hashes each.
fn placement() -> Placement {
    let last = [-1_073_741_825, -1, 1_073_741_823, i32::MAX];
    let nodes = (1..).map(|number| format!("worker{number}:5432"));
    Placement::new(last.into_iter().zip(nodes).collect()).expect("four workers")
}

/// Returns the names of widgets that are on this worker.
fn on(worker: usize) -> impl Iterator<Item = SerialNumber> {
    let placement = placement();
    let names = (0..).map(|number| serial_number(&format!("w{number}")));
    names.filter(move |name| placement.worker(name) == worker)
}

type Answer = oneshot::Receiver<Result<Applied, Rejection>>;

struct Rig {
    queue: Queue,
    clock: ManualClock,
}

impl Rig {
    fn new() -> Self {
        let queue = Queue::new(
            &Settings::default(),
            Arc::new(PostgresFeed(Arc::new(Tail::new().0))),
        );
        queue.set_placement(Some(placement()));
        Self {
            queue,
            clock: ManualClock::default(),
        }
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn advance(&self, milliseconds: u64) {
        self.clock.0.fetch_add(milliseconds, Ordering::Relaxed);
    }

    fn push(&self, command: Command) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.queue.push_all(&mut vec![Submission {
            request: Request::Operation(command.into(), reply),
            arrived: self.now(),
            reply_to: Address::Task,
        }]);
        answer
    }

    fn add(&self, names: impl Iterator<Item = SerialNumber>, count: usize) -> Vec<Answer> {
        let names = names.take(count);
        names
            .map(|name| self.push(add_widget(&name, "", "P")))
            .collect()
    }

    /// Returns the next batch and the workers that it concerns; both are empty if it must wait.
    fn take(&self, most: usize) -> (Vec<Operation>, Vec<usize>) {
        let mut batch = Vec::new();
        let taken = self.queue.take(&mut batch, most, &self.clock);
        let _: Option<bool> = taken.now_or_never();
        let placement = placement();
        let mut workers = Vec::new();
        for operation in &batch {
            let Home(one, two) = placement.home(&operation.attempt.command);
            workers.extend([one, two]);
        }
        workers.sort_unstable();
        workers.dedup();
        (batch, workers)
    }

    fn release(&self, batch: &[Operation]) {
        self.queue.release(batch.iter().map(|each| &each.attempt));
    }
}

fn code(answer: &mut Answer) -> Option<&'static str> {
    match answer.try_recv() {
        Ok(Err(Rejection::Fault(fault))) => Some(fault.code()),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

#[test]
fn few_operations_share_a_batch_whatever_their_workers() {
    let rig = Rig::new();
    let _answers: Vec<_> = (0..WORKERS).map(|worker| rig.add(on(worker), 2)).collect();
    let (batch, workers) = rig.take(256);
    assert_eq!((batch.len(), workers), (8, vec![0, 1, 2, 3]));
}

#[test]
fn many_operations_are_batched_by_worker_oldest_first() {
    let rig = Rig::new();
    let _answers: Vec<_> = [2, 0, 1, 3].map(|worker| rig.add(on(worker), 32)).into();
    for worker in [2, 0, 1, 3] {
        let (batch, workers) = rig.take(32);
        assert_eq!((batch.len(), workers), (32, vec![worker]));
    }
}

/// Operations that concern the same two workers go together if there are many of them. The few
/// others form a mixed batch.
#[test]
fn many_associations_are_batched_by_pair_of_workers() {
    let rig = Rig::new();
    let mut answers = Vec::new();
    for (one, two) in on(0).zip(on(1)).take(40) {
        answers.push(rig.push(associate_widgets(&one, &two, Port::P)));
    }
    let few = on(2).zip(on(3)).take(2);
    for (one, two) in few {
        answers.push(rig.push(associate_widgets(&two, &one, Port::P)));
    }
    answers.extend(rig.add(on(2).skip(9), 1));
    let (batch, workers) = rig.take(64);
    assert_eq!((batch.len(), workers), (40, vec![0, 1]));
    rig.release(&batch);
    let (batch, workers) = rig.take(64);
    assert_eq!((batch.len(), workers), (3, vec![2, 3]));
}

/// No operation overtakes an earlier one that names the same widget, whatever their homes.
#[test]
fn operations_on_the_same_widget_keep_their_order_across_homes() {
    let rig = Rig::new();
    let [shared, other] = [on(0).next(), on(1).next()].map(|name| name.expect("endless"));
    let mut answers = rig.add(on(0).skip(1), 32);
    answers.push(rig.push(associate_widgets(&shared, &other, Port::P)));
    answers.push(rig.push(remove_widget(&shared)));
    let (first, workers) = rig.take(64);
    assert_eq!((first.len(), workers), (32, vec![0]));
    rig.release(&first);
    let (second, _) = rig.take(64);
    assert_eq!(second.len(), 1, "the association alone");
    rig.release(&second);
    assert_eq!(rig.take(64).0.len(), 1, "and then the removal");
}

/// While only a pair of nodes is lost, both nodes are reported. Once one of them is lost on its
/// own, only that node is reported.
#[test]
fn unreachable_nodes_are_reported() {
    let rig = Rig::new();
    let away = || rig.queue.distributed().expect("distributed");
    let [one, two] = ["worker1:5432", "worker2:5432"].map(str::to_owned);
    assert_eq!((away().nodes, away().away), (WORKERS, Vec::new()));
    rig.queue
        .lose(Home(0, 1), rig.now(), Duration::from_millis(250));
    assert_eq!(away().away, [one, two.clone()]);
    rig.queue
        .lose(Home(1, 1), rig.now(), Duration::from_millis(250));
    assert_eq!(away().away, [two]);
    rig.queue.reached(Home(0, 1));
    rig.queue.reached(Home(1, 1));
    assert_eq!(away().away, Vec::<String>::new());
    let of_one_node = vec![(-1, "a:1".to_owned()), (i32::MAX, "a:1".to_owned())];
    rig.queue.set_placement(Placement::new(of_one_node));
    assert_eq!(
        (away().nodes, rig.queue.placement()),
        (1, None),
        "a single node has no placement"
    );
    rig.queue.set_placement(None);
    assert_eq!(rig.queue.distributed(), None, "one server");
}

#[test]
fn operations_on_a_lost_home_are_refused_and_others_continue() {
    let rig = Rig::new();
    let lost = Home(1, 1);
    let mut waits = rig.add(on(1), 2);
    let mut elsewhere = rig.add(on(2), 2);
    rig.queue.lose(lost, rig.now(), Duration::from_millis(250));
    assert!(rig.queue.is_lost(lost, rig.now()));
    for answer in &mut waits {
        assert_eq!(code(answer), Some("WG504"), "an operation that waited");
    }
    let mut late = rig.add(on(1), 1);
    assert_eq!(
        code(&mut late[0]),
        Some("WG504"),
        "an operation that arrives later"
    );
    assert_eq!(
        rig.queue.depth().requests,
        2,
        "refused operations are not queued"
    );
    let (batch, workers) = rig.take(256);
    assert_eq!((batch.len(), workers), (2, vec![2]));
    assert_eq!(code(&mut elsewhere[0]), None);
    rig.release(&batch);

    // After a while, a batch of this home alone tries it, and meanwhile its other operations are
    // refused.
    rig.advance(250);
    let mut tries = rig.add(on(1).skip(5), 1);
    let mut mixed = rig.add(on(3), 1);
    let (batch, workers) = rig.take(256);
    assert_eq!((batch.len(), workers), (1, vec![1]));
    assert_eq!(code(&mut rig.add(on(1).skip(9), 1)[0]), Some("WG504"));
    assert_eq!((code(&mut tries[0]), code(&mut mixed[0])), (None, None));
    rig.queue.ended(lost);
    assert!(
        !rig.queue.is_lost(lost, rig.now()),
        "the next one may try it"
    );
    rig.release(&batch);
    rig.queue.reached(lost);
    assert!(rig.queue.apart().is_none(), "nothing is lost");
    let mut answers = rig.add(on(1).skip(20), 1);
    let (batch, workers) = rig.take(256);
    assert_eq!((batch.len(), workers), (2, vec![1, 3]));
    assert_eq!(code(&mut answers[0]), None);
}

/// A batch was held up by an unknown node: each home is tried separately, and none is refused.
#[test]
fn each_suspected_home_is_tried_in_a_separate_batch() {
    let rig = Rig::new();
    let mut answers = rig.add(on(0), 1);
    answers.extend(rig.add(on(1), 1));
    let (batch, _) = rig.take(256);
    assert_eq!(batch.len(), 2);
    rig.queue
        .suspect([Home(0, 0), Home(1, 1)].into_iter(), rig.now());
    rig.release(&batch);
    answers.extend(rig.add(on(0), 1));
    answers.extend(rig.add(on(1), 1));
    assert_eq!(rig.take(256).1, [0]);
    assert_eq!(rig.take(256).1, [1]);
    for answer in &mut answers {
        assert_eq!(code(answer), None);
    }
}

/// A lost home that no operation concerns any more does not keep batches apart for ever.
#[test]
fn a_lost_home_without_operations_is_forgotten() {
    let rig = Rig::new();
    rig.queue.lose(Home(1, 1), rig.now(), Duration::ZERO);
    rig.advance(30_000);
    let _answers = [rig.add(on(0), 1), rig.add(on(2), 1)];
    assert_eq!(rig.take(256).1, [0, 2]);
    assert!(rig.queue.apart().is_none());
}

/// The numbers of the workers change with the placement, so no home stays lost, and what waits goes
/// in batches of the new placement.
#[test]
fn operations_that_wait_while_widgets_move_are_handed_out_once() {
    let names = [0, 2, 3].into_iter().flat_map(|worker| on(worker).take(32));
    let waiting: Vec<Command> = names.map(|name| add_widget(&name, "", "P")).collect();
    // To two workers with half of all hashes each, or to one server.
    let nodes = [(-1, "worker3:5432"), (i32::MAX, "worker5:5432")];
    let halves = nodes.map(|(last, node)| (last, node.to_owned())).to_vec();
    for (moved, sizes) in [(Placement::new(halves), [32, 64]), (None, [64, 32])] {
        let rig = Rig::new();
        let pushed = waiting.iter().map(|command| rig.push(command.clone()));
        let mut answers: Vec<Answer> = pushed.collect();
        rig.queue
            .lose(Home(1, 1), rig.now(), Duration::from_secs(9));
        rig.queue.set_placement(Some(placement()));
        assert!(rig.queue.is_lost(Home(1, 1), rig.now()), "nothing moved");
        rig.queue.set_placement(moved);
        assert!(!rig.queue.is_lost(Home(1, 1), rig.now()));
        let mut taken = Vec::new();
        for size in sizes {
            let (batch, _) = rig.take(64);
            assert_eq!(batch.len(), size);
            rig.release(&batch);
            taken.extend(batch.into_iter().map(|operation| operation.attempt.command));
        }
        assert_eq!(taken, waiting);
        assert_eq!(rig.queue.depth().requests, 0);
        for answer in &mut answers {
            assert_eq!(code(answer), None);
        }
    }
}

#[test]
fn a_failed_batch_is_split_by_home_with_separate_removals() {
    let names: Vec<SerialNumber> = on(0).take(4).chain(on(1).take(2)).collect();
    let commands = |commands: Vec<Command>| -> Vec<Operation> {
        let operation = |command: Command| Operation {
            attempt: Attempt::from(command),
            arrived: Duration::ZERO,
            reply: oneshot::channel().0,
            reply_to: Address::Task,
            place: None,
        };
        commands.into_iter().map(operation).collect()
    };
    let sizes = |parts: Vec<Vec<Operation>>| -> Vec<usize> { parts.iter().map(Vec::len).collect() };
    let placement = placement();
    let add = |place: usize| add_widget(&names[place], "", "P");
    let mixed = || {
        let pair = associate_widgets(&names[2], &names[4], Port::P);
        commands(vec![add(0), add(1), pair, remove_widget(&names[3]), add(5)])
    };
    assert_eq!(sizes(parts(Some(&placement), mixed())), [2, 1, 1, 1]);
    assert_eq!(sizes(parts(None, mixed())), [1; 5]);
    let of_one = commands(vec![add(0), add(1), add(2)]);
    assert_eq!(sizes(parts(Some(&placement), of_one)), [1; 3]);
}
