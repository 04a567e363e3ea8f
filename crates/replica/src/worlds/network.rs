//! The network between the members: calls that arrive late, twice or never, and connections that
//! break at any byte, for one side or both.

use crate::{Doing, Error, Incoming};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};
use tokio::sync::{mpsc, oneshot, watch};
use widgets_engine::simulation::Chance;

/// A sender waits when this many bytes are in flight.
const WINDOW_BYTES: usize = 3000;

/// A request from one member to another.
#[derive(Clone)]
pub(super) enum Call {
    /// A request for the stream of this query, over this connection.
    Ask(String, u64),
    /// Any other request.
    Tell(String),
}

/// The answer. A success has no content.
type Answer = Result<(), Error>;

/// A call in flight.
pub(super) struct Calling {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) call: Call,
    /// `None` if the call is a repetition.
    pub(super) answer: Option<oneshot::Sender<Answer>>,
}

/// One side of a connection. As an index, it selects what that side reads, and what it knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The side that connected, and reads the response.
    Asker,
    /// The side that reads the reports.
    Asked,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Asker => Self::Asked,
            Self::Asked => Self::Asker,
        }
    }
}

/// What one side reads.
#[derive(Default)]
struct Lane {
    flying: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// Whether the sender has sent everything.
    is_closed: bool,
}

struct Connection {
    /// The connected members.
    ends: [usize; 2],
    lanes: [Lane; 2],
    /// Which sides know that the connection has ended.
    knows: [bool; 2],
}

impl Connection {
    fn is_cut(&self) -> bool {
        self.knows == [true, true]
    }

    fn cut(&mut self, knows: [bool; 2]) {
        for (lane, knows) in self.lanes.iter_mut().zip(knows) {
            lane.flying.clear();
            // A reader that does not know about the cut gets no more data, and no end either.
            lane.is_closed &= knows;
        }
        for (known, knows) in self.knows.iter_mut().zip(knows) {
            *known |= knows;
        }
    }
}

/// The network. Clones share it.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<Inner>>);

struct Inner {
    chance: Chance,
    calls: Vec<Calling>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// The pairs of members that cannot reach each other.
    apart: BTreeSet<[usize; 2]>,
    /// The number of faults so far.
    faults: u64,
    /// The lowest 16 bits of the random numbers that members have drawn.
    drawn: BTreeSet<u16>,
}

fn pair(one: usize, other: usize) -> [usize; 2] {
    [one.min(other), one.max(other)]
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            chance: Chance(seed),
            calls: Vec::new(),
            connections: BTreeMap::new(),
            next: 0,
            apart: BTreeSet::new(),
            faults: 0,
            drawn: BTreeSet::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a random number for a member. No two numbers have the same lowest 16 bits, which are
    /// the salt of an epoch. Otherwise some of the many worlds would meet the case that the
    /// protocol accepts with a probability of 1 in 65,536: two members that do not know of each
    /// other begin the same epoch.
    pub(super) fn draw(&self, chance: &mut Chance) -> u64 {
        let drawn = &mut self.lock().drawn;
        loop {
            let number = chance.number();
            let [low, high, ..] = number.to_le_bytes();
            // If all are taken, there is no other choice.
            if drawn.insert(u16::from_le_bytes([low, high])) || drawn.len() > usize::from(u16::MAX)
            {
                return number;
            }
        }
    }

    pub(super) fn faults(&self) -> u64 {
        self.lock().faults
    }

    pub(super) fn call(&self, from: usize, to: usize, call: Call) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        self.lock().calls.push(Calling {
            from,
            to,
            call,
            answer: Some(answer),
        });
        answered
    }

    /// Returns a call that arrives now, if there is one. A repetition of it may arrive later.
    pub(super) fn arrives(&self) -> Option<Calling> {
        let mut inner = self.lock();
        if inner.calls.is_empty() {
            return None;
        }
        let (count, apart) = (inner.calls.len(), inner.apart.clone());
        let chosen = inner.chance.below(count);
        if apart.contains(&pair(inner.calls[chosen].from, inner.calls[chosen].to)) {
            return None;
        }
        let calling = inner.calls.swap_remove(chosen);
        if matches!(calling.call, Call::Tell(_)) && inner.chance.below(6) == 0 {
            inner.faults += 1;
            let again = Calling {
                call: calling.call.clone(),
                answer: None,
                ..calling
            };
            inner.calls.push(again);
        }
        Some(calling)
    }

    /// Returns whether an answer gets through.
    pub(super) fn reaches(&self, one: usize, other: usize) -> bool {
        !self.lock().apart.contains(&pair(one, other))
    }

    /// Waits for some turns, mostly none: a request that was accepted may be served later.
    pub(super) async fn linger(&self) {
        let mut turns = {
            let chance = &mut self.lock().chance;
            let most = if chance.below(4) == 0 { 40 } else { 1 };
            chance.below(most)
        };
        poll_fn(move |_| {
            if turns == 0 {
                return Poll::Ready(());
            }
            turns -= 1;
            Poll::Pending
        })
        .await;
    }

    /// Loses a call.
    pub(super) fn lose(&self) {
        let mut inner = self.lock();
        if !inner.calls.is_empty() {
            let count = inner.calls.len();
            let chosen = inner.chance.below(count);
            inner.calls.swap_remove(chosen);
            inner.faults += 1;
        }
    }

    /// Separates two members.
    pub(super) fn part(&self, one: usize, other: usize) {
        let mut inner = self.lock();
        inner.apart.insert(pair(one, other));
        inner.faults += 1;
    }

    /// Reconnects two members if they are separated; otherwise sometimes separates them.
    pub(super) fn join_or_part(&self, one: usize, other: usize) {
        let mut inner = self.lock();
        let was_apart = inner.apart.remove(&pair(one, other));
        let parts = !was_apart && inner.chance.below(3) == 0;
        drop(inner);
        if parts {
            self.part(one, other);
        }
    }

    /// Lets all members reach each other, and tells those that wait on a half-open connection that
    /// it has ended.
    pub(super) fn heal(&self) {
        let mut inner = self.lock();
        inner.apart.clear();
        for connection in inner.connections.values_mut() {
            if connection.knows != [false, false] {
                connection.cut([true, true]);
            }
        }
    }

    /// Lets some bytes on some connection arrive.
    pub(super) fn carry(&self) {
        let mut inner = self.lock();
        let Inner {
            chance,
            connections,
            apart,
            ..
        } = &mut *inner;
        let joined = connections
            .values_mut()
            .filter(|it| !apart.contains(&pair(it.ends[0], it.ends[1])));
        let lanes = joined.flat_map(|it| it.lanes.iter_mut());
        let mut flying: Vec<&mut Lane> = lanes.filter(|it| !it.flying.is_empty()).collect();
        if flying.is_empty() {
            return;
        }
        let lane = flying.swap_remove(chance.below(flying.len()));
        let most = lane.flying.len();
        let bytes = if chance.below(3) == 0 {
            1 + chance.below(most)
        } else {
            most
        };
        let arrived: Vec<u8> = lane.flying.drain(..bytes).collect();
        lane.arrived.extend(arrived);
    }

    /// Cuts a connection, which loses what is in flight. Both ends notice it, or only one.
    pub(super) fn cut(&self) {
        let mut inner = self.lock();
        let Inner {
            chance,
            connections,
            ..
        } = &mut *inner;
        let mut whole: Vec<_> = connections.values_mut().filter(|it| !it.is_cut()).collect();
        if whole.is_empty() {
            return;
        }
        let chosen = chance.below(whole.len());
        let ends = chance.below(3);
        whole[chosen].cut([ends != 1, ends != 0]);
        inner.faults += 1;
    }

    /// Cuts the connections of a process that has ended. Its peers may or may not notice.
    pub(super) fn crashed(&self, member: usize) {
        let mut inner = self.lock();
        let Inner {
            chance,
            connections,
            calls,
            ..
        } = &mut *inner;
        for connection in connections
            .values_mut()
            .filter(|it| it.ends.contains(&member))
        {
            let is_told = chance.below(2) == 0;
            connection.cut([is_told, is_told]);
        }
        calls.retain(|call| call.from != member || call.answer.is_none());
    }

    /// Opens a connection from this member, and returns its number and the asker's end. Dropping
    /// that end hangs up.
    pub(super) fn connect(&self, from: usize, to: usize) -> (u64, Stream) {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let connection = Connection {
            ends: [from, to],
            lanes: Default::default(),
            knows: [false, false],
        };
        inner.connections.insert(number, connection);
        let stream = Stream {
            network: self.clone(),
            number,
        };
        (number, stream)
    }

    /// Sends the response over a connection, piece by piece.
    pub(super) fn answer(
        &self,
        number: u64,
        mut body: mpsc::Receiver<Bytes>,
    ) -> Doing<'static, ()> {
        let network = self.clone();
        Box::pin(async move {
            loop {
                let piece = tokio::select! {
                    biased;
                    () = network.ended(number, Side::Asked) => return,
                    piece = body.recv() => piece,
                };
                let Some(piece) = piece else {
                    return network.close(number, Side::Asked);
                };
                if !network.send(number, Side::Asked, &piece).await {
                    return;
                }
            }
        })
    }

    /// Passes on the asker's reports for as long as somebody receives them.
    pub(super) fn reports(&self, number: u64, reported: mpsc::Sender<Bytes>) -> Doing<'static, ()> {
        let network = self.clone();
        Box::pin(async move {
            loop {
                let piece = tokio::select! {
                    biased;
                    () = reported.closed() => return,
                    piece = poll_fn(|_| network.take(number, Side::Asked)) => piece,
                };
                let Ok(piece) = piece else { return };
                if reported.send(piece).await.is_err() {
                    return;
                }
            }
        })
    }

    /// Sends reports over a connection as `link.rs` does: the newest number each time.
    pub(super) fn report(
        &self,
        number: u64,
        mut reports: watch::Receiver<u64>,
    ) -> Doing<'static, ()> {
        let network = self.clone();
        Box::pin(async move {
            loop {
                let is_there = tokio::select! {
                    biased;
                    () = network.ended(number, Side::Asker) => return,
                    changed = reports.changed() => changed.is_ok(),
                };
                if !is_there {
                    return network.close(number, Side::Asker);
                }
                let newest = reports.borrow_and_update().to_le_bytes();
                if !network.send(number, Side::Asker, &newest).await {
                    return;
                }
            }
        })
    }

    /// Marks that this side has nothing more to send.
    fn close(&self, number: u64, side: Side) {
        if let Some(connection) = self.lock().connections.get_mut(&number) {
            connection.lanes[side.other() as usize].is_closed = true;
        }
    }

    /// Sends all bytes. Returns false if the connection has ended for the sender.
    async fn send(&self, number: u64, side: Side, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let sent = poll_fn(|_| self.push(number, side, bytes)).await;
            if sent == 0 {
                return false;
            }
            bytes = &bytes[sent..];
        }
        true
    }

    /// Sends some bytes and returns how many; 0 if the connection has ended for the sender.
    fn push(&self, number: u64, side: Side, bytes: &[u8]) -> Poll<usize> {
        let mut inner = self.lock();
        let Some(connection) = inner.connections.get_mut(&number) else {
            return Poll::Ready(0);
        };
        if connection.knows[side as usize] {
            return Poll::Ready(0);
        }
        let reader = side.other() as usize;
        let lane = &mut connection.lanes[reader];
        let room = WINDOW_BYTES.saturating_sub(lane.flying.len() + lane.arrived.len());
        if room == 0 {
            return Poll::Pending;
        }
        let sent = room.min(bytes.len());
        // A sender that does not know about the cut sends into nothing.
        if !connection.knows[reader] {
            lane.flying.extend(&bytes[..sent]);
        }
        Poll::Ready(sent)
    }

    /// Waits until this side knows that the connection has ended.
    async fn ended(&self, number: u64, side: Side) {
        poll_fn(|_| {
            let inner = self.lock();
            let connection = inner.connections.get(&number);
            if connection.is_none_or(|it| it.knows[side as usize]) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Returns what has arrived for this side.
    fn take(&self, number: u64, side: Side) -> Poll<Result<Bytes, Error>> {
        let mut inner = self.lock();
        let Inner {
            chance,
            connections,
            ..
        } = &mut *inner;
        let ended = |why: &str| Poll::Ready(Err(Error::Ended(why.into())));
        let Some(connection) = connections.get_mut(&number) else {
            return ended("it has gone");
        };
        let knows = connection.knows[side as usize];
        let lane = &mut connection.lanes[side as usize];
        if knows && chance.below(2) == 0 {
            return ended("it was cut");
        }
        if !lane.arrived.is_empty() {
            let most = lane.arrived.len();
            let bytes = if chance.below(4) == 0 {
                1 + chance.below(most)
            } else {
                most
            };
            let taken: Vec<u8> = lane.arrived.drain(..bytes).collect();
            return Poll::Ready(Ok(taken.into()));
        }
        if knows || lane.is_closed && lane.flying.is_empty() {
            return ended("it was closed");
        }
        Poll::Pending
    }
}

/// The asker's end of a connection.
pub(super) struct Stream {
    network: Network,
    number: u64,
}

impl Incoming for Stream {
    fn next(&mut self) -> Doing<'_, Result<Bytes, Error>> {
        Box::pin(poll_fn(|_| self.network.take(self.number, Side::Asker)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.network.lock();
        let Inner {
            chance,
            connections,
            apart,
            ..
        } = &mut *inner;
        let Some(connection) = connections.get_mut(&self.number) else {
            return;
        };
        // The sender may not notice for a long time.
        let [one, other] = connection.ends;
        let is_told = chance.below(4) > 0 && !apart.contains(&pair(one, other));
        if is_told {
            connections.remove(&self.number);
        } else {
            connection.cut([true, false]);
            connection.lanes[Side::Asker as usize].arrived.clear();
        }
    }
}
