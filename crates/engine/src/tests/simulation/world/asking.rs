//! What the clients of a world request, when they lose patience, and what they are answered. Each
//! answer has its place in the history.

use super::{
    super::{
        client::{self, OF_MANY, Responding, Said},
        process::Process,
        trace::Event,
    },
    World, poll,
};
use std::task::Poll;
use widgets_conformance::linearizability::{Answer, Call, Request};

#[derive(Default)]
pub(super) struct Client {
    pub(super) pending: Option<Pending>,
    /// The request that the client will retry.
    pub(super) again: Option<Again>,
}

/// A request that is retried.
#[derive(Clone)]
pub(super) struct Again {
    pub(super) request: Request,
    pub(super) key: Option<String>,
    /// The first attempt's place in the history, if it was made in this process.
    pub(super) call: Option<usize>,
    /// Whether another attempt was made before this process began. A replayed answer may belong to
    /// that one.
    pub(super) is_older: bool,
}

pub(super) struct Pending {
    responding: Responding,
    /// Its place in the history.
    pub(super) call: usize,
    pub(super) key: Option<String>,
    /// The place of an earlier attempt with this key, which may have been applied.
    first: Option<usize>,
    /// Whether another attempt was made before this process began.
    is_older: bool,
    /// The answer that the first use of the key got.
    pub(super) known: Option<Answer>,
}

/// A request with a key, and its answer.
pub(super) struct Known {
    request: Request,
    key: String,
    answer: Answer,
}

/// How many answers are remembered, to be requested again.
const KNOWN_MAX: usize = 32;

/// In a crowded world, another caller's key must still be known if that caller has used at most
/// this many keys since: with those of its pending requests, they are less than its even share.
const CROWDED_KEYS_KNOWN: u64 = 4;

impl World {
    pub(super) fn ask(&mut self, process: &mut Process) -> Result<(), String> {
        let number = self.chance.below(self.clients.len());
        if self.clients[number].pending.is_some() {
            return Ok(());
        }
        self.ask_as(number, process)?;
        // Some lose patience at once, so that the second attempt is in the first one's batch.
        let pending = self.clients[number].pending.as_ref();
        let has_key = pending.is_some_and(|pending| pending.key.is_some());
        if has_key && self.chance.below(8) == 0 {
            self.hang_up(number);
            self.ask_as(number, process)?;
        }
        Ok(())
    }

    fn ask_as(&mut self, number: usize, process: &mut Process) -> Result<(), String> {
        let (again, known) = self.next_request(number);
        let Again {
            request,
            key,
            call: first,
            is_older,
        } = again;
        let mut plan = self.disk.plan();
        plan.tally.requests += 1;
        plan.trace.note(&Event::Asked {
            client: number,
            request: &format!("{request:?}"),
        });
        drop(plan);
        let call = self.history.len();
        let invoked = self.tick();
        let responding = process.respond(&request, key.as_deref());
        self.history.push(Some(Call {
            request,
            answer: None,
            invoked,
            returned: 0,
        }));
        self.clients[number].pending = Some(Pending {
            responding,
            call,
            key,
            first,
            is_older,
            known,
        });
        self.take_answer(number)
    }

    /// Returns what a client requests next: a retry of a request without an answer, a repetition of
    /// one whose answer is known, or a new request. Returns also the answer, if it is known.
    fn next_request(&mut self, number: usize) -> (Again, Option<Answer>) {
        if let Some(again) = self.clients[number].again.take() {
            self.disk.plan().tally.retries += 1;
            return (again, None);
        }
        if !self.known.is_empty() && self.chance.below(6) == 0 {
            let known = &self.known[self.chance.below(self.known.len())];
            let again = Again {
                request: known.request.clone(),
                key: Some(known.key.clone()),
                call: None,
                is_older: false,
            };
            self.disk.plan().tally.retries += 1;
            return (again, Some(known.answer.clone()));
        }
        let request = self.profile.request(&mut self.chance);
        let is_operation = matches!(request, Request::Submit(_));
        let has_key = is_operation && self.chance.below(8) < self.profile.keyed;
        let key = has_key.then(|| {
            self.keys += 1;
            if self.is_crowded && !self.keys.is_multiple_of(8) {
                format!("{OF_MANY}{}", self.keys)
            } else {
                format!("k{}", self.keys)
            }
        });
        let again = Again {
            request,
            key,
            call: None,
            is_older: false,
        };
        (again, None)
    }

    /// Checks the answer to a request with a key against the earlier answers.
    fn answered_with_key(
        &mut self,
        key: &str,
        request: &Request,
        answer: &Answer,
        is_replayed: bool,
        known: Option<&Answer>,
    ) -> Result<(), String> {
        if let Some(known) = known {
            if known == answer && is_replayed || self.is_crowded && self.callers < 2 {
                return Ok(());
            }
            return Err(format!(
                "{request:?} with the key {key} was answered {known:?}, and then {answer:?}{}",
                if is_replayed { "" } else { ", decided again" }
            ));
        }
        if self.is_crowded {
            let number = |key: &str| key.strip_prefix('k').and_then(|text| text.parse().ok());
            let (keys, recent) = (self.keys, 8 * CROWDED_KEYS_KNOWN);
            let is_known = |key: &str| number(key).is_some_and(|it: u64| it + recent > keys);
            self.known.retain(|known| is_known(&known.key));
            if !is_known(key) {
                return Ok(());
            }
        }
        if self.known.len() == KNOWN_MAX {
            let forgotten = self.chance.below(KNOWN_MAX);
            self.known.swap_remove(forgotten);
        }
        self.known.push(Known {
            request: request.clone(),
            key: key.to_owned(),
            answer: answer.clone(),
        });
        Ok(())
    }

    pub(super) fn hang_up(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(pending) = client.pending.take() else {
            return;
        };
        // If the answer is known already, there is nothing to find out.
        if pending.known.is_none() && self.chance.below(2) == 0 {
            let call = self.history[pending.call].as_ref();
            client.again = call.map(|call| Again {
                request: call.request.clone(),
                key: pending.key,
                call: Some(pending.first.unwrap_or(pending.call)),
                is_older: pending.is_older,
            });
        }
        let mut plan = self.disk.plan();
        plan.tally.hang_ups += 1;
        plan.tally.fate_unknown += 1;
        plan.trace.note(&Event::HungUp { client: number });
    }

    pub(super) fn take_answers(&mut self) -> Result<(), String> {
        (0..self.clients.len()).try_for_each(|number| self.take_answer(number))
    }

    fn take_answer(&mut self, number: usize) -> Result<(), String> {
        let client = &mut self.clients[number];
        let Some(pending) = &mut client.pending else {
            return Ok(());
        };
        let Poll::Ready(response) = poll(&mut pending.responding) else {
            return Ok(());
        };
        let is_replayed = client::is_replayed(&response);
        let Some(Pending {
            call: place,
            key,
            first,
            is_older,
            known,
            ..
        }) = client.pending.take()
        else {
            return Ok(());
        };
        let returned = self.tick();
        let Some(request) = self.history[place]
            .as_ref()
            .map(|call| call.request.clone())
        else {
            return Ok(());
        };
        let said = client::read(&request, response)?;
        let mut plan = self.disk.plan();
        plan.trace.note(&Event::Answered {
            client: number,
            answer: &format!("{said:?}"),
        });
        let tally = &mut plan.tally;
        tally.replayed += u64::from(is_replayed);
        match &said {
            Said::Answer(Answer::Decided(Ok(()))) => tally.accepted += 1,
            Said::Answer(Answer::Decided(Err(_))) => tally.refused += 1,
            Said::Answer(Answer::Found(_)) => tally.lookups += 1,
            Said::FateUnknown => tally.fate_unknown += 1,
            Said::NotApplied => tally.not_applied += 1,
        }
        drop(plan);
        if let (Said::Answer(answer), Some(key)) = (&said, &key) {
            self.answered_with_key(key, &request, answer, is_replayed, known.as_ref())?;
        }
        // If the answer is known already, there is no reason to retry.
        if known.is_none() && !matches!(said, Said::Answer(_)) && self.chance.below(2) == 0 {
            let call = match said {
                // The first attempt may have been applied nevertheless.
                Said::NotApplied => first,
                _ => Some(first.unwrap_or(place)),
            };
            self.clients[number].again = Some(Again {
                request,
                key,
                call,
                is_older,
            });
        }
        match said {
            Said::Answer(answer) if is_replayed => {
                // Nothing new happened, but the fate of the first attempt is now known, unless
                // another attempt was made before this process.
                self.history[place] = None;
                let first = first.filter(|_| !is_older);
                let first = first.and_then(|first| self.history[first].as_mut());
                if let Some(call) = first.filter(|call| call.answer.is_none()) {
                    call.answer = Some(answer);
                    call.returned = returned;
                }
            }
            Said::Answer(answer) => {
                if let Some(call) = &mut self.history[place] {
                    call.answer = Some(answer);
                    call.returned = returned;
                }
            }
            Said::FateUnknown => {}
            Said::NotApplied => self.history[place] = None,
        }
        Ok(())
    }
}
