//! The standby's side: a separate task asks the primary for its journal, and retries after any
//! failure.

use crate::{
    Acknowledge, Epoch, Error, Holder, Member, MemberId, Outside, Primary, Role, Status, Task, Tip,
    acknowledge::Acknowledger,
    copy::misplaced,
    link::Frames,
    outside::block,
    wire::{self, Frame},
};
use std::{convert::Infallible, io, sync::Arc, time::Duration};
use tokio::sync::watch;
use widgets_engine::{FollowError, Follower, JournalEnd, LoggedGroup, Source, StoreHeader};

/// The pause after the first failure; it doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The pause before a group that cannot be written now is tried again.
const WRITE_AGAIN: Duration = Duration::from_millis(100);

/// The status with which a primary answers a standby that has another history.
const GONE: u16 = 410;

/// Follows a primary until the task is dropped. `source` and `follower` belong to the standby's own
/// store, whose segments have `segment_bytes` bytes.
pub(crate) fn follow(
    outside: &Arc<dyn Outside>,
    primary: Primary,
    source: Source,
    follower: Follower,
    segment_bytes: u64,
    status: Status,
    acknowledger: Option<Acknowledger>,
) -> io::Result<Task> {
    let standby = Standby {
        outside: outside.clone(),
        primary,
        source,
        follower,
        segment_bytes,
        status,
        acknowledger,
    };
    outside.begin("follow", Box::pin(standby.run()))
}

fn tip(end: JournalEnd) -> Tip {
    Tip {
        sequence: end.next_sequence,
        chain: end.chain,
    }
}

/// Builds a standby of this epoch whose history ends here.
fn member(epoch: u32, end: JournalEnd) -> Member {
    let epoch = Epoch::new(epoch);
    let mut member = Member::new(MemberId(0), Acknowledge::Local, Role::Standby, epoch);
    member.lengthened(tip(end), None);
    member
}

struct Standby {
    outside: Arc<dyn Outside>,
    primary: Primary,
    source: Source,
    follower: Follower,
    segment_bytes: u64,
    status: Status,
    /// If present, the standby reports what it has, and so can be the holder.
    acknowledger: Option<Acknowledger>,
}

impl Standby {
    async fn run(self) {
        let (mut told, mut times) = (None, 0u32);
        if slipped!(ShownUnconfirmed) {
            self.follower.confirmed();
        }
        loop {
            let before = self.source.end().next_sequence;
            let Err(error) = self.follow().await;
            let why = error.to_string();
            let address = &self.primary.address;
            self.status.failed(why.clone());
            if self.source.end().next_sequence > before {
                times = 0;
            }
            if told.as_ref() != Some(&why) {
                tracing::warn!(error = why, primary = %address, "the primary cannot be followed; \
                trying again");
                told = Some(why);
            }
            let pause = BACKOFF.saturating_mul(1 << times.min(10)).min(BACKOFF_MAX);
            // Random, so that many standbys of one primary do not reconnect at the same moment.
            let jitter = u32::try_from(self.outside.random() % 512).unwrap_or(0);
            self.wait(pause.saturating_sub(pause / 1024 * jitter)).await;
            times = times.saturating_add(1);
        }
    }

    async fn wait(&self, pause: Duration) {
        self.outside.clock().timer(pause).await;
    }

    /// Asks for what comes next, and writes it, until something fails.
    async fn follow(&self) -> Result<Infallible, Error> {
        let own = self.source.store();
        let end = self.source.end();
        let mut member = member(own.epoch(), end);
        let (reports, _) = watch::channel(0);
        let (mut frames, store, begin) = match self.ask(end, &reports).await {
            Ok((frames, store)) => (frames, store, end),
            Err(error) => self.ask_before_seals(error, &mut member, &reports).await?,
        };
        // The primary has confirmed that its history contains this tip; otherwise it would not have
        // begun to send.
        member.take_groups(Epoch::new(store.epoch()), tip(begin))?;
        if begin != end {
            tracing::warn!(
                next_sequence = begin.next_sequence,
                seals = end.next_sequence - begin.next_sequence,
                "the primary does not have the seals at the end of this journal: they are cut back"
            );
            self.follower.cut_seals(begin).await?;
        }
        self.follower.adopt(own, &store).await?;
        if let Some(acknowledger) = &self.acknowledger {
            acknowledger.confirmed();
        }
        self.status.connected();
        reports.send_replace(self.source.end().next_sequence);
        tracing::info!(
            primary = %self.primary.address,
            epoch = store.epoch(),
            next_sequence = begin.next_sequence,
            "following"
        );
        loop {
            match frames.next().await? {
                Frame::Group { group, next_chain } => {
                    let next_sequence = group.next_sequence();
                    self.write(group, next_chain).await?;
                    reports.send_replace(next_sequence);
                }
                Frame::End { end, behind } => self.heard(end, behind),
                other => return Err(misplaced(&other)),
            }
        }
    }

    /// Asks for what follows this end.
    async fn ask(
        &self,
        end: JournalEnd,
        reports: &watch::Sender<u64>,
    ) -> Result<(Frames, Box<StoreHeader>), Error> {
        let own = self.source.store();
        let from = wire::From {
            store: own.identity,
            epoch: own.epoch(),
            next_sequence: end.next_sequence,
            chain: end.chain,
        };
        let is_reporting = self.acknowledger.is_some();
        let member = is_reporting.then_some(MemberId(own.member));
        let query = wire::query(Some(from), member);
        let reports = is_reporting.then(|| reports.subscribe());
        let bytes_max = self.segment_bytes;
        let asked = Frames::ask(&self.outside, &self.primary, &query, reports, bytes_max);
        let mut frames = asked.await?;
        let store = match frames.next().await? {
            Frame::Store(store) => store,
            other => return Err(misplaced(&other)),
        };
        if store.identity != own.identity || store.secret != own.secret {
            return Err(Error::OtherStore {
                theirs: store.identity,
                own: own.identity,
            });
        }
        // Two members that were promoted at the same point may both write the same entries there,
        // for instance seals of the same moment. Then the hashes are equal, but the histories are
        // not.
        let sequence = end.next_sequence - 1;
        let (theirs, ours) = (store.epoch_of(sequence), own.epoch_of(sequence));
        if theirs != ours {
            return Err(Error::Parted {
                sequence,
                theirs,
                own: ours,
            });
        }
        Ok((frames, store))
    }

    /// Handles a primary whose history does not contain this standby's tip, or no longer does. If
    /// only seals follow the common part, and the primary continues it in another epoch, nothing is
    /// lost by cutting the seals back.
    async fn ask_before_seals(
        &self,
        error: Error,
        member: &mut Member,
        reports: &watch::Sender<u64>,
    ) -> Result<(Frames, Box<StoreHeader>, JournalEnd), Error> {
        let is_parted = matches!(
            error,
            Error::Answered { status: GONE, .. } | Error::Parted { .. }
        );
        if !is_parted {
            return Err(error);
        }
        let source = self.source.clone();
        let before = block(&*self.outside, move || source.before_seals()).await;
        let Ok(Ok(Some(before))) = before else {
            return Err(error);
        };
        // If this fails as well, report the answer to the whole journal.
        let Ok((frames, store)) = self.ask(before, reports).await else {
            return Err(error);
        };
        let epoch = Epoch::new(store.epoch());
        member.take_copy(epoch, tip(before), Holder::Nobody)?;
        Ok((frames, store, before))
    }

    async fn write(&self, group: LoggedGroup, next_chain: u64) -> Result<(), Error> {
        if group.next_chain() != next_chain {
            return Err(Error::Hash(group.first_sequence));
        }
        let group = Arc::new(group);
        loop {
            match self.follower.follow(group.clone()).await {
                Err(FollowError::NotNow(why)) => {
                    self.status.cannot_write(&why);
                    self.wait(WRITE_AGAIN).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    fn heard(&self, primary: JournalEnd, behind: u64) {
        let own = self.source.end();
        self.status
            .heard(own.next_sequence >= primary.next_sequence, behind);
    }
}
