//! A follower of a world's changes: what they lead to must be the state.

use super::{super::process::Process, World};
use widgets_conformance::{Model, commands::cause};
use widgets_registry::{
    ChangeFilter, Event, FeedError, Happened, Moment, Place, Position, SerialNumber,
};

/// A follower of the changes.
#[derive(Default)]
pub(super) struct Followed {
    model: Model,
    /// `None` at the very beginning.
    after: Option<Position>,
    at: Moment,
}

impl Followed {
    /// Applies one more change.
    fn apply(&mut self, event: &Event) -> Result<(), String> {
        if self.after >= Some(event.position) || event.at < self.at {
            return Err(format!("{event:?} is told after {:?}", self.after));
        }
        (self.after, self.at) = (Some(event.position), event.at);
        if let Happened::RemoveWidget {
            serial_number,
            freed,
        } = &event.happened
        {
            self.check_freed(serial_number, freed)?;
        }
        let command = cause(&event.happened).map_err(|refusal| refusal.to_string())?;
        let applied = self.model.apply(&command);
        applied.map_err(|refusal| format!("{event:?} cannot have happened: {refusal}"))?;
        if let Happened::AssociateWidgets(one, other, _) = &event.happened {
            for (place, peer) in [(one, other), (other, one)] {
                if self.peer(place) != Some(peer.serial_number.clone()) {
                    return Err(format!("{event:?} names another slot"));
                }
            }
        }
        Ok(())
    }

    fn peer(&self, place: &Place) -> Option<SerialNumber> {
        let widget = self.model.lookup(&place.serial_number)?;
        widget.slots.get(place.ordinal.index())?.peer.clone()
    }

    fn check_freed(&self, removed: &SerialNumber, freed: &[Place]) -> Result<(), String> {
        let widget = self.model.lookup(removed);
        let peers = widget.iter().flat_map(|widget| &widget.slots);
        let peers = peers.filter(|slot| slot.peer.is_some()).count();
        let were_peers = freed
            .iter()
            .all(|place| self.peer(place).as_ref() == Some(removed));
        if peers == freed.len() && were_peers {
            return Ok(());
        }
        Err(format!("the removal of {removed} frees {freed:?}"))
    }
}

impl World {
    /// Reads changes: all of them, or those of one answer.
    pub(super) fn follow(&mut self, process: &Process, to_the_end: bool) -> Result<(), String> {
        let Some(followed) = &mut self.followed else {
            return Ok(());
        };
        loop {
            let after = followed
                .after
                .unwrap_or_else(|| process.engine.log.oldest());
            let read =
                process
                    .engine
                    .log
                    .read(after, &ChangeFilter::default(), 1 + self.chance.below(4));
            let changes = match read {
                Ok(changes) => changes,
                // The follower lagged, or a bit was flipped in data that only it needs.
                Err(FeedError::Gone { oldest }) if after.sequence < oldest.sequence => {
                    self.disk.plan().tally.lagged += 1;
                    self.followed = None;
                    return Ok(());
                }
                Err(FeedError::Fault(_)) if !to_the_end => return Ok(()),
                Err(FeedError::Fault(_)) if self.profile.is_damaged => {
                    self.followed = None;
                    return Ok(());
                }
                Err(error) => return Err(format!("the changes after {after}: {error}")),
            };
            self.disk.plan().tally.changes += changes.events.len() as u64;
            for event in &changes.events {
                followed.apply(event)?;
            }
            if changes.next < after {
                return Err(format!("after {after} it goes on at {}", changes.next));
            }
            followed.after = Some(changes.next);
            if changes.is_end || !to_the_end {
                return Ok(());
            }
        }
    }

    /// Checks that the changes lead to this state.
    pub(super) fn check_followed(&mut self, process: &Process, state: Model) -> Result<(), String> {
        match &self.followed {
            Some(followed) if followed.model == state => {}
            Some(followed) => {
                return Err(format!(
                    "the changes up to {:?} lead to {:?}, and there is {state:?}",
                    followed.after, followed.model
                ));
            }
            None => {
                self.followed = Some(Followed {
                    model: state,
                    after: Some(process.engine.log.newest()),
                    at: Moment(0),
                });
            }
        }
        Ok(())
    }
}
