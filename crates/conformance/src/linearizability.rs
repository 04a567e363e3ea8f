//! Whether what concurrent callers saw can have happened one by one.
//!
//! The search of Wing and Gong with the memory of Lowe ("Testing for linearizability", 2017): take
//! any call that began before every remaining one had returned, apply it to the model, go on where
//! its answer agrees, and never visit the same remainder with the same model twice.

use crate::Model;
use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};
use widgets_registry::{Command, Fault, Refusal, Rejection, SerialNumber, Store, Widget};

/// What a caller asked for.
#[derive(Clone, Debug)]
pub enum Request {
    /// One of the four operations.
    Submit(Command),
    /// A lookup.
    Lookup(SerialNumber),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The outcome of an operation.
    Decided(Result<(), Refusal>),
    /// What a lookup found.
    Found(Option<Widget>),
}

/// One call of one caller.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was asked.
    pub request: Request,
    /// What was answered; `None` where that is unknown, as after a crash: the operation may take
    /// effect at any time after it was invoked, or never.
    pub answer: Option<Answer>,
    /// When it began, on the [`Clock`] of the history.
    pub invoked: u64,
    /// When it was answered. Means nothing without an answer.
    pub returned: u64,
}

/// Orders the beginnings and ends of all calls of a history.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// A moment after every earlier one.
    pub fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes one call and records it. `None` where a fault says that nothing was applied.
    pub async fn call<S: Store>(&self, store: &S, request: Request) -> Option<Call> {
        let invoked = self.tick();
        let answer = match &request {
            Request::Submit(command) => match store.submit(command.clone()).await {
                Ok(()) => Some(Answer::Decided(Ok(()))),
                Err(Rejection::Refused(refusal)) => Some(Answer::Decided(Err(refusal))),
                Err(Rejection::Fault(Fault::FateUnknown { .. })) => None,
                Err(Rejection::Fault(Fault::Busy { .. } | Fault::Unavailable { .. })) => {
                    return None;
                }
            },
            Request::Lookup(serial_number) => {
                let found = store.lookup(serial_number.clone()).await.ok()?;
                Some(Answer::Found(found))
            }
        };
        Some(Call {
            request,
            answer,
            invoked,
            returned: self.tick(),
        })
    }
}

/// Whether these calls, made on `initial`, can have happened one by one, each between its beginning
/// and its end. Says what the callers saw if not.
///
/// The time grows with the number of calls and exponentially with how many overlap: meant for at
/// most some ten callers.
pub fn check(initial: &Model, calls: &[Call]) -> Result<(), String> {
    let mut open = vec![(vec![false; calls.len()], initial.clone())];
    let mut visited = HashSet::new();
    while let Some((taken, model)) = open.pop() {
        let remaining = || (0..calls.len()).filter(|&call| !taken[call]);
        let first_return = remaining()
            .filter(|&call| calls[call].answer.is_some())
            .map(|call| calls[call].returned)
            .min();
        let Some(first_return) = first_return else {
            return Ok(());
        };
        for call in remaining().filter(|&call| calls[call].invoked < first_return) {
            let mut after = model.clone();
            let answer = match &calls[call].request {
                Request::Submit(command) => Answer::Decided(after.apply(command)),
                Request::Lookup(serial_number) => Answer::Found(after.lookup(serial_number)),
            };
            if calls[call]
                .answer
                .as_ref()
                .is_some_and(|seen| *seen != answer)
            {
                continue;
            }
            let mut taken = taken.clone();
            taken[call] = true;
            if visited.insert((taken.clone(), after.clone())) {
                open.push((taken, after));
            }
        }
    }
    let mut calls: Vec<&Call> = calls.iter().collect();
    calls.sort_by_key(|call| call.invoked);
    let calls: Vec<String> = calls.iter().map(|call| format!("{call:?}")).collect();
    let calls = calls.join("\n");
    Err(format!(
        "no order explains these calls on {initial:?}:\n{calls}"
    ))
}
