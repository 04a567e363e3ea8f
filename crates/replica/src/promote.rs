//! A standby becomes the primary, and the primary before it hears of that.
//!
//! Whoever is promoted tells the one that it followed, again and again until that one knows: a machine that comes back
//! stops to take operations as soon as it is reached. It then follows the new primary, if its history goes that far.

use crate::{
    Acknowledge, Epoch, Error, Member, MemberId, Outside, Primary, Record, Role, Task, Tip,
    acknowledge::member_of,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{io, sync::Arc, time::Duration};
use widgets_engine::{FollowError, Follower, Source};

/// So often the primary before is told, until it knows.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// A queue that was full is tried again after this.
const LEAD_AGAIN: Duration = Duration::from_millis(20);

/// How a standby is promoted.
pub(crate) struct Promotion {
    /// Where its primary was.
    pub(crate) from: String,
    /// Where this store is.
    pub(crate) address: String,
    /// What the primary handed over, if it did.
    pub(crate) handed: Option<(Epoch, Tip)>,
    /// Whether its answers are to wait for a standby.
    pub(crate) acknowledge: Acknowledge,
    /// The operator's word that acknowledged operations may be lost.
    pub(crate) force: bool,
}

/// Makes a standby, which follows nobody at the moment, the primary of a new epoch: which one.
pub(crate) async fn promote(
    outside: &dyn Outside,
    source: &Source,
    follower: &Follower,
    promotion: Promotion,
) -> Result<Epoch, Error> {
    // What the primary before had sent belongs to its epoch, also where it is written only now.
    follower.pause().await?;
    let Promotion {
        from,
        address,
        handed,
        acknowledge,
        force,
    } = promotion;
    let is_held = source.holding().holder.is_some();
    // Whatever this standby's configuration says: its history names who must not be passed over.
    let rule = if is_held {
        Acknowledge::Standby
    } else {
        acknowledge
    };
    let mut member = member_of(source, rule, Role::Standby);
    let [low, high, ..] = outside.random().to_le_bytes();
    let salt = u16::from_le_bytes([low, high]);
    let salt = if slipped!(SaltForgotten) { 0 } else { salt };
    let record = match handed {
        Some((epoch, tip)) => member.take_over(epoch, tip, salt)?,
        None => member.promote(salt, force || slipped!(HolderPassedOver))?,
    };
    let record = match acknowledge {
        Acknowledge::Standby => record,
        Acknowledge::Local => is_held.then_some(Record::NoHolder),
    };
    let number = if slipped!(EpochKept) {
        source.store().epoch()
    } else {
        member.epoch().number()
    };
    follower.promote(number, from, address).await?;
    // Before any operation. Where a crash comes before it, the next start writes it.
    if let Some(record) = record {
        write(outside, source, follower, record, true).await?;
    }
    // It is durable: only a queue that is full can stand in the way, for a moment.
    while let Err(FollowError::NotNow(why)) = follower.lead().await {
        tracing::warn!(why, "the promoted store does not take operations yet");
        outside.clock().timer(LEAD_AGAIN).await;
    }
    Ok(member.epoch())
}

/// Writes a record to the journal of a primary, again until it is there or this store follows. `is_first`: it was promoted, and takes
/// no operations yet.
pub(crate) async fn write(
    outside: &dyn Outside,
    source: &Source,
    follower: &Follower,
    record: Record,
    is_first: bool,
) -> Result<(), FollowError> {
    let member = match record {
        Record::Holder(member) => Some(member.0),
        Record::NoHolder => None,
    };
    loop {
        let written = if is_first {
            follower.record_first(member).await
        } else {
            follower.record(member).await
        };
        match written {
            Err(FollowError::NotNow(why)) if !source.store().is_standby() => {
                tracing::warn!(why, "who is the holder is not written to the journal yet");
                outside.clock().timer(LEAD_AGAIN).await;
            }
            outcome => return outcome.map(|_| ()),
        }
    }
}

/// Whether a primary of this store is replaced by one of that epoch.
pub(crate) fn is_replaced(source: &Source, store: u64, epoch: u32) -> bool {
    let own = source.store();
    let mut member = Member::new(
        MemberId(0),
        Acknowledge::Local,
        Role::Primary,
        Epoch::new(own.epoch()),
    );
    member.heard_of(Epoch::new(epoch));
    store == own.identity && member.role() == Role::Standby
}

/// Tells the primary before that this store, found at `address`, has replaced it, until it knows or the task is dropped.
pub(crate) fn tell(
    outside: &Arc<dyn Outside>,
    before: Primary,
    source: &Source,
    address: &str,
) -> io::Result<Task> {
    let store = source.store();
    let address = utf8_percent_encode(address, NON_ALPHANUMERIC);
    let call = format!(
        "replaced?store={:016x}&epoch={:08x}&address={address}",
        store.identity,
        store.epoch()
    );
    let network = outside.clone();
    let telling = async move {
        loop {
            match network.tell(&before, &call).await {
                Ok(()) => {
                    tracing::info!(before = %before.address, "the primary before knows that it was replaced");
                    return;
                }
                Err(error) => tracing::debug!(%error, before = %before.address, "it is told again"),
            }
            network.clock().timer(TELL_AGAIN).await;
        }
    };
    outside.begin("tell", Box::pin(telling))
}
