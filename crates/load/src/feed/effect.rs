//! The effect of an accepted operation, as the model predicts it and as a change of the feed
//! reports it.

use crate::partition::{Share, WidgetId};
use std::borrow::Cow;
use widgets_client::Change;
use widgets_registry::{Ordinal, Port, Ports, SLOTS_MAX};

/// A slot of a widget.
pub(crate) type Place = (WidgetId, Ordinal);

/// A slot that a removal frees. Its ordinal is unknown if the widget has been forgotten.
pub(crate) type Freed = (WidgetId, Option<Ordinal>);

/// The effect of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Add {
        id: WidgetId,
        name: Cow<'static, str>,
        ports: Ports,
    },
    Remove {
        id: WidgetId,
        freed: [Option<Freed>; SLOTS_MAX],
    },
    Associate(Place, Place, Port),
    Dissociate(Place, Place, Port),
}

impl Effect {
    /// Reports whether a change says exactly this.
    pub(crate) fn is_told_as(&self, told: &Self) -> bool {
        match (self, told) {
            (
                Self::Remove { id, freed },
                Self::Remove {
                    id: told_id,
                    freed: told,
                },
            ) => {
                let same = |(freed, told): (&Option<Freed>, &Option<Freed>)| match (freed, told) {
                    (Some((id, ordinal)), Some((told_id, told))) => {
                        id == told_id && (ordinal.is_none() || ordinal == told)
                    }
                    (freed, told) => freed == told,
                };
                id == told_id && freed.iter().zip(told).all(same)
            }
            (effect, told) => effect == told,
        }
    }

    /// Reports whether it is the same operation on the same widgets, whatever else the change says.
    pub(crate) fn is_akin_to(&self, told: &Self) -> bool {
        match (self, told) {
            (Self::Add { id, .. }, Self::Add { id: told, .. })
            | (Self::Remove { id, .. }, Self::Remove { id: told, .. }) => id == told,
            (Self::Associate(one, two, _), Self::Associate(told_one, told_two, _))
            | (Self::Dissociate(one, two, _), Self::Dissociate(told_one, told_two, _)) => {
                (one.0, two.0) == (told_one.0, told_two.0)
            }
            _ => false,
        }
    }

    /// Returns the effect that a change reports, and the lane whose operation it was. Returns
    /// `None` if it names no widget of this run, and an error if the run cannot have caused it.
    pub(crate) fn of(change: &Change, share: &Share) -> Option<Result<(u32, Self), String>> {
        let names = [&change.widget_sn, &change.widget1_sn, &change.widget2_sn]
            .into_iter()
            .flatten()
            .chain(change.freed.iter().flatten().map(|freed| &freed.widget_sn));
        let mut lane = None;
        let (mut of_others, mut of_several) = (false, false);
        for name in names {
            match (share.owner(name), lane) {
                (None, _) => of_others = true,
                (Some((owner, _)), None) => lane = Some(owner),
                (Some((owner, _)), Some(lane)) => of_several |= owner != lane,
            }
        }
        let lane = lane?;
        if of_others || of_several {
            return Some(Err("it names widgets of this run and others".into()));
        }
        let effect = Self::read(change, share);
        Some(effect.map_or_else(
            || Err("it lacks what its operation has".into()),
            |effect| Ok((lane, effect)),
        ))
    }

    fn read(change: &Change, share: &Share) -> Option<Self> {
        let id = |name: &Option<String>| Some(share.owner(name.as_ref()?)?.1);
        let ordinal = |slot: u8| Ordinal::new(slot.checked_sub(1)?);
        let pair = || {
            let one = (id(&change.widget1_sn)?, ordinal(change.slot1?)?);
            let two = (id(&change.widget2_sn)?, ordinal(change.slot2?)?);
            Some((one, two, Port::parse(change.port.as_ref()?).ok()?))
        };
        match change.operation.as_str() {
            "add_widget" => {
                let ports = change.slots.as_ref()?.iter();
                let ports: Option<Vec<Port>> = ports.map(|port| Port::parse(port).ok()).collect();
                Some(Self::Add {
                    id: id(&change.widget_sn)?,
                    name: change.widget_name.clone()?.into(),
                    ports: Ports::new(&ports?).ok()?,
                })
            }
            "remove_widget" => {
                let mut freed = Vec::new();
                for place in change.freed.as_ref()? {
                    let (_, id) = share.owner(&place.widget_sn)?;
                    freed.push((id, Some(ordinal(place.slot)?)));
                }
                let id = id(&change.widget_sn)?;
                removal(id, freed)
            }
            "associate_widgets" => pair().map(|(one, two, port)| Self::Associate(one, two, port)),
            "remove_association" => pair().map(|(one, two, port)| Self::Dissociate(one, two, port)),
            _ => None,
        }
    }
}

/// Returns a removal that frees these slots, in any order, or `None` if they are more than a widget
/// has.
pub(crate) fn removal(id: WidgetId, mut places: Vec<Freed>) -> Option<Effect> {
    places.sort_unstable();
    let mut freed = [None; SLOTS_MAX];
    for (index, place) in places.into_iter().enumerate() {
        *freed.get_mut(index)? = Some(place);
    }
    Some(Effect::Remove { id, freed })
}
