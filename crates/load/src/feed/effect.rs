//! What an accepted operation did, as the model has it and as a change of the feed tells it.

use crate::partition::{Share, WidgetId};
use std::borrow::Cow;
use widgets_client::Change;
use widgets_registry::{Ordinal, Port, Ports, SLOTS_MAX};

/// A slot of a widget.
pub(crate) type Place = (WidgetId, Ordinal);

/// A slot that a removal frees. Which one it is of its widget is not known where that is forgotten.
pub(crate) type Freed = (WidgetId, Option<Ordinal>);

/// What an operation did.
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
    /// Whether a change tells just this.
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

    /// Whether it is the same operation on the same widgets, whatever else is told of it.
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

    /// What a change tells, and of which lane. `None` where it names no widget of this run.
    /// An error says why it can be nothing that the run did.
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

/// A removal with what it freed, in whichever order. `None` where that is more than a widget has slots.
pub(crate) fn removal(id: WidgetId, mut places: Vec<Freed>) -> Option<Effect> {
    places.sort_unstable();
    let mut freed = [None; SLOTS_MAX];
    for (index, place) in places.into_iter().enumerate() {
        *freed.get_mut(index)? = Some(place);
    }
    Some(Effect::Remove { id, freed })
}
