//! The queue's limits, and the way of requests and answers through a runtime's mailbox.

use super::{
    disk::TestDisk,
    recovery::add,
    rig::{TestClock, log, random, serial_number, settings},
};
use crate::{
    Settings,
    engine::Parts,
    lists::Read,
    owner::Replies,
    queue::{Naming, Queue, Request, Submission},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{runtime, sync::oneshot, task};
use widgets_clock::Clock as _;
use widgets_mailbox::Address;
use widgets_pacing::{ENOUGH, Mode, Pacing};
use widgets_queue::{Answered, Asked, Mailbox, Queue as _, Takes as _};
use widgets_registry::{
    Applied, Attempt, Fault, Lookup, SerialNumber, Widget,
    query::{Asker, Direction, Filter, List, Table},
};

type Answer = oneshot::Receiver<Result<Option<Widget>, Fault>>;

fn lookup(serial_number: &str, reply_to: Address) -> (Submission, Answer) {
    let (reply, answer) = oneshot::channel();
    let serial_number = SerialNumber::new("widget_sn", serial_number).expect("within its limits");
    let submission = Submission {
        request: Queue::request(Lookup(serial_number), reply),
        reply_to,
        arrived: Duration::ZERO,
    };
    (submission, answer)
}

fn mailbox(queue: &Arc<Queue>) -> Arc<Mailbox<Request>> {
    let queue = queue.clone();
    Mailbox::on_current_runtime(move |requests| queue.push_all(requests))
}

fn push(queue: &Queue, serial_number: &str) {
    queue.push_all(&mut vec![lookup(serial_number, Address::Task).0]);
}

/// Refuses a lookup with a fault that names its place in the batch.
fn refused(request: Request, place: usize) -> Answered {
    let Request::Query(mut question) = request else {
        panic!("a lookup was asked");
    };
    question.refuse(Fault::Unavailable {
        reason: place.to_string().into(),
    });
    Answered::Other(question)
}

fn taken(queue: &Queue) -> usize {
    let mut batch = VecDeque::new();
    assert!(queue.take(&mut batch, &mut Replies::default(), Duration::ZERO));
    batch.len()
}

/// A request that has waited too long would probably wait as long again.
#[test]
fn an_expired_request_gets_its_waiting_time_as_retry_after() {
    let (disk, clock) = (TestDisk::default(), Arc::<TestClock>::default());
    let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
    let parts = Parts::open(&disk, &clock, random(), &settings(), pacing, 1);
    let mut parts = parts.expect("a new store");
    parts.preparer.step().expect("the next segment");
    clock.sleep(Duration::from_millis(settings().queue_wait_ms_max + 1));
    let (submission, mut answer) = lookup("E", Address::Task);
    parts.owner.step(&mut VecDeque::from([submission]));
    let late = answer.try_recv().expect("answered").expect_err("late");
    let expected = Fault::Busy {
        limit: "queue_wait_ms_max = 5000".into(),
        retry_after_seconds: 5,
    };
    assert_eq!(late, expected);
}

/// A read does not wait for the sync of operations that arrived together with it.
#[test]
fn reads_are_answered_before_operations_of_the_same_batch() {
    let (disk, clock) = (TestDisk::default(), Arc::<TestClock>::default());
    let pacing = Arc::new(Pacing::new(Mode::Never, clock.clone(), ()));
    let parts = Parts::open(&disk, &clock, random(), &settings(), pacing, 1);
    let mut parts = parts.expect("a new store");
    parts.preparer.step().expect("the next segment");
    let (reply, mut applied) = oneshot::channel();
    let operation = Submission {
        request: Request::Operation(Attempt::from(add(1)), reply),
        reply_to: Address::Task,
        arrived: Duration::ZERO,
    };
    let (lookup, mut found) = lookup(&serial_number(1), Address::Task);
    let (reply, mut page) = oneshot::channel();
    let list = List {
        table: Table::Widgets,
        filter: Filter::EVERYTHING,
        direction: Direction::Ascending,
        offset: 0,
        limit: 10,
        count: false,
        asker: Asker::default(),
    };
    let list = Submission {
        request: Request::Read(Read::List(Box::new(Asked::new(list, reply)))),
        reply_to: Address::Task,
        arrived: Duration::ZERO,
    };
    parts
        .owner
        .step(&mut VecDeque::from([operation, lookup, list]));
    assert_eq!(applied.try_recv(), Ok(Ok(Applied::Now)));
    assert_eq!(found.try_recv(), Ok(Ok(None)));
    let page = page.try_recv().expect("answered").expect("a page");
    assert_eq!(page.rows.len(), 0);
}

/// Of requests that are pushed together, the limit refuses only those that it has no room for.
#[test]
fn queue_limits_refuse_only_the_requests_beyond_them() {
    let by_number = Settings {
        queue_operations_max: 2,
        ..settings()
    };
    let by_bytes = Settings {
        queue_operations_max: 100,
        queue_bytes_max: 9,
        ..settings()
    };
    for (settings, limit) in [
        (by_number, "queue_operations_max = 2"),
        (by_bytes, "queue_bytes_max = 9"),
    ] {
        let queue = Queue::new(&settings, log(&settings));
        let (mut submissions, mut answers): (Vec<_>, Vec<_>) = ["four", "more", "none"]
            .map(|each| lookup(each, Address::Task))
            .into_iter()
            .unzip();
        queue.push_all(&mut submissions);
        assert!(submissions.is_empty());
        let refused = answers.pop().expect("the third").try_recv();
        match refused {
            Ok(Err(Fault::Busy { limit: named, .. })) => assert_eq!(named, limit),
            other => panic!("{other:?}"),
        }
        assert!(answers.iter_mut().all(|each| each.try_recv().is_err()));
        assert_eq!(taken(&queue), 2);
        // There is room again.
        push(&queue, "last");
        assert_eq!(taken(&queue), 1);
    }
}

#[test]
fn a_closed_queue_refuses_new_requests_and_delivers_waiting_ones() {
    let queue = Queue::new(&settings(), log(&settings()));
    push(&queue, "before");
    queue.close();
    let (late, mut answer) = lookup("after", Address::Task);
    queue.push_all(&mut vec![late]);
    let answer = answer.try_recv().expect("answered at once");
    assert!(matches!(answer, Err(Fault::Unavailable { .. })));
    assert_eq!(taken(&queue), 1);
    assert!(!queue.take(&mut VecDeque::new(), &mut Replies::default(), Duration::MAX));
}

/// Everything that the tasks of one runtime ask in one turn reaches the owner together and in
/// order, and each answer reaches the task that asked.
#[tokio::test]
async fn requests_of_one_runtime_turn_form_one_batch() {
    let queue = Arc::new(Queue::new(
        &Settings {
            queue_operations_max: 100,
            ..settings()
        },
        log(&settings()),
    ));
    let mailbox = mailbox(&queue);
    let address = queue.register(mailbox.clone());
    let asked: Vec<_> = (0..20)
        .map(|number| {
            let mailbox = mailbox.clone();
            task::spawn(async move {
                let (submission, answer) = lookup(&format!("sn{number}"), address);
                mailbox.submit(submission);
                answer.await.expect("not dropped")
            })
        })
        .collect();
    let mut replies = Replies::default();
    let mut batch = VecDeque::new();
    while batch.is_empty() {
        task::yield_now().await;
        assert!(queue.take(&mut batch, &mut replies, Duration::ZERO));
    }
    assert_eq!(batch.len(), asked.len());
    for (number, submission) in batch.into_iter().enumerate() {
        replies.send(submission.reply_to, refused(submission.request, number));
    }
    replies.flush(1);
    for (number, task) in asked.into_iter().enumerate() {
        match task.await.expect("no panic") {
            Err(Fault::Unavailable { reason }) => {
                assert_eq!(reason.details(), Some(&*number.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Answers wake a thread that rests before it waits for events.
#[test]
fn answers_unpark_a_resting_runtime_thread() {
    let resting = Arc::new(AtomicBool::new(false));
    let rests = resting.clone();
    let runtime = runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            // Would never return if nobody unparked the thread.
            if rests.swap(false, Ordering::Relaxed) {
                thread::park();
            }
        })
        .build()
        .expect("a runtime without I/O");
    let queue = Arc::new(Queue::new(&settings(), log(&settings())));
    runtime.block_on(async {
        let mailbox = mailbox(&queue);
        let address = queue.register(mailbox.clone());
        let (submission, answer) = lookup("sn", address);
        mailbox.submit(submission);
        resting.store(true, Ordering::Relaxed);
        let owner = thread::spawn(move || {
            let (mut batch, mut replies) = (VecDeque::new(), Replies::default());
            assert!(queue.take(&mut batch, &mut replies, Duration::MAX));
            for submission in batch {
                replies.send(submission.reply_to, refused(submission.request, 0));
            }
            replies.flush(1);
        });
        assert!(answer.await.expect("not dropped").is_err());
        owner.join().expect("no panic");
    });
}

/// While too much is unacknowledged, the owner rests whatever arrives. A record of the holder must
/// wake it: until that is written, nothing may be acknowledged.
#[test]
fn a_record_of_the_holder_wakes_a_resting_owner_and_nothing_else_does() {
    let queue = Arc::new(Queue::new(&settings(), log(&settings())));
    let resting = queue.clone();
    let owner = thread::spawn(move || {
        resting.rest(Duration::MAX);
        let mut batch = VecDeque::new();
        resting.take_urgent(&mut batch, &mut Replies::default());
        batch.len()
    });
    while !queue.is_rested_on() {
        thread::yield_now();
    }
    push(&queue, "ordinary");
    assert!(queue.is_rested_on(), "it was woken");
    let (reply, _outcome) = oneshot::channel();
    let naming = Naming {
        member: None,
        is_first: false,
    };
    queue.push_all(&mut vec![Submission {
        request: Request::Record(naming, reply),
        reply_to: Address::Task,
        arrived: Duration::ZERO,
    }]);
    // Would never return if nobody woke the owner.
    assert_eq!(owner.join().expect("no panic"), 1, "only the record");
    assert_eq!(taken(&queue), 1, "the ordinary request keeps its place");
}

/// An owner that lets requests accumulate is unparked when there are enough of them, and not
/// before.
#[test]
fn the_owner_is_unparked_once_enough_requests_wait() {
    let queue = Arc::new(Queue::new(
        &Settings {
            queue_operations_max: 2 * ENOUGH,
            ..settings()
        },
        log(&settings()),
    ));
    let push = |count| {
        let asked = (0..count).map(|_| lookup("sn", Address::Task).0);
        queue.push_all(&mut asked.collect());
    };
    let owner = thread::current();
    assert!(queue.unpark_when_enough(owner.clone()));
    push(ENOUGH - 1);
    assert!(queue.unpark_when_enough(owner.clone()), "one is missing");
    let pushing = queue.clone();
    let last = thread::spawn(move || pushing.push_all(&mut vec![lookup("last", Address::Task).0]));
    // Would never return if nobody unparked this thread.
    loop {
        thread::park();
        if queue.depth().requests == ENOUGH {
            break;
        }
    }
    last.join().expect("no panic");
    assert!(!queue.unpark_when_enough(owner.clone()));
    assert_eq!(taken(&queue), ENOUGH);
    // Once the requests are taken, nobody is unparked.
    push(ENOUGH);
    assert!(!queue.unpark_when_enough(owner));
}
