//! Containment of slots, with the meaning of `jsonb @>` for `[{"port": …, "peer": …}, …]`.

use crate::Port;

/// What a widget's slots have to contain: a matching slot for each of these patterns. Several
/// patterns may match the same slot. An empty list is always contained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contained(pub Vec<SlotPattern>);

/// A pattern for one slot. Anything unspecified matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPattern {
    /// The slot's type.
    pub port: Option<Port>,
    /// The slot's peer: this one, or none. It can be any text, because the widget need not exist.
    pub peer: Option<Option<Box<str>>>,
}

impl Contained {
    /// Reports whether these slots, each a port and its peer, contain it.
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
    /// Reports whether a slot matches.
    #[must_use]
    pub fn matches(&self, port: Port, peer: Option<&str>) -> bool {
        self.port.is_none_or(|wanted| wanted == port)
            && (self.peer.as_ref()).is_none_or(|wanted| wanted.as_deref() == peer)
    }
}
