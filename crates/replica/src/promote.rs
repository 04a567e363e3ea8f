//! Makes a standby the primary, and notifies the previous primary.
//!
//! The promoted store repeats the notification until the previous primary has confirmed it: a
//! machine that comes back therefore stops taking operations as soon as it can be reached. It then
//! follows the new primary, if the new primary's history contains its own.

use crate::{
    Acknowledge, Epoch, Error, Member, MemberId, Outside, Primary, Record, Role, Task, Tip,
    acknowledge::member_of,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{io, sync::Arc, time::Duration};
use widgets_engine::{FollowError, Follower, Source};

/// How often the previous primary is notified until it has confirmed.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// The pause before another attempt when a queue was full.
const LEAD_AGAIN: Duration = Duration::from_millis(20);

/// How to promote a standby.
pub(crate) struct Promotion {
    /// The address of its primary.
    pub(crate) from: String,
    /// The address of this store.
    pub(crate) address: String,
    /// What the primary handed over, if it did.
    pub(crate) handed: Option<(Epoch, Tip)>,
    /// Whether the store's answers will wait for a standby.
    pub(crate) acknowledge: Acknowledge,
    /// The operator accepts that acknowledged operations may be lost.
    pub(crate) force: bool,
}

/// Makes a standby, which follows nobody at present, the primary of a new epoch. Returns that
/// epoch.
pub(crate) async fn promote(
    outside: &dyn Outside,
    source: &Source,
    follower: &Follower,
    promotion: Promotion,
) -> Result<Epoch, Error> {
    // What the previous primary sent belongs to its epoch, even if it is written only now.
    follower.pause().await?;
    let Promotion {
        from,
        address,
        handed,
        acknowledge,
        force,
    } = promotion;
    let is_held = source.holding().holder.is_some();
    // The history decides, whatever this standby's configuration says: it names the member that
    // must not be passed over.
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
    let number = member.epoch().number();
    follower.promote(number, from, address).await?;
    // This must come before any operation. If a crash prevents it, the next start writes the
    // record.
    if let Some(record) = record {
        write(outside, source, follower, record, true).await?;
    }
    // The promotion is durable. Only a full queue can delay the rest, for a moment.
    while let Err(FollowError::NotNow(why)) = follower.lead().await {
        tracing::warn!(why, "the promoted store does not accept operations yet");
        outside.clock().timer(LEAD_AGAIN).await;
    }
    Ok(member.epoch())
}

/// Writes a record to a primary's journal, repeatedly until it succeeds or this store is a standby.
/// `is_first` means that the store was promoted and takes no operations yet.
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
                tracing::warn!(why, "the name of the holder is not in the journal yet");
                outside.clock().timer(LEAD_AGAIN).await;
            }
            outcome => return outcome.map(|_| ()),
        }
    }
}

/// Reports whether a primary of that epoch replaces this store's primary.
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

/// Notifies the previous primary that this store, reachable at `address`, has replaced it,
/// repeatedly until that succeeds or the task is dropped.
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
                    tracing::info!(before = %before.address, "the previous primary knows that it \
                    was replaced");
                    return;
                }
                Err(error) => tracing::debug!(%error, before = %before.address, "it is told again"),
            }
            network.clock().timer(TELL_AGAIN).await;
        }
    };
    outside.begin("tell", Box::pin(telling))
}
