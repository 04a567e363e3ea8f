//! Associations: slots, ports, peers, and the precedence of refusals.

use super::Subject;
use crate::commands::{add_widget, associate_widgets, remove_association, remove_widget};
use widgets_registry::{Port, SerialNumber, Store};

pub(super) async fn associations_are_added_and_removed_on_both_widgets<S: Store>(
    subject: &Subject<'_, S>,
) {
    let e = subject.add("E", "PRR").await;
    let f = subject.add("F", "QP").await;
    // A removal may name the two widgets in either order, whichever the association named first.
    for [one, other] in [[&e, &f], [&f, &e]] {
        for [first, second] in [[&e, &f], [&f, &e]] {
            subject.accept(associate_widgets(one, other, Port::P)).await;
            assert_eq!(subject.slots(&e).await, "P:F R R");
            assert_eq!(subject.slots(&f).await, "Q P:E");
            subject
                .accept(remove_association(first, second, Port::P))
                .await;
            assert_eq!(subject.slots(&e).await, "P R R");
            assert_eq!(subject.slots(&f).await, "Q P");
        }
    }
}

pub(super) async fn associations_take_the_lowest_free_slot<S: Store>(subject: &Subject<'_, S>) {
    let hub = subject.add("hub", "QRQ").await;
    let (a, b, c) = (
        subject.add("a", "Q").await,
        subject.add("b", "RQ").await,
        subject.add("c", "QQ").await,
    );
    subject.accept(associate_widgets(&a, &hub, Port::Q)).await;
    assert_eq!(subject.slots(&hub).await, "Q:a R Q");
    subject.accept(associate_widgets(&hub, &b, Port::Q)).await;
    assert_eq!(subject.slots(&hub).await, "Q:a R Q:b");
    subject.accept(remove_association(&hub, &a, Port::Q)).await;
    assert_eq!(subject.slots(&hub).await, "Q R Q:b");
    // The freed slot is again the lowest; on the other side, the first of two is.
    subject.accept(associate_widgets(&hub, &c, Port::Q)).await;
    assert_eq!(subject.slots(&hub).await, "Q:c R Q:b");
    assert_eq!(subject.slots(&c).await, "Q:hub Q");
    subject.accept(remove_widget(&b)).await;
    subject.accept(associate_widgets(&hub, &a, Port::Q)).await;
    assert_eq!(subject.slots(&hub).await, "Q:c R Q:a");
}

pub(super) async fn two_widgets_can_have_one_association_per_port<S: Store>(
    subject: &Subject<'_, S>,
) {
    let e = subject.add("E", "PQR").await;
    let f = subject.add("F", "RPQ").await;
    for port in Port::ALL {
        subject.accept(associate_widgets(&e, &f, port)).await;
    }
    assert_eq!(subject.slots(&e).await, "P:F Q:F R:F");
    assert_eq!(subject.slots(&f).await, "R:E P:E Q:E");
    for port in Port::ALL {
        for [one, other] in [[&e, &f], [&f, &e]] {
            let again = associate_widgets(one, other, port);
            subject
                .refuse(again, "WG003", &already(one, other, port), None)
                .await;
        }
    }
    subject.accept(remove_association(&f, &e, Port::Q)).await;
    assert_eq!(subject.slots(&e).await, "P:F Q R:F");
    assert_eq!(subject.slots(&f).await, "R:E P:E Q");
}

pub(super) async fn associations_of_missing_widgets_are_refused<S: Store>(
    subject: &Subject<'_, S>,
) {
    let e = subject.add("E", "P").await;
    let (x, y) = (subject.serial_number("X"), subject.serial_number("Y"));
    // If both are missing, the one named first is reported.
    for (one, other, first) in [(&x, &y, &x), (&y, &x, &y), (&x, &e, &x), (&e, &x, &x)] {
        let message = format!("Widget with serial number {first} does not exist");
        for command in [associate_widgets, remove_association] {
            let command = command(one, other, Port::P);
            subject.refuse(command, "WG001", &message, None).await;
        }
    }
    assert_eq!(subject.slots(&e).await, "P");
}

pub(super) async fn associations_without_a_free_slot_are_refused<S: Store>(
    subject: &Subject<'_, S>,
) {
    let e = subject.add("E", "PR").await;
    let f = subject.add("F", "PQ").await;
    let g = subject.add("G", "PR").await;
    // A port that one of them never had.
    subject
        .refuse(
            associate_widgets(&e, &f, Port::R),
            "WG002",
            &no_slot(&f, Port::R),
            None,
        )
        .await;
    subject
        .refuse(
            associate_widgets(&e, &f, Port::Q),
            "WG002",
            &no_slot(&e, Port::Q),
            None,
        )
        .await;
    // A port that is in use.
    subject.accept(associate_widgets(&e, &f, Port::P)).await;
    subject
        .refuse(
            associate_widgets(&e, &g, Port::P),
            "WG002",
            &no_slot(&e, Port::P),
            None,
        )
        .await;
    subject
        .refuse(
            associate_widgets(&g, &e, Port::P),
            "WG002",
            &no_slot(&e, Port::P),
            None,
        )
        .await;
    // Neither has a free slot: the one named first is reported.
    subject
        .refuse(
            associate_widgets(&g, &e, Port::Q),
            "WG002",
            &no_slot(&g, Port::Q),
            None,
        )
        .await;
    assert_eq!(subject.slots(&e).await, "P:F R");
    assert_eq!(subject.slots(&f).await, "P:E Q");
    assert_eq!(subject.slots(&g).await, "P R");
}

pub(super) async fn missing_associations_cannot_be_removed<S: Store>(subject: &Subject<'_, S>) {
    let e = subject.add("E", "PR").await;
    let f = subject.add("F", "PR").await;
    let g = subject.add("G", "PR").await;
    subject.accept(associate_widgets(&e, &f, Port::P)).await;
    subject.accept(associate_widgets(&f, &g, Port::R)).await;
    // Another port, another peer, and a port that neither has.
    for (one, other, port) in [(&e, &f, Port::R), (&e, &g, Port::P), (&g, &e, Port::Q)] {
        let command = remove_association(one, other, port);
        subject
            .refuse(command, "WG004", &not_associated(one, other, port), None)
            .await;
    }
    subject.accept(remove_association(&e, &f, Port::P)).await;
    let again = remove_association(&f, &e, Port::P);
    subject
        .refuse(again, "WG004", &not_associated(&f, &e, Port::P), None)
        .await;
    assert_eq!(subject.slots(&f).await, "P R:G");
}

pub(super) async fn refusals_have_a_fixed_precedence<S: Store>(subject: &Subject<'_, S>) {
    let e = subject.add("E", "P").await;
    let f = subject.add("F", "P").await;
    let g = subject.add("G", "P").await;
    subject.accept(associate_widgets(&e, &f, Port::P)).await;
    // WG003 (already associated) comes before WG002 (no free slot). Both are true here.
    let again = associate_widgets(&f, &e, Port::P);
    subject
        .refuse(again, "WG003", &already(&f, &e, Port::P), None)
        .await;
    // A missing widget 2 comes before a widget 1 without a free slot.
    let x = subject.serial_number("X");
    let message = format!("Widget with serial number {x} does not exist");
    subject
        .refuse(associate_widgets(&e, &x, Port::P), "WG001", &message, None)
        .await;
    // The free slot of widget 1 comes before that of widget 2.
    subject.accept(remove_association(&e, &f, Port::P)).await;
    subject.accept(associate_widgets(&f, &g, Port::P)).await;
    subject
        .refuse(
            associate_widgets(&e, &f, Port::Q),
            "WG002",
            &no_slot(&e, Port::Q),
            None,
        )
        .await;
    subject
        .refuse(
            associate_widgets(&e, &f, Port::P),
            "WG002",
            &no_slot(&f, Port::P),
            None,
        )
        .await;
}

pub(super) async fn associations_are_removed_with_their_widget<S: Store>(subject: &Subject<'_, S>) {
    let hub = subject.add("hub", "PPQ").await;
    let a = subject.add("a", "PQ").await;
    let b = subject.add("b", "RPP").await;
    subject.accept(associate_widgets(&hub, &a, Port::P)).await;
    subject.accept(associate_widgets(&a, &hub, Port::Q)).await;
    subject.accept(associate_widgets(&b, &hub, Port::P)).await;
    assert_eq!(subject.slots(&hub).await, "P:a P:b Q:a");
    subject.accept(remove_widget(&hub)).await;
    assert_eq!(subject.slots(&a).await, "P Q");
    assert_eq!(subject.slots(&b).await, "R P P");
    // The slots are free for each other, and a new widget with the same serial number inherits
    // nothing.
    subject.accept(associate_widgets(&a, &b, Port::P)).await;
    subject.accept(add_widget(&hub, "again", "PPQ")).await;
    assert_eq!(subject.slots(&hub).await, "P P Q");
    let part = remove_association(&hub, &a, Port::P);
    subject
        .refuse(part, "WG004", &not_associated(&hub, &a, Port::P), None)
        .await;
    subject.accept(associate_widgets(&hub, &b, Port::P)).await;
    assert_eq!(subject.slots(&b).await, "R P:a P:hub");
}

fn already(widget1: &SerialNumber, widget2: &SerialNumber, port: Port) -> String {
    format!(
        "Widgets with serial numbers {widget1} and {widget2} are already associated on port {port}"
    )
}

fn not_associated(widget1: &SerialNumber, widget2: &SerialNumber, port: Port) -> String {
    format!("Widgets with serial numbers {widget1} and {widget2} are not associated on port {port}")
}

fn no_slot(widget: &SerialNumber, port: Port) -> String {
    format!("Widget with serial number {widget} has no free slot of port {port}")
}
