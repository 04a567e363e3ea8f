//! The embedded store passes the suite that every store must pass, and its batches agree with the
//! model.

#![expect(
    clippy::expect_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

use proptest::collection::vec;
use std::{
    path::Path,
    task::{Context, Poll, Waker},
};
use widgets_conformance::{
    Model, check_changes, check_free_slots, check_key_shares, check_store,
    commands::{commands, few_serial_numbers, sample},
};
use widgets_engine::{Engine, Settings};
use widgets_registry::{Ask as _, Kinds as _, Lookup, Port, PortCounts, Rejection};

/// How many operations may wait at a time, and therefore how many a batch can have.
const QUEUE_OPERATIONS_MAX: usize = 64;

/// Opens a new store with segments so small that a test crosses many of them.
fn open(name: &str) -> Engine {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&path));
    let settings = Settings {
        queue_operations_max: QUEUE_OPERATIONS_MAX,
        segment_bytes: 256 << 10,
        ..Settings::default()
    };
    Engine::open(&path, &settings).expect("a new store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_embedded_store_passes_the_conformance_suite() {
    let engine = open("conformance");
    // The first client gets its answers as a worker does; the second sends each answer directly to
    // its caller.
    let clients = [engine.client().on_current_runtime(), engine.client()];
    check_store(&clients, "").await;
    check_changes(&clients, "").await;
}

#[tokio::test]
async fn callers_keep_their_shares_of_idempotency_keys_across_a_restart() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("key-shares");
    drop(std::fs::remove_dir_all(&path));
    let settings = Settings {
        idempotency_keys_max: 60,
        ..Settings::default()
    };
    for prefix in ["", "again:"] {
        let engine = Engine::open(&path, &settings).expect("its store");
        check_key_shares(&[engine.client()], prefix, 60, async || ()).await;
        engine.checkpoint().expect("written");
    }
}

/// Returns the values of the metric.
fn free_slots(engine: &Engine) -> PortCounts {
    let registry = prometheus::Registry::new();
    engine
        .register_metrics(&registry)
        .expect("each name is new");
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .expect("valid metrics");
    let mut counts = PortCounts::default();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("widgets_free_slots{port=\"") else {
            continue;
        };
        let (port, slots) = rest.split_once("\"} ").expect("a label and a value");
        let slots = slots.parse().expect("a whole number");
        counts.add(Port::parse(port).expect("a port type"), slots);
    }
    counts
}

#[tokio::test]
async fn free_slots_are_counted_by_port_type_across_a_restart() {
    let engine = open("free-slots");
    let counted = async || free_slots(&engine);
    check_free_slots(&engine.client(), "", counted).await;
    engine.checkpoint().expect("written");
    check_free_slots(&engine.client(), "again:", counted).await;
    let before = free_slots(&engine);
    assert!(before.total() > 0);
    drop(engine);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("free-slots");
    let engine = Engine::open(&path, &Settings::default()).expect("the same store");
    assert_eq!(free_slots(&engine), before);
}

/// Operations are decided in the order of their arrival, so the answers to a whole batch can be
/// predicted.
#[tokio::test]
async fn long_histories_in_batches_agree_with_the_model() {
    let engine = open("batches");
    let client = engine.client();
    let serial_numbers = few_serial_numbers("w", 9);
    let history = sample(&vec(commands(serial_numbers.clone()), 30_000), 0);
    let mut model = Model::default();
    for batch in history.chunks(QUEUE_OPERATIONS_MAX) {
        // The first poll is the arrival. An operation that is decided immediately may be answered
        // by it.
        let mut arrive = Context::from_waker(Waker::noop());
        let mut submissions = Vec::new();
        for command in batch {
            let mut submission = Box::pin(client.submit(command.clone()));
            let answered = submission.as_mut().poll(&mut arrive);
            submissions.push((command, submission, answered));
        }
        for (command, submission, answered) in submissions {
            let outcome = match answered {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => submission.await,
            };
            let expected = model.apply(command).map_err(Rejection::from);
            assert_eq!(outcome, expected, "{command:?}");
        }
    }
    for serial_number in serial_numbers {
        let expected = Ok(model.lookup(&serial_number));
        assert_eq!(client.ask(Lookup(serial_number)).await, expected);
    }
}
