//! A primary whose answers wait for a standby: tracks what each standby has, names the holder, and
//! lets the engine answer.
//!
//! [`Member`] decides what is allowed; this module takes the reports and emits records and
//! acknowledgements. A single task writes the records, one at a time. While a record is being
//! written nothing is acknowledged, because the record changes whose copy counts. If nobody is the
//! holder, or the primary itself is, the first standby that has nearly everything is named.
//! Otherwise only an operator can name another one, because the holder is the member that may be
//! promoted.

use crate::{
    Acknowledge, Epoch, Holder, Member, MemberId, Metrics, Outside, Record, Refusal, Role, Task,
    Tip,
};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use widgets_engine::{Acknowledging, Follower, JournalEnd, Named, Source};

/// A standby that lacks at most this many entries is named anyway: while operations arrive, a
/// standby that lacks none is rare. Callers wait until it has them.
const BEHIND_MAX: u64 = 10_000;

/// How long to wait before a record that could not be written is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// Which disks have an operation before its caller is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// This store's disk alone, by its configuration.
    Local,
    /// A standby's as well, and that standby is connected.
    Standby,
    /// This store's disk alone, since a promotion or an operator's command, until a standby has
    /// everything.
    Alone,
    /// Nobody's copy counts: nothing is acknowledged.
    Nobody,
}

impl By {
    pub(crate) const ALL: [Self; 4] = [Self::Local, Self::Standby, Self::Alone, Self::Nobody];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Standby => "standby",
            Self::Alone => "alone",
            Self::Nobody => "nobody",
        }
    }
}

/// How far the standbys of this store are sent the journal: no standby may show what a promotion
/// could undo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The member without a limit: it may be promoted, or has yet to receive the record that it may
    /// not.
    except: Option<MemberId>,
    /// All other members are sent what is before this entry.
    before: u64,
}

impl Limit {
    /// Creates the limit that holds for every member.
    #[cfg(test)]
    pub(crate) const fn of_all(before: u64) -> Self {
        Self {
            except: None,
            before,
        }
    }

    /// Returns the entry before which this standby may have everything.
    pub(crate) fn of(self, member: Option<MemberId>) -> u64 {
        if self.except.is_some() && member == self.except {
            u64::MAX
        } else {
            self.before
        }
    }
}

/// What a primary knows about the standbys that can acknowledge its operations. Clones share their
/// state.
#[derive(Clone)]
pub(crate) struct Acknowledger(Arc<Inner>);

struct Inner {
    outside: Arc<dyn Outside>,
    source: Source,
    follower: Follower,
    acknowledging: Acknowledging,
    metrics: Metrics,
    state: Mutex<State>,
    changed: Notify,
    limit: watch::Sender<Limit>,
}

#[derive(Default)]
struct State {
    /// `None` while this store follows.
    member: Option<Member>,
    /// How many connections each standby has: it may reconnect before its old connection is known
    /// to be broken.
    connected: BTreeMap<MemberId, usize>,
    /// The member that an operator, or a promotion, wants as the holder.
    wanted: Option<MemberId>,
    /// Whether a record is being written.
    records: bool,
}

/// A connected standby. Dropping this value disconnects it.
pub(crate) struct Attached {
    acknowledger: Acknowledger,
    member: MemberId,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.acknowledger.detach(self.member);
    }
}

fn tip(end: JournalEnd) -> Tip {
    Tip {
        sequence: end.next_sequence,
        chain: end.chain,
    }
}

/// Builds a member from what its data directory says.
pub(crate) fn member_of(source: &Source, acknowledge: Acknowledge, role: Role) -> Member {
    let (store, holding) = (source.store(), source.holding());
    let named = |Named { member, from }: Named| (MemberId(member), from);
    let mut member = Member::recovered(
        MemberId(store.member),
        acknowledge,
        role,
        Epoch::new(store.epoch()),
        holding.holder.map(named),
        holding.leaving.map(named),
    );
    member.lengthened(tip(source.end()), None);
    member
}

impl Acknowledger {
    /// Starts as a store that follows. The returned task names holders.
    pub(crate) fn start(
        outside: &Arc<dyn Outside>,
        source: Source,
        follower: Follower,
        acknowledging: Acknowledging,
        metrics: Metrics,
    ) -> io::Result<(Self, Task)> {
        let acknowledger = Self(Arc::new(Inner {
            outside: outside.clone(),
            source,
            follower,
            acknowledging,
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
            limit: watch::Sender::new(Limit::default()),
        }));
        let naming = acknowledger.clone();
        let task = outside.begin(
            "holder",
            Box::pin(async move { naming.name_holders().await }),
        )?;
        Ok((acknowledger, task))
    }

    /// Makes this store the primary from here on.
    pub(crate) fn lead(&self) {
        let (store, holding) = (self.0.source.store(), self.0.source.holding());
        let member = member_of(&self.0.source, Acknowledge::Standby, Role::Primary);
        let own = member.id();
        // Repeats what a promotion or a restore decided, if a crash came before its record was
        // written.
        let began = store.epochs.last().map_or(1, |epoch| epoch.first_sequence);
        let said = [holding.holder, holding.leaving];
        let is_of_before = !said.iter().flatten().any(|named| named.from > began);
        let is_promoted = matches!(store.role, widgets_engine::Role::Promoted { .. });
        let goes_alone = is_of_before && (is_promoted || !holding.is_unnamed());
        let mut state = self.lock();
        state.member = Some(member);
        state.wanted = goes_alone.then_some(own);
        self.update(&mut state);
    }

    /// Makes this store a standby from here on.
    pub(crate) fn stop_leading(&self) {
        let mut state = self.lock();
        state.member = None;
        state.wanted = None;
        self.0.acknowledging.connected(false);
        self.0.metrics.set_acknowledged_by(None);
        self.limit_own();
    }

    /// The primary has confirmed everything that this standby has, so this standby's own standbys
    /// may have it as well.
    pub(crate) fn confirmed(&self) {
        self.0.follower.confirmed();
        let state = self.lock();
        if state.member.is_none() {
            self.limit_own();
        }
    }

    /// Limits what a standby sends on to what it may show itself.
    fn limit_own(&self) {
        let unconfirmed = self.0.acknowledging.acknowledged();
        let before = unconfirmed.filter(|_| !slipped!(SentUnconfirmed));
        self.0.limit.send_replace(Limit {
            except: None,
            before: before.unwrap_or(u64::MAX),
        });
    }

    /// Adds a connected standby, which can be the holder.
    pub(crate) fn attach(&self, member: MemberId) -> Attached {
        let mut state = self.lock();
        *state.connected.entry(member).or_default() += 1;
        self.update(&mut state);
        Attached {
            acknowledger: self.clone(),
            member,
        }
    }

    fn detach(&self, member: MemberId) {
        let mut state = self.lock();
        if let Some(times) = state.connected.get_mut(&member) {
            *times -= 1;
            if *times == 0 {
                state.connected.remove(&member);
            }
        }
        self.update(&mut state);
    }

    /// Takes a standby's report that it has everything of this epoch before that entry on its disk.
    pub(crate) fn report(&self, standby: MemberId, epoch: Epoch, sequence: u64) {
        let mut state = self.lock();
        if let Some(member) = &mut state.member {
            member.lengthened(tip(self.0.source.end()), None);
            member.report(standby, epoch, sequence);
        }
        self.update(&mut state);
    }

    /// Returns whether answers wait for a standby.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.0.acknowledging.is_waited_for()
    }

    /// Returns how far members other than the holder are sent the journal, as it changes.
    pub(crate) fn limit(&self) -> watch::Receiver<Limit> {
        self.0.limit.subscribe()
    }

    /// Makes this standby the holder, as an operator demands. With `None`, the primary itself
    /// becomes the holder: the operator vouches that the previous holder is gone for good and will
    /// never be promoted.
    pub(crate) fn want(&self, standby: Option<MemberId>) -> Result<(), Refusal> {
        let mut state = self.lock();
        let member = state.member.as_ref().ok_or(Refusal::IsNotPrimary)?;
        let wanted = standby.unwrap_or_else(|| member.id());
        if let Some(standby) = standby {
            if !state.connected.contains_key(&standby) {
                return Err(Refusal::IsBehind { sequence: 0 });
            }
            member.may_write()?;
        } else {
            member.go_alone()?;
        }
        tracing::warn!(member = %wanted, "an operator names the holder");
        state.wanted = Some(wanted);
        self.update(&mut state);
        Ok(())
    }

    /// Returns the holder, and what each connected standby has, as JSON.
    pub(crate) fn told(&self) -> Option<String> {
        let state = self.lock();
        let member = state.member.as_ref()?;
        let by = by(&state, member).as_str();
        let holder = match member.holder() {
            Holder::Nobody => "null".into(),
            Holder::Is { member, .. } => format!("\"{member}\""),
        };
        let leaving = match member.leaving() {
            None => "null".into(),
            Some(member) => format!("\"{member}\""),
        };
        let standbys: Vec<_> = state
            .connected
            .keys()
            .map(|standby| {
                let has = member.reported(*standby);
                format!(r#"{{"member":"{standby}","next_sequence":{has}}}"#)
            })
            .collect();
        Some(format!(
            r#"{{"acknowledged_by":"{by}","holder":{holder},"leaving":{leaving},"member":"{}","next_sequence":{},"standbys":[{}]}}"#,
            member.id(),
            member.tip().sequence,
            standbys.join(",")
        ))
    }

    /// Publishes what the state implies: to the engine, the metrics, the senders and the task that
    /// names holders.
    fn update(&self, state: &mut State) {
        forget_wanted(state);
        let Some(member) = &mut state.member else {
            return;
        };
        member.lengthened(tip(self.0.source.end()), None);
        let (own, holder) = (member.id(), member.holder());
        let is_held = matches!(holder, Holder::Is { member, .. } if member != own);
        let acknowledged = member.acknowledged();
        // If the primary is its own holder, the engine waits for nobody. While a record is being
        // written, it is unknown whose copy counts.
        if is_held && !state.records {
            self.0.acknowledging.acknowledge(acknowledged);
        }
        let Some(member) = &state.member else { return };
        let by = by(state, member);
        self.0
            .acknowledging
            .connected(matches!(by, By::Standby | By::Alone));
        self.0.metrics.set_acknowledged_by(Some(by));
        let except = member.promotable().filter(|it| *it != own);
        let acknowledged = self.0.acknowledging.acknowledged();
        let limit = Limit {
            except,
            before: acknowledged
                .filter(|_| except.is_some())
                .unwrap_or(u64::MAX),
        };
        self.0.limit.send_if_modified(|known| {
            let is_new = *known != limit;
            *known = limit;
            is_new
        });
        if next_record(state).is_some() {
            self.0.changed.notify_one();
        }
    }

    async fn name_holders(self) {
        loop {
            let Some(record) = self.begin_record() else {
                self.0.changed.notified().await;
                continue;
            };
            let member = match record {
                Record::Holder(member) => Some(member.0),
                Record::NoHolder => None,
            };
            match self.0.follower.record(member).await {
                Ok(end) => self.recorded(record, end),
                Err(error) => {
                    tracing::warn!(%error, "the name of the holder could not be written to the \
                    journal; trying again");
                    self.not_recorded();
                    self.0.outside.clock().timer(RECORD_AGAIN).await;
                }
            }
        }
    }

    fn begin_record(&self) -> Option<Record> {
        let mut state = self.lock();
        let record = next_record(&state)?;
        state.records = true;
        Some(record)
    }

    /// Takes note that a record could not be written. What was reported meanwhile is acknowledged
    /// now: nothing more may be reported until it is.
    fn not_recorded(&self) {
        let mut state = self.lock();
        state.records = false;
        self.update(&mut state);
    }

    fn recorded(&self, record: Record, end: JournalEnd) {
        let mut state = self.lock();
        state.records = false;
        let Some(member) = &mut state.member else {
            return;
        };
        member.lengthened(tip(end), Some(record));
        let own = member.id();
        match record {
            Record::Holder(holder) if holder == own => tracing::warn!(
                "this store's own disk is enough to acknowledge an operation, until a standby has everything"
            ),
            Record::Holder(holder) => {
                tracing::info!(holder = %holder, "this standby must have an operation before it is acknowledged");
            }
            Record::NoHolder => {
                tracing::info!("nobody is the holder until the previous one has been told");
            }
        }
        self.update(&mut state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can panic halfway through a change.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by(state: &State, member: &Member) -> By {
    match member.holder() {
        Holder::Is { member: holder, .. } if holder == member.id() => By::Alone,
        Holder::Is { member: holder, .. } if state.connected.contains_key(&holder) => By::Standby,
        Holder::Is { .. } | Holder::Nobody => By::Nobody,
    }
}

/// Clears `wanted` once that member is the holder, so that a primary that is alone can name the
/// next standby.
fn forget_wanted(state: &mut State) {
    let holder = state.member.as_ref().map(Member::holder);
    if let Some(Holder::Is { member, .. }) = holder
        && state.wanted == Some(member)
    {
        state.wanted = None;
    }
}

/// Returns the record to write now, if there is one.
fn next_record(state: &State) -> Option<Record> {
    let member = state.member.as_ref().filter(|_| !state.records)?;
    let own = member.id();
    let holder = match member.holder() {
        Holder::Is { member, .. } => Some(member),
        Holder::Nobody => None,
    };
    if let Some(wanted) = state.wanted {
        return if holder == Some(wanted) {
            None
        } else if wanted == own {
            member.go_alone().ok()
        } else {
            member.name_holder(wanted, BEHIND_MAX).ok()
        };
    }
    if holder.is_some_and(|holder| holder != own) {
        return None;
    }
    let mut standbys = state.connected.keys();
    standbys.find_map(|standby| member.name_holder(*standby, BEHIND_MAX).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    const OWN: MemberId = MemberId(1);
    const STANDBYS: [MemberId; 3] = [MemberId(2), MemberId(3), MemberId(4)];

    #[derive(Clone, Debug)]
    enum Event {
        Write,
        Connect(usize),
        Disconnect(usize),
        /// This standby has received up to this many further entries.
        Report(usize, u64),
        Want(Option<usize>),
        /// The record that is due becomes durable.
        Record,
    }

    fn event() -> impl Strategy<Value = Event> {
        let standby = 0..STANDBYS.len();
        prop_oneof![
            3 => Just(Event::Write),
            2 => standby.clone().prop_map(Event::Connect),
            1 => standby.clone().prop_map(Event::Disconnect),
            5 => (standby.clone(), 0..5u64).prop_map(|(standby, more)| Event::Report(standby, more)),
            1 => proptest::option::of(standby).prop_map(Event::Want),
            4 => Just(Event::Record),
        ]
    }

    proptest! {
        /// Only entries that the holder has are acknowledged. No standby replaces another as the
        /// holder before the previous one knows that it is no longer the holder.
        #[test]
        fn only_the_holder_acknowledges_and_it_knows_before_it_is_replaced(
            events in vec(event(), 0..80)
        ) {
            let primary = Member::new(OWN, Acknowledge::Standby, Role::Primary, Epoch::new(1));
            let mut state = State { member: Some(primary), ..State::default() };
            let (mut tip, mut has) = (Tip::default(), [0; STANDBYS.len()]);
            // The previous holder, and the position of the record that nobody is the holder.
            let mut leaving = None;
            for event in events {
                let record = next_record(&state);
                let member = state.member.as_mut().expect("it leads");
                let before = member.holder();
                match event {
                    Event::Write => {
                        tip.sequence += 1;
                        member.lengthened(tip, None);
                    }
                    Event::Connect(at) => {
                        state.connected.insert(STANDBYS[at], 1);
                    }
                    Event::Disconnect(at) => {
                        state.connected.remove(&STANDBYS[at]);
                    }
                    Event::Report(at, more) => {
                        has[at] = tip.sequence.min(has[at] + more);
                        member.report(STANDBYS[at], Epoch::new(1), has[at]);
                    }
                    Event::Want(wanted) => state.wanted = Some(wanted.map_or(OWN, |at| STANDBYS[at])),
                    Event::Record => {
                        let Some(record) = record else { continue };
                        tip.sequence += 1;
                        member.lengthened(tip, Some(record));
                        match (before, record) {
                            (Holder::Is { member: one, .. }, Record::Holder(other)) => {
                                prop_assert!(one == OWN || other == OWN, "{one} is passed over");
                            }
                            (Holder::Is { member: one, .. }, Record::NoHolder) => {
                                leaving = Some((one, tip.sequence));
                            }
                            (Holder::Nobody, Record::Holder(other)) if other != OWN => {
                                if let Some((one, since)) = leaving
                                    && let Some(at) = STANDBYS.iter().position(|it| *it == one)
                                {
                                    prop_assert!(has[at] >= since, "{one} does not know");
                                }
                            }
                            (Holder::Nobody, _) => {}
                        }
                        if let Record::Holder(_) = record {
                            leaving = None;
                        }
                    }
                }
                forget_wanted(&mut state);
                let member = state.member.as_ref().expect("it leads");
                let most = match member.holder() {
                    Holder::Nobody => 0,
                    Holder::Is { member: OWN, .. } => tip.sequence,
                    Holder::Is { member, .. } => {
                        let at = STANDBYS.iter().position(|it| *it == member);
                        at.map_or(0, |at| has[at])
                    }
                };
                prop_assert!(member.acknowledged() <= most);
            }
        }

        /// A primary that is itself the holder names a connected standby that has everything. It
        /// does so even if an operator asked for the primary alone when it was already alone. A
        /// holder that was promoted and crashed before it wrote its own record is in the same
        /// situation.
        #[test]
        fn a_primary_alone_names_an_up_to_date_standby_as_holder(
            wanted in proptest::option::of(Just(OWN))
        ) {
            let mut primary = Member::new(OWN, Acknowledge::Standby, Role::Primary, Epoch::new(1));
            let tip = Tip { sequence: 1, chain: 0 };
            primary.lengthened(tip, Some(Record::Holder(OWN)));
            primary.report(STANDBYS[0], Epoch::new(1), 1);
            let connected = BTreeMap::from([(STANDBYS[0], 1)]);
            let mut state = State { member: Some(primary), connected, wanted, records: false };
            forget_wanted(&mut state);
            prop_assert_eq!(next_record(&state), Some(Record::Holder(STANDBYS[0])));
        }

        /// Only the holder, which may be promoted, is sent entries that are not acknowledged.
        #[test]
        fn standbys_other_than_the_holder_receive_only_acknowledged_entries(
            acknowledged in 0..100u64
        ) {
            let [holder, other, _] = STANDBYS;
            let limit = Limit { except: Some(holder), before: acknowledged };
            prop_assert_eq!(limit.of(Some(holder)), u64::MAX);
            prop_assert_eq!(limit.of(Some(other)), acknowledged);
            prop_assert_eq!(limit.of(None), acknowledged);
            let nobody = Limit { except: None, ..limit };
            prop_assert_eq!(nobody.of(None), acknowledged);
        }
    }
}
