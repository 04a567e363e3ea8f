//! If more idempotency keys are used than are kept, each caller keeps its share.

use super::Subject;
use crate::commands::{add_widget, sample};
use proptest::{collection::vec, prelude::*};
use std::collections::HashMap;
use widgets_registry::{Applied, Attempt, IdempotencyKey, Refusal, Rejection, Store, query::Asker};

/// How many callers use keys: the first one many, the others few.
const CALLERS: u64 = 3;

/// Each caller finds the newest of its keys, up to half of its even share of `keys_max`, however
/// many another caller uses. `let_go` makes the store remove the excess. Which of its other keys a
/// caller with more finds is up to the store.
pub(super) async fn callers_keep_their_share_of_the_keys<S: Store>(
    subject: &Subject<'_, S>,
    keys_max: u64,
    let_go: impl AsyncFn(),
) {
    let share = usize::try_from(keys_max / 2 / CALLERS).expect("few");
    let attempt = |caller: u64, number: usize| {
        let text = format!("{}{caller}/{number}", subject.prefix);
        Attempt {
            command: add_widget(
                &subject.serial_number(&format!("{caller}/{number}")),
                "",
                "",
            ),
            author: None,
            key: IdempotencyKey::new(&text),
            asker: Asker(caller),
        }
    };
    let steps = usize::try_from(keys_max * 6).expect("few");
    let who = sample(&vec(prop_oneof![20 => Just(0), 1 => 1..CALLERS], steps), 7);
    let mut used: HashMap<u64, usize> = HashMap::new();
    for (step, mut caller) in who.into_iter().enumerate() {
        if caller > 0 && used.get(&caller).is_some_and(|&used| used == share) {
            caller = 0;
        }
        let number = used.entry(caller).or_default();
        let outcome = subject.attempt(&attempt(caller, *number)).await;
        assert_eq!(outcome, Ok(Applied::Now), "caller {caller}, key {number}");
        *number += 1;
        if step % 3 == 0 {
            let_go().await;
        }
    }
    assert!(used[&0] as u64 > 3 * keys_max, "{used:?}");
    for (caller, number) in used.iter().flat_map(|(caller, &used)| {
        let newest = used.saturating_sub(share);
        (newest..used).map(move |number| (*caller, number))
    }) {
        let again = subject.attempt(&attempt(caller, number)).await;
        assert_eq!(again, Ok(Applied::Before), "caller {caller}, key {number}");
    }
    // No more keys are kept than allowed: the first one is decided anew.
    let first = subject.attempt(&attempt(0, 0)).await;
    let taken = matches!(
        &first,
        Err(Rejection::Refused(Refusal::SerialNumberTaken { .. }))
    );
    assert!(taken, "{first:?}");
}
