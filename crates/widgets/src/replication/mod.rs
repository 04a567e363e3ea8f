//! Standbys: how a store begins as one, and how the server and the replication call each other.

mod begin;

pub(crate) use begin::{Begun, Opened, open};

use bytes::Bytes;
use std::{error::Error, sync::Arc};
use tokio::sync::{mpsc, watch};
use widgets_engine::Engine;
use widgets_registry::Reason;
use widgets_replica::{Credentials, MEDIA_TYPE, Metrics, Primary, Real, Roles, Store, Unsendable};
use widgets_server::{Replication, Sending, Settled, Taker, Tell, Told, Unsent};

/// The role of an embedded store, as the server sees it. Clones share their state.
#[derive(Clone)]
pub(crate) struct Replicated(Roles);

/// Begins to follow the primary, if there is one, and to serve this store's standbys.
pub(crate) fn start(
    engine: &Engine,
    primary: Option<Primary>,
    credentials: Credentials,
    segment_bytes: u64,
    registry: &prometheus::Registry,
) -> Result<Replicated, Box<dyn Error>> {
    let metrics = Metrics::new();
    metrics.register(registry)?;
    let roles = Roles::start(
        Arc::new(Real::new()),
        Store {
            source: engine.source(),
            follower: engine.follower(),
            acknowledging: engine.acknowledging(),
        },
        primary,
        credentials,
        segment_bytes,
        metrics,
    )?;
    Ok(Replicated(roles))
}

impl Replicated {
    /// Ends the background tasks.
    pub(crate) fn stop(&self) {
        self.0.stop();
    }
}

fn unsent(unsendable: Unsendable) -> Unsent {
    match unsendable {
        Unsendable::Malformed(must) => Unsent::Malformed(must),
        Unsendable::Elsewhere(why) => Unsent::Elsewhere(why),
        Unsendable::Busy(limit) => Unsent::Busy(limit),
        Unsendable::Unavailable(why) => Unsent::Unavailable(why),
        Unsendable::NotChanged(why) => Unsent::NotChanged(why),
        Unsendable::Unknown(why) => Unsent::Unknown(why),
        Unsendable::Refused(public, why) => Unsent::Refused(public, why),
    }
}

impl Replication for Replicated {
    fn taker(&self) -> Taker {
        match self.0.taker() {
            widgets_replica::Taker::This => Taker::This,
            widgets_replica::Taker::Primary(primary) => Taker::Primary(primary),
            widgets_replica::Taker::Nobody => Taker::Nobody,
        }
    }

    fn settled(&self) -> Settled {
        let roles = self.0.clone();
        Box::pin(async move { roles.settled().await })
    }

    fn ready(&self) -> Result<(), Reason> {
        self.0.failure().map_or(Ok(()), |why| {
            Err(Reason::new("it does not follow its primary", why))
        })
    }

    fn media_type(&self) -> &'static str {
        MEDIA_TYPE
    }

    fn send(
        &self,
        query: &str,
        reports: mpsc::Receiver<Bytes>,
        stopping: watch::Receiver<bool>,
    ) -> Sending {
        let sent = self.0.standbys().send(query.to_owned(), reports, stopping);
        Box::pin(async move {
            let (body, sending) = sent.await.map_err(unsent)?;
            // It ends with the standby, or with the service.
            tokio::spawn(sending);
            Ok(body)
        })
    }

    fn tell(&self, what: Tell, query: &str) -> Told {
        let (roles, query) = (self.0.clone(), query.to_owned());
        Box::pin(async move {
            // On a separate task, so that it is not left half done if the client hangs up.
            let told = tokio::spawn(async move {
                match what {
                    Tell::Replaced => roles.replaced(&query).await,
                    Tell::Promote => roles.promote(&query).await,
                    Tell::HandOver => roles.hand_over(&query).await,
                    Tell::HandedOver => roles.handed_over(&query).await,
                    Tell::Holder => roles.holder(&query),
                }
            });
            let ended = |error: tokio::task::JoinError| Unsent::Unavailable(error.to_string());
            told.await.map_err(ended)?.map_err(unsent)
        })
    }
}
