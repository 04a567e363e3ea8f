//! What an operation is called with, for those who read a call and for those who say what is wrong with
//! it.

use widgets_registry::Operation;

/// The names of an operation's arguments, sorted.
pub(crate) const fn names(operation: Operation) -> &'static [&'static str] {
    match operation {
        Operation::AddWidget => &["slots", "widget_name", "widget_sn"],
        Operation::RemoveWidget => &["widget_sn"],
        Operation::AssociateWidgets | Operation::RemoveAssociation => {
            &["port", "widget1_sn", "widget2_sn"]
        }
    }
}
