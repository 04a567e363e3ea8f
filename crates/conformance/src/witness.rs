//! Whether the order of a feed explains what concurrent callers saw.
//!
//! [`linearizability`](crate::linearizability) searches for an order, which takes long where many calls
//! overlap. A feed names one: the accepted operations in the order of their commits. What is left is to look
//! whether that one holds, in time that grows with the number of calls: each accepted operation is told once
//! and as the model has it, none before one that was answered before it began; and every refusal and every
//! lookup is right at some place of that order between its beginning and its end.

use crate::{
    Model,
    linearizability::{Answer, Call, Clock, Request},
};
use std::collections::BTreeMap;
use widgets_registry::{Author, Command, Event, SerialNumber, Store};

/// A call, and the name under which the feed has it: each call has another one.
#[derive(Clone, Debug)]
pub struct Witnessed {
    /// The call.
    pub call: Call,
    /// Who made it, as the feed says.
    pub by: Author,
}

/// Makes one call under this name and records it. `None` where a fault says that nothing was applied.
pub async fn call<S: Store>(
    clock: &Clock,
    store: &S,
    request: Request,
    by: Author,
) -> Option<Witnessed> {
    let call = clock.call_as(store, request, Some(by.clone())).await?;
    Some(Witnessed { call, by })
}

/// Whether these events, which follow on `initial`, explain all of these calls, and these calls all of the
/// events. Says what they do not.
pub fn check(initial: &Model, calls: &[Witnessed], events: &[Event]) -> Result<(), String> {
    let mut by_name: BTreeMap<&str, &Call> = BTreeMap::new();
    for Witnessed { call, by } in calls {
        if by_name.insert(by, call).is_some() {
            return Err(format!("two calls have the name {by:?}"));
        }
    }
    // What each event's call was, in the order of the events, with the state after each.
    let (mut told, mut models) = (Vec::new(), vec![initial.clone()]);
    let mut begun: u64 = 0;
    for event in events {
        let name = event.by.as_deref().unwrap_or_default();
        let call = by_name
            .remove(name)
            .ok_or_else(|| format!("nobody asked for this, or it is told twice: {event:?}"))?;
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
        // Whoever was answered before another one began is before it.
        begun = begun.max(call.invoked);
        if call.answer.is_some() && call.returned < begun {
            return Err(format!("{event:?} is told after one that began later"));
        }
        told.push(call);
        models.push(model);
    }
    let mut rest: Vec<&Call> = by_name.into_values().collect();
    rest.sort_by_key(|call| call.invoked);
    // When those that are placed returned, and after how many events that is.
    let mut placed: Vec<(u64, usize)> = Vec::new();
    for call in rest {
        let Some(answer) = &call.answer else {
            // It may never have been applied.
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
        // The first place that explains it leaves the most room for others.
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
