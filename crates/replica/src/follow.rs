//! The standby's side: a task of its own asks the primary for what comes, and tries again whatever fails.

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

/// After a failure it is tried again after this, then twice as long, and so on.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A group that cannot be written now is tried again after this.
const WRITE_AGAIN: Duration = Duration::from_millis(100);

/// What a primary answers to a standby of another history.
const GONE: u16 = 410;

/// Follows a primary until the task is dropped. `source` and `follower` are of the standby's own store, whose
/// segments have so many bytes.
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

/// A standby of this epoch whose history ends here.
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
    /// Where this is given it says what it has, and so can be the holder.
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
                tracing::warn!(error = why, primary = %address, "the primary is not followed; it is tried again");
                told = Some(why);
            }
            let pause = BACKOFF.saturating_mul(1 << times.min(10)).min(BACKOFF_MAX);
            // Many standbys of one primary shall not come at the same moment.
            let jitter = u32::try_from(self.outside.random() % 512).unwrap_or(0);
            self.wait(pause.saturating_sub(pause / 1024 * jitter)).await;
            times = times.saturating_add(1);
        }
    }

    async fn wait(&self, pause: Duration) {
        self.outside.clock().timer(pause).await;
    }

    /// Asks for what comes, and writes it.
    async fn follow(&self) -> Result<Infallible, Error> {
        let own = self.source.store();
        let end = self.source.end();
        let mut member = member(own.epoch(), end);
        let (reports, _) = watch::channel(0);
        let (mut frames, store, begin) = match self.ask(end, &reports).await {
            Ok((frames, store)) => (frames, store, end),
            Err(error) => self.ask_before_seals(error, &mut member, &reports).await?,
        };
        // The primary has said that its history has this tip, or it would not have begun to send.
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

    /// Asks for what comes after this end.
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
        // Two that were promoted at the same place may both write the same there, as seals of the same moment are: the hash is
        // the same then, and the history is not.
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

    /// The primary does not have this standby's tip, or not any more. Where seals alone come after what it has, and another epoch
    /// goes on from there, nothing is lost with them.
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
        // What it said to the whole journal is what is wrong, if it is still.
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
