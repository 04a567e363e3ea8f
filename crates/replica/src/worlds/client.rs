//! The clients: they ask any member, and send the newest position that they know as Read-After.

use super::{ledger::Ledger, member::Engine};
use crate::Doing;
use std::sync::Arc;
use widgets_conformance::Model;
use widgets_engine::{StoreHeader, simulation::Chance};
use widgets_registry::{
    Applied, Ask as _, Attempt, Command, Fault, Feed, FeedError, Lookup, Name, Pair, Port, Ports,
    Position, Rejection, SerialNumber, Store as _, Widget,
};

/// A request.
pub(super) enum Asked {
    Operation(Command),
    /// A lookup after this position, if there is one.
    Lookup(SerialNumber, Option<Position>),
}

/// An answer.
pub(super) enum Answer {
    Operation(Result<Applied, Rejection>),
    Lookup(Result<Option<Widget>, Fault>),
    /// The member's history does not contain the position.
    Gone,
}

/// A request without an answer yet.
pub(super) struct Pending {
    pub(super) member: usize,
    pub(super) asked: Asked,
    /// When it was sent.
    pub(super) at: u64,
    /// The last entry that the member had then.
    pub(super) from: u64,
    pub(super) answer: Doing<'static, Answer>,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) pending: Option<Pending>,
    /// The newest position that an answer named.
    pub(super) seen: Option<Position>,
}

fn number(text: &str) -> SerialNumber {
    SerialNumber::new("widget_sn", text).expect("within the limits")
}

/// Returns the widgets of a world.
pub(super) fn serial_numbers() -> Vec<SerialNumber> {
    (0..6).map(|each| number(&format!("w{each}"))).collect()
}

/// Returns a random operation on few widgets, so that they often meet.
fn command(chance: &mut Chance, widgets: &[SerialNumber]) -> Command {
    let one = chance.below(widgets.len());
    let other = (one + 1 + chance.below(widgets.len() - 1)) % widgets.len();
    let mut port = || Port::ALL[chance.below(2)];
    let pair = Pair::new(widgets[one].clone(), widgets[other].clone(), port());
    let pair = pair.expect("two different widgets");
    let ports = [port(), port(), port()];
    let serial_number = widgets[one].clone();
    match chance.below(10) {
        0..4 => Command::AddWidget {
            serial_number,
            name: Name::new("name", "n".repeat(chance.below(200))).expect("within the limits"),
            ports: Ports::new(&ports[..chance.below(4)]).expect("at most three"),
        },
        4..6 => Command::RemoveWidget { serial_number },
        6..9 => Command::AssociateWidgets(pair),
        _ => Command::RemoveAssociation(pair),
    }
}

impl Client {
    /// Asks a member for something random.
    pub(super) fn ask(&mut self, member: usize, engine: &Engine, at: u64, chance: &mut Chance) {
        let client = engine.client();
        let widgets = serial_numbers();
        let (asked, answer): (_, Doing<'static, Answer>) = if chance.below(3) == 0 {
            let wanted = widgets[chance.below(widgets.len())].clone();
            let after = self.seen.filter(|_| chance.below(8) > 0);
            let feed = client.feed();
            let lookup = Lookup(wanted.clone());
            (
                Asked::Lookup(wanted, after),
                Box::pin(async move {
                    if let Err(answer) = reach(feed, after).await {
                        return answer;
                    }
                    Answer::Lookup(client.ask(lookup).await)
                }),
            )
        } else {
            let command = command(chance, &widgets);
            let attempt = Attempt::from(command.clone());
            (
                Asked::Operation(command),
                Box::pin(async move { Answer::Operation(client.ask(attempt).await) }),
            )
        };
        self.pending = Some(Pending {
            member,
            asked,
            at,
            from: engine.newest().sequence,
            answer,
        });
    }
}

/// Waits for a position as `server/api/read_after.rs` does.
async fn reach(feed: Option<Arc<dyn Feed>>, after: Option<Position>) -> Result<(), Answer> {
    let (Some(feed), Some(after)) = (feed, after) else {
        return Ok(());
    };
    match feed.reached(after).await {
        Ok(()) => Ok(()),
        Err(FeedError::Gone { .. }) => Err(Answer::Gone),
        Err(error) => Err(Answer::Lookup(Err(Fault::Unavailable {
            reason: error.to_string().into(),
        }))),
    }
}

/// Checks an answer. If an operation was applied, returns its place in the history of the member
/// that answered. That history is durable up to `newest`, and may be shown up to `shown`.
pub(super) fn check(
    pending: &Pending,
    answer: &Answer,
    ledger: &Ledger,
    store: &StoreHeader,
    newest: u64,
    shown: u64,
) -> Result<Option<u64>, String> {
    let states = |from: u64| ledger.states(store, from.min(shown), shown);
    let explains = |from: u64, is_so: &dyn Fn(&Model) -> bool| states(from).any(|it| is_so(&it));
    match (&pending.asked, answer) {
        (Asked::Operation(command), Answer::Operation(Ok(_))) => {
            let mut range = (pending.from + 1..=shown).rev();
            let is_it = |sequence: &u64| {
                let entry = ledger.at(store, *sequence);
                entry.is_some_and(|entry| same(&entry.command, command))
            };
            let found = range.find(is_it);
            found.map(Some).ok_or_else(|| {
                format!(
                    "{command:?} was accepted, and is not in what may be told of the history after {}",
                    pending.from
                )
            })
        }
        (Asked::Operation(command), Answer::Operation(Err(Rejection::Refused(refusal)))) => {
            let is_so = |model: &Model| model.clone().apply(command).as_ref() == Err(refusal);
            if explains(pending.from, &is_so) {
                return Ok(None);
            }
            Err(format!(
                "{command:?} was refused without a reason: {refusal}"
            ))
        }
        (Asked::Lookup(wanted, after), Answer::Lookup(Ok(found))) => {
            if let Some(after) = after
                && (after.sequence > shown || store.epoch_of(after.sequence) != after.epoch)
            {
                return Err(format!(
                    "a lookup after {after} was answered by a history of epoch {:x} up to {shown} that has not got it",
                    store.epoch_of(after.sequence)
                ));
            }
            let from = after.map_or(0, |after| after.sequence).max(pending.from);
            if explains(from, &|model| model.lookup(wanted) == *found) {
                return Ok(None);
            }
            Err(format!(
                "a lookup after {from} found {found:?}, which was not so since"
            ))
        }
        (Asked::Lookup(_, Some(after)), Answer::Gone) => {
            let has = after.sequence <= newest && store.epoch_of(after.sequence) == after.epoch;
            if has {
                return Err(format!("it says that it does not have {after}, and does"));
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Returns whether two operations are the same, in whichever order the widgets of a pair are.
fn same(one: &Command, other: &Command) -> bool {
    let turned =
        |pair: &Pair| Pair::new(pair.widget2().clone(), pair.widget1().clone(), pair.port());
    let turned = match other {
        Command::AssociateWidgets(pair) => turned(pair).map(Command::AssociateWidgets).ok(),
        Command::RemoveAssociation(pair) => turned(pair).map(Command::RemoveAssociation).ok(),
        _ => None,
    };
    one == other || turned.as_ref() == Some(one)
}
