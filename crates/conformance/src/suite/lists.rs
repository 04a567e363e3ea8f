//! Lists and neighbourhoods: without concurrent changes they are compared with the model, during
//! changes with every state that they may show.

use super::Subject;
use crate::{
    Model,
    commands::{
        BOUNDARY_TEXTS, add_widget, boundary_serial_numbers, commands, few_serial_numbers, sample,
    },
    lists::lists,
};
use proptest::collection::vec;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use widgets_registry::{
    SerialNumber, Store,
    query::{
        Asker, Column, Direction, Filter, List, NeighbourhoodQuery, Page, Pattern, Rows, Table,
        Test,
    },
};

/// Limits a filter to rows of this case, because the store may hold others.
fn own(table: Table, prefix: &str, filter: Filter) -> Filter {
    let mut pattern = String::new();
    for character in prefix.chars() {
        if ['%', '_', '\\'].contains(&character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    let column = match table {
        Table::Widgets => Column::SerialNumber,
        Table::Slots => Column::WidgetSn,
    };
    let pattern = Pattern::new(&pattern, false).expect("nothing is escaped at the end");
    Filter::All(vec![Filter::Test(column, Test::Like(pattern)), filter])
}

async fn page<S: Store>(subject: &Subject<'_, S>, list: &List) -> Page {
    let page = subject.store().ask(list.clone()).await;
    page.unwrap_or_else(|fault| panic!("the store failed at {list:?}: {fault}"))
}

async fn agree<S: Store>(subject: &Subject<'_, S>, model: &Model, list: List) {
    let prefix = &subject.prefix;
    let list = List {
        filter: own(list.table, prefix, list.filter),
        ..list
    };
    let page = page(subject, &list).await;
    let (rows, total) = model.list(&list);
    let expected = (rows, list.count.then_some(total));
    assert_eq!((page.rows, page.total), expected, "{list:#?}");
}

/// Returns the names and serial numbers of a case, and some that do not exist.
fn texts(serial_numbers: &[SerialNumber]) -> Vec<String> {
    let names = ["", "a", "b", "null", "NULL", "%_"].map(String::from);
    let serial_numbers = serial_numbers.iter().map(ToString::to_string);
    serial_numbers.chain(names).collect()
}

pub(super) async fn lists_agree_with_the_model<S: Store>(subject: &Subject<'_, S>) {
    let serial_numbers = few_serial_numbers(&subject.prefix, 25);
    let mut model = Model::default();
    for command in sample(&vec(commands(serial_numbers.clone()), 200), 3) {
        let expected = model.apply(&command);
        assert_eq!(subject.submit(command).await, expected);
    }
    let random = sample(&vec(lists(texts(&serial_numbers)), 300), 4);
    for list in random {
        agree(subject, &model, list).await;
    }
}

pub(super) async fn lists_of_boundary_texts_agree_with_the_model<S: Store>(
    subject: &Subject<'_, S>,
) {
    let serial_numbers = boundary_serial_numbers(&subject.prefix);
    let mut model = Model::default();
    for (number, serial_number) in serial_numbers.iter().enumerate() {
        let name = BOUNDARY_TEXTS[number * 7 % BOUNDARY_TEXTS.len()];
        let command = add_widget(serial_number, name, ["", "P", "QR", "RRR"][number % 4]);
        assert_eq!(model.apply(&command), Ok(()));
        subject.accept(command).await;
    }
    let names = BOUNDARY_TEXTS.iter().map(ToString::to_string);
    let all: Vec<String> = texts(&serial_numbers).into_iter().chain(names).collect();
    for list in sample(&vec(lists(all), 200), 5) {
        agree(subject, &model, list).await;
    }
}

/// Pages that follow each other by the last serial number, forwards and backwards, show every row
/// once.
pub(super) async fn pages_by_serial_number_show_every_widget_once<S: Store>(
    subject: &Subject<'_, S>,
) {
    use widgets_registry::query::Comparison;
    let serial_numbers = few_serial_numbers(&subject.prefix, 23);
    for serial_number in &serial_numbers {
        let command = add_widget(serial_number, "a name", "P");
        subject.accept(command).await;
    }
    let mut sorted = serial_numbers;
    sorted.sort();
    for (direction, comparison) in [
        (Direction::Ascending, Comparison::Greater),
        (Direction::Descending, Comparison::Less),
    ] {
        let mut reached: Option<SerialNumber> = None;
        let mut seen = Vec::new();
        loop {
            let behind = reached.as_ref().map_or(Filter::EVERYTHING, |reached| {
                Filter::Test(
                    Column::SerialNumber,
                    Test::Text(comparison, (&**reached).into()),
                )
            });
            let list = List {
                table: Table::Widgets,
                filter: own(Table::Widgets, &subject.prefix, behind),
                direction,
                offset: 0,
                limit: 5,
                count: false,
                asker: Asker::default(),
            };
            let Rows::Widgets(widgets) = page(subject, &list).await.rows else {
                panic!("widgets were asked for")
            };
            let Some(widget) = widgets.last() else { break };
            reached = Some(widget.serial_number.clone());
            seen.extend(widgets.into_iter().map(|widget| widget.serial_number));
        }
        assert_eq!(seen, sorted);
        sorted.reverse();
    }
}

pub(super) async fn neighbourhoods_agree_with_the_model<S: Store>(subject: &Subject<'_, S>) {
    let serial_numbers = few_serial_numbers(&subject.prefix, 14);
    let mut model = Model::default();
    for command in sample(&vec(commands(serial_numbers.clone()), 150), 6) {
        let expected = model.apply(&command);
        assert_eq!(subject.submit(command).await, expected);
    }
    for serial_number in serial_numbers {
        for (depth, widgets_max) in [(1, 100), (2, 100), (10, 100), (3, 4), (1, 1)] {
            let query = NeighbourhoodQuery {
                asker: Asker::default(),
                serial_number: serial_number.clone(),
                depth,
                widgets_max,
            };
            let found = subject.store().ask(query.clone()).await;
            let found = found.unwrap_or_else(|fault| panic!("the store failed: {fault}"));
            assert_eq!(found, model.neighbourhood(&query), "{query:?}");
        }
    }
}

/// One caller changes widgets one by one while others list them. Every list shows the state after
/// some number of changes: not fewer than were answered before it was requested, and not more than
/// had begun when it was answered.
pub(super) async fn lists_during_changes_show_one_state<S: Store>(subject: &Subject<'_, S>) {
    const READERS: u64 = 3;
    let serial_numbers = few_serial_numbers(&subject.prefix, 12);
    let history = sample(&vec(commands(serial_numbers.clone()), 250), 8);
    let mut moments = vec![Model::default()];
    for command in &history {
        let mut model = moments[moments.len() - 1].clone();
        // A refusal changes nothing, but counts as a moment.
        drop(model.apply(command));
        moments.push(model);
    }
    let (begun, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let moments = Arc::new(moments);
    let mut readers = Vec::new();
    for reader in 0..READERS {
        let (store, prefix) = (subject.store().clone(), subject.prefix.clone());
        let (begun, answered, moments) = (begun.clone(), answered.clone(), moments.clone());
        let random = sample(&vec(lists(texts(&serial_numbers)), 120), reader);
        readers.push(tokio::spawn(async move {
            for list in random.into_iter().cycle() {
                let least = answered.load(Ordering::SeqCst);
                let list = List {
                    filter: own(list.table, &prefix, list.filter),
                    ..list
                };
                let page = store.ask(list.clone()).await;
                let page = page.unwrap_or_else(|fault| panic!("the store failed: {fault}"));
                let most = begun.load(Ordering::SeqCst);
                let shown = (page.rows, page.total);
                let found = (least..=most).any(|moment| {
                    let (rows, total) = moments[moment].list(&list);
                    (rows, list.count.then_some(total)) == shown
                });
                assert!(
                    found,
                    "{shown:#?} was at no moment {least} to {most} of {list:#?}"
                );
                if least + 1 == moments.len() {
                    return;
                }
            }
        }));
    }
    for command in history {
        begun.fetch_add(1, Ordering::SeqCst);
        drop(subject.submit(command).await);
        answered.fetch_add(1, Ordering::SeqCst);
    }
    for reader in readers {
        reader.await.expect("every list shows one moment");
    }
}
