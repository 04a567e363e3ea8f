//! A switchover: the primary hands over to a standby that has everything, and nothing is lost.
//!
//! The standby leads. It sends its primary `hand-over`; the primary takes no more operations,
//! finishes those that it has, and only then answers. New operations wait meanwhile. The standby
//! continues to follow and reports the end of its own history with `handed-over`, repeatedly until
//! it has everything. The primary makes itself a standby, durably, before it confirms, and only
//! then is the standby promoted. So there are never two primaries. There is none only if a
//! confirmation is lost and the primary cannot be asked again in time; then an operator must
//! decide. If the primary does not hear in time that the standby has everything, it takes
//! operations again.

use super::{Inner, Taker, address, number};
use crate::{
    Address, Epoch, Error, Holder, Member, MemberId, Primary, Refusal, Role, Task, Tip, Unsendable,
    acknowledge::member_of, outside::block,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use widgets_engine::{FollowError, Source};

/// A standby that has lagged for longer than this is not switched to, because callers would wait.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// The pause before a primary is asked again, if it could not be reached or reports that something
/// is missing.
const SAY_AGAIN: Duration = Duration::from_millis(10);

/// The pause before another attempt when a queue was full.
const LEAD_AGAIN: Duration = Duration::from_millis(20);

/// The shortest and the longest time for which a primary waits for a standby.
const WITHIN_MIN: Duration = Duration::from_millis(100);
const WITHIN_MAX: Duration = Duration::from_mins(1);

/// The state of a hand-over on the primary.
#[derive(Default)]
pub(super) struct HandOver {
    under_way: Option<UnderWay>,
    /// How many hand-overs have begun.
    count: u64,
    /// Cancels the newest hand-over if it has not ended in time.
    deadline: Option<Task>,
    /// The last hand-over that this process completed.
    done: Option<Done>,
}

/// What was handed over, and to which member.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Done {
    to: MemberId,
    epoch: Epoch,
    tip: Tip,
}

struct UnderWay {
    member: Member,
    standby: Address,
}

/// How a standby identifies itself.
struct Asker {
    store: u64,
    epoch: u32,
    member: MemberId,
    address: Address,
}

impl Asker {
    fn read(query: &str) -> Result<Self, Unsendable> {
        Ok(Self {
            store: number(query, "store", 16)?,
            epoch: number(query, "epoch", 16)?,
            member: MemberId(number(query, "member", 16)?),
            address: address(query)?,
        })
    }

    /// Writes the query of a request.
    fn write(source: &Source, address: &str) -> String {
        let store = source.store();
        let address = utf8_percent_encode(address, NON_ALPHANUMERIC);
        format!(
            "store={:016x}&epoch={:08x}&member={:016x}&address={address}",
            store.identity,
            store.epoch(),
            store.member
        )
    }
}

/// Reports whether a primary says that the standby lacks something that will come: the primary is
/// busy for it (WG503).
fn is_behind(error: &Error) -> bool {
    matches!(error, Error::Answered { why, .. } if why.contains(r#""code":"WG503""#))
}

/// Reports whether a store says that it does not know whether it handed over (WG505).
fn is_forgotten(error: &Error) -> bool {
    matches!(error, Error::Answered { why, .. } if why.contains(r#""code":"WG505""#))
}

fn tip(source: &Source) -> Tip {
    let end = source.end();
    Tip {
        sequence: end.next_sequence,
        chain: end.chain,
    }
}

/// Returns what an operator reads if the answer to the last request may have been lost.
fn unknown(primary: &Primary, why: &str) -> Unsendable {
    Unsendable::Unknown(format!(
        "{} may have handed over, or not: {why}. If GET /ready?role=primary is 200 there, it is the primary as before. \
         If it is 503 there, promote this standby, which has everything (widgets promote). If nobody answers there, be sure \
         that it is gone first",
        primary.address
    ))
}

/// Returns why a standby cannot be handed over to.
fn refused(refusal: &Refusal, own: MemberId) -> Unsendable {
    match refusal {
        Refusal::IsNotHolder(Holder::Is { member, .. }) if *member != own => {
            Unsendable::NotChanged(format!(
                "{member} is the holder, and could be promoted beside this standby: have this one named first (widgets holder --member)"
            ))
        }
        // This standby may be named at any moment, so it should ask again.
        Refusal::IsNotHolder(_) => Unsendable::Busy(
            "answers wait for a standby, and this one is not named the holder yet".into(),
        ),
        _ => Unsendable::NotChanged(refusal.to_string()),
    }
}

impl Inner {
    pub(super) fn hand_over_state(&self) -> MutexGuard<'_, HandOver> {
        self.hand_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn check_asker(&self, asker: &Asker) -> Result<(), Unsendable> {
        let own = self.source.store();
        if (asker.store, asker.epoch) == (own.identity, own.epoch()) {
            return Ok(());
        }
        if asker.store == own.identity && asker.epoch < own.epoch() {
            return Err(Unsendable::Busy(format!(
                "the standby has not heard of epoch {} yet, it is of epoch {}",
                own.epoch(),
                asker.epoch
            )));
        }
        Err(Unsendable::Elsewhere(format!(
            "this is store {:016x} of epoch {}, the standby has store {:016x} of epoch {}",
            own.identity,
            own.epoch(),
            asker.store,
            asker.epoch
        )))
    }

    /// The primary's side: from here on it takes no operations. By the time this is answered, its
    /// journal contains what it took.
    pub(super) async fn hand_over(self: &Arc<Self>, query: &str) -> Result<String, Unsendable> {
        let asker = Asker::read(query)?;
        let within = within(query)?;
        let _one = self.changing.lock().await;
        self.check_asker(&asker)?;
        if let Some(primary) = self.primary_before() {
            let why = format!("this store is a standby itself, of {}", primary.address);
            return Err(Unsendable::NotChanged(why));
        }
        let other = {
            let state = self.hand_over_state();
            let other = state.under_way.as_ref().map(|it| it.standby.clone());
            other.filter(|standby| *standby != asker.address)
        };
        if let Some(other) = other {
            let why = format!("this primary is handing over to {other}");
            return Err(Unsendable::NotChanged(why));
        }
        self.begin_hand_over(asker.member)?;
        self.set_taker(Taker::Nobody);
        if !slipped!(TakesWhileHandingOver)
            && let Err(error) = self.follower.pause().await
        {
            self.call_off().await;
            return Err(Unsendable::NotChanged(error.to_string()));
        }
        // Check again: the holder may have changed until the pause, and can no longer change after
        // it.
        let member = match self.begin_hand_over(asker.member) {
            Ok(member) => member,
            Err(unsendable) => {
                self.call_off().await;
                return Err(unsendable);
            }
        };
        let standby = asker.address;
        tracing::warn!(
            %standby,
            within_ms = within.as_millis(),
            "handing over: operations wait until the standby has everything"
        );
        let (before, count) = {
            let mut state = self.hand_over_state();
            state.count += 1;
            state.under_way = Some(UnderWay { member, standby });
            (state.deadline.take(), state.count)
        };
        self.drop_task(before).await;
        let (inner, clock) = (self.clone(), self.outside.clock());
        let late = async move {
            clock.timer(within).await;
            inner.give_up(count).await;
        };
        match self.outside.begin("hand-over", Box::pin(late)) {
            Ok(task) => {
                self.hand_over_state().deadline = Some(task);
                self.metrics.handing_over().set(1);
                Ok(r#"{"handing_over":true}"#.into())
            }
            Err(error) => {
                self.call_off().await;
                Err(Unsendable::NotChanged(format!(
                    "starting a thread: {error}"
                )))
            }
        }
    }

    /// Returns this primary as one that hands over to that standby, if the rules allow it.
    fn begin_hand_over(&self, standby: MemberId) -> Result<Member, Unsendable> {
        let mut member = member_of(&self.source, self.acknowledge, Role::Primary);
        let begun = member.begin_hand_over(standby);
        begun.map_err(|refusal| refused(&refusal, member.id()))?;
        Ok(member)
    }

    /// Takes operations again if that hand-over is still under way.
    async fn give_up(&self, count: u64) {
        let _one = self.changing.lock().await;
        let under_way = {
            let mut state = self.hand_over_state();
            if state.count != count {
                return;
            }
            state.under_way.take()
        };
        let Some(UnderWay {
            mut member,
            standby,
        }) = under_way
        else {
            return;
        };
        member.cancel_hand_over();
        self.take_again().await;
        self.metrics.handed_over(false);
        tracing::error!(
            %standby,
            "the standby did not have everything in time, or could not say so: this primary \
             accepts operations again"
        );
    }

    /// Takes operations again, because a request to hand over failed. What an earlier request of the
    /// same standby began is forgotten first: the end of a history that grows again is not all of it.
    async fn call_off(&self) {
        let deadline = self.forget_hand_over();
        self.drop_task(deadline).await;
        self.take_again().await;
    }

    /// Takes operations again. The role on the disk has remained the primary's throughout.
    async fn take_again(&self) {
        while let Err(FollowError::NotNow(why)) = self.follower.lead().await {
            tracing::warn!(why, "this primary does not accept operations again yet");
            self.outside.clock().timer(LEAD_AGAIN).await;
        }
        self.metrics.handing_over().set(0);
        self.set_taker(Taker::This);
    }

    /// The primary's side: takes the end of the standby's history. Once that is everything, this
    /// store becomes its standby.
    pub(super) async fn handed_over(&self, query: &str) -> Result<String, Unsendable> {
        let asker = Asker::read(query)?;
        let theirs = Tip {
            sequence: number(query, "next_sequence", 10)?,
            chain: number(query, "chain", 16)?,
        };
        let done = Done {
            to: asker.member,
            epoch: Epoch::new(asker.epoch),
            tip: theirs,
        };
        let answer = || Ok(r#"{"handed_over":true}"#.into());
        let _one = self.changing.lock().await;
        // This is another store, or another epoch of it: what became of the store that was asked
        // before is unknown here.
        self.check_asker(&asker).map_err(|error| match error {
            Unsendable::Elsewhere(why) => Unsendable::Unknown(why),
            other => other,
        })?;
        let own = tip(&self.source);
        if let Some(primary) = self.primary_before() {
            // The standby asks again because the answer was lost. A standby that handed over
            // nothing, for instance because its disk was emptied meanwhile, cannot confirm that the
            // other one has everything.
            if self.hand_over_state().done == Some(done) {
                return answer();
            }
            let why = format!("this store is a standby, of {}", primary.address);
            if primary.address != asker.address {
                return Err(Unsendable::Elsewhere(why));
            }
            return Err(Unsendable::Unknown(format!(
                "{why}, and does not know whether it handed over to that one: it was started anew since"
            )));
        }
        let known = {
            let state = self.hand_over_state();
            let known = state.under_way.as_ref();
            let known = known.filter(|it| it.standby == asker.address);
            known.map(|it| it.member.clone())
        };
        let mut member =
            known.ok_or_else(|| Unsendable::Elsewhere(Refusal::IsNotHandingOver.to_string()))?;
        member.lengthened(own, None);
        let ended = member.end_hand_over(asker.member, done.epoch, theirs);
        if !slipped!(HandedOverBehind) {
            ended.map_err(|refusal| Unsendable::Busy(refusal.to_string()))?;
        }
        let standby = asker.address;
        let demoted = self.follower.demote(standby.to_string()).await;
        demoted.map_err(|error| Unsendable::Unavailable(error.to_string()))?;
        let deadline = self.forget_hand_over();
        self.hand_over_state().done = Some(done);
        self.drop_task(deadline).await;
        self.metrics.handed_over(true);
        tracing::warn!(
            primary = %standby,
            next_sequence = own.sequence,
            "handed over: this store is a standby"
        );
        self.set_taker(Taker::Primary(standby.to_string().into()));
        let primary = Primary {
            address: standby,
            credentials: self.credentials.clone(),
        };
        if let Err(error) = self.begin_to_follow(primary) {
            tracing::error!(%error, "this store does not follow until it is restarted");
        }
        answer()
    }

    /// Forgets the hand-over, and returns its task to be dropped where waiting does no harm.
    #[must_use]
    pub(super) fn forget_hand_over(&self) -> Option<Task> {
        self.metrics.handing_over().set(0);
        let mut state = self.hand_over_state();
        state.under_way = None;
        state.deadline.take()
    }

    pub(super) async fn drop_task(&self, task: Option<Task>) {
        if task.is_some() {
            // If no thread can run the closure, dropping it drops the task as well.
            drop(block(&*self.outside, move || drop(task)).await);
        }
    }

    /// The standby's side: asks the primary to hand over to it.
    pub(super) async fn switch_over(
        &self,
        address: String,
        within: Duration,
    ) -> Result<String, Unsendable> {
        let _one = self.changing.lock().await;
        let Some(primary) = self.primary_before() else {
            return Ok(self.told(false));
        };
        self.check_keeps_up(&primary)?;
        let before = primary.address.clone();
        let asker = self.ask_to_hand_over(&primary, &address, within).await?;
        self.set_taker(Taker::Nobody);
        match self.say_handed_over(&primary, &asker, within).await {
            Ok(handed) => self.take_over(primary, address, Some(handed), false).await,
            Err(unsendable) => {
                self.set_taker(Taker::Primary(before.to_string().into()));
                Err(unsendable)
            }
        }
    }

    /// Asks the primary to hand over, repeatedly while this standby has yet to learn of the
    /// primary's newest promotion: meanwhile, no operation waits. Returns how this standby
    /// identified itself.
    async fn ask_to_hand_over(
        &self,
        primary: &Primary,
        address: &str,
        within: Duration,
    ) -> Result<String, Unsendable> {
        let clock = self.outside.clock();
        let end = clock.now() + within;
        loop {
            let asker = Asker::write(&self.source, address);
            let call = format!("hand-over?{asker}&within_ms={}", within.as_millis());
            let error = match self.tell(primary, &call, within).await {
                Ok(()) => return Ok(asker),
                Err(error) => error,
            };
            if !is_behind(&error) || clock.now() >= end {
                return Err(Unsendable::NotChanged(match error {
                    Error::Answered { .. } => error.to_string(),
                    error => format!(
                        "{error}. If {} began to hand over, it takes operations again within {} s",
                        primary.address,
                        within.as_secs_f64()
                    ),
                }));
            }
            clock.timer(SAY_AGAIN).await;
        }
    }

    fn check_keeps_up(&self, primary: &Primary) -> Result<(), Unsendable> {
        // A standby that is reconnecting has not failed yet: there is time for that.
        let (failure, behind) = match &*self.following() {
            None => return Ok(()),
            Some(following) => (following.status.failure(), following.status.behind()),
        };
        if let Some(why) = failure {
            return Err(Unsendable::NotChanged(format!(
                "this standby does not follow {}: {why}",
                primary.address
            )));
        }
        if behind > BEHIND_MAX {
            return Err(Unsendable::NotChanged(format!(
                "this standby has not had everything for {} s, with more than {} s operations would wait for too long",
                behind.as_secs(),
                BEHIND_MAX.as_secs()
            )));
        }
        Ok(())
    }

    /// Reports how far this standby is, until it has everything. Returns what was handed over.
    async fn say_handed_over(
        &self,
        primary: &Primary,
        asker: &str,
        within: Duration,
    ) -> Result<(Epoch, Tip), Unsendable> {
        let clock = self.outside.clock();
        let end = clock.now() + within;
        let epoch = Epoch::new(self.source.store().epoch());
        let mut is_unknown = false;
        loop {
            let own = tip(&self.source);
            let call = format!(
                "handed-over?{asker}&next_sequence={}&chain={:016x}",
                own.sequence, own.chain
            );
            let left = end.saturating_sub(clock.now());
            let why = match self.tell(primary, &call, left).await {
                Ok(()) => return Ok((epoch, own)),
                Err(error) if is_behind(&error) => error.to_string(),
                // Either the primary handed over, its answer was lost and it was restarted, or it
                // follows this standby without having handed over.
                Err(error) if is_forgotten(&error) => {
                    return Err(unknown(primary, &error.to_string()));
                }
                // The store no longer waits, or never did, and is the primary; or it follows
                // another member.
                Err(error @ Error::Answered { status: 410, .. }) => {
                    return Err(Unsendable::NotChanged(error.to_string()));
                }
                Err(error) => {
                    is_unknown |= !matches!(error, Error::Answered { .. });
                    error.to_string()
                }
            };
            if clock.now() >= end {
                let seconds = within.as_secs_f64();
                return Err(if is_unknown {
                    unknown(primary, &format!("{why}, for {seconds} s"))
                } else {
                    Unsendable::NotChanged(format!(
                        "this standby did not have everything within {seconds} s: {why}"
                    ))
                });
            }
            clock.timer(SAY_AGAIN).await;
        }
    }

    /// Sends a request to a member, and waits at most `most` for its answer.
    async fn tell(&self, member: &Primary, call: &str, most: Duration) -> Result<(), Error> {
        let clock = self.outside.clock();
        tokio::select! {
            biased;
            told = self.outside.tell(member, call) => told,
            () = clock.timer(most) => Err(Error::Unreachable(format!(
                "there was no answer within {} ms",
                most.as_millis()
            ))),
        }
    }
}

/// Returns how long a hand-over may take.
pub(super) fn within(query: &str) -> Result<Duration, Unsendable> {
    let within = Duration::from_millis(number(query, "within_ms", 10)?);
    if within < WITHIN_MIN || within > WITHIN_MAX {
        let (least, most) = (WITHIN_MIN.as_millis(), WITHIN_MAX.as_millis());
        return Err(Unsendable::Malformed(format!(
            "within_ms must be {least} to {most}, {} was given",
            within.as_millis()
        )));
    }
    Ok(within)
}
