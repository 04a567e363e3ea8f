//! Places for connections: how many there are, who gets one, and who makes room where all are taken.
//!
//! A connection on which nothing is asked is worth less than one that somebody wants to ask by: where all places are
//! taken, idle ones are closed, of the clients that have most of them first and the longest idle first.
//! Slow and silent clients count as idle until a whole head of theirs has come. One client has a limit of its own.
//! Where none is idle, those of whoever has most go whose requests' bodies have not come, for a client that has less than
//! half as many: nothing of these was applied.
//!
//! Whoever takes all places shall not keep others out by coming more often than they: a client that has many times as
//! many as another takes nothing from it, and one that has just come with few is left the time to ask, while those who
//! have most can make room.
//!
//! Where nothing can make room, some connections in excess are served for a moment: they are told why, and what watches
//! over the process is answered as always.

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

/// So many connections in excess are served at a time, and so many of one client. Others are closed at
/// once.
pub const EXCESS_MAX: usize = 64;
const EXCESS_PER_CLIENT_MAX: usize = 16;

/// So many of these are for clients that have only a few of them.
const EXCESS_KEPT: usize = 16;
const EXCESS_FEW: usize = 4;

/// So many idle connections are closed at a time where room is needed, and so many in excess.
const LEAVING_MAX: usize = 32;
const EXCESS_LEAVING_MAX: usize = 4;

/// A client that has more than so many times as many as another takes no place of its.
const TIMES_AS_MANY: usize = 8;

/// A worker that is busy for longer than this does not hold up who comes next.
const LEAVE_MAX: Duration = Duration::from_millis(100);

/// All places.
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
    /// The limit that it is in excess of, if it is.
    pub(super) excess: Option<String>,
    places: Arc<Places>,
    client: IpAddr,
    number: u64,
    permit: Option<OwnedSemaphorePermit>,
    _open: Option<Open>,
}

/// Whose connections are closed to make room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The idle ones of who comes.
    Own,
    /// Idle ones of all, but for those of who has few and has just come.
    Idle,
    /// Those of who has most on which only bodies are awaited.
    Awaiting,
    /// Idle ones of all, for whom nobody else makes room.
    New,
}

impl Whose {
    /// Where all places are taken.
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
        // Others always find a quarter.
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

    /// A place for a connection from this address, one in excess, or none.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = proxies::client_of(address);
        self.turns.came.fetch_add(1, Ordering::Relaxed);
        let is_unlimited = self.per_client_max == self.connections_max || self.is_trusted(address);
        let has_own = || is_unlimited || self.of(client) < self.per_client_max;
        if !has_own() && !self.make_room(&[Whose::Own], client, has_own).await {
            let limit = format!("connections_per_client_max = {}", self.per_client_max);
            return self.take_in_excess(client, limit).await;
        }
        let permit = || self.permits.clone().try_acquire_owned().ok();
        let mut taken = permit();
        // Connections are accepted one after the other: nobody else takes what is freed.
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

    /// Whoever comes from an address of its own finds a place, though others take them all.
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

    /// Has connections closed to make room for one of this client's, and waits a moment until there is. The next of
    /// these are asked where all stay that were.
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

    /// Waits until there is room, or everybody stays that was told to leave.
    async fn wait_for(&self, has_room: impl Fn() -> bool) -> bool {
        let Turns {
            undecided, changed, ..
        } = &*self.turns;
        let decided = async {
            while undecided.load(Ordering::Acquire) > 0 && !has_room() {
                changed.notified().await;
            }
        };
        // Whether it is in time or not.
        drop(tokio::time::timeout(LEAVE_MAX, decided).await);
        has_room()
    }

    /// Tells connections of whoever has most to leave whose requests' bodies have not come, if this client has less than
    /// half as many.
    fn tell_awaiting_to_leave(&self, client: IpAddr) {
        let table = self.lock();
        let own = table.clients.get(&client).map_or(0, HashMap::len);
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

    /// How many leave at a time: where a few are open, only a few.
    fn leaving_max(&self) -> usize {
        LEAVING_MAX.min(self.connections_max / 32 + 1)
    }

    /// Tells idle connections to leave, for one of this client's.
    fn tell_idle_to_leave(&self, whose: Whose, client: IpAddr) {
        let table = self.lock();
        let own = table.clients.get(&client).map_or(0, HashMap::len);
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
        self.lock().clients.get(&client).map_or(0, HashMap::len)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here can panic halfway through a change.
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
        // After there is room, of which whoever waits makes sure.
        self.seat.decided();
        self.places.turns.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
