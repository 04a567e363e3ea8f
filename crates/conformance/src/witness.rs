//! Decides whether the order of a feed explains the observations of concurrent callers.
//!
//! [`linearizability`](crate::linearizability) searches for an order, which takes long if many
//! calls overlap. A feed gives one: the accepted operations in the order of their commits. It
//! remains to check that order, in time that grows with the number of calls. Each accepted
//! operation must be reported once and as the model predicts, and none after one that began after
//! its answer. Every refusal and every lookup must be right at some place in that order between its
//! beginning and its end.

use crate::{
    Model,
    linearizability::{Answer, Call, Clock, Request},
};
use std::collections::BTreeMap;
use widgets_registry::{Author, Command, Event, SerialNumber, Store};

/// A call, and the name under which the feed reports it. Each call has a different name.
#[derive(Clone, Debug)]
pub struct Witnessed {
    /// The call.
    pub call: Call,
    /// Who made it, as the feed reports.
    pub by: Author,
}

/// Makes one call under this name and records it. Returns `None` if a fault says that nothing was
/// applied.
pub async fn call<S: Store>(
    clock: &Clock,
    store: &S,
    request: Request,
    by: Author,
) -> Option<Witnessed> {
    let call = clock.call_as(store, request, Some(by.clone())).await?;
    Some(Witnessed { call, by })
}

/// Checks that these events, which follow `initial`, explain all of these calls, and these calls
/// all of the events. The error says which they do not explain.
pub fn check(initial: &Model, calls: &[Witnessed], events: &[Event]) -> Result<(), String> {
    let mut by_name: BTreeMap<&str, &Call> = BTreeMap::new();
    for Witnessed { call, by } in calls {
        if by_name.insert(by, call).is_some() {
            return Err(format!("two calls have the name {by:?}"));
        }
    }
    // The call of each event, in the order of the events, with the states before and after each.
    let (mut told, mut models) = (Vec::new(), vec![initial.clone()]);
    let mut begun: u64 = 0;
    for event in events {
        let name = event.by.as_deref().unwrap_or_default();
        let call = by_name.remove(name).ok_or_else(|| {
            format!("nobody asked for this, or it is in the feed twice: {event:?}")
        })?;
        let Request::Submit(command) = &call.request else {
            return Err(format!("a lookup is told: {event:?}"));
        };
        let mut model = models.last().cloned().unwrap_or_default();
        let foretold = model.foretell(command);
        if let Err(refusal) = model.apply(command) {
            return Err(format!(
                "{command:?} is told where it is refused: {refusal}"
            ));
        }
        if foretold.as_ref() != Some(&event.happened) {
            return Err(format!("{event:?} is told of {command:?}: {foretold:?}"));
        }
        if matches!(&call.answer, Some(answer) if *answer != Answer::Decided(Ok(()))) {
            return Err(format!("{call:?} is told as {event:?}"));
        }
        // A call that was answered before another one began must come before it.
        begun = begun.max(call.invoked);
        if call.answer.is_some() && call.returned < begun {
            return Err(format!("{event:?} is told after one that began later"));
        }
        told.push(call);
        models.push(model);
    }
    let mut rest: Vec<&Call> = by_name.into_values().collect();
    rest.sort_by_key(|call| call.invoked);
    // For each call that was placed: when it returned, and after how many events it was placed.
    let mut placed: Vec<(u64, usize)> = Vec::new();
    for call in rest {
        let Some(answer) = &call.answer else {
            // The operation may never have been applied.
            continue;
        };
        if *answer == Answer::Decided(Ok(())) {
            return Err(format!("{call:?} is not told"));
        }
        let before = |(number, told): (usize, &&Call)| {
            (told.answer.is_some() && told.returned < call.invoked).then_some(number + 1)
        };
        let after_told = told.iter().enumerate().filter_map(before).max();
        let after_placed = placed
            .iter()
            .filter(|(returned, _)| *returned < call.invoked)
            .map(|(_, place)| *place)
            .max();
        let least = after_told.max(after_placed).unwrap_or_default();
        let most = told
            .iter()
            .position(|told| told.invoked > call.returned)
            .unwrap_or(told.len());
        // The first place that explains the call leaves the most room for others.
        let place = (least..=most).find(|&place| answers(&models[place], call, answer));
        let Some(place) = place else {
            return Err(format!(
                "nothing explains {call:?} after {least} to {most} of the changes, that is:\n{:?}",
                events.get(least..most)
            ));
        };
        placed.push((call.returned, place));
    }
    Ok(())
}

fn answers(model: &Model, call: &Call, answer: &Answer) -> bool {
    let lookup = |serial_number: &SerialNumber| Answer::Found(model.lookup(serial_number));
    let decide = |command: &Command| Answer::Decided(model.clone().apply(command));
    let expected = match &call.request {
        Request::Submit(command) => decide(command),
        Request::Lookup(serial_number) => lookup(serial_number),
    };
    expected == *answer
}

#[cfg(test)]
mod tests;
