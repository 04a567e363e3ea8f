//! Places for connections: how many there are, who gets one, and who makes room where all are taken.
//!
//! A connection on which nothing is asked is worth less than one that somebody wants to ask by: where all places are
//! taken, idle ones are closed, of the clients that have most of them first and the longest idle first.
//! Slow and silent clients count as idle until a whole head of theirs has come. One client has a limit of its own.
//! Where none is idle, those of whoever has most go whose requests' bodies have not come, for a client that has less than
//! half as many: nothing of these was applied.
//!
//! Where nothing can make room, some connections in excess are served for a moment: they are told why, and what watches
//! over the process is answered as always.

use super::metrics::{ConnectionMetrics, Cut, Open};
use crate::proxies;
use ipnet::IpNet;
use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

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
    /// How many connections have come: what idle ones are compared by, as a clock would cost each request.
    came: Arc<AtomicU64>,
    freed: Notify,
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
    _permit: OwnedSemaphorePermit,
    _open: Option<Open>,
}

/// What is known of an open connection.
pub(super) struct Seat {
    requests: AtomicUsize,
    /// How many of these wait for more of their bodies.
    awaited: AtomicUsize,
    /// Whether it is to end although something is asked, if all of that waits for bodies.
    gives_way: AtomicBool,
    /// How many connections had come when nothing was asked any more.
    idle_since: AtomicU64,
    was_asked: AtomicBool,
    came: Arc<AtomicU64>,
    is_cut: AtomicBool,
    told: Notify,
}

/// A request, until it is answered and its answer was taken.
pub(super) struct Busy(Arc<Seat>);

/// A body of which more is to come.
pub(super) struct Awaited(Arc<Seat>);

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
            came: Arc::default(),
            freed: Notify::new(),
            metrics,
        })
    }

    /// A place for a connection from this address, one in excess, or none.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = proxies::client_of(address);
        self.came.fetch_add(1, Ordering::Relaxed);
        let is_unlimited = self.per_client_max == self.connections_max || self.is_trusted(address);
        let has_own = || is_unlimited || self.of(client) < self.per_client_max;
        if !has_own() && !self.make_room(Some(client), has_own).await {
            let limit = format!("connections_per_client_max = {}", self.per_client_max);
            return self.take_in_excess(client, limit).await;
        }
        let permit = || self.permits.clone().try_acquire_owned().ok();
        let mut taken = permit();
        // Connections are accepted one after the other: nobody else takes what is freed.
        let has_room = || self.permits.available_permits() > 0;
        if taken.is_none()
            && (self.make_room(None, has_room).await || self.take_from_most(client, has_room).await)
        {
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
        }
    }

    fn place(
        self: &Arc<Self>,
        client: IpAddr,
        permit: OwnedSemaphorePermit,
        excess: Option<String>,
    ) -> Place {
        let number = self.came.load(Ordering::Relaxed);
        let seat = Seat::new(self.came.clone());
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
            _permit: permit,
            _open: open,
        }
    }

    /// Has idle connections closed, of this client or of any, and waits a moment until there is room.
    async fn make_room(&self, client: Option<IpAddr>, has_room: impl Fn() -> bool) -> bool {
        self.tell_idle_to_leave(client) > 0 && self.wait_for(has_room).await
    }

    async fn wait_for(&self, has_room: impl Fn() -> bool) -> bool {
        let room = async {
            while !has_room() {
                self.freed.notified().await;
            }
        };
        tokio::time::timeout(LEAVE_MAX, room).await.is_ok()
    }

    /// Has connections of whoever has most closed whose requests' bodies have not come, if this client has less than half
    /// as many, and waits a moment until there is room.
    async fn take_from_most(&self, client: IpAddr, has_room: impl Fn() -> bool) -> bool {
        self.tell_awaiting_to_leave(client) > 0 && self.wait_for(has_room).await
    }

    /// How many have been told to leave.
    fn tell_awaiting_to_leave(&self, client: IpAddr) -> usize {
        let table = self.lock();
        let own = table.clients.get(&client).map_or(0, HashMap::len);
        let others = table.clients.iter();
        let others = others.filter(|(each, _)| !self.is_trusted(**each));
        let Some((_, seats)) = others.max_by_key(|(_, seats)| seats.len()) else {
            return 0;
        };
        if seats.len() <= 2 * (own + 1) {
            return 0;
        }
        let awaiting = seats.values().filter(|seat| seat.only_awaits());
        let mut count = 0;
        for seat in awaiting.take(self.leaving_max()) {
            seat.gives_way.store(true, Ordering::Relaxed);
            seat.told.notify_one();
            count += 1;
        }
        count
    }

    /// How many leave at a time: where a few are open, only a few.
    fn leaving_max(&self) -> usize {
        LEAVING_MAX.min(self.connections_max / 32 + 1)
    }

    /// How many have been told to leave.
    fn tell_idle_to_leave(&self, client: Option<IpAddr>) -> usize {
        let table = self.lock();
        let clients = table
            .clients
            .iter()
            .filter(|(each, _)| client.is_none_or(|client| client == **each));
        let mut idle: Vec<_> = clients
            .flat_map(|(client, seats)| {
                let trusted = self.is_trusted(*client);
                let idle = seats.values().filter(|seat| seat.is_idle());
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
            seat.told.notify_one();
        }
        count
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
        let mut table = self.places.lock();
        let clients = table.clients_of(self.excess.is_some());
        if let Some(of_client) = clients.get_mut(&self.client) {
            of_client.remove(&self.number);
            if of_client.is_empty() {
                clients.remove(&self.client);
            }
        }
        drop(table);
        self.places.freed.notify_one();
    }
}

impl Seat {
    pub(super) fn new(came: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            awaited: AtomicUsize::new(0),
            gives_way: AtomicBool::new(false),
            idle_since: AtomicU64::new(came.load(Ordering::Relaxed)),
            was_asked: AtomicBool::new(false),
            came,
            is_cut: AtomicBool::new(false),
            told: Notify::new(),
        })
    }

    /// Something is asked, until what is returned is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.was_asked.store(true, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// More of a request's body is to come, until what is returned is dropped.
    pub(super) fn awaited(self: &Arc<Self>) -> Awaited {
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Awaited(self.clone())
    }

    /// Whether nothing was applied of what is asked, as no body has come.
    fn only_awaits(&self) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        requests > 0 && self.awaited.load(Ordering::Relaxed) == requests
    }

    pub(super) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Ends the connection, whatever is asked on it. Whether it was not ending yet.
    pub(super) fn cut(&self) -> bool {
        let was_cut = self.is_cut.swap(true, Ordering::Relaxed);
        self.told.notify_one();
        !was_cut
    }

    /// Done when the connection is to end: it was cut, or its place is needed and it is idle, or gives way.
    pub(super) async fn ends(&self, metrics: &ConnectionMetrics) {
        loop {
            self.told.notified().await;
            if self.is_cut.load(Ordering::Relaxed) {
                return;
            }
            // Where something was asked meanwhile, another one must leave.
            let gives_way = self.gives_way.swap(false, Ordering::Relaxed);
            if self.is_idle() || gives_way && self.only_awaits() {
                return metrics.cut(Cut::Full);
            }
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Seat {
            requests,
            idle_since,
            came,
            ..
        } = &*self.0;
        idle_since.store(came.load(Ordering::Relaxed), Ordering::Relaxed);
        requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn places(connections_max: usize, per_client_max: usize) -> Arc<Places> {
        let trusted = vec!["10.0.0.0/8".parse().expect("a network")];
        let metrics = ConnectionMetrics::default();
        Places::new(connections_max, per_client_max, trusted, metrics)
    }

    /// A connection of which the task does as it is told.
    async fn connect(places: &Arc<Places>, address: IpAddr) -> tokio::task::JoinHandle<()> {
        let place = places.take(address).await.expect("a place");
        assert_eq!(place.excess, None);
        let metrics = ConnectionMetrics::default();
        tokio::spawn(async move { place.seat.ends(&metrics).await })
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_of_who_has_most_makes_room() {
        let places = places(4, 4);
        let other = connect(&places, B).await;
        let first = connect(&places, A).await;
        let second = connect(&places, A).await;
        // Three of four: one client never has them all.
        let third = connect(&places, A).await;
        let newcomer = connect(&places, B).await;
        tokio::task::yield_now().await;
        assert!(first.is_finished());
        let still = [&other, &second, &third, &newcomer].map(tokio::task::JoinHandle::is_finished);
        assert_eq!(still, [false; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_asked_is_answered_and_excess_is_told_why() {
        let places = places(2, 2);
        let first = places.take(A).await.expect("a place");
        let second = places.take(A).await.expect("a place");
        let busy = [first.seat.busy(), second.seat.busy()];
        let excess = places.take(B).await.expect("one in excess");
        assert_eq!(excess.excess.as_deref(), Some("connections_max = 2"));
        let mut more: Vec<_> = Vec::new();
        while let Some(place) = places.take(B).await {
            more.push(place);
        }
        assert_eq!(more.len(), EXCESS_PER_CLIENT_MAX - 1);
        assert!(places.take(A).await.is_some(), "another's");
        let mut ending = Vec::new();
        for client in 10..100 {
            let client = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, client));
            let Some(place) = places.take(client).await else {
                break;
            };
            ending.push(place);
        }
        assert_eq!(
            ending.len(),
            EXCESS_MAX - EXCESS_PER_CLIENT_MAX,
            "none ends"
        );
        for place in more.drain(..) {
            tokio::spawn(async move { place.seat.ends(&ConnectionMetrics::default()).await });
        }
        assert!(places.take(A).await.is_some(), "of who has most some end");
        drop(busy);
        drop(first);
        let place = places.take(B).await.expect("a place");
        assert_eq!(place.excess, None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_has_a_limit_unless_it_is_a_proxy() {
        let places = places(100, 3);
        let mut held = Vec::new();
        for _ in 0..3 {
            let place = places.take(A).await.expect("a place");
            held.push((place.seat.busy(), place));
        }
        let excess = places.take(A).await.expect("one in excess");
        assert_eq!(
            excess.excess.as_deref(),
            Some("connections_per_client_max = 3")
        );
        let mut of_proxy = Vec::new();
        for _ in 0..20 {
            let place = places.take(PROXY).await.expect("a place");
            assert_eq!(place.excess, None);
            of_proxy.push(place);
        }
        let other = places.take(B).await.expect("a place");
        assert_eq!(other.excess, None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_no_body_gives_way_to_who_has_few() {
        let places = places(4, 4);
        let mut held = Vec::new();
        for _ in 0..3 {
            let place = places.take(A).await.expect("a place");
            let (busy, awaited) = (place.seat.busy(), place.seat.awaited());
            held.push((place, busy, Some(awaited)));
        }
        // The body of one has come.
        held[0].2 = None;
        let other = places.take(PROXY).await.expect("a place");
        let _busy = other.seat.busy();
        let mut ended = Vec::new();
        for (place, busy, awaited) in held {
            ended.push(tokio::spawn(async move {
                place.seat.ends(&ConnectionMetrics::default()).await;
                drop((place, busy, awaited));
            }));
        }
        let newcomer = places.take(B).await.expect("a place");
        assert_eq!(newcomer.excess, None);
        let still = |ended: &[tokio::task::JoinHandle<()>]| {
            let still = ended.iter().filter(|each| !each.is_finished());
            still.count()
        };
        assert!(!ended[0].is_finished(), "its operation may be applied");
        assert_eq!(still(&ended), 2, "one at a time");
        // With two of four nobody has more than twice as many as one who comes.
        let place = places.take(B).await.expect("one in excess");
        assert_eq!(place.excess.as_deref(), Some("connections_max = 4"));
    }
}
