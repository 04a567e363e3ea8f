//! Which store it is, as its file `store` says: its epochs and its role.
//!
//! The owner alone changes that while the store is open, one change after the other and each after the commit before it. So none is lost
//! where two come at once, what was handed over earlier belongs to the epochs before, and none begins over a group of which nobody
//! knows whether it is there. Nor is anything written while nobody knows what the file says.

use super::Owner;
use crate::{
    Epoch, FollowError, Role, StoreHeader, disk::DiskFile, format::EPOCHS_MAX,
    recovery::NotReplaced,
};
use std::sync::Arc;
use tokio::sync::oneshot;
use widgets_clock::Clock;
use widgets_registry::Reason;

/// Makes the file that says which store it is, durably.
pub(crate) type KeepStore = Box<dyn Fn(&StoreHeader) -> Result<(), NotReplaced> + Send>;

/// What the file is to say.
pub enum Change {
    /// These epochs, which are those of the primary. It was asked when the store was the one that is given.
    Adopt(Arc<StoreHeader>, Vec<Epoch>),
    /// That it is the primary of a new epoch.
    Promote {
        number: u32,
        from: String,
        address: String,
    },
    /// That it is a standby of the primary at this address.
    Demote(String),
}

/// A change that waits for the commit, and who waits for it.
pub(super) struct Changing {
    pub(super) change: Change,
    pub(super) reply: oneshot::Sender<Result<(), FollowError>>,
}

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Makes the changes that came, after the commit.
    pub(super) fn change_header(&mut self) {
        for Changing { change, reply } in std::mem::take(&mut self.changing) {
            // Nobody may wait for it any more; it is so all the same.
            drop(reply.send(self.change(change)));
        }
    }

    fn change(&mut self, change: Change) -> Result<(), FollowError> {
        let own = self.log.store();
        match change {
            Change::Adopt(asked, epochs) => {
                if asked != own {
                    let why = "its role changed since its primary was asked";
                    return Err(FollowError::NotNow(why.into()));
                }
                if own.epochs == epochs || planted!(EpochsNotAdopted) {
                    return Ok(());
                }
                self.check_known()?;
                self.keep(StoreHeader {
                    epochs,
                    ..(*own).clone()
                })
            }
            Change::Promote {
                number,
                from,
                address,
            } => {
                if !own.is_standby() || !self.follows {
                    return Err(FollowError::NotStandby);
                }
                self.check_known()?;
                let first_sequence = self.log.newest().sequence + 1;
                let mut epochs = own.epochs.clone();
                if !planted!(EpochsAheadKept) {
                    // The primary said when they began, and this store has not come so far.
                    epochs.retain(|epoch| epoch.first_sequence <= first_sequence);
                }
                if epochs.len() == EPOCHS_MAX {
                    epochs.remove(0);
                }
                epochs.push(Epoch {
                    number,
                    first_sequence,
                });
                self.keep(StoreHeader {
                    epochs,
                    role: Role::Promoted { from, address },
                    ..(*own).clone()
                })
            }
            Change::Demote(primary) => {
                // First, and whatever becomes of the file.
                if !planted!(WritesOnWhenReplaced) {
                    self.set_follows(true);
                }
                self.keep(StoreHeader {
                    role: Role::Standby { primary },
                    ..(*own).clone()
                })
            }
        }
    }

    /// Refuses where a group may turn up at the next start: it would be taken for one of the epochs that were begun without it.
    fn check_known(&self) -> Result<(), FollowError> {
        match &self.stopped {
            None => Ok(()),
            Some(reason) => Err(FollowError::NotNow(reason.to_string())),
        }
    }

    fn keep(&mut self, store: StoreHeader) -> Result<(), FollowError> {
        let is_replaced = matches!(store.role, Role::Standby { .. });
        let forgotten = [
            (true, planted!(ReplacementNotKept)),
            (false, planted!(PromotionNotKept)),
        ];
        let is_forgotten = forgotten.contains(&(is_replaced, true));
        if !is_forgotten {
            self.replace(&store)?;
        }
        self.log.set_store(store);
        Ok(())
    }

    /// Replaces the file. Where it may be the new one although that failed, it is made the old one again: else a start would find an epoch
    /// or a role that nobody was told of, and what was written meanwhile would belong to another epoch. Where that fails as well, nothing is
    /// written before a start, which reads what is there.
    fn replace(&mut self, store: &StoreHeader) -> Result<(), FollowError> {
        let Err(NotReplaced { error, is_unknown }) = (self.keep_store)(store) else {
            return Ok(());
        };
        let error = error.to_string();
        if !is_unknown || (self.keep_store)(&self.log.store()).is_ok() {
            return Err(FollowError::NotNow(error));
        }
        tracing::error!(
            error,
            "which role this store has on its disk is not known: read-only until restart"
        );
        self.metrics.read_only();
        self.stopped = Some(Reason::new(
            "which role this store has on its disk is not known, it is read-only until it is restarted",
            error.clone(),
        ));
        Err(FollowError::FateUnknown(error))
    }
}
