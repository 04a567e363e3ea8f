//! Random histories against the model: of one caller, of concurrent callers with separate widgets,
//! and of concurrent callers with the same widgets.

use super::{Subject, decided};
use crate::{
    Model,
    commands::{boundary_serial_numbers, commands, few_serial_numbers, rests_on_the_state, sample},
    linearizability::{Call, Clock, Request, check},
};
use proptest::{collection::vec, sample::select, strategy::Strategy as _};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::Barrier;
use widgets_registry::{Command, Operation, SerialNumber, Store};

pub(super) async fn a_sequential_history_agrees_with_the_model<S: Store>(subject: &Subject<'_, S>) {
    let serial_numbers = few_serial_numbers(&subject.prefix, 7);
    let history = sample(&vec(commands(serial_numbers.clone()), 1500), 1);
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut model = Model::default();
    for (number, command) in history.into_iter().enumerate() {
        let expected = model.apply(&command);
        match &expected {
            Ok(()) => drop(accepted.insert(command.operation())),
            Err(refusal) => {
                assert!(rests_on_the_state(refusal));
                refused.insert(refusal.code());
            }
        }
        let asked = format!("command {number}, {command:?}");
        assert_eq!(subject.submit(command).await, expected, "{asked}");
    }
    subject.must_equal(&model, &serial_numbers).await;
    // The history is only useful if it meets everything.
    assert_eq!(accepted, BTreeSet::from(Operation::ALL));
    let every_refusal = ["23505", "WG001", "WG002", "WG003", "WG004"];
    assert_eq!(refused, BTreeSet::from(every_refusal));
}

pub(super) async fn a_history_of_boundary_texts_agrees_with_the_model<S: Store>(
    subject: &Subject<'_, S>,
) {
    // Only a few widgets at a time, because more would seldom meet.
    for (seed, texts) in boundary_serial_numbers(&subject.prefix)
        .chunks(8)
        .enumerate()
    {
        if texts.len() < 2 {
            continue;
        }
        let history = sample(&vec(commands(texts.to_vec()), 60), seed as u64);
        let mut model = Model::default();
        for command in history {
            let (expected, asked) = (model.apply(&command), format!("{command:?}"));
            assert_eq!(subject.submit(command).await, expected, "{asked}");
        }
        subject.must_equal(&model, texts).await;
    }
}

/// Groups of widgets that have nothing to do with each other: however their histories interleave,
/// each agrees with its own model.
pub(super) async fn independent_concurrent_histories_agree_with_the_model<S: Store>(
    subject: &Subject<'_, S>,
) {
    let groups: Vec<Vec<SerialNumber>> = (0..12)
        .map(|group| few_serial_numbers(&format!("{}{group}/", subject.prefix), 5))
        .collect();
    let mut tasks = Vec::new();
    for (seed, group) in groups.iter().enumerate() {
        let store = subject.store().clone();
        let history: Vec<Command> = sample(&vec(commands(group.clone()), 120), seed as u64);
        tasks.push(tokio::spawn(async move {
            let mut model = Model::default();
            for command in history {
                let (expected, asked) = (model.apply(&command), command.clone());
                let outcome = decided(&asked, store.submit(command).await);
                assert_eq!(outcome, expected, "{asked:?}");
            }
            model
        }));
    }
    for (task, group) in tasks.into_iter().zip(&groups) {
        let model = task.await.expect("the group agrees with its model");
        subject.must_equal(&model, group).await;
    }
}

/// Few callers on few widgets: some order of all calls, including lookups, explains all answers.
pub(super) async fn concurrent_histories_are_linearizable<S: Store>(subject: &Subject<'_, S>) {
    const CALLERS: usize = 4;
    for round in 0..40 {
        let prefix = format!("{}{round}/", subject.prefix);
        let serial_numbers = few_serial_numbers(&prefix, 4);
        let request = proptest::prop_oneof![
            3 => commands(serial_numbers.clone()).prop_map(Request::Submit),
            1 => select(serial_numbers.clone()).prop_map(Request::Lookup),
        ];
        // First by one caller alone, so that there is something to race for.
        let mut model = Model::default();
        for command in sample(&vec(commands(serial_numbers.clone()), 12), round) {
            let expected = model.apply(&command);
            assert_eq!(subject.submit(command).await, expected);
        }
        let (clock, start) = (Arc::new(Clock::default()), Arc::new(Barrier::new(CALLERS)));
        let mut tasks = Vec::new();
        for requests in sample(&vec(vec(request, 5), CALLERS), round) {
            let (store, clock, start) = (subject.store().clone(), clock.clone(), start.clone());
            tasks.push(tokio::spawn(async move {
                start.wait().await;
                let mut calls = Vec::new();
                for request in requests {
                    calls.extend(clock.call(&store, request).await);
                }
                calls
            }));
        }
        let mut calls: Vec<Call> = Vec::new();
        for task in tasks {
            calls.extend(task.await.expect("the store answers"));
        }
        assert_eq!(calls.len(), CALLERS * 5, "the store failed");
        for serial_number in &serial_numbers {
            let lookup = Request::Lookup(serial_number.clone());
            calls.extend(clock.call(subject.store(), lookup).await);
        }
        if let Err(what) = check(&model, &calls) {
            panic!("round {round}: {what}");
        }
    }
}
