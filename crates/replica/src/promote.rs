//! A standby becomes the primary, and the primary before it hears of that.
//!
//! Whoever is promoted tells the one that it followed, again and again until that one knows: a machine that comes back
//! stops to take operations as soon as it is reached. It then follows the new primary, if its history goes that far.

use crate::{Acknowledge, Epoch, Error, Member, MemberId, Outside, Primary, Role, Task, Tip};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{io, sync::Arc, time::Duration};
use widgets_engine::{FollowError, Follower, Source};

/// So often the primary before is told, until it knows.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// A queue that was full is tried again after this.
const LEAD_AGAIN: Duration = Duration::from_millis(20);

/// Makes a standby, which follows nobody at the moment, the primary of a new epoch. `from` is where its primary was,
/// `address` where this store is, `handed` what that primary handed over, if it did. The epoch.
pub(crate) async fn promote(
    outside: &dyn Outside,
    source: &Source,
    follower: &Follower,
    from: String,
    address: String,
    handed: Option<(Epoch, Tip)>,
) -> Result<Epoch, Error> {
    // What the primary before had sent belongs to its epoch, also where it is written only now.
    follower.pause().await?;
    let (store, end) = (source.store(), source.end());
    let epoch = Epoch::new(store.epoch());
    let mut member = Member::new(MemberId(0), Acknowledge::Local, Role::Standby, epoch);
    let tip = Tip {
        sequence: end.next_sequence,
        chain: end.chain,
    };
    member.lengthened(tip, None);
    let [low, high, ..] = outside.random().to_le_bytes();
    let salt = u16::from_le_bytes([low, high]);
    let salt = if slipped!(SaltForgotten) { 0 } else { salt };
    match handed {
        Some((epoch, tip)) => member.take_over(epoch, tip, salt)?,
        None => member.promote(salt, false)?,
    };
    let number = if slipped!(EpochKept) {
        epoch.number()
    } else {
        member.epoch().number()
    };
    follower.promote(number, from, address)?;
    // It is durable: only a queue that is full can stand in the way, for a moment.
    while let Err(FollowError::NotNow(why)) = follower.lead().await {
        tracing::warn!(why, "the promoted store does not take operations yet");
        outside.clock().timer(LEAD_AGAIN).await;
    }
    Ok(member.epoch())
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
