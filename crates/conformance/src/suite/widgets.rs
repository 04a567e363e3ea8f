//! Adding, looking up and removing widgets.

use super::Subject;
use crate::commands::{add_widget, remove_widget};
use widgets_registry::{Port, Slot, Store, Widget};

pub(super) async fn a_working_store_is_ready<S: Store>(subject: &Subject<'_, S>) {
    for store in subject.stores {
        store.ready().await.expect("a store that works is ready");
    }
}

pub(super) async fn added_widgets_are_found_as_given<S: Store>(subject: &Subject<'_, S>) {
    // Every word of up to three ports: their order is kept, and types may repeat.
    let mut words = vec![String::new()];
    for length in 1..=3 {
        let shorter: Vec<String> = words
            .iter()
            .filter(|word| word.len() == length - 1)
            .cloned()
            .collect();
        for word in shorter {
            words.extend(Port::ALL.map(|port| format!("{word}{port}")));
        }
    }
    assert_eq!(words.len(), 1 + 3 + 9 + 27);
    for word in words {
        let serial_number = subject.serial_number(&format!("slots {word}"));
        assert_eq!(subject.lookup(&serial_number).await, None);
        subject
            .accept(add_widget(&serial_number, &word, &word))
            .await;
        let slots = word.chars().map(|port| Slot {
            port: Port::parse(&port.to_string()).expect("a port"),
            peer: None,
        });
        let slots = slots.collect();
        let Widget {
            serial_number: found,
            name,
            slots: found_slots,
        } = subject.lookup(&serial_number).await.expect("it was added");
        assert_eq!((found, &*name, found_slots), (serial_number, &*word, slots));
    }
}

pub(super) async fn taken_serial_numbers_are_refused<S: Store>(subject: &Subject<'_, S>) {
    let serial_number = subject.add("E", "PRR").await;
    let details = format!("Key (serial_number)=({serial_number}) already exists.");
    let message = "duplicate key value violates unique constraint \"widgets_serial_number_key\"";
    let again = add_widget(&serial_number, "another name", "Q");
    subject
        .refuse(again, "23505", message, Some(&details))
        .await;
    let kept = subject
        .lookup(&serial_number)
        .await
        .expect("it is still there");
    assert_eq!(&*kept.name, "a name");
    assert_eq!(subject.slots(&serial_number).await, "P R R");
}

pub(super) async fn removals_of_missing_widgets_are_refused<S: Store>(subject: &Subject<'_, S>) {
    let serial_number = subject.serial_number("X");
    let message = format!("Widget with serial number {serial_number} does not exist");
    subject
        .refuse(remove_widget(&serial_number), "WG001", &message, None)
        .await;
    assert_eq!(subject.lookup(&serial_number).await, None);
    // The same holds for one that existed before.
    subject.add("X", "P").await;
    subject.accept(remove_widget(&serial_number)).await;
    subject
        .refuse(remove_widget(&serial_number), "WG001", &message, None)
        .await;
    assert_eq!(subject.lookup(&serial_number).await, None);
}

pub(super) async fn removed_widgets_can_be_added_again_with_other_values<S: Store>(
    subject: &Subject<'_, S>,
) {
    let serial_number = subject.serial_number("E");
    for (name, slots) in [("first", "PRR"), ("", ""), ("third", "QQ")] {
        subject
            .accept(add_widget(&serial_number, name, slots))
            .await;
        let found = subject.lookup(&serial_number).await.expect("it was added");
        let ports = found.slots.iter().map(|slot| slot.port.as_str());
        assert_eq!(
            (&*found.name, ports.collect::<String>().as_str()),
            (name, slots)
        );
        assert!(found.slots.iter().all(|slot| slot.peer.is_none()));
        subject.accept(remove_widget(&serial_number)).await;
        assert_eq!(subject.lookup(&serial_number).await, None);
    }
}
