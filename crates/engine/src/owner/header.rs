//! Which store this is, as its file `store` says: its epochs and its role.
//!
//! While the store is open, only the owner changes the file: one change at a time, and each after
//! the commit before it. Therefore no change is lost if two come at once; everything submitted
//! earlier belongs to the earlier epochs; and no epoch begins while it is unknown whether the last
//! group exists. Nothing is written either while it is unknown what the file says.

use super::Owner;
use crate::{
    Epoch, FollowError, Role, StoreHeader, disk::DiskFile, format::EPOCHS_MAX,
    recovery::NotReplaced,
};
use std::sync::Arc;
use tokio::sync::oneshot;
use widgets_clock::Clock;
use widgets_registry::Reason;

/// Writes the file `store` durably.
pub(crate) type KeepStore = Box<dyn Fn(&StoreHeader) -> Result<(), NotReplaced> + Send>;

/// A change to the file `store`.
pub enum Change {
    /// Adopts these epochs, which are the primary's. The header is this store's as it was when the
    /// primary was asked for them.
    Adopt(Arc<StoreHeader>, Vec<Epoch>),
    /// Makes this store the primary of a new epoch, whose number must be above its own.
    Promote {
        number: u32,
        from: String,
        address: String,
    },
    /// Makes this store a standby of the primary at this address.
    Demote(String),
}

/// A change that waits for the commit, and the caller that waits for it.
pub(super) struct Changing {
    pub(super) change: Change,
    pub(super) reply: oneshot::Sender<Result<(), FollowError>>,
}

impl<F: DiskFile, C: Clock> Owner<F, C> {
    /// Makes the waiting changes, after the commit.
    pub(super) fn change_header(&mut self) {
        for Changing { change, reply } in std::mem::take(&mut self.changing) {
            // The caller may be gone; the change was made anyway.
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
                let (newest, is_kept) = (own.epoch(), planted!(EpochKept));
                let number = if is_kept { newest } else { number };
                if number <= newest && !is_kept {
                    return Err(FollowError::NotNow(format!(
                        "the new epoch {number} would not be above epoch {newest}, which was \
                         adopted meanwhile"
                    )));
                }
                let first_sequence = self.log.newest().sequence + 1;
                let mut epochs = own.epochs.clone();
                if !planted!(EpochsAheadKept) {
                    // The primary named these epochs in advance, and this store has not reached
                    // their beginning.
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
                // This comes first, and holds even if writing the file fails.
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

    /// Refuses if the last group may still turn up at the next start: it would then be counted in
    /// an epoch that was begun without it.
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

    /// Replaces the file. If replacing failed but may have taken effect, the old file is written
    /// again: otherwise a start would find an epoch or a role that nobody was told of, and what was
    /// written meanwhile would belong to another epoch. If that fails as well, nothing is written
    /// until a restart, which reads what is there.
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
            "the role that this store has on its disk is unknown: read-only until restart"
        );
        self.metrics.read_only();
        self.stopped = Some(Reason::new(
            "the role that this store has on its disk is unknown, it is read-only until it is \
             restarted",
            error.clone(),
        ));
        Err(FollowError::FateUnknown(error))
    }
}
