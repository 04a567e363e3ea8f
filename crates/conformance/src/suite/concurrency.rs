//! Many callers at the same moment.

use super::Subject;
use crate::commands::{add_widget, associate_widgets, remove_association, remove_widget};
use widgets_registry::{Port, Refusal, SerialNumber, Store};

/// How many callers race for one thing.
const CALLERS: usize = 12;

/// How often each race is run.
const ROUNDS: usize = 5;

/// Returns how many were accepted. Every other one must have been refused with this code.
fn accepted(outcomes: &[Result<(), Refusal>], code: &str) -> usize {
    let refusals = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    for refusal in refusals {
        assert_eq!(refusal.code(), code, "{refusal}");
    }
    outcomes.iter().filter(|outcome| outcome.is_ok()).count()
}

pub(super) async fn one_of_many_concurrent_adds_is_accepted<S: Store>(subject: &Subject<'_, S>) {
    for round in 0..ROUNDS {
        let serial_number = subject.serial_number(&round.to_string());
        let adds = (0..CALLERS).map(|caller| add_widget(&serial_number, &caller.to_string(), "P"));
        let outcomes = subject.submit_together(adds).await;
        assert_eq!(accepted(&outcomes, "23505"), 1, "{outcomes:?}");
        let winner = outcomes
            .iter()
            .position(Result::is_ok)
            .expect("there is one");
        let found = subject.lookup(&serial_number).await.expect("it was added");
        assert_eq!(&*found.name, winner.to_string());
    }
}

pub(super) async fn one_of_many_concurrent_removals_is_accepted<S: Store>(
    subject: &Subject<'_, S>,
) {
    for round in 0..ROUNDS {
        let e = subject.add(&format!("E{round}"), "P").await;
        let f = subject.add(&format!("F{round}"), "P").await;
        subject.accept(associate_widgets(&e, &f, Port::P)).await;
        let parts = (0..CALLERS).map(|caller| match caller % 2 {
            0 => remove_association(&e, &f, Port::P),
            _ => remove_association(&f, &e, Port::P),
        });
        let outcomes = subject.submit_together(parts).await;
        assert_eq!(accepted(&outcomes, "WG004"), 1, "{outcomes:?}");
        let removals = (0..CALLERS).map(|_| remove_widget(&e));
        let outcomes = subject.submit_together(removals).await;
        assert_eq!(accepted(&outcomes, "WG001"), 1, "{outcomes:?}");
    }
}

pub(super) async fn concurrent_associations_take_each_free_slot_once<S: Store>(
    subject: &Subject<'_, S>,
) {
    for (round, slots) in ["P", "QPQ", "PRP", "PPP", "Q"].into_iter().enumerate() {
        let hub = subject.add(&format!("hub{round}"), slots).await;
        let mut spokes = Vec::new();
        for number in 0..CALLERS {
            spokes.push(subject.add(&format!("spoke{round}-{number}"), "PP").await);
        }
        // Half of the commands name the hub first.
        let commands = spokes
            .iter()
            .enumerate()
            .map(|(number, spoke)| match number % 2 {
                0 => associate_widgets(&hub, spoke, Port::P),
                _ => associate_widgets(spoke, &hub, Port::P),
            });
        let outcomes = subject.submit_together(commands).await;
        let free = slots.matches('P').count();
        assert_eq!(accepted(&outcomes, "WG002"), free, "{outcomes:?}");
        let winners = outcomes
            .iter()
            .zip(&spokes)
            .filter(|(outcome, _)| outcome.is_ok());
        let mut winners: Vec<&SerialNumber> = winners.map(|(_, spoke)| spoke).collect();
        winners.sort();
        let found = subject.lookup(&hub).await.expect("it was added");
        let mut peers: Vec<_> = found
            .slots
            .iter()
            .filter_map(|slot| slot.peer.as_ref())
            .collect();
        peers.sort();
        assert_eq!(peers, winners);
        for (outcome, spoke) in outcomes.iter().zip(&spokes) {
            let expected = match outcome {
                Ok(()) => format!("P:hub{round} P"),
                Err(refusal) => {
                    let no_slot =
                        format!("Widget with serial number {hub} has no free slot of port P");
                    assert_eq!(refusal.to_string(), no_slot);
                    "P P".into()
                }
            };
            assert_eq!(subject.slots(spoke).await, expected);
        }
    }
}

/// Operations that name the same two widgets in opposite orders do not fail, such as by a
/// deadlock.
pub(super) async fn concurrent_operations_in_opposite_orders_all_succeed<S: Store>(
    subject: &Subject<'_, S>,
) {
    let mut pairs = Vec::new();
    for number in 0..CALLERS {
        let one = subject.add(&format!("one{number}"), "PQR").await;
        pairs.push((one, subject.add(&format!("other{number}"), "PQR").await));
    }
    for _ in 0..ROUNDS {
        for command in [associate_widgets, remove_association] {
            let commands = pairs.iter().flat_map(|(one, other)| {
                [
                    command(one, other, Port::P),
                    command(other, one, Port::Q),
                    command(one, other, Port::R),
                ]
            });
            let outcomes = subject.submit_together(commands).await;
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        }
    }
}

/// Operations between each widget of a ring and the next do not fail, such as by a deadlock.
pub(super) async fn concurrent_operations_around_a_ring_all_succeed<S: Store>(
    subject: &Subject<'_, S>,
) {
    let mut ring = Vec::new();
    for number in 0..CALLERS {
        ring.push(subject.add(&number.to_string(), "PP").await);
    }
    for _ in 0..ROUNDS {
        for command in [associate_widgets, remove_association] {
            let commands = (0..CALLERS)
                .map(|number| command(&ring[number], &ring[(number + 1) % CALLERS], Port::P));
            let outcomes = subject.submit_together(commands).await;
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        }
    }
}

pub(super) async fn a_concurrent_removal_leaves_no_half_association<S: Store>(
    subject: &Subject<'_, S>,
) {
    for round in 0..ROUNDS {
        let hub = subject.add(&format!("hub{round}"), "PPP").await;
        let mut spokes = Vec::new();
        for number in 0..CALLERS {
            spokes.push(subject.add(&format!("spoke{round}-{number}"), "P").await);
        }
        let half = CALLERS / 2;
        let associate = |spoke: &SerialNumber| associate_widgets(spoke, &hub, Port::P);
        let before = spokes[..half].iter().map(associate);
        let after = spokes[half..].iter().map(associate);
        let commands = before.chain([remove_widget(&hub)]).chain(after);
        let outcomes = subject.submit_together(commands).await;
        assert_eq!(outcomes[half], Ok(()), "the removal has no reason to fail");
        assert_eq!(subject.lookup(&hub).await, None);
        for spoke in &spokes {
            assert_eq!(subject.slots(spoke).await, "P");
        }
    }
}
