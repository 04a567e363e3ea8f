//! The suite: one list of cases that every store passes.

mod associations;
mod changes;
mod concurrency;
mod free_slots;
mod histories;
mod lists;
mod retries;
mod shares;
mod texts;
mod widgets;

pub use free_slots::check_free_slots;

use crate::{
    Model,
    commands::{add_widget, serial_number},
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Barrier;
use widgets_registry::{Command, Lookup, Refusal, Rejection, SerialNumber, Store, Widget};

/// The maximum length of a prefix in bytes, which leaves room for the longest text of a case.
const PREFIX_BYTES_MAX: usize = 64;

/// Runs these cases one after the other.
macro_rules! cases {
    ($stores:ident, $prefix:ident: $($module:ident::$case:ident,)+) => { $({
        // Shown with a failed test: the last case named is the one that failed.
        eprintln!("conformance: {}::{}", stringify!($module), stringify!($case));
        let prefix = format!("{}{}:", $prefix, stringify!($case));
        $module::$case(&Subject { stores: $stores, prefix, next: AtomicUsize::new(0) }).await;
    })+ };
}

/// Runs every case, one after the other, within a Tokio runtime. Panics at the first that fails.
///
/// `stores` are different ways to ask the same widgets, such as one for each process on one
/// database. Calls alternate between them, so that each must show what another has answered. The
/// store need not be empty, but no serial number in it may begin with `prefix`, with which all
/// those of the suite begin. What the cases add remains. At most about forty operations wait at a
/// time.
pub async fn check_store<S: Store>(stores: &[S], prefix: &str) {
    check_distributed(stores, prefix).await;
    cases! { stores, prefix:
        lists::lists_during_changes_show_one_state,
    }
}

/// Like [`check_store`], for a store that is distributed over several machines, where a list does
/// not show one moment.
pub async fn check_distributed<S: Store>(stores: &[S], prefix: &str) {
    assert!(!stores.is_empty(), "there must be a store to ask");
    assert!(
        prefix.len() <= PREFIX_BYTES_MAX,
        "the prefix must be at most {PREFIX_BYTES_MAX} bytes long, {} were given",
        prefix.len()
    );
    cases! { stores, prefix:
        widgets::a_working_store_is_ready,
        widgets::added_widgets_are_found_as_given,
        widgets::taken_serial_numbers_are_refused,
        widgets::removals_of_missing_widgets_are_refused,
        widgets::removed_widgets_can_be_added_again_with_other_values,
        texts::serial_numbers_are_stored_byte_for_byte,
        texts::names_are_stored_byte_for_byte,
        texts::refusals_quote_texts_byte_for_byte,
        associations::associations_are_added_and_removed_on_both_widgets,
        associations::associations_take_the_lowest_free_slot,
        associations::two_widgets_can_have_one_association_per_port,
        associations::associations_of_missing_widgets_are_refused,
        associations::associations_without_a_free_slot_are_refused,
        associations::missing_associations_cannot_be_removed,
        associations::refusals_have_a_fixed_precedence,
        associations::associations_are_removed_with_their_widget,
        concurrency::one_of_many_concurrent_adds_is_accepted,
        concurrency::one_of_many_concurrent_removals_is_accepted,
        concurrency::concurrent_associations_take_each_free_slot_once,
        concurrency::concurrent_operations_in_opposite_orders_all_succeed,
        concurrency::concurrent_operations_around_a_ring_all_succeed,
        concurrency::a_concurrent_removal_leaves_no_half_association,
        histories::a_sequential_history_agrees_with_the_model,
        histories::a_history_of_boundary_texts_agrees_with_the_model,
        histories::independent_concurrent_histories_agree_with_the_model,
        histories::concurrent_histories_are_linearizable,
        lists::lists_agree_with_the_model,
        lists::lists_of_boundary_texts_agree_with_the_model,
        lists::pages_by_serial_number_show_every_widget_once,
        lists::neighbourhoods_agree_with_the_model,
        retries::retries_get_the_answer_of_the_first_attempt,
        retries::a_key_used_with_another_request_is_refused,
        retries::simultaneous_retries_are_applied_once,
        retries::retries_among_other_operations_agree_with_the_model,
    }
}

/// Runs the cases that need the names of callers and the feed, which the store must have.
pub async fn check_changes<S: Store>(stores: &[S], prefix: &str) {
    cases! { stores, prefix:
        changes::the_feed_returns_every_accepted_change_in_order,
        changes::filtered_and_paged_changes_match_the_whole_feed,
        changes::a_change_wakes_a_waiting_reader_of_the_feed,
        changes::positions_of_other_histories_are_gone,
        changes::the_order_of_the_feed_explains_every_answer,
        changes::the_feed_omits_retries,
        retries::equal_keys_of_different_callers_are_independent,
    }
}

/// Runs the case about the shares of callers, on a store that keeps at most `keys_max` idempotency
/// keys. `let_go` makes the store remove the excess keys, if it does not do so automatically. Only
/// the suite may use keys of that store.
pub async fn check_key_shares<S: Store>(
    stores: &[S],
    prefix: &str,
    keys_max: u64,
    let_go: impl AsyncFn(),
) {
    let subject = Subject {
        stores,
        prefix: format!("{prefix}callers_keep_their_share_of_the_keys:"),
        next: AtomicUsize::new(0),
    };
    shares::callers_keep_their_share_of_the_keys(&subject, keys_max, let_go).await;
}

/// The store in one case, with the case's own serial numbers.
struct Subject<'a, S> {
    stores: &'a [S],
    /// The beginning of every serial number of the case.
    prefix: String,
    next: AtomicUsize,
}

impl<S: Store> Subject<'_, S> {
    /// Returns the store, using each of its clients in turn.
    fn store(&self) -> &S {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.stores[next % self.stores.len()]
    }

    fn serial_number(&self, text: &str) -> SerialNumber {
        serial_number(&format!("{}{text}", self.prefix))
    }

    /// Adds a new widget.
    async fn add(&self, text: &str, slots: &str) -> SerialNumber {
        let serial_number = self.serial_number(text);
        self.accept(add_widget(&serial_number, "a name", slots))
            .await;
        serial_number
    }

    async fn submit(&self, command: Command) -> Result<(), Refusal> {
        decided(&command.clone(), self.store().submit(command).await)
    }

    async fn accept(&self, command: Command) {
        let asked = format!("{command:?}");
        if let Err(refusal) = self.submit(command).await {
            panic!("{asked} must be accepted, was refused: {refusal}");
        }
    }

    /// Checks that the command is refused with exactly this code, message and details.
    async fn refuse(&self, command: Command, code: &str, message: &str, details: Option<&str>) {
        let asked = format!("{command:?}");
        let Err(refusal) = self.submit(command).await else {
            panic!("{asked} must be refused with {code}, was accepted")
        };
        let got = (refusal.code(), refusal.to_string(), refusal.details());
        assert_eq!(
            got,
            (code, message.into(), details.map(String::from)),
            "{asked}"
        );
    }

    async fn lookup(&self, serial_number: &SerialNumber) -> Option<Widget> {
        let found = self.store().ask(Lookup(serial_number.clone())).await;
        found.unwrap_or_else(|fault| {
            panic!("the store failed looking up {serial_number:?}: {fault}")
        })
    }

    /// Returns the widget's slots, each as a word: the port, and after `:` the peer without the
    /// prefix.
    async fn slots(&self, serial_number: &SerialNumber) -> String {
        let widget = self.lookup(serial_number).await;
        let widget = widget.unwrap_or_else(|| panic!("{serial_number:?} must be there"));
        let slots = widget.slots.iter().map(|slot| match &slot.peer {
            Some(peer) => {
                let peer = peer.strip_prefix(&self.prefix).unwrap_or(peer);
                format!("{}:{peer}", slot.port)
            }
            None => slot.port.to_string(),
        });
        slots.collect::<Vec<_>>().join(" ")
    }

    /// Submits all of these commands at the same moment. The outcomes are in the order of the
    /// commands.
    async fn submit_together(
        &self,
        commands: impl IntoIterator<Item = Command>,
    ) -> Vec<Result<(), Refusal>> {
        let commands: Vec<Command> = commands.into_iter().collect();
        let start = Arc::new(Barrier::new(commands.len()));
        let tasks: Vec<_> = commands
            .into_iter()
            .map(|command| {
                let (store, start) = (self.store().clone(), start.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    decided(&command.clone(), store.submit(command).await)
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.expect("the store answers"));
        }
        outcomes
    }

    /// Checks that the store shows all of these widgets as the model does.
    async fn must_equal(&self, model: &Model, serial_numbers: &[SerialNumber]) {
        for serial_number in serial_numbers {
            let found = self.lookup(serial_number).await;
            assert_eq!(found, model.lookup(serial_number), "{serial_number:?}");
        }
    }
}

/// Returns the outcome. Panics if the store met a fault.
fn decided(command: &Command, outcome: Result<(), Rejection>) -> Result<(), Refusal> {
    match outcome {
        Ok(()) => Ok(()),
        Err(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => Err(refusal),
        Err(Rejection::Fault(fault)) => panic!("the store failed at {command:?}: {fault}"),
    }
}
