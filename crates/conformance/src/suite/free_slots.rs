//! How many slots of each port type are free, compared with the model's count.

use super::Subject;
use crate::{
    Model,
    commands::{commands, few_serial_numbers, sample},
};
use proptest::collection::vec;
use std::sync::atomic::AtomicUsize;
use widgets_registry::{Port, PortCounts, Store};

/// After how many operations each the store is asked for its count.
const COUNTED_EVERY: usize = 50;

/// Checks that the store's count, which `counted` returns, agrees with the model whatever is added
/// and removed. Nobody else may change anything meanwhile. Free slots that existed before are not
/// counted.
pub async fn check_free_slots<S: Store>(
    store: &S,
    prefix: &str,
    counted: impl AsyncFn() -> PortCounts,
) {
    let subject = Subject {
        stores: std::slice::from_ref(store),
        prefix: format!("{prefix}free_slots:"),
        next: AtomicUsize::new(0),
    };
    let before = counted().await;
    let mut model = Model::default();
    let mut most = PortCounts::default();
    let serial_numbers = few_serial_numbers(&subject.prefix, 7);
    for (number, command) in sample(&vec(commands(serial_numbers), 1000), 1)
        .into_iter()
        .enumerate()
    {
        let expected = model.apply(&command);
        assert_eq!(subject.submit(command).await, expected);
        if number % COUNTED_EVERY != 0 {
            continue;
        }
        let (free, now) = (model.free_slots(), counted().await);
        for port in Port::ALL {
            assert_eq!(
                now.of(port) - before.of(port),
                free.of(port),
                "free slots of {port} after operation {number}"
            );
            most.add(port, free.of(port));
        }
    }
    // The history is only useful if there were some of each.
    assert!(
        Port::ALL.into_iter().all(|port| most.of(port) > 10),
        "{most:?}"
    );
}
