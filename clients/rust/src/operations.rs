//! The four operations. Each is sent once, unless it is sent [safely](Client::safely).

use crate::{Client, Error, answer::Asked};
use serde_json::{Value, json};

/// One of the four operations with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    name: &'static str,
    body: String,
}

impl Operation {
    fn new(name: &'static str, body: &Value) -> Self {
        let body = body.to_string();
        Self { name, body }
    }

    /// Returns the operation's name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns its arguments, as the JSON that is sent.
    #[must_use]
    pub fn arguments(&self) -> &str {
        &self.body
    }

    /// Registers a widget with its slots, given as port types.
    #[must_use]
    pub fn add_widget(widget_sn: &str, name: &str, slots: &[String]) -> Self {
        let body = json!({"widget_sn": widget_sn, "widget_name": name, "slots": slots});
        Self::new("add_widget", &body)
    }

    /// Removes a widget with its associations.
    #[must_use]
    pub fn remove_widget(widget_sn: &str) -> Self {
        Self::new("remove_widget", &json!({"widget_sn": widget_sn}))
    }

    /// Associates two widgets through a port type.
    #[must_use]
    pub fn associate_widgets(widget1: &str, widget2: &str, port: &str) -> Self {
        Self::new("associate_widgets", &pair(widget1, widget2, port))
    }

    /// Removes the association of two widgets through a port type.
    #[must_use]
    pub fn remove_association(widget1: &str, widget2: &str, port: &str) -> Self {
        Self::new("remove_association", &pair(widget1, widget2, port))
    }
}

impl Client {
    /// Registers a widget with its slots, given as port types.
    pub fn add_widget(&self, widget_sn: &str, name: &str, slots: &[String]) -> Result<(), Error> {
        self.apply(&Operation::add_widget(widget_sn, name, slots))
    }

    /// Removes a widget with its associations.
    pub fn remove_widget(&self, widget_sn: &str) -> Result<(), Error> {
        self.apply(&Operation::remove_widget(widget_sn))
    }

    /// Associates two widgets through a port type.
    pub fn associate_widgets(&self, widget1: &str, widget2: &str, port: &str) -> Result<(), Error> {
        self.apply(&Operation::associate_widgets(widget1, widget2, port))
    }

    /// Removes the association of two widgets through a port type.
    pub fn remove_association(
        &self,
        widget1: &str,
        widget2: &str,
        port: &str,
    ) -> Result<(), Error> {
        self.apply(&Operation::remove_association(widget1, widget2, port))
    }

    /// Sends an operation once to the primary. A standby applies nothing and names the primary
    /// instead.
    pub fn apply(&self, operation: &Operation) -> Result<(), Error> {
        self.send(operation, &[])
    }

    /// Sends an operation once, with these headers.
    pub(crate) fn send(
        &self,
        Operation { name, body }: &Operation,
        headers: &[(&str, &str)],
    ) -> Result<(), Error> {
        let asked = Asked {
            target: &format!("/rpc/{name}"),
            body: Some(body),
            headers,
            ..Asked::default()
        };
        self.ask_primary(&asked).map_err(Error::of_change)
    }
}

fn pair(widget1: &str, widget2: &str, port: &str) -> Value {
    json!({"widget1_sn": widget1, "widget2_sn": widget2, "port": port})
}
