//! Reads one widget, and its neighbourhood.

use crate::{Client, Error, answer::Asked, filter::escape};
use serde::Deserialize;

/// A widget as the service shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Widget {
    /// Its serial number.
    pub serial_number: String,
    /// Its name.
    pub name: String,
    /// Its slots, in order.
    pub slots: Vec<Slot>,
}

/// A slot of a widget.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// Its port type.
    pub port: String,
    /// The serial number of the associated widget; `None` while the slot is free.
    pub peer: Option<String>,
}

/// Every widget within a given number of associations of one widget, all at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Neighbourhood {
    /// The widgets in breadth-first order.
    pub widgets: Vec<Widget>,
    /// The associations, each once.
    pub associations: Vec<Association>,
    /// Whether there is more than was requested.
    pub truncated: bool,
}

/// Two associated widgets and the port type between them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Association {
    /// The lesser serial number.
    pub widget1_sn: String,
    /// The greater serial number.
    pub widget2_sn: String,
    /// The port type.
    pub port: String,
}

impl Client {
    /// Returns one widget, and the text in which the service showed it.
    pub fn get(&self, serial_number: &str) -> Result<(Widget, String), Error> {
        // URL parsers remove `.` and `..` from a path, ours as well as those on the way.
        if matches!(serial_number, "." | "..") {
            let target = format!("/widgets?serial_number=eq.{}", escape(serial_number));
            let answer = self.read(&Asked {
                target: &target,
                headers: &[("Accept", "application/vnd.pgrst.object+json")],
                ..Asked::default()
            })?;
            return Ok((answer.json()?, answer.text));
        }
        let answer = self.read(&Asked {
            target: &format!("/widgets/{}", escape(serial_number)),
            ..Asked::default()
        })?;
        Ok((answer.json()?, answer.text))
    }

    /// Returns everything within a given number of associations of a widget, up to a maximum number
    /// of widgets, and the text in which the service showed it.
    pub fn neighbourhood(
        &self,
        serial_number: &str,
        depth: u8,
        widgets_max: u32,
    ) -> Result<(Neighbourhood, String), Error> {
        let escaped = escape(serial_number);
        let answer = self.read(&Asked {
            target: &format!(
                "/widgets/{escaped}/neighbourhood?depth={depth}&widgets_max={widgets_max}"
            ),
            ..Asked::default()
        })?;
        Ok((answer.json()?, answer.text))
    }
}
