//! Decides whether the observations of concurrent callers can have happened one by one.
//!
//! This is the search of Wing and Gong with the memory of Lowe ("Testing for linearizability",
//! 2017). It takes any call that began before every remaining call had returned, applies it to the
//! model, and continues if the answer agrees. It never continues twice from the same remaining
//! calls with the same model.
//!
//! Widgets that neither a call nor an association connects are searched separately: a history is
//! linearizable exactly if each of its objects is (Herlihy and Wing, 1990).

use crate::Model;
use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
};
use widgets_registry::{
    Attempt, Author, Command, Fault, Lookup, Refusal, Rejection, SerialNumber, Store, Widget,
};

/// A caller's request.
#[derive(Clone, Debug)]
pub enum Request {
    /// One of the four operations.
    Submit(Command),
    /// A lookup.
    Lookup(SerialNumber),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The outcome of an operation.
    Decided(Result<(), Refusal>),
    /// The result of a lookup.
    Found(Option<Widget>),
}

/// One call of one caller.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// The answer. `None` if it is unknown, for example after a crash: the operation may then take
    /// effect at any time after it was invoked, or never.
    pub answer: Option<Answer>,
    /// When the call began, on the [`Clock`] of the history.
    pub invoked: u64,
    /// When it was answered. Meaningless without an answer.
    pub returned: u64,
}

/// Orders the beginnings and ends of all calls of a history.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// Returns a time after every earlier one.
    pub fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes one call and records it. Returns `None` if a fault says that nothing was applied.
    pub async fn call<S: Store>(&self, store: &S, request: Request) -> Option<Call> {
        self.call_as(store, request, None).await
    }

    /// Makes and records one call under this name.
    pub async fn call_as<S: Store>(
        &self,
        store: &S,
        request: Request,
        author: Option<Author>,
    ) -> Option<Call> {
        let invoked = self.tick();
        let answer = match &request {
            Request::Submit(command) => {
                let attempt = Attempt {
                    author,
                    ..Attempt::from(command.clone())
                };
                match store.ask(attempt).await {
                    Ok(_) => Some(Answer::Decided(Ok(()))),
                    Err(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => {
                        Some(Answer::Decided(Err(refusal)))
                    }
                    Err(Rejection::Fault(Fault::FateUnknown { .. })) => None,
                    Err(Rejection::Fault(Fault::Busy { .. } | Fault::Unavailable { .. })) => {
                        return None;
                    }
                }
            }
            Request::Lookup(serial_number) => {
                let found = store.ask(Lookup(serial_number.clone())).await.ok()?;
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

/// Checks that these calls, made on `initial`, can have happened one by one, each between its
/// beginning and its end. The error contains the calls.
///
/// The time grows with the number of calls, and exponentially with how many overlap: use it with at
/// most about ten callers.
pub fn check(initial: &Model, calls: &[Call]) -> Result<(), String> {
    check_until(initial, calls, None)
}

/// Like [`check`]. If `end` is known, it must also be the final state: no call takes effect later.
pub fn check_until(initial: &Model, calls: &[Call], end: Option<&Model>) -> Result<(), String> {
    let mut connected = Connected::default();
    for model in end.into_iter().chain([initial]) {
        model
            .serial_numbers()
            .for_each(|each| connected.join([each]));
        model.pairs().for_each(|pair| connected.join(pair));
    }
    for call in calls {
        connected.join(call.request.serial_numbers());
    }
    let mut parts: BTreeMap<usize, Vec<&Call>> = connected.roots();
    for call in calls {
        let first = call.request.serial_numbers().next();
        let root = first.and_then(|first| connected.root(first));
        root.and_then(|root| parts.get_mut(&root))
            .expect("every call names a widget, and each is known")
            .push(call);
    }
    for (root, mut calls) in parts {
        let part = |model: &Model| model.part(|each| connected.root(each) == Some(root));
        calls.sort_by_key(|call| call.invoked);
        let (initial, end) = (part(initial), end.map(part));
        if !Search::new(initial.clone(), &calls, end.as_ref()).succeeds() {
            let calls: Vec<String> = calls.iter().map(|call| format!("{call:?}")).collect();
            let calls = calls.join("\n");
            let end = end.map_or(String::new(), |end| format!("\nand then {end:?}"));
            return Err(format!(
                "no order explains these calls on {initial:?}:\n{calls}{end}"
            ));
        }
    }
    Ok(())
}

impl Request {
    /// Returns the widgets that the request names.
    fn serial_numbers(&self) -> impl Iterator<Item = &SerialNumber> {
        let (first, second) = match self {
            Self::Lookup(serial_number)
            | Self::Submit(
                Command::AddWidget { serial_number, .. } | Command::RemoveWidget { serial_number },
            ) => (serial_number, None),
            Self::Submit(Command::AssociateWidgets(pair) | Command::RemoveAssociation(pair)) => {
                (pair.widget1(), Some(pair.widget2()))
            }
        };
        [Some(first), second].into_iter().flatten()
    }
}

/// The widgets that can affect each other.
#[derive(Default)]
struct Connected<'a> {
    numbers: BTreeMap<&'a SerialNumber, usize>,
    /// For each number, another one that it is connected with, or itself.
    towards: Vec<usize>,
}

impl<'a> Connected<'a> {
    fn join(&mut self, serial_numbers: impl IntoIterator<Item = &'a SerialNumber>) {
        let mut first = None;
        for serial_number in serial_numbers {
            let next = self.towards.len();
            let number = *self.numbers.entry(serial_number).or_insert(next);
            if number == next {
                self.towards.push(number);
            }
            let root = self.root_of(number);
            let first = *first.get_or_insert(root);
            self.towards[root] = first;
        }
    }

    fn root_of(&self, mut number: usize) -> usize {
        while self.towards[number] != number {
            number = self.towards[number];
        }
        number
    }

    fn root(&self, serial_number: &SerialNumber) -> Option<usize> {
        let number = self.numbers.get(serial_number)?;
        Some(self.root_of(*number))
    }

    /// Returns every root with an empty list.
    fn roots<T>(&self) -> BTreeMap<usize, Vec<T>> {
        let numbers = 0..self.towards.len();
        let roots = numbers.filter(|&number| self.towards[number] == number);
        roots.map(|root| (root, Vec::new())).collect()
    }
}

/// A depth-first search for an order.
struct Search<'a> {
    /// In order of their beginning.
    calls: &'a [&'a Call],
    end: Option<&'a Model>,
    /// The states reached by the calls taken so far, each with the calls that can be tried next.
    path: Vec<Step>,
    /// States from which no path leads to the end.
    dead: HashSet<(Vec<bool>, Model)>,
}

struct Step {
    taken: Vec<bool>,
    model: Model,
    /// The calls that can come next. The last is tried first.
    candidates: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(initial: Model, calls: &'a [&'a Call], end: Option<&'a Model>) -> Self {
        let mut search = Self {
            calls,
            end,
            path: Vec::new(),
            dead: HashSet::new(),
        };
        search.enter(vec![false; calls.len()], initial);
        search
    }

    /// Adds a step, unless it is known to lead nowhere.
    fn enter(&mut self, taken: Vec<bool>, model: Model) {
        let mut candidates = Vec::new();
        let mut first_return = u64::MAX;
        for (number, call) in self.calls.iter().enumerate() {
            if call.invoked > first_return {
                break;
            }
            if !taken[number] {
                candidates.push(number);
                if call.answer.is_some() {
                    first_return = first_return.min(call.returned);
                }
            }
        }
        candidates.retain(|&number| self.calls[number].invoked < first_return);
        // Answered calls are tried first, in order of their beginning, because this is usually the
        // right order.
        candidates.sort_by_key(|&number| {
            let is_answered = self.calls[number].answer.is_some();
            (is_answered, std::cmp::Reverse(number))
        });
        let step = (taken, model);
        if !self.dead.contains(&step) {
            let (taken, model) = step;
            self.path.push(Step {
                taken,
                model,
                candidates,
            });
        }
    }

    fn succeeds(mut self) -> bool {
        while let Some(step) = self.path.last_mut() {
            let mut remaining = self.calls.iter().zip(&step.taken);
            let all_answered_taken = remaining.all(|(call, taken)| *taken || call.answer.is_none());
            if all_answered_taken && self.end.is_none_or(|end| *end == step.model) {
                return true;
            }
            let Some(number) = step.candidates.pop() else {
                if let Some(Step { taken, model, .. }) = self.path.pop() {
                    self.dead.insert((taken, model));
                }
                continue;
            };
            let call = self.calls[number];
            let mut model = step.model.clone();
            let answer = match &call.request {
                Request::Submit(command) => Answer::Decided(model.apply(command)),
                Request::Lookup(serial_number) => Answer::Found(model.lookup(serial_number)),
            };
            if call.answer.as_ref().is_none_or(|seen| *seen == answer) {
                let mut taken = step.taken.clone();
                taken[number] = true;
                self.enter(taken, model);
            }
        }
        false
    }
}
