//! One widget, and what is around it.

use crate::{Client, Error, answer::Asked, filter::escape};
use serde::Deserialize;

/// A widget as the service shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Widget {
    /// Its serial number.
    pub serial_number: String,
    /// Its name.
    pub name: String,
    /// Its slots, in their order.
    pub slots: Vec<Slot>,
}

/// A slot of a widget.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// Its port type.
    pub port: String,
    /// The serial number of the widget that it is associated with; `None` while it is free.
    pub peer: Option<String>,
}

/// Everything within so many associations of one widget, of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Neighbourhood {
    /// Breadth first.
    pub widgets: Vec<Widget>,
    /// Each one once.
    pub associations: Vec<Association>,
    /// There is more than was asked for.
    pub truncated: bool,
}

/// Two widgets and the port type between them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Association {
    /// The lesser serial number.
    pub widget1_sn: String,
    /// The greater one.
    pub widget2_sn: String,
    /// Over which port type.
    pub port: String,
}

impl Client {
    /// One widget, and the text in which the service showed it.
    pub fn get(&self, serial_number: &str) -> Result<(Widget, String), Error> {
        // URL parsers take `.` and `..` out of a path, ours and those on the way.
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

    /// Everything within so many associations of a widget, at most so many widgets, and the text in
    /// which the service showed it.
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
