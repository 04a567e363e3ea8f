//! Texts are stored and returned exactly as they were given.

use super::Subject;
use crate::commands::{
    add_widget, associate_widgets, boundary_names, boundary_serial_numbers, remove_association,
    remove_widget,
};
use widgets_registry::{Port, Store};

pub(super) async fn serial_numbers_are_stored_byte_for_byte<S: Store>(subject: &Subject<'_, S>) {
    let serial_numbers = boundary_serial_numbers(&subject.prefix);
    // Each is a different widget, however alike they look.
    for serial_number in &serial_numbers {
        subject
            .accept(add_widget(serial_number, serial_number, "PPQ"))
            .await;
    }
    // In a ring, so that each is also seen as a peer.
    let next = serial_numbers.iter().cycle().skip(1);
    for (one, other) in serial_numbers.iter().zip(next) {
        subject.accept(associate_widgets(one, other, Port::P)).await;
    }
    for (index, serial_number) in serial_numbers.iter().enumerate() {
        let found = subject.lookup(serial_number).await.expect("it was added");
        assert_eq!(found.serial_number, *serial_number);
        assert_eq!(&*found.name, &**serial_number);
        let count = serial_numbers.len();
        let neighbours = [index + count - 1, index + 1].map(|at| &serial_numbers[at % count]);
        let mut peers: Vec<_> = found
            .slots
            .iter()
            .filter_map(|slot| slot.peer.as_ref())
            .collect();
        peers.sort_by_key(|peer| *peer != neighbours[0]);
        assert_eq!(peers, neighbours, "{serial_number:?}");
    }
    for serial_number in &serial_numbers {
        subject.accept(remove_widget(serial_number)).await;
        assert_eq!(subject.lookup(serial_number).await, None);
    }
}

pub(super) async fn names_are_stored_byte_for_byte<S: Store>(subject: &Subject<'_, S>) {
    for (number, name) in boundary_names().into_iter().enumerate() {
        let serial_number = subject.serial_number(&number.to_string());
        subject.accept(add_widget(&serial_number, &name, "")).await;
        let found = subject.lookup(&serial_number).await.expect("it was added");
        assert_eq!(found.name, name);
    }
}

pub(super) async fn refusals_quote_texts_byte_for_byte<S: Store>(subject: &Subject<'_, S>) {
    let other = subject.add("other", "R").await;
    for serial_number in boundary_serial_numbers(&subject.prefix) {
        let missing = format!("Widget with serial number {serial_number} does not exist");
        let remove = remove_widget(&serial_number);
        subject.refuse(remove, "WG001", &missing, None).await;
        subject.accept(add_widget(&serial_number, "", "")).await;
        let taken = "duplicate key value violates unique constraint \"widgets_serial_number_key\"";
        let details = format!("Key (serial_number)=({serial_number}) already exists.");
        let again = add_widget(&serial_number, "", "");
        subject.refuse(again, "23505", taken, Some(&details)).await;
        let no_slot =
            format!("Widget with serial number {serial_number} has no free slot of port R");
        let associate = associate_widgets(&serial_number, &other, Port::R);
        subject.refuse(associate, "WG002", &no_slot, None).await;
        let not = format!(
            "Widgets with serial numbers {serial_number} and {other} are not associated on port R"
        );
        let part = remove_association(&serial_number, &other, Port::R);
        subject.refuse(part, "WG004", &not, None).await;
    }
}
