//! The feed: every accepted operation once, in the order of the commits.

use super::Subject;
use crate::{
    Model,
    commands::{add_widget, commands, few_serial_numbers, sample},
    linearizability::{Clock, Request},
    witness::{Witnessed, call, check},
};
use proptest::{collection::vec, sample::select, strategy::Strategy as _};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::Barrier;
use widgets_registry::{
    Applied, Attempt, Author, ChangeFilter, Event, Feed, FeedError, Happened, IdempotencyKey,
    Operation, Position, Store, query::Asker,
};

/// A wait that takes longer than this has been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);

impl<S: Store> Subject<'_, S> {
    fn feed(&self) -> Arc<dyn Feed> {
        self.store().feed().expect("the store has a feed")
    }

    async fn newest(&self) -> Position {
        let newest = self.feed().newest().await;
        newest.expect("the feed says where it ends")
    }

    /// Returns all matching changes after a position, in pages of this size, each from the next of
    /// the store's clients.
    async fn changes(&self, after: Position, filter: &ChangeFilter, limit: usize) -> Vec<Event> {
        let (mut events, mut after) = (Vec::new(), after);
        loop {
            let read = self.feed().read(after, Arc::new(filter.clone()), limit);
            let page = read.await.expect("the feed is read");
            assert!(page.events.len() <= limit, "{} events", page.events.len());
            assert!(page.next >= after);
            let progress = page.next > after;
            after = page.next;
            events.extend(page.events);
            if page.is_end {
                return events;
            }
            assert!(progress, "a page without an end that leads nowhere");
        }
    }

    /// Returns the changes that concern widgets of this case: others may change at the same time.
    async fn own_changes(&self, after: Position) -> Vec<Event> {
        let mut events = self.changes(after, &ChangeFilter::default(), 100).await;
        events.retain(|event| {
            let serial_number = match &event.happened {
                Happened::AddWidget { serial_number, .. }
                | Happened::RemoveWidget { serial_number, .. } => serial_number,
                Happened::AssociateWidgets(one, ..) | Happened::RemoveAssociation(one, ..) => {
                    &one.serial_number
                }
            };
            serial_number.starts_with(&self.prefix)
        });
        events
    }
}

/// Changes have their members and authors, positions that also ascend as texts, and times that do
/// not go back. Refusals are not reported.
pub(super) async fn the_feed_returns_every_accepted_change_in_order<S: Store>(
    subject: &Subject<'_, S>,
) {
    let before = subject.newest().await;
    let serial_numbers = few_serial_numbers(&subject.prefix, 6);
    let mut model = Model::default();
    let mut expected = Vec::new();
    for (number, command) in sample(&vec(commands(serial_numbers), 400), 5)
        .into_iter()
        .enumerate()
    {
        let author = ["", "ann", "bob"][number % 3];
        let author = Author::new(author);
        let attempt = Attempt {
            author: author.clone(),
            ..Attempt::from(command.clone())
        };
        let happened = model.foretell(&command);
        let accepted = subject.store().ask(attempt).await.is_ok();
        assert_eq!(accepted, model.apply(&command).is_ok(), "{command:?}");
        if accepted {
            expected.push((happened.expect("it can happen"), author));
        }
    }
    let events = subject.own_changes(before).await;
    let told: BTreeSet<Operation> = expected.iter().map(|(it, _)| it.operation()).collect();
    assert_eq!(
        told,
        BTreeSet::from(Operation::ALL),
        "the history covers every operation"
    );
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.happened.clone(), event.by.clone()))
        .collect();
    for (number, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
        assert_eq!(seen, expected, "change {number}");
    }
    assert_eq!(seen.len(), expected.len());
    for two in events.windows(2) {
        assert!(two[0].position < two[1].position);
        assert!(two[0].position.to_string() < two[1].position.to_string());
        assert!(two[0].at <= two[1].at, "{} then {}", two[0].at, two[1].at);
    }
    assert_eq!(
        subject.own_changes(before).await,
        events,
        "a second read returns the same"
    );
}

/// Filters and pages return the same as a filter of all changes, from every position on.
pub(super) async fn filtered_and_paged_changes_match_the_whole_feed<S: Store>(
    subject: &Subject<'_, S>,
) {
    let before = subject.newest().await;
    let serial_numbers = few_serial_numbers(&subject.prefix, 5);
    for command in sample(&vec(commands(serial_numbers.clone()), 300), 6) {
        drop(subject.submit(command).await);
    }
    let all = subject
        .changes(before, &ChangeFilter::default(), 1000)
        .await;
    assert!(all.len() > 20, "{} changes", all.len());
    let filters = [
        ChangeFilter::default(),
        ChangeFilter {
            widget: Some(serial_numbers[1].clone()),
            operations: None,
        },
        ChangeFilter {
            widget: None,
            operations: Some(vec![Operation::AddWidget, Operation::RemoveWidget]),
        },
        ChangeFilter {
            widget: Some(serial_numbers[2].clone()),
            operations: Some(vec![Operation::AssociateWidgets]),
        },
        ChangeFilter {
            widget: Some(subject.serial_number("nobody")),
            operations: None,
        },
    ];
    for filter in filters {
        let wanted = |event: &&Event| filter.matches(&event.happened);
        let expected: Vec<Event> = all.iter().filter(wanted).cloned().collect();
        for limit in [1, 7, 1000] {
            let events = subject.changes(before, &filter, limit).await;
            assert_eq!(events, expected, "{filter:?} by {limit}");
        }
    }
    for (number, event) in all.iter().enumerate() {
        let rest = subject
            .changes(event.position, &ChangeFilter::default(), 1000)
            .await;
        assert_eq!(rest, all[number + 1..], "after change {number}");
    }
}

pub(super) async fn a_change_wakes_a_waiting_reader_of_the_feed<S: Store>(
    subject: &Subject<'_, S>,
) {
    for number in 0..5 {
        let newest = subject.newest().await;
        let feed = subject.feed();
        let waits = tokio::spawn(async move { feed.changed(newest).await });
        let added = subject.add(&number.to_string(), "P").await;
        let woken = tokio::time::timeout(FORGOTTEN, waits).await;
        woken.expect("it was told").expect("no panic");
        let events = subject.own_changes(newest).await;
        assert!(
            matches!(&events[..], [Event { happened: Happened::AddWidget { serial_number, .. }, .. }]
                if *serial_number == added),
            "{events:?}"
        );
    }
}

/// A position that this store never issued is gone, and the error says from where changes are kept.
pub(super) async fn positions_of_other_histories_are_gone<S: Store>(subject: &Subject<'_, S>) {
    subject.add("A", "P").await;
    let newest = subject.newest().await;
    let oldest = subject.feed().oldest().await;
    let oldest = oldest.expect("the feed says where it begins");
    for position in [
        Position {
            store: newest.store ^ 1,
            ..newest
        },
        Position {
            epoch: newest.epoch + 1,
            ..newest
        },
        Position {
            epoch: newest.epoch - 1,
            ..newest
        },
        Position {
            sequence: newest.sequence + 100_000,
            ..newest
        },
        Position {
            sequence: u64::MAX,
            ..newest
        },
    ] {
        let read = subject.feed().read(position, Arc::default(), 10).await;
        assert_eq!(read, Err(FeedError::Gone { oldest }), "{position}");
    }
    let read = subject.feed().read(oldest, Arc::default(), 10).await;
    assert!(read.is_ok(), "{read:?}");
}

/// Callers use few widgets for a long time. The order of the feed explains every answer.
pub(super) async fn the_order_of_the_feed_explains_every_answer<S: Store>(
    subject: &Subject<'_, S>,
) {
    const CALLERS: usize = 6;
    const REQUESTS: usize = 200;
    let before = subject.newest().await;
    let serial_numbers = few_serial_numbers(&subject.prefix, 6);
    let request = proptest::prop_oneof![
        3 => commands(serial_numbers.clone()).prop_map(Request::Submit),
        1 => select(serial_numbers).prop_map(Request::Lookup),
    ];
    let (clock, start) = (Arc::new(Clock::default()), Arc::new(Barrier::new(CALLERS)));
    let mut callers = Vec::new();
    for (caller, requests) in sample(&vec(vec(request, REQUESTS), CALLERS), 7)
        .into_iter()
        .enumerate()
    {
        let (store, clock, start) = (subject.store().clone(), clock.clone(), start.clone());
        callers.push(tokio::spawn(async move {
            start.wait().await;
            let mut calls = Vec::new();
            for (number, request) in requests.into_iter().enumerate() {
                let by = Author::new(&format!("{caller}-{number}")).expect("a name");
                calls.extend(call(&clock, &store, request, by).await);
            }
            calls
        }));
    }
    let mut calls: Vec<Witnessed> = Vec::new();
    for caller in callers {
        calls.extend(caller.await.expect("the store answers"));
    }
    assert_eq!(calls.len(), CALLERS * REQUESTS, "the store failed");
    let events = subject.own_changes(before).await;
    assert!(events.len() > CALLERS * REQUESTS / 20, "{}", events.len());
    if let Err(what) = check(&Model::default(), &calls, &events) {
        panic!("{what}");
    }
}

/// A retry that is answered from memory is not reported again.
pub(super) async fn the_feed_omits_retries<S: Store>(subject: &Subject<'_, S>) {
    let before = subject.newest().await;
    let attempt = Attempt {
        command: add_widget(&subject.serial_number("A"), "", "PQ"),
        author: Author::new("ann"),
        key: IdempotencyKey::new(&subject.prefix),
        asker: Asker::default(),
    };
    assert_eq!(subject.store().ask(attempt.clone()).await, Ok(Applied::Now));
    for _ in 0..3 {
        let again = subject.store().ask(attempt.clone()).await;
        assert_eq!(again, Ok(Applied::Before));
    }
    assert_eq!(subject.own_changes(before).await.len(), 1);
}
