//! The four operations. Each is sent once.

use crate::{Client, Error, answer::Answer, answer::Asked};
use serde_json::{Value, json};

impl Client {
    /// Registers a widget with its slots, as port types.
    pub fn add_widget(&self, widget_sn: &str, name: &str, slots: &[String]) -> Result<(), Error> {
        let body = json!({"widget_sn": widget_sn, "widget_name": name, "slots": slots});
        self.operation("add_widget", &body)
    }

    /// Removes a widget with its associations.
    pub fn remove_widget(&self, widget_sn: &str) -> Result<(), Error> {
        self.operation("remove_widget", &json!({"widget_sn": widget_sn}))
    }

    /// Associates two widgets over a port type.
    pub fn associate_widgets(&self, widget1: &str, widget2: &str, port: &str) -> Result<(), Error> {
        self.operation("associate_widgets", &pair(widget1, widget2, port))
    }

    /// Removes the association of two widgets over a port type.
    pub fn remove_association(
        &self,
        widget1: &str,
        widget2: &str,
        port: &str,
    ) -> Result<(), Error> {
        self.operation("remove_association", &pair(widget1, widget2, port))
    }

    fn operation(&self, name: &str, body: &Value) -> Result<(), Error> {
        let asked = Asked {
            target: &format!("/rpc/{name}"),
            body: Some(&body.to_string()),
            ..Asked::default()
        };
        match self.once(&asked).and_then(Answer::success) {
            Ok(_) => Ok(()),
            Err(Error::Unreachable {
                url,
                why,
                sent: true,
            }) => Err(Error::FateUnknown(format!("{url}: {why}"))),
            // A proxy lost the service halfway.
            Err(Error::Unavailable(refusal)) if matches!(refusal.status, 502 | 504) => {
                Err(Error::FateUnknown(refusal.to_string()))
            }
            Err(error) => Err(error),
        }
    }
}

fn pair(widget1: &str, widget2: &str, port: &str) -> Value {
    json!({"widget1_sn": widget1, "widget2_sn": widget2, "port": port})
}
