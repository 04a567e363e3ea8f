//! Containment of slots, as `jsonb @>` says it of `[{"port": …, "peer": …}, …]`.

use crate::Port;

/// What a widget's slots have to contain: for each of these a slot that is so. Several may be the same
/// slot; of none there is always one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contained(pub Vec<SlotPattern>);

/// What is said of one slot; of what is not said, anything goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPattern {
    /// Its type.
    pub port: Option<Port>,
    /// Its peer: this one, or none. Any text, as there need not be such a widget.
    pub peer: Option<Option<Box<str>>>,
}

impl Contained {
    /// Whether these slots, each a port and its peer, contain it.
    pub fn is_in<'a>(
        &self,
        slots: &(impl Iterator<Item = (Port, Option<&'a str>)> + Clone),
    ) -> bool {
        let Self(patterns) = self;
        patterns.iter().all(|pattern| {
            slots
                .clone()
                .any(|(port, peer)| pattern.matches(port, peer))
        })
    }
}

impl SlotPattern {
    /// Whether a slot is so.
    #[must_use]
    pub fn matches(&self, port: Port, peer: Option<&str>) -> bool {
        self.port.is_none_or(|wanted| wanted == port)
            && (self.peer.as_ref()).is_none_or(|wanted| wanted.as_deref() == peer)
    }
}
