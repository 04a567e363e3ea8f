//! How the roles change: a standby is promoted, and the primary before stops and follows it.

use super::{Inner, parameter};
use std::sync::atomic::Ordering;
use widgets_registry::Position;
use widgets_replica::{Address, Primary, is_replaced, promote};
use widgets_server::Unsent;

impl Inner {
    pub(super) async fn promote(&self, address: String) -> Result<String, Unsent> {
        let _one = self.changing.lock().await;
        let (primary, handle) = match &mut *self.following() {
            None => return Ok(self.told(false)),
            Some(following) => (following.primary.clone(), following.handle.take()),
        };
        let unavailable = |why: String| Unsent::Unavailable(why);
        // Waits for the group that is being written.
        let ended = tokio::task::spawn_blocking(move || drop(handle)).await;
        ended.map_err(|error| unavailable(error.to_string()))?;
        let from = primary.address.to_string();
        let promoted = promote(&self.source, &self.follower, from.clone(), address.clone()).await;
        let epoch = match promoted {
            Ok(epoch) => epoch.number(),
            Err(error) => {
                let why = error.to_string();
                let again = self.begin_to_follow(primary);
                again.map_err(|error| unavailable(error.to_string()))?;
                return Err(unavailable(why));
            }
        };
        *self.following() = None;
        self.metrics.set_status(None);
        self.follows.store(false, Ordering::Release);
        tracing::warn!(
            epoch,
            before = from,
            "promoted: this store takes operations"
        );
        self.tell_before(&from, &address);
        Ok(self.told(true))
    }

    /// What is answered to a promotion.
    fn told(&self, promoted: bool) -> String {
        let (store, end) = (self.source.store(), self.source.end());
        let position = Position {
            store: store.identity,
            epoch: store.epoch_of(end.next_sequence - 1),
            sequence: end.next_sequence - 1,
        };
        format!(
            r#"{{"promoted":{promoted},"epoch":{},"position":"{position}"}}"#,
            store.epoch()
        )
    }

    pub(super) async fn replaced(&self, query: &str) -> Result<String, Unsent> {
        let malformed = || {
            Unsent::Malformed(
                "there must be store, epoch and address, as a promoted store writes them".into(),
            )
        };
        let (store, epoch) = (parameter(query, "store"), parameter(query, "epoch"));
        let hex = |text: Option<String>| u64::from_str_radix(&text?, 16).ok();
        let store = hex(store).ok_or_else(malformed)?;
        let epoch = hex(epoch).and_then(|epoch| u32::try_from(epoch).ok());
        let epoch = epoch.ok_or_else(malformed)?;
        let address = parameter(query, "address").and_then(|text| text.parse().ok());
        let address = address.and_then(Address::new).ok_or_else(malformed)?;
        let _one = self.changing.lock().await;
        if self.following().is_some() {
            return Ok(r#"{"replaced":false}"#.into());
        }
        if !is_replaced(&self.source, store, epoch) {
            return Err(Unsent::Elsewhere(format!(
                "this is store {:016x} of epoch {}, told of was store {store:016x} of epoch {epoch}",
                self.source.store().identity,
                self.source.store().epoch(),
            )));
        }
        tracing::error!(
            epoch, primary = %address,
            "this primary was replaced: it takes no operations any more, and follows the new one"
        );
        let unavailable = |why: String| Unsent::Unavailable(why);
        let demoted = self.follower.demote(address.to_string()).await;
        demoted.map_err(|error| unavailable(error.to_string()))?;
        let primary = Primary {
            address,
            credentials: self.credentials.clone(),
        };
        let follows = self.begin_to_follow(primary);
        follows.map_err(|error| unavailable(error.to_string()))?;
        Ok(r#"{"replaced":true}"#.into())
    }
}
