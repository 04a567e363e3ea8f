//! A lane: sends one request at a time, naming only its own widgets, and checks and records the
//! answers.

use super::{Shared, Task, lock};
use crate::{
    audit,
    client::{Channel, Failure, Request, Response, Target},
    feed::{Effect, Settled},
    mix::Kind,
    partition::{Answer, Partition, Plan},
    stats::{Outcome, Sample},
};
use std::{rc::Rc, time::Duration};
use tokio::time::sleep;

/// The pause before a lane without a connection tries again.
const RECONNECT: Duration = Duration::from_millis(50);

/// How long a request with a key is sent again while its fate is unknown.
const RETRY_FOR: Duration = Duration::from_mins(1);

/// How many further addresses that standbys name each attempt of a request is sent to. The lane
/// pauses before each but the first, because two servers that name each other are changing roles.
const HOPS_MAX: u32 = 5;

/// The maximum number of wrong answers that are kept as text. All are counted.
const EXAMPLES_MAX: usize = 100;

/// Performs tasks for ever.
pub(super) async fn lane(
    shared: Rc<Shared>,
    index: usize,
    mut channel: Channel,
    mut partition: Partition,
    keys: Option<String>,
) {
    let mut request = Request::default();
    let mut body = Vec::with_capacity(256);
    let mut operations = 0_u64;
    let mut link = Link::new(&shared);
    let home = channel.target();
    loop {
        connect(&mut link, &mut channel, &home).await;
        let free = shared.clock.now();
        match shared.next(index).await {
            Task::Request(due) => {
                shared.in_flight.set(shared.in_flight.get() + 1);
                request.path.clear();
                body.clear();
                let plan = partition.plan(&mut request.path, &mut body);
                let effect = shared
                    .feed
                    .as_ref()
                    .and_then(|_| partition.effect_of(&plan));
                // A lookup has no body; the buffer is kept for the next operation.
                request.body = (!body.is_empty()).then(|| std::mem::take(&mut body));
                request.key.clear();
                if let (Some(keys), Some(_)) = (&keys, &request.body) {
                    operations += 1;
                    request.key = format!("{keys}{operations}");
                }
                let sent = shared.clock.now();
                let (settled, retries) = perform(
                    &mut link,
                    &mut channel,
                    &home,
                    &request,
                    &mut partition,
                    &plan,
                )
                .await;
                let (outcome, wrong, fate) = settled;
                let done = shared.clock.now();
                if let (Some(effect), true) = (effect, fate != Fate::NotApplied) {
                    tell_feed(&shared, partition.number(), effect, fate, (sent, done));
                }
                if retries > 0 {
                    lock(&shared.recorder).measured.retries += retries;
                }
                if let Some(bytes) = request.body.take() {
                    body = bytes;
                }
                let sample = Sample {
                    kind: plan.kind,
                    outcome,
                    wrong: wrong.is_some(),
                    due,
                    free,
                    sent,
                    done,
                };
                record(&shared, &sample, wrong);
                shared.in_flight.set(shared.in_flight.get() - 1);
                if shared.in_flight.get() == 0 {
                    shared.drained.notify_one();
                }
            }
            Task::Audit(widgets_max, findings) => {
                let read = audit::run(
                    &mut channel,
                    &partition,
                    shared.feed.as_ref(),
                    widgets_max,
                    shared.timeout,
                    shared.during_crash,
                    &shared.recorder,
                );
                // After an abort, nobody may be waiting any more.
                let _ = findings.send(read.await);
            }
        }
    }
}

/// Whether a lane has a connection, as far as its recorder was told.
struct Link<'s> {
    shared: &'s Shared,
    is_up: bool,
}

impl<'s> Link<'s> {
    const fn new(shared: &'s Shared) -> Self {
        let is_up = false;
        Self { shared, is_up }
    }

    /// Connects the channel if it has no connection, and records the result.
    async fn connect(&mut self, channel: &mut Channel) -> Result<(), String> {
        let again = channel
            .connect(self.shared.timeout)
            .await
            .inspect_err(|error| self.down(error))?;
        self.up(again);
        Ok(())
    }

    /// Records that there is a connection, and whether it replaced an earlier one.
    fn up(&mut self, again: bool) {
        if self.is_up && !again {
            return;
        }
        let mut recorder = lock(&self.shared.recorder);
        recorder.measured.reconnects += u64::from(again);
        recorder.lanes_connected += usize::from(!self.is_up);
        recorder.connect_error = None;
        self.is_up = true;
    }

    /// Records why there is no connection.
    fn down(&mut self, error: &str) {
        let mut recorder = lock(&self.shared.recorder);
        recorder.lanes_connected -= usize::from(self.is_up);
        recorder.connect_error = Some(error.to_owned());
        self.is_up = false;
    }
}

/// Sends a request until its fate is known, and to other addresses as [`elsewhere`] says. Returns
/// what the last answer says, and how often the request was sent again.
async fn perform(
    link: &mut Link<'_>,
    channel: &mut Channel,
    home: &Rc<Target>,
    request: &Request,
    partition: &mut Partition,
    plan: &Plan,
) -> (Settlement, u64) {
    // An idle connection may have been closed. As in any client, a request that needs more than one
    // attempt to connect is reported as failed.
    let (mut retries, mut give_up, mut hops) = (0, None, 0);
    loop {
        let is_home = Rc::ptr_eq(&channel.target(), home);
        let mut answer = attempt(link, channel, request).await;
        if let Some(next) = elsewhere(&answer, home, is_home)
            && hops < HOPS_MAX
        {
            drop(answer);
            sleep(RECONNECT * hops.min(1)).await;
            hops += 1;
            move_to(link.shared, channel, next);
            continue;
        }
        // If an earlier attempt may have been applied, one that was not applied says nothing about
        // the request's fate.
        let fate_known = request.key.is_empty()
            || if give_up.is_none() {
                !is_unknown(&answer)
            } else {
                is_decided(&answer)
            };
        if !fate_known {
            let now = link.shared.clock.now();
            if now < *give_up.get_or_insert(now + RETRY_FOR) {
                drop(answer);
                retries += 1;
                // A primary that was away may be back.
                hops = 0;
                sleep(RECONNECT).await;
                continue;
            }
            answer = Err(Failure::timeout(RETRY_FOR));
        }
        return (settle(partition, plan, answer), retries);
    }
}

/// Sends a request once, over a new connection if there is none.
async fn attempt<'c>(
    link: &mut Link<'_>,
    channel: &'c mut Channel,
    request: &Request,
) -> Result<Response<'c>, Failure> {
    link.connect(channel).await.map_err(Failure::unsent)?;
    channel.exchange(request, link.shared.timeout).await
}

/// Reports a completed operation, with the times of sending and of the answer, to the follower of
/// the feed.
fn tell_feed(
    shared: &Shared,
    lane: u32,
    effect: Effect,
    fate: Fate,
    (sent, done): (Duration, Duration),
) {
    if let Some(feed) = &shared.feed {
        feed.settle(Settled {
            lane,
            effect,
            sent,
            answered: (fate == Fate::Applied).then_some(done),
        });
    }
}

/// Returns where a request that nobody has applied is to be sent instead: to the primary that a
/// standby names, or back to the lane's first server if the one that it moved to cannot be reached.
fn elsewhere(
    answer: &Result<Response<'_>, Failure>,
    home: &Rc<Target>,
    is_home: bool,
) -> Option<Rc<Target>> {
    match answer {
        Ok(response) => {
            let address = response.primary()?;
            // If that address cannot be used, the answer is taken as it is.
            home.primary(&address).ok()
        }
        Err(failure) => (failure.unsent && !is_home).then(|| home.clone()),
    }
}

/// Sends all further requests of the lane to this target.
fn move_to(shared: &Shared, channel: &mut Channel, target: Rc<Target>) {
    let address = format!("{}{}", target.origin(), target.path());
    channel.move_to(target);
    let mut recorder = lock(&shared.recorder);
    recorder.measured.moves += 1;
    recorder.measured.moved_to = Some(address);
}

/// Connects, however long it takes: to the server that the lane moved to, or to its first one.
async fn connect(link: &mut Link<'_>, channel: &mut Channel, home: &Rc<Target>) {
    while link.connect(channel).await.is_err() {
        if !Rc::ptr_eq(&channel.target(), home) {
            move_to(link.shared, channel, home.clone());
        }
        sleep(RECONNECT).await;
    }
}

fn record(shared: &Shared, sample: &Sample, wrong: Option<String>) {
    let mut recorder = lock(&shared.recorder);
    recorder.measured.record(sample);
    if let Some(text) = wrong
        && recorder.examples.len() < EXAMPLES_MAX
    {
        recorder.examples.push(text);
    }
}

/// Reports whether the request may have been applied, as far as is known.
fn is_unknown(answer: &Result<Response<'_>, Failure>) -> bool {
    match answer {
        Ok(response) => match (response.status, response.code().as_deref()) {
            (_, Some(code)) if Outcome::of_code(code).is_turned_away() => false,
            (500.., _) => true,
            _ => false,
        },
        Err(failure) => !failure.unsent,
    }
}

/// Reports whether the answer decides the fate of the request, whichever attempt was applied.
///
/// Whom the service does not let in, or not now, is refused before it looks for the key.
fn is_decided(answer: &Result<Response<'_>, Failure>) -> bool {
    answer.as_ref().is_ok_and(|response| {
        !matches!(response.status, 401 | 403 | 408 | 429 | 500..)
            && response.code().as_deref() != Some("WG409")
    })
}

/// What an answer says about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Applied,
    NotApplied,
    Unknown,
}

/// The outcome of a request, what is wrong with the answer, and what it says about the operation.
type Settlement = (Outcome, Option<String>, Fate);

/// Compares an answer with the prediction, and returns its outcome.
fn settle(
    partition: &mut Partition,
    plan: &Plan,
    answer: Result<Response<'_>, Failure>,
) -> Settlement {
    let mut conclude = |outcome, answer: Answer<'_>| {
        let fate = match answer {
            Answer::Accepted(_) => Fate::Applied,
            Answer::Refused(_) | Answer::NotApplied => Fate::NotApplied,
            Answer::FateUnknown => Fate::Unknown,
        };
        let wrong = partition.settle(plan, answer).err();
        (outcome, wrong.map(|wrong| wrong.0), fate)
    };
    let response = match answer {
        Ok(response) => response,
        Err(failure) if failure.unsent => return conclude(Outcome::UNSENT, Answer::NotApplied),
        Err(failure) => {
            let outcome = if failure.timeout {
                Outcome::TIMEOUT
            } else {
                Outcome::CONNECTION
            };
            return conclude(outcome, Answer::FateUnknown);
        }
    };
    let accepted = match plan.kind {
        Kind::Lookup | Kind::List => 200,
        _ => 204,
    };
    if response.status == accepted {
        return conclude(Outcome::OK, Answer::Accepted(response.body));
    }
    let code = response.code();
    match (response.status, code.as_deref()) {
        (_, Some(code)) if Outcome::of_code(code).is_turned_away() => {
            conclude(Outcome::of_code(code), Answer::NotApplied)
        }
        // A 5xx without one of the service's codes comes from something in between.
        (_, Some("WG505")) => conclude(Outcome::of_code("WG505"), Answer::FateUnknown),
        (500.., _) => conclude(Outcome::OTHER, Answer::FateUnknown),
        (status, Some(code)) if (400..500).contains(&status) => {
            conclude(Outcome::of_code(code), Answer::Refused(code))
        }
        (status, _) => {
            let text = format!("status {status} without a code");
            conclude(Outcome::OTHER, Answer::Refused(&text))
        }
    }
}
