//! Operations with idempotency keys: a retry gets the same answer as the first attempt, and is
//! applied once.

use super::Subject;
use crate::{
    Model,
    commands::{
        add_widget, associate_widgets, commands, few_serial_numbers, remove_association,
        remove_widget, sample,
    },
};
use proptest::{collection::vec, prelude::*};
use std::sync::Arc;
use tokio::sync::Barrier;
use widgets_registry::{
    Applied, Attempt, Author, Command, IdempotencyKey, Port, Refusal, Rejection, Store,
    query::Asker,
};

/// How many callers send the same request.
const CALLERS: usize = 12;

impl<S: Store> Subject<'_, S> {
    /// Returns an attempt with a key that only this case uses.
    fn keyed(&self, key: &str, command: Command) -> Attempt {
        Attempt {
            command,
            author: Author::new("ann"),
            key: IdempotencyKey::new(&format!("{}{key}", self.prefix)),
            asker: Asker::default(),
        }
    }

    pub(super) async fn attempt(&self, attempt: &Attempt) -> Result<Applied, Rejection> {
        let outcome = self.store().ask(attempt.clone()).await;
        if let Err(Rejection::Fault(fault)) = &outcome {
            panic!("the store failed at {attempt:?}: {fault}");
        }
        outcome
    }
}

/// Retries get the first answer, whether it accepted or refused the operation, even if another
/// answer would be right by then.
pub(super) async fn retries_get_the_answer_of_the_first_attempt<S: Store>(
    subject: &Subject<'_, S>,
) {
    let (a, b, c) = (
        subject.serial_number("A"),
        subject.serial_number("B"),
        subject.serial_number("C"),
    );
    let missing = subject.serial_number("missing");
    let steps = [
        add_widget(&a, "one", "PQ"),
        add_widget(&b, "two", "PQ"),
        add_widget(&c, "three", "P"),
        add_widget(&a, "again", ""),
        associate_widgets(&missing, &a, Port::P),
        associate_widgets(&a, &missing, Port::P),
        associate_widgets(&a, &b, Port::P),
        associate_widgets(&b, &a, Port::P),
        associate_widgets(&a, &c, Port::P),
        associate_widgets(&c, &a, Port::P),
        remove_association(&a, &c, Port::P),
        remove_association(&b, &a, Port::P),
        remove_widget(&missing),
        remove_widget(&a),
    ];
    let mut first = Vec::new();
    for (number, command) in steps.into_iter().enumerate() {
        let attempt = subject.keyed(&number.to_string(), command);
        let outcome = subject.attempt(&attempt).await;
        assert!(
            !matches!(outcome, Ok(Applied::Before) | Err(Rejection::Replayed(_))),
            "{attempt:?}: {outcome:?}"
        );
        first.push((attempt, outcome));
    }
    let seen = [&a, &b, &c, &missing];
    let mut before = Vec::new();
    for serial_number in seen {
        before.push(subject.lookup(serial_number).await);
    }
    // In reverse order, so that most of them would now have a different outcome.
    for (attempt, outcome) in first.iter().rev() {
        let expected = match outcome {
            Ok(_) => Ok(Applied::Before),
            Err(Rejection::Refused(refusal)) => Err(Rejection::Replayed(refusal.clone())),
            Err(other) => panic!("{attempt:?}: {other}"),
        };
        assert_eq!(subject.attempt(attempt).await, expected, "{attempt:?}");
    }
    for (serial_number, before) in seen.into_iter().zip(before) {
        assert_eq!(subject.lookup(serial_number).await, before);
    }
}

pub(super) async fn a_key_used_with_another_request_is_refused<S: Store>(subject: &Subject<'_, S>) {
    let (a, b) = (subject.serial_number("A"), subject.serial_number("B"));
    let first = subject.keyed("key", add_widget(&a, "name", "PQ"));
    assert_eq!(subject.attempt(&first).await, Ok(Applied::Now));
    for command in [
        add_widget(&a, "name", "QP"),
        add_widget(&a, "other", "PQ"),
        add_widget(&b, "name", "PQ"),
        remove_widget(&a),
        associate_widgets(&a, &b, Port::P),
        remove_association(&a, &b, Port::P),
    ] {
        let other = subject.keyed("key", command);
        let reused = Err(Rejection::Refused(Refusal::KeyReused));
        assert_eq!(subject.attempt(&other).await, reused, "{other:?}");
    }
    assert_eq!(subject.slots(&a).await, "P Q");
    assert_eq!(subject.lookup(&b).await, None);
    assert_eq!(subject.attempt(&first).await, Ok(Applied::Before));
}

pub(super) async fn equal_keys_of_different_callers_are_independent<S: Store>(
    subject: &Subject<'_, S>,
) {
    let mut expected = Ok(Applied::Now);
    let a = subject.serial_number("A");
    for author in [Author::new("ann"), Author::new("bob"), None] {
        let attempt = Attempt {
            author,
            ..subject.keyed("key", add_widget(&a, "", ""))
        };
        assert_eq!(subject.attempt(&attempt).await, expected, "{attempt:?}");
        let serial_number = a.clone();
        expected = Err(Rejection::Refused(Refusal::SerialNumberTaken {
            serial_number,
        }));
    }
}

/// One of the attempts is applied. The others are answered that it was applied before, or that it
/// is in progress.
pub(super) async fn simultaneous_retries_are_applied_once<S: Store>(subject: &Subject<'_, S>) {
    let hub = subject.add("hub", "P").await;
    let spoke = subject.add("spoke", "P").await;
    for round in 0..10 {
        let command = match round % 2 {
            0 => associate_widgets(&hub, &spoke, Port::P),
            _ => remove_association(&hub, &spoke, Port::P),
        };
        let attempt = subject.keyed(&round.to_string(), command);
        let start = Arc::new(Barrier::new(CALLERS));
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let (store, start) = (subject.store().clone(), start.clone());
            let attempt = attempt.clone();
            callers.push(tokio::spawn(async move {
                start.wait().await;
                store.ask(attempt).await
            }));
        }
        let mut applied = 0;
        for caller in callers {
            match caller.await.expect("the store answers") {
                Ok(Applied::Now) => applied += 1,
                Ok(Applied::Before) | Err(Rejection::Refused(Refusal::KeyInUse)) => {}
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        assert_eq!(applied, 1, "round {round}");
        assert_eq!(subject.attempt(&attempt).await, Ok(Applied::Before));
    }
}

/// Retries, the same keys with other requests, and operations without keys, all at the same time.
pub(super) async fn retries_among_other_operations_agree_with_the_model<S: Store>(
    subject: &Subject<'_, S>,
) {
    const GROUPS: u64 = 8;
    let mut groups = Vec::new();
    for group in 0..GROUPS {
        let prefix = format!("{}{group}/", subject.prefix);
        let serial_numbers = few_serial_numbers(&prefix, 4);
        let key = prop_oneof![1 => Just(None), 3 => (0..60_u32).prop_map(Some)];
        let steps = sample(
            &vec((commands(serial_numbers.clone()), key, any::<bool>()), 200),
            group,
        );
        let stores: Vec<S> = subject.stores.to_vec();
        groups.push(tokio::spawn(async move {
            let mut model = Model::default();
            let mut used: Vec<(u32, Command, Result<(), Refusal>)> = Vec::new();
            for (number, (mut command, key, repeats)) in steps.into_iter().enumerate() {
                let known = key.and_then(|key| used.iter().find(|(used, ..)| *used == key));
                if let Some((_, first, _)) = known
                    && repeats
                {
                    command = first.clone();
                }
                let expected = match known {
                    Some((_, first, outcome)) if *first == command => match outcome {
                        Ok(()) => Ok(Applied::Before),
                        Err(refusal) => Err(Rejection::Replayed(refusal.clone())),
                    },
                    Some(_) => Err(Rejection::Refused(Refusal::KeyReused)),
                    None => {
                        let outcome = model.apply(&command);
                        if let Some(key) = key {
                            used.push((key, command.clone(), outcome.clone()));
                        }
                        outcome.map(|()| Applied::Now).map_err(Rejection::Refused)
                    }
                };
                let key = key.map(|key| format!("{prefix}{key}"));
                let attempt = Attempt {
                    command,
                    author: None,
                    key: key.and_then(|key| IdempotencyKey::new(&key)),
                    asker: Asker(number as u64 % 3),
                };
                let store = &stores[number % stores.len()];
                let asked = format!("step {number}, {attempt:?}");
                assert_eq!(store.ask(attempt).await, expected, "{asked}");
            }
            model
        }));
    }
    for (group, task) in groups.into_iter().enumerate() {
        let model = task.await.expect("the group agrees with its model");
        let serial_numbers = few_serial_numbers(&format!("{}{group}/", subject.prefix), 4);
        subject.must_equal(&model, &serial_numbers).await;
    }
}
