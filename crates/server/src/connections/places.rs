//! Places for connections: how many there are, who gets one, and who makes room when all are taken.
//!
//! An idle connection is worth less than one that a client wants to use. So when all places are
//! taken, idle connections are closed: those of the clients that have the most first, and of these
//! the longest idle first. A slow or silent client counts as idle until it has sent a complete
//! head. Each client also has its own limit. If no connection is idle, the client with the most
//! gives up connections on which only bodies are awaited, in favour of a client that has less than
//! half as many. None of those requests has been applied.
//!
//! A client that takes all places must not be able to keep others out by connecting more often than
//! they do. So a client that has many times as many connections as another takes none of the
//! other's places. A client that has just connected and has few connections is left time to send a
//! request, as long as those with the most can make room.
//!
//! If nobody can make room, a limited number of connections in excess is served for a moment: they
//! are answered with the reason, and probes are answered as usual.

mod seat;

pub(super) use seat::{Awaited, Busy, Seat, Turns};

use super::metrics::{ConnectionMetrics, Open};
use crate::proxies;
use ipnet::IpNet;
use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum number of connections in excess that are served at a time, in total and of one
/// client. Further ones are closed immediately.
pub const EXCESS_MAX: usize = 64;
const EXCESS_PER_CLIENT_MAX: usize = 16;

/// How many of these are kept for clients that have only a few of them, and how many are a few.
const EXCESS_KEPT: usize = 16;
const EXCESS_FEW: usize = 4;

/// How many connections are closed at a time to make room: idle ones, and ones in excess.
const LEAVING_MAX: usize = 32;
const EXCESS_LEAVING_MAX: usize = 4;

/// A client with more than this many times as many connections as another takes none of the other's
/// places.
const TIMES_AS_MANY: usize = 8;

/// How long to wait for a connection to leave. A busy worker does not delay the next client for
/// longer.
const LEAVE_MAX: Duration = Duration::from_millis(100);

/// All places for connections.
pub(super) struct Places {
    connections_max: usize,
    per_client_max: usize,
    trusted: Vec<IpNet>,
    permits: Arc<Semaphore>,
    excess: Arc<Semaphore>,
    table: Mutex<Table>,
    turns: Arc<Turns>,
    metrics: ConnectionMetrics,
}

#[derive(Default)]
struct Table {
    clients: HashMap<IpAddr, HashMap<u64, Arc<Seat>>>,
    excess: HashMap<IpAddr, HashMap<u64, Arc<Seat>>>,
}

impl Table {
    /// Returns how many places a client has.
    fn of(&self, client: IpAddr) -> usize {
        self.clients.get(&client).map_or(0, HashMap::len)
    }

    fn clients_of(&mut self, excess: bool) -> &mut HashMap<IpAddr, HashMap<u64, Arc<Seat>>> {
        if excess {
            &mut self.excess
        } else {
            &mut self.clients
        }
    }
}

/// What a connection holds for as long as it is open.
pub(super) struct Place {
    pub(super) seat: Arc<Seat>,
    /// The limit that the connection exceeds, if any.
    pub(super) excess: Option<String>,
    places: Arc<Places>,
    client: IpAddr,
    number: u64,
    permit: Option<OwnedSemaphorePermit>,
    _open: Option<Open>,
}

/// Which connections are closed to make room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The client's own idle ones.
    Own,
    /// Everyone's idle ones, except new ones of clients that have few.
    Idle,
    /// Those of the client with the most on which only bodies are awaited.
    Awaiting,
    /// Everyone's idle ones, including new ones. Used only if nobody else makes room.
    New,
}

impl Whose {
    /// The order in which they are asked when all places are taken.
    const OF_ALL: [Self; 3] = [Self::Idle, Self::Awaiting, Self::New];
}

impl Places {
    pub(super) fn new(
        connections_max: usize,
        per_client_max: usize,
        trusted: Vec<IpNet>,
        metrics: ConnectionMetrics,
    ) -> Arc<Self> {
        metrics.set_max(connections_max);
        // A quarter is always left for other clients.
        let leaves_others = connections_max - connections_max / 4;
        Arc::new(Self {
            connections_max,
            per_client_max: per_client_max.min(leaves_others),
            trusted,
            permits: Arc::new(Semaphore::new(connections_max)),
            excess: Arc::new(Semaphore::new(EXCESS_MAX)),
            table: Mutex::default(),
            turns: Arc::default(),
            metrics,
        })
    }

    /// Returns a place for a connection from this address, one in excess, or none.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let is_trusted = self.is_trusted(address);
        // The table is asked whether a client is trusted, and the /64 of a trusted address is not.
        let client = if is_trusted {
            address
        } else {
            proxies::client_of(address)
        };
        self.turns.came.fetch_add(1, Ordering::Relaxed);
        let is_unlimited = self.per_client_max == self.connections_max || is_trusted;
        let has_own = || is_unlimited || self.of(client) < self.per_client_max;
        if !has_own() && !self.make_room(&[Whose::Own], client, has_own).await {
            let limit = format!("connections_per_client_max = {}", self.per_client_max);
            return self.take_in_excess(client, limit).await;
        }
        let permit = || self.permits.clone().try_acquire_owned().ok();
        let mut taken = permit();
        // Connections are accepted one at a time, so nobody else takes a place that becomes free.
        let has_room = || self.permits.available_permits() > 0;
        if taken.is_none() && self.make_room(&Whose::OF_ALL, client, has_room).await {
            taken = permit();
        }
        let Some(taken) = taken else {
            let limit = format!("connections_max = {}", self.connections_max);
            return self.take_in_excess(client, limit).await;
        };
        Some(self.place(client, taken, None))
    }

    async fn take_in_excess(self: &Arc<Self>, client: IpAddr, limit: String) -> Option<Place> {
        self.metrics.refused();
        let of_client = self.lock().excess.get(&client).map_or(0, HashMap::len);
        if of_client >= EXCESS_PER_CLIENT_MAX {
            return None;
        }
        let kept = if of_client < EXCESS_FEW {
            0
        } else {
            EXCESS_KEPT
        };
        let has_room = || self.excess.available_permits() > kept;
        if !has_room() {
            if kept > 0 {
                return None;
            }
            self.end_some_excess();
            self.wait_for(has_room).await;
        }
        let permit = self.excess.clone().try_acquire_owned().ok()?;
        Some(self.place(client, permit, Some(limit)))
    }

    /// Ends some connections in excess, so that a client with its own address finds a place even if
    /// others take all of them.
    fn end_some_excess(&self) {
        let table = self.lock();
        let most = table.excess.values().max_by_key(|seats| seats.len());
        let mut seats: Vec<_> = most.into_iter().flatten().collect();
        seats.sort_unstable_by_key(|(number, _)| **number);
        for (_, seat) in seats.into_iter().take(EXCESS_LEAVING_MAX) {
            seat.cut();
            seat.tell();
        }
    }

    fn place(
        self: &Arc<Self>,
        client: IpAddr,
        permit: OwnedSemaphorePermit,
        excess: Option<String>,
    ) -> Place {
        let number = self.turns.came.load(Ordering::Relaxed);
        let seat = Seat::new(self.turns.clone());
        let mut table = self.lock();
        let clients = table.clients_of(excess.is_some());
        let of_client = clients.entry(client).or_default();
        of_client.insert(number, seat.clone());
        let open = excess.is_none().then(|| self.metrics.opened());
        Place {
            seat,
            excess,
            places: self.clone(),
            client,
            number,
            permit: Some(permit),
            _open: open,
        }
    }

    /// Asks connections to close in order to make room for one of this client's, and waits a moment
    /// for it. If none of one kind leaves, the next kind is asked.
    async fn make_room(
        &self,
        those: &[Whose],
        client: IpAddr,
        has_room: impl Fn() -> bool,
    ) -> bool {
        for whose in those {
            match whose {
                Whose::Awaiting => self.tell_awaiting_to_leave(client),
                idle => self.tell_idle_to_leave(*idle, client),
            }
            if self.wait_for(&has_room).await {
                return true;
            }
        }
        false
    }

    /// Waits until there is room, or every connection that was asked to leave stays.
    async fn wait_for(&self, has_room: impl Fn() -> bool) -> bool {
        let Turns {
            undecided, changed, ..
        } = &*self.turns;
        let decided = async {
            while undecided.load(Ordering::Acquire) > 0 && !has_room() {
                changed.notified().await;
            }
        };
        // Whether that happens in time or not.
        drop(tokio::time::timeout(LEAVE_MAX, decided).await);
        has_room()
    }

    /// Asks connections of the client with the most, on which only bodies are awaited, to leave, if
    /// this client has less than half as many.
    fn tell_awaiting_to_leave(&self, client: IpAddr) {
        let table = self.lock();
        let own = table.of(client);
        let others = table.clients.iter();
        let others = others.filter(|(each, _)| !self.is_trusted(**each));
        let Some((_, seats)) = others.max_by_key(|(_, seats)| seats.len()) else {
            return;
        };
        if seats.len() <= 2 * (own + 1) {
            return;
        }
        let awaiting = seats.values().filter(|seat| seat.only_awaits());
        for seat in awaiting.take(self.leaving_max()) {
            seat.tell_to_give_way();
        }
    }

    /// Returns how many leave at a time: only a few if only a few are open.
    fn leaving_max(&self) -> usize {
        LEAVING_MAX.min(self.connections_max / 32 + 1)
    }

    /// Asks idle connections to leave, in favour of one of this client's.
    fn tell_idle_to_leave(&self, whose: Whose, client: IpAddr) {
        let table = self.lock();
        let own = table.of(client);
        let is_proxy = self.is_trusted(client);
        let most = table.clients.values().map(HashMap::len).max();
        let most = most.unwrap_or_default();
        let mut idle: Vec<_> = table
            .clients
            .iter()
            .filter(|(each, seats)| match whose {
                Whose::Own => client == **each,
                _ => client == **each || is_proxy || own <= TIMES_AS_MANY * seats.len(),
            })
            .flat_map(|(client, seats)| {
                let trusted = self.is_trusted(*client);
                let has_few = whose == Whose::Idle && 2 * seats.len() <= most;
                let idle = seats.values().filter(move |seat| {
                    let is_new = has_few && !seat.was_asked();
                    seat.is_idle() && !seat.is_told() && !is_new
                });
                idle.map(move |seat| {
                    let since = seat.idle_since.load(Ordering::Relaxed);
                    ((trusted, Reverse(seats.len()), since), seat)
                })
            })
            .collect();
        let count = idle.len().min(self.leaving_max());
        if count < idle.len() {
            idle.select_nth_unstable_by_key(count, |(order, _)| *order);
        }
        for (_, seat) in &idle[..count] {
            seat.tell();
        }
    }

    fn of(&self, client: IpAddr) -> usize {
        self.lock().of(client)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that holds this lock can panic halfway through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut table = self.places.lock();
        let clients = table.clients_of(self.excess.is_some());
        if let Some(of_client) = clients.get_mut(&self.client) {
            of_client.remove(&self.number);
            if of_client.is_empty() {
                clients.remove(&self.client);
            }
        }
        drop(table);
        // Only once the place is free, because the waiting client checks for that.
        self.seat.decided();
        self.places.turns.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
