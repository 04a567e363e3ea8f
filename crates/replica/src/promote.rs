//! A standby becomes the primary, and the primary before it hears of that.
//!
//! Whoever is promoted tells the one that it followed, again and again until that one knows: a machine that comes back
//! stops to take operations as soon as it is reached. It then follows the new primary, if its history goes that far.

use crate::{Acknowledge, Epoch, Error, Member, MemberId, Primary, Role, Tip};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{
    io,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{sync::oneshot, time::sleep};
use widgets_engine::{FollowError, Follower, Source};

/// So often the primary before is told, until it knows.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// A queue that was full is tried again after this.
const LEAD_AGAIN: Duration = Duration::from_millis(20);

/// Makes a standby, which follows nobody at the moment, the primary of a new epoch. `from` is where its primary was,
/// `address` where this store is. The epoch.
pub async fn promote(
    source: &Source,
    follower: &Follower,
    from: String,
    address: String,
) -> Result<Epoch, Error> {
    let (store, end) = (source.store(), source.end());
    let epoch = Epoch::new(store.epoch());
    let mut member = Member::new(MemberId(0), Acknowledge::Local, Role::Standby, epoch);
    let tip = Tip {
        sequence: end.next_sequence,
        chain: end.chain,
    };
    member.lengthened(tip, None);
    let [low, high, ..] = crate::random().to_le_bytes();
    member.promote(u16::from_le_bytes([low, high]), false)?;
    let number = member.epoch().number();
    follower.promote(number, from, address)?;
    // It is durable: only a queue that is full can stand in the way, for a moment.
    while let Err(FollowError::NotNow(why)) = follower.lead().await {
        tracing::warn!(why, "the promoted store does not take operations yet");
        sleep(LEAD_AGAIN).await;
    }
    Ok(member.epoch())
}

/// Whether a primary of this store is replaced by one of that epoch.
#[must_use]
pub fn is_replaced(source: &Source, store: u64, epoch: u32) -> bool {
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

/// A thread that tells the primary before. Dropping it ends that.
pub struct Telling {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Telling {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by its thread.
            drop(thread.join());
        }
    }
}

/// Tells the primary before that this store, found at `address`, has replaced it, until it knows.
pub fn tell(before: Primary, source: &Source, address: &str) -> io::Result<Telling> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let store = source.store();
    let address = utf8_percent_encode(address, NON_ALPHANUMERIC);
    let call = format!(
        "replaced?store={:016x}&epoch={:08x}&address={address}",
        store.identity,
        store.epoch()
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let telling = async move {
        loop {
            match before.tell(&call).await {
                Ok(()) => {
                    tracing::info!(before = %before.address, "the primary before knows that it was replaced");
                    return;
                }
                Err(error) => tracing::debug!(%error, before = %before.address, "it is told again"),
            }
            sleep(TELL_AGAIN).await;
        }
    };
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                () = telling => {}
            }
        });
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("tell".into()).spawn(work)?;
    Ok(Telling {
        stop: Some(stop),
        thread: Some(thread),
    })
}
