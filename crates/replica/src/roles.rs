//! Tracks a store's role and changes it: the store follows, is promoted, is replaced, and hands
//! over.

mod hand_over;

use crate::{
    Acknowledge, Address, AddressError, By, Credentials, Epoch, Error, MemberId, Metrics, Outside,
    Primary, Record, Standbys, Status, Task, Tip, Unsendable,
    acknowledge::Acknowledger,
    follow::follow,
    promote::{Promotion, is_replaced, promote, tell, write},
};
use hand_over::HandOver;
use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch;
use widgets_engine::{Acknowledging, FollowError, Follower, Role, Source};
use widgets_registry::Position;

/// What an operator reads when a standby may not be promoted.
const NOT_HOLDER: &str = "this standby is not the holder, which alone is sure to have every acknowledged operation: `widgets holder` on the \
     primary shows which it is. Where both are gone, `widgets promote --force` promotes this one: your word that operations that were \
     answered may be lost";

/// What an operator reads when the holder cannot be changed or shown.
const HOLDER_STAYS: &str = "there is no holder to change here, or that standby is not connected: with replication.acknowledge = standby \
     the primary knows";

/// The parts of a store that its roles need.
pub struct Store {
    /// Reads what is sent to standbys.
    pub source: Source,
    /// Writes what the primary sends.
    pub follower: Follower,
    /// Present if the store's answers wait for a standby.
    pub acknowledging: Option<Acknowledging>,
}

/// Which store takes operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taker {
    /// This store.
    This,
    /// The primary at this address, which this store follows.
    Primary(Arc<str>),
    /// Neither store, for the duration of a hand-over.
    Nobody,
}

/// A store's role, and the standbys or the primary that it is connected with. Clones share their
/// state.
#[derive(Clone)]
pub struct Roles(Arc<Inner>);

struct Inner {
    outside: Arc<dyn Outside>,
    source: Source,
    follower: Follower,
    standbys: Standbys,
    metrics: Metrics,
    credentials: Credentials,
    segment_bytes: u64,
    /// Whether this store takes operations; read on each operation.
    takes: AtomicBool,
    taker: watch::Sender<Taker>,
    hand_over: Mutex<HandOver>,
    acknowledge: Acknowledge,
    /// Collects what each standby has, if answers wait for a standby.
    acknowledger: Option<Acknowledger>,
    /// The task that names holders.
    naming: Mutex<Option<Task>>,
    following: Mutex<Option<Following>>,
    /// The task that notifies the previous primary that it was replaced, until that succeeds.
    telling: Mutex<Option<Task>>,
    /// Serialises changes of role.
    changing: tokio::sync::Mutex<()>,
}

/// How a standby follows.
struct Following {
    primary: Primary,
    status: Status,
    /// `None` while the role changes.
    task: Option<Task>,
}

impl Roles {
    /// Begins to follow `primary`, if one is given, and to serve this store's standbys.
    /// `segment_bytes` is the size of the store's segments. `credentials` are for the members that
    /// this store contacts.
    pub fn start(
        outside: Arc<dyn Outside>,
        store: Store,
        primary: Option<Primary>,
        credentials: Credentials,
        segment_bytes: u64,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let Store {
            source,
            follower,
            acknowledging,
        } = store;
        let role = source.store().role.clone();
        let acknowledge = match acknowledging {
            Some(_) => Acknowledge::Standby,
            None => Acknowledge::Local,
        };
        let (acknowledger, naming) = acknowledging
            .map(|acknowledging| {
                let (source, follower) = (source.clone(), follower.clone());
                Acknowledger::start(&outside, source, follower, acknowledging, metrics.clone())
            })
            .transpose()?
            .unzip();
        let standbys = Standbys::new(
            outside.clone(),
            source.clone(),
            metrics.standbys(),
            acknowledger.clone(),
        );
        let inner = Inner {
            outside,
            source,
            follower,
            standbys,
            metrics,
            credentials,
            segment_bytes,
            takes: AtomicBool::new(true),
            taker: watch::Sender::new(Taker::This),
            hand_over: Mutex::default(),
            acknowledge,
            acknowledger,
            naming: Mutex::new(naming),
            following: Mutex::default(),
            telling: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        if let Some(primary) = primary {
            inner.begin_to_follow(primary)?;
        } else {
            inner.begin_to_lead()?;
            if let Role::Promoted { from, address } = role {
                inner.tell_before(&from, &address);
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Ends the background tasks.
    pub fn stop(&self) {
        self.0.tells(None);
        drop(self.0.forget_hand_over());
        let following = self.0.following().take();
        drop(following);
        let naming = self.0.naming().take();
        drop(naming);
    }

    /// Returns which store takes operations.
    #[must_use]
    pub fn taker(&self) -> Taker {
        if self.0.takes.load(Ordering::Acquire) {
            return Taker::This;
        }
        self.0.taker.borrow().clone()
    }

    /// Waits until a store takes operations.
    pub async fn settled(&self) {
        let mut taker = self.0.taker.subscribe();
        // The sender lives as long as `self`.
        drop(taker.wait_for(|taker| *taker != Taker::Nobody).await);
    }

    /// Returns why this standby does not follow, if it has not for a while.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let following = self.0.following();
        following.as_ref().and_then(|it| it.status.failure())
    }

    /// Returns the sending side, which serves this store's standbys.
    #[must_use]
    pub fn standbys(&self) -> Standbys {
        self.0.standbys.clone()
    }

    /// Makes this standby the primary, and returns the body of the answer. The query has the
    /// `address` at which this store is reachable. With `within_ms`, the primary hands over to it
    /// within that many milliseconds.
    pub async fn promote(&self, query: &str) -> Result<String, Unsendable> {
        only(query, &["address", "force", "within_ms"])?;
        let address = parameter(query, "address").unwrap_or_default();
        address.parse::<Address>().map_err(malformed_address)?;
        if parameter(query, "within_ms").is_some() {
            return self.0.switch_over(address, hand_over::within(query)?).await;
        }
        let force = match parameter(query, "force").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(Unsendable::Malformed(format!(
                    "force must be true or false, {other:?} was given"
                )));
            }
        };
        self.0.promote(address, force).await
    }

    /// Changes the holder if the query has `member`: a standby's number, or `alone`. Returns who
    /// the holder is, as the body of the answer.
    pub fn holder(&self, query: &str) -> Result<String, Unsendable> {
        only(query, &["member"])?;
        let refused = |why: String| Unsendable::Refused(HOLDER_STAYS, why);
        let Some(acknowledger) = &self.0.acknowledger else {
            let why = "replication.acknowledge is local here: no standby is waited for";
            return Err(refused(why.into()));
        };
        if let Some(member) = parameter(query, "member") {
            let id = u64::from_str_radix(&member, 16).ok().map(MemberId);
            let wanted = match (member.as_str(), id) {
                ("alone", _) => None,
                (_, Some(id)) => Some(id),
                (_, None) => {
                    return Err(Unsendable::Malformed(format!(
                        "member must be alone, or a standby's as it is listed, {member:?} was given"
                    )));
                }
            };
            let wanted = acknowledger.want(wanted);
            wanted.map_err(|refusal| refused(refusal.to_string()))?;
        }
        let told = acknowledger.told();
        told.ok_or_else(|| refused("this is a standby: ask the primary".into()))
    }

    /// Stops taking operations so that a standby can take over, and returns the body of the answer.
    /// The query identifies the standby.
    pub async fn hand_over(&self, query: &str) -> Result<String, Unsendable> {
        self.0.hand_over(query).await
    }

    /// Takes the standby's end of its history, and becomes its standby once that is everything.
    /// Returns the body of the answer.
    pub async fn handed_over(&self, query: &str) -> Result<String, Unsendable> {
        self.0.handed_over(query).await
    }

    /// Takes the message that another store has replaced this one, and returns the body of the
    /// answer. The query identifies the promoted store.
    pub async fn replaced(&self, query: &str) -> Result<String, Unsendable> {
        self.0.replaced(query).await
    }
}

impl Inner {
    fn following(&self) -> MutexGuard<'_, Option<Following>> {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set_taker(&self, taker: Taker) {
        self.takes.store(taker == Taker::This, Ordering::Release);
        self.taker.send_replace(taker);
    }

    /// Returns the primary that this store follows, if it does.
    fn primary_before(&self) -> Option<Primary> {
        self.following().as_ref().map(|it| it.primary.clone())
    }

    fn tells(&self, telling: Option<Task>) {
        let mut known = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, telling);
        drop(known);
        drop(before);
    }

    fn naming(&self) -> MutexGuard<'_, Option<Task>> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this store the primary from here on.
    fn begin_to_lead(&self) -> io::Result<()> {
        if let Some(acknowledger) = &self.acknowledger {
            acknowledger.lead();
            return Ok(());
        }
        self.metrics.set_acknowledged_by(Some(By::Local));
        if self.source.holding().holder.is_none() {
            return Ok(());
        }
        // From here on the holder may lack what is answered, so it may no longer be promoted.
        let (outside, source) = (self.outside.clone(), self.source.clone());
        let follower = self.follower.clone();
        let record = async move {
            let written = write(&*outside, &source, &follower, Record::NoHolder, false).await;
            if let Err(error) = written {
                tracing::error!(%error, "that answers no longer wait for a standby could not be \
                written to the journal");
            }
        };
        let task = self.outside.begin("holder", Box::pin(record))?;
        *self.naming() = Some(task);
        Ok(())
    }

    fn begin_to_follow(&self, primary: Primary) -> io::Result<()> {
        match &self.acknowledger {
            Some(acknowledger) => acknowledger.stop_leading(),
            None => self.metrics.set_acknowledged_by(None),
        }
        let status = Status::new(self.outside.clock());
        let task = follow(
            &self.outside,
            primary.clone(),
            self.source.clone(),
            self.follower.clone(),
            self.segment_bytes,
            status.clone(),
            self.acknowledger.clone(),
        )?;
        self.metrics.set_status(Some(status.clone()));
        let address = primary.address.to_string().into();
        *self.following() = Some(Following {
            primary,
            status,
            task: Some(task),
        });
        self.tells(None);
        self.set_taker(Taker::Primary(address));
        Ok(())
    }

    /// Notifies the previous primary that it was replaced. If the notification fails, only time is
    /// lost.
    fn tell_before(&self, from: &str, address: &str) {
        let before = match from.parse::<Address>() {
            Ok(before) => before,
            Err(error) => {
                tracing::error!(%error, before = from, "the previous primary cannot be told that it was replaced");
                return;
            }
        };
        let before = Primary {
            address: before,
            credentials: self.credentials.clone(),
        };
        match tell(&self.outside, before, &self.source, address) {
            Ok(telling) => self.tells(Some(telling)),
            Err(error) => {
                tracing::error!(%error, "the previous primary cannot be told that it was replaced");
            }
        }
    }

    async fn promote(&self, address: String, force: bool) -> Result<String, Unsendable> {
        let _one = self.changing.lock().await;
        match self.primary_before() {
            None => Ok(self.told(false)),
            Some(primary) => self.take_over(primary, address, None, force).await,
        }
    }

    /// Makes this store the primary in place of `primary`. `handed` is what that primary handed
    /// over, if it did.
    async fn take_over(
        &self,
        primary: Primary,
        address: String,
        handed: Option<(Epoch, Tip)>,
        force: bool,
    ) -> Result<String, Unsendable> {
        let task = self.following().as_mut().and_then(|it| it.task.take());
        self.drop_task(task).await;
        let from = primary.address.to_string();
        let promoted = promote(
            &*self.outside,
            &self.source,
            &self.follower,
            Promotion {
                from: from.clone(),
                address: address.clone(),
                handed,
                acknowledge: self.acknowledge,
                force,
            },
        )
        .await;
        // If the promotion is on the disk, this store leads at its next start, whatever failed
        // afterwards. So it no longer follows, and the previous primary is told.
        let is_promoted = !self.source.store().is_standby();
        let epoch = match promoted {
            Ok(epoch) => Ok(epoch.number()),
            Err(error) if is_promoted => Err(half_promoted(&from, &error)),
            Err(error) => return Err(self.not_promoted(primary, handed.is_some(), &error)),
        };
        *self.following() = None;
        self.metrics.set_status(None);
        let leads = self.begin_to_lead();
        leads.map_err(|error| half_promoted(&from, &error))?;
        self.set_taker(Taker::This);
        self.tell_before(&from, &address);
        let epoch = epoch?;
        tracing::warn!(
            epoch,
            before = from,
            "promoted: this store accepts operations"
        );
        Ok(self.told(true))
    }

    /// Follows `primary` again, because the promotion failed. Returns what the operator is told.
    /// `is_handed` means that the primary has handed over.
    fn not_promoted(&self, primary: Primary, is_handed: bool, error: &Error) -> Unsendable {
        let from = primary.address.to_string();
        if let Err(error) = self.begin_to_follow(primary) {
            self.set_taker(Taker::Primary(from.as_str().into()));
            return Unsendable::Unavailable(error.to_string());
        }
        match error {
            Error::Follow(FollowError::FateUnknown(why)) => Unsendable::Unknown(format!(
                "whether this standby is promoted is not known until it is restarted: {why}. If it is, it tells {from} then. \
                 Restart it before you rely on either"
            )),
            _ if is_handed => Unsendable::NotChanged(format!(
                "{from} has handed over and takes no operations, and this standby could not be promoted: {error}. \
                 Promote this standby again (widgets promote): it has everything"
            )),
            Error::Rules(_) => Unsendable::Refused(NOT_HOLDER, error.to_string()),
            _ => Unsendable::NotChanged(error.to_string()),
        }
    }

    /// Returns the body of the answer to a promotion.
    fn told(&self, promoted: bool) -> String {
        let (store, end) = (self.source.store(), self.source.end());
        let position = Position {
            store: store.identity,
            epoch: store.epoch_of(end.next_sequence - 1),
            sequence: end.next_sequence - 1,
        };
        format!(
            r#"{{"promoted":{promoted},"epoch":{},"position":"{position}"}}"#,
            store.epoch()
        )
    }

    /// Makes this store follow the new primary from here on, durably.
    async fn follow_instead(&self, address: Address) -> Result<(), Unsendable> {
        let unavailable = |error: Error| Unsendable::Unavailable(error.to_string());
        let before = self.primary_before();
        // First stop following the previous primary: what it sent must be written before the new
        // one is asked where to continue.
        let task = self.following().as_mut().and_then(|it| it.task.take());
        self.drop_task(task).await;
        if let Err(error) = self.follower.demote(address.to_string()).await {
            if let Some(before) = before {
                self.begin_to_follow(before)
                    .map_err(|error| unavailable(Error::Start(error)))?;
            }
            return Err(unavailable(error.into()));
        }
        tracing::warn!(primary = %address, "this standby follows the new primary");
        let primary = Primary {
            address,
            credentials: self.credentials.clone(),
        };
        let follows = self.begin_to_follow(primary);
        follows.map_err(|error| unavailable(Error::Start(error)))
    }

    async fn replaced(&self, query: &str) -> Result<String, Unsendable> {
        let store: u64 = number(query, "store", 16)?;
        let epoch: u32 = number(query, "epoch", 16)?;
        let address = address(query)?;
        let _one = self.changing.lock().await;
        if let Some(primary) = self.primary_before() {
            let own = self.source.store();
            let is_news = store == own.identity && epoch > own.epoch();
            if is_news && primary.address != address {
                // The primary that this store follows may be gone for good, or may itself be a
                // standby by now.
                self.follow_instead(address).await?;
            }
            return Ok(r#"{"replaced":false}"#.into());
        }
        if !is_replaced(&self.source, store, epoch) {
            return Err(Unsendable::Elsewhere(format!(
                "this is store {:016x} of epoch {}, told of was store {store:016x} of epoch {epoch}",
                self.source.store().identity,
                self.source.store().epoch(),
            )));
        }
        tracing::error!(
            epoch, primary = %address,
            "this primary was replaced: it no longer accepts operations, and follows the new one"
        );
        let unavailable = |error: Error| Unsendable::Unavailable(error.to_string());
        let hand_over = self.forget_hand_over();
        self.drop_task(hand_over).await;
        let demoted = self.follower.demote(address.to_string()).await;
        demoted.map_err(|error| unavailable(error.into()))?;
        let primary = Primary {
            address,
            credentials: self.credentials.clone(),
        };
        let follows = self.begin_to_follow(primary);
        follows.map_err(|error| unavailable(Error::Start(error)))?;
        Ok(r#"{"replaced":true}"#.into())
    }
}

/// Returns what an operator reads if a promotion is durable and something failed after it.
fn half_promoted(from: &str, error: &dyn fmt::Display) -> Unsendable {
    Unsendable::Unknown(format!(
        "this store is promoted in place of {from}, and could not begin to take operations: {error}. \
         Restart it: then it is the primary. What {from} takes until it is told would be lost"
    ))
}

/// Returns the address in the query.
fn address(query: &str) -> Result<Address, Unsendable> {
    let address = parameter(query, "address").unwrap_or_default();
    address.parse().map_err(malformed_address)
}

fn malformed_address(error: AddressError) -> Unsendable {
    Unsendable::Malformed(format!(
        "address must say where the store is found, as in https://standby:3000: {error}"
    ))
}

/// Returns a number from the query, parsed in this base.
fn number<T: TryFrom<u64>>(query: &str, wanted: &str, base: u32) -> Result<T, Unsendable> {
    let given = parameter(query, wanted);
    let number = given
        .as_deref()
        .and_then(|text| u64::from_str_radix(text, base).ok());
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| {
            let given = given.unwrap_or_default();
            Unsendable::Malformed(format!(
                "{wanted} must be a number in base {base}, {given:?} was given"
            ))
        })
}

/// Refuses a query with other parameters than these. A misspelt `within_ms` would make a switchover a
/// promotion without the primary. Only for what people send: another member may have a newer
/// version.
fn only(query: &str, names: &[&str]) -> Result<(), Unsendable> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    match pairs.find(|(name, _)| !names.contains(&&**name)) {
        None => Ok(()),
        Some((name, _)) => Err(Unsendable::Malformed(format!(
            "the parameter {name:?} is unknown; the parameters are {}",
            names.join(", ")
        ))),
    }
}

/// Returns a parameter of the query.
fn parameter(query: &str, wanted: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(name, _)| name == wanted)?;
    Some(value.into_owned())
}
