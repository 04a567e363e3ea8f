//! The names of each operation's arguments, for parsing calls and for reporting errors in them.

use widgets_registry::Operation;

/// Returns the names of an operation's arguments, sorted.
pub(crate) const fn names(operation: Operation) -> &'static [&'static str] {
    match operation {
        Operation::AddWidget => &["slots", "widget_name", "widget_sn"],
        Operation::RemoveWidget => &["widget_sn"],
        Operation::AssociateWidgets | Operation::RemoveAssociation => {
            &["port", "widget1_sn", "widget2_sn"]
        }
    }
}
