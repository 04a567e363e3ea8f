//! The network between the members: calls that come late, twice or never, and streams that end at any byte, for one side or both.

use crate::{Doing, Error, Incoming};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};
use tokio::sync::{mpsc, oneshot};
use widgets_engine::simulation::Chance;

/// A sender waits when so many bytes are on their way.
const WINDOW_BYTES: usize = 3000;

/// What one member wants of another.
#[derive(Clone)]
pub(super) enum Call {
    /// The stream of this query.
    Ask(String),
    /// That it hears this.
    Tell(String),
}

/// What is answered: the number of a stream where one was asked for.
type Answer = Result<Option<u64>, Error>;

/// A call on its way.
pub(super) struct Calling {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) call: Call,
    /// Gone with a call that came for the second time.
    pub(super) answer: Option<oneshot::Sender<Answer>>,
}

#[derive(Default)]
struct Pipe {
    ends: [usize; 2],
    flying: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// The sender has sent all that it had.
    is_closed: bool,
    is_cut_for_reader: bool,
    is_cut_for_sender: bool,
}

/// Clones are the same network.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<Inner>>);

struct Inner {
    chance: Chance,
    calls: Vec<Calling>,
    pipes: BTreeMap<u64, Pipe>,
    next: u64,
    /// Which pairs do not reach each other.
    apart: BTreeSet<[usize; 2]>,
    /// What has gone wrong so often.
    faults: u64,
    /// With what the random numbers ended that members drew.
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
            pipes: BTreeMap::new(),
            next: 0,
            apart: BTreeSet::new(),
            faults: 0,
            drawn: BTreeSet::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A random number of a member. No two end with the same 16 bits, which are the salt of an epoch: that two members which do not know of
    /// each other begin the same one is the one chance in 65,536 that the protocol leaves, and many worlds come to it.
    pub(super) fn draw(&self, chance: &mut Chance) -> u64 {
        let drawn = &mut self.lock().drawn;
        loop {
            let number = chance.number();
            let [low, high, ..] = number.to_le_bytes();
            // Where all are taken there is no other one.
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

    /// A call that arrives now, if one does. It may come once more later, as a repetition does whose first attempt was slow.
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

    /// Whether an answer gets through.
    pub(super) fn reaches(&self, one: usize, other: usize) -> bool {
        !self.lock().apart.contains(&pair(one, other))
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

    /// Parts two members, or joins them again.
    pub(super) fn part(&self, one: usize, other: usize) {
        let mut inner = self.lock();
        if !inner.apart.remove(&pair(one, other)) {
            inner.apart.insert(pair(one, other));
            inner.faults += 1;
        }
    }

    /// Everybody reaches everybody, and whoever waits at a stream that is half open learns that it has ended.
    pub(super) fn heal(&self) {
        let mut inner = self.lock();
        inner.apart.clear();
        for pipe in inner.pipes.values_mut() {
            if pipe.is_cut_for_reader || pipe.is_cut_for_sender {
                (pipe.is_cut_for_reader, pipe.is_cut_for_sender) = (true, true);
            }
        }
    }

    /// Some bytes of some stream arrive.
    pub(super) fn carry(&self) {
        let mut inner = self.lock();
        let Inner {
            chance,
            pipes,
            apart,
            ..
        } = &mut *inner;
        let flying = pipes
            .values_mut()
            .filter(|pipe| !pipe.flying.is_empty() && !apart.contains(&pipe.ends));
        let mut flying: Vec<&mut Pipe> = flying.collect();
        if flying.is_empty() {
            return;
        }
        let pipe = flying.swap_remove(chance.below(flying.len()));
        let most = pipe.flying.len();
        let bytes = if chance.below(3) == 0 {
            1 + chance.below(most)
        } else {
            most
        };
        let arrived: Vec<u8> = pipe.flying.drain(..bytes).collect();
        pipe.arrived.extend(arrived);
    }

    /// Cuts a stream: what is on its way is lost. Both ends hear of it, or one alone.
    pub(super) fn cut(&self) {
        let mut inner = self.lock();
        let Inner { chance, pipes, .. } = &mut *inner;
        if pipes.is_empty() {
            return;
        }
        let chosen = chance.below(pipes.len());
        if let Some(pipe) = pipes.values_mut().nth(chosen) {
            pipe.flying.clear();
            let ends = chance.below(3);
            pipe.is_cut_for_reader |= ends != 1;
            pipe.is_cut_for_sender |= ends != 0;
            // A stream whose reader was not told has nothing more to come.
            pipe.is_closed = false;
            inner.faults += 1;
        }
    }

    /// A process has gone. Its peers hear of that, or not.
    pub(super) fn crashed(&self, member: usize) {
        let mut inner = self.lock();
        let Inner {
            chance,
            pipes,
            calls,
            ..
        } = &mut *inner;
        for pipe in pipes
            .values_mut()
            .filter(|pipe| pipe.ends.contains(&member))
        {
            let is_told = chance.below(2) == 0;
            pipe.flying.clear();
            pipe.is_cut_for_reader |= is_told;
            pipe.is_cut_for_sender |= is_told;
        }
        calls.retain(|call| call.from != member || call.answer.is_none());
    }

    /// Begins a stream of what is handed over by `body`: its number, and the task that feeds it.
    pub(super) fn stream(
        &self,
        from: usize,
        to: usize,
        mut body: mpsc::Receiver<Bytes>,
    ) -> (u64, Doing<'static, ()>) {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let pipe = Pipe {
            ends: pair(from, to),
            ..Pipe::default()
        };
        inner.pipes.insert(number, pipe);
        let network = self.clone();
        let feeding = async move {
            loop {
                let piece = tokio::select! {
                    biased;
                    () = network.cut_for_sender(number) => break,
                    piece = body.recv() => piece,
                };
                let Some(piece) = piece else {
                    if let Some(pipe) = network.lock().pipes.get_mut(&number) {
                        pipe.is_closed = true;
                    }
                    break;
                };
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let sent = poll_fn(|_| network.push(number, rest)).await;
                    if sent == 0 {
                        return;
                    }
                    rest = &rest[sent..];
                }
            }
        };
        (number, Box::pin(feeding))
    }

    /// Hands over some bytes; none where the stream has ended for the sender.
    fn push(&self, number: u64, bytes: &[u8]) -> Poll<usize> {
        let mut inner = self.lock();
        let Some(pipe) = inner.pipes.get_mut(&number) else {
            return Poll::Ready(0);
        };
        if pipe.is_cut_for_sender {
            return Poll::Ready(0);
        }
        let room = WINDOW_BYTES.saturating_sub(pipe.flying.len() + pipe.arrived.len());
        if room == 0 {
            return Poll::Pending;
        }
        let sent = room.min(bytes.len());
        // Whoever was not told that it is cut sends into nothing.
        if !pipe.is_cut_for_reader {
            pipe.flying.extend(&bytes[..sent]);
        }
        Poll::Ready(sent)
    }

    async fn cut_for_sender(&self, number: u64) {
        poll_fn(|_| {
            let inner = self.lock();
            let pipe = inner.pipes.get(&number);
            if pipe.is_none_or(|pipe| pipe.is_cut_for_sender) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    pub(super) fn incoming(&self, number: u64) -> Stream {
        Stream {
            network: self.clone(),
            number,
        }
    }

    fn take(&self, number: u64) -> Poll<Result<Bytes, Error>> {
        let mut inner = self.lock();
        let Inner { chance, pipes, .. } = &mut *inner;
        let ended = |why: &str| Poll::Ready(Err(Error::Ended(why.into())));
        let Some(pipe) = pipes.get_mut(&number) else {
            return ended("it has gone");
        };
        if pipe.is_cut_for_reader && chance.below(2) == 0 {
            return ended("it was cut");
        }
        if !pipe.arrived.is_empty() {
            let most = pipe.arrived.len();
            let bytes = if chance.below(4) == 0 {
                1 + chance.below(most)
            } else {
                most
            };
            let taken: Vec<u8> = pipe.arrived.drain(..bytes).collect();
            return Poll::Ready(Ok(taken.into()));
        }
        if pipe.is_cut_for_reader || pipe.is_closed && pipe.flying.is_empty() {
            return ended("it was closed");
        }
        Poll::Pending
    }
}

/// The reader's end of a stream.
pub(super) struct Stream {
    network: Network,
    number: u64,
}

impl Incoming for Stream {
    fn next(&mut self) -> Doing<'_, Result<Bytes, Error>> {
        Box::pin(poll_fn(|_| self.network.take(self.number)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.network.lock();
        // The sender may not hear of it for long.
        let is_told = inner.chance.below(4) > 0;
        if let Some(pipe) = inner.pipes.get_mut(&self.number) {
            pipe.is_cut_for_reader = true;
            pipe.is_cut_for_sender |= is_told;
            pipe.flying.clear();
            pipe.arrived.clear();
        }
    }
}
