//! Everything within a given number of associations of a widget.

use super::Asker;
use crate::{Port, SerialNumber, Widget};
use std::collections::BTreeSet;

/// The minimum depth.
pub const DEPTH_MIN: u32 = 1;

/// The maximum depth.
pub const DEPTH_MAX: u32 = 10;

/// A query for a neighbourhood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourhoodQuery {
    /// Who asks.
    pub asker: Asker,
    /// The widget at the centre.
    pub serial_number: SerialNumber,
    /// The maximum distance in associations: [`DEPTH_MIN`] to [`DEPTH_MAX`].
    pub depth: u32,
    /// The maximum number of widgets, at least 1.
    pub widgets_max: u32,
}

/// Widgets and the associations between them, all of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbourhood {
    /// The nearest first; at equal distance, by serial number.
    pub widgets: Vec<Widget>,
    /// The associations with both ends among the widgets, each once, in order.
    pub associations: Vec<Association>,
    /// Whether there were more widgets than the maximum.
    pub truncated: bool,
}

/// Two associated widgets, the lesser serial number first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Association {
    /// The lesser one.
    pub widget1_sn: SerialNumber,
    /// The greater one.
    pub widget2_sn: SerialNumber,
    /// The port type.
    pub port: Port,
}

/// Returns the neighbourhood. `lookup` must return the same results throughout. Returns `None` if
/// the widget does not exist. Looks up no more widgets than it returns.
pub fn neighbourhood(
    query: &NeighbourhoodQuery,
    lookup: impl Fn(&SerialNumber) -> Option<Widget>,
) -> Option<Neighbourhood> {
    let most = query.widgets_max as usize;
    let mut widgets = vec![lookup(&query.serial_number)?];
    let mut seen = BTreeSet::from([query.serial_number.clone()]);
    let (mut truncated, mut level) = (false, 0);
    for _ in 0..query.depth {
        let peers = widgets[level..].iter().flat_map(|widget| &widget.slots);
        let peers = peers.filter_map(|slot| slot.peer.as_ref());
        let next: BTreeSet<&SerialNumber> = peers.filter(|peer| !seen.contains(*peer)).collect();
        let room = most.saturating_sub(widgets.len());
        truncated |= next.len() > room;
        let next: Vec<SerialNumber> = next.into_iter().take(room).cloned().collect();
        level = widgets.len();
        widgets.extend(next.iter().filter_map(&lookup));
        seen.extend(next);
    }
    Some(Neighbourhood::of(widgets, truncated))
}

impl Neighbourhood {
    /// Returns the neighbourhood with these widgets, in this order.
    #[must_use]
    pub fn of(widgets: Vec<Widget>, truncated: bool) -> Self {
        let shown: BTreeSet<_> = widgets.iter().map(|widget| &widget.serial_number).collect();
        let mut associations = BTreeSet::new();
        for widget in &widgets {
            for slot in &widget.slots {
                let Some(peer) = &slot.peer else { continue };
                if widget.serial_number < *peer && shown.contains(peer) {
                    associations.insert(Association {
                        widget1_sn: widget.serial_number.clone(),
                        widget2_sn: peer.clone(),
                        port: slot.port,
                    });
                }
            }
        }
        Self {
            associations: associations.into_iter().collect(),
            widgets,
            truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, Slot};

    fn sn(text: &str) -> SerialNumber {
        SerialNumber::new("sn", text).expect("within the limits")
    }

    /// Looks up A – B – C – D – A, and B – D over another port.
    fn lookup(serial_number: &SerialNumber) -> Option<Widget> {
        let peers: &[(Port, &str)] = match &**serial_number {
            "A" => &[(Port::P, "B"), (Port::Q, "D")],
            "B" => &[(Port::P, "A"), (Port::Q, "C"), (Port::R, "D")],
            "C" => &[(Port::Q, "B"), (Port::P, "D")],
            "D" => &[(Port::Q, "A"), (Port::P, "C"), (Port::R, "B")],
            "E" => &[],
            _ => return None,
        };
        Some(Widget {
            serial_number: serial_number.clone(),
            name: Name::new("name", "").expect("within the limits"),
            slots: (peers.iter())
                .map(|&(port, peer)| Slot {
                    port,
                    peer: Some(sn(peer)),
                })
                .collect(),
        })
    }

    fn shown(text: &str, depth: u32, widgets_max: u32) -> Option<(String, String, bool)> {
        let query = NeighbourhoodQuery {
            asker: Asker::default(),
            serial_number: sn(text),
            depth,
            widgets_max,
        };
        let found = neighbourhood(&query, lookup)?;
        let widgets = found.widgets.iter().map(|widget| &*widget.serial_number);
        let associations = found.associations.iter();
        let associations =
            associations.map(|each| format!("{}{}{}", each.widget1_sn, each.widget2_sn, each.port));
        let associations: Vec<String> = associations.collect();
        Some((widgets.collect(), associations.join(" "), found.truncated))
    }

    #[test]
    fn a_neighbourhood_lists_nearest_widgets_first_and_associations_once() {
        let all = "ABP ADQ BCQ BDR CDP";
        let of = |widgets: &str, associations: &str, truncated| {
            Some((widgets.to_owned(), associations.to_owned(), truncated))
        };
        assert_eq!(shown("A", 1, 9), of("ABD", "ABP ADQ BDR", false));
        assert_eq!(shown("A", 2, 9), of("ABDC", all, false));
        assert_eq!(shown("A", 10, 9), of("ABDC", all, false));
        assert_eq!(shown("A", 10, 4), of("ABDC", all, false));
        assert_eq!(shown("A", 2, 3), of("ABD", "ABP ADQ BDR", true));
        assert_eq!(shown("A", 1, 2), of("AB", "ABP", true));
        assert_eq!(shown("A", 1, 1), of("A", "", true));
        assert_eq!(shown("E", 5, 1), of("E", "", false));
        assert_eq!(shown("X", 5, 1), None);
    }
}
