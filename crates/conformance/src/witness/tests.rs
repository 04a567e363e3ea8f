//! Each kind of wrong history is refused, and for the right reason.

use super::*;
use widgets_registry::{
    Happened, Moment, Name, Pair, Port, Ports, Position, Refusal, Slot, Widget,
};

fn serial_number(text: &str) -> SerialNumber {
    SerialNumber::new("widget_sn", text).expect("short")
}

fn add(text: &str) -> Command {
    Command::AddWidget {
        serial_number: serial_number(text),
        name: Name::new("widget_name", "x").expect("short"),
        ports: Ports::new(&[Port::P]).expect("few"),
    }
}

fn associate() -> Command {
    let pair = Pair::new(serial_number("E"), serial_number("F"), Port::P);
    Command::AssociateWidgets(pair.expect("two widgets"))
}

fn author(name: &str) -> Author {
    Author::new(name).expect("a short name")
}

/// Returns a call under a name, with its beginning and its end.
fn call(name: &str, request: Request, answer: Option<Answer>, time: [u64; 2]) -> Witnessed {
    let [invoked, returned] = time;
    Witnessed {
        call: Call {
            request,
            answer,
            invoked,
            returned,
        },
        by: author(name),
    }
}

fn accepted(name: &str, command: Command, time: [u64; 2]) -> Witnessed {
    let answer = Some(Answer::Decided(Ok(())));
    call(name, Request::Submit(command), answer, time)
}

fn refused(name: &str, command: Command, refusal: Refusal, time: [u64; 2]) -> Witnessed {
    let answer = Some(Answer::Decided(Err(refusal)));
    call(name, Request::Submit(command), answer, time)
}

fn taken(text: &str) -> Refusal {
    let serial_number = serial_number(text);
    Refusal::SerialNumberTaken { serial_number }
}

/// Returns a lookup that finds E with this peer.
fn found(name: &str, peer: Option<&str>, time: [u64; 2]) -> Witnessed {
    let widget = Widget {
        serial_number: serial_number("E"),
        name: Name::new("widget_name", "x").expect("short"),
        slots: vec![Slot {
            port: Port::P,
            peer: peer.map(serial_number),
        }],
    };
    looked_up(name, Some(widget), time)
}

fn looked_up(name: &str, widget: Option<Widget>, time: [u64; 2]) -> Witnessed {
    let request = Request::Lookup(serial_number("E"));
    call(name, request, Some(Answer::Found(widget)), time)
}

/// Returns the feed of these operations, one after the other.
fn feed(operations: &[(&str, Command)]) -> Vec<Event> {
    let mut model = Model::default();
    let mut events = Vec::new();
    for (name, command) in operations {
        let happened = model.foretell(command).expect("it is accepted");
        model.apply(command).expect("it is accepted");
        events.push(event(name, happened));
    }
    events
}

fn event(name: &str, happened: Happened) -> Event {
    Event {
        position: Position {
            store: 1,
            epoch: 1,
            sequence: 1,
        },
        at: Moment(1),
        by: Some(author(name)),
        happened,
    }
}

/// Returns calls that add two widgets one after the other and associate them, and lookups
/// meanwhile.
fn calls() -> Vec<Witnessed> {
    vec![
        accepted("add E", add("E"), [10, 19]),
        accepted("add F", add("F"), [20, 29]),
        accepted("join", associate(), [30, 39]),
        looked_up("nothing yet", None, [11, 12]),
        found("free", None, [31, 33]),
        found("joined", Some("F"), [34, 36]),
        refused("again", add("E"), taken("E"), [40, 41]),
    ]
}

fn told() -> Vec<Event> {
    feed(&[
        ("add E", add("E")),
        ("add F", add("F")),
        ("join", associate()),
    ])
}

#[track_caller]
fn refuses(calls: &[Witnessed], events: &[Event], why: &str) {
    let verdict = check(&Model::default(), calls, events);
    let said = verdict.expect_err("it is wrong");
    assert!(said.contains(why), "{said}");
}

#[test]
fn a_correct_history_is_accepted() {
    assert_eq!(check(&Model::default(), &calls(), &told()), Ok(()));
    // Overlapping operations may be reported in either order.
    let overlapping = [
        accepted("add E", add("E"), [10, 19]),
        accepted("add F", add("F"), [11, 18]),
    ];
    for order in [["add E", "add F"], ["add F", "add E"]] {
        let operations = order.map(|name| (name, add(&name[4..])));
        let events = feed(&operations);
        assert_eq!(check(&Model::default(), &overlapping, &events), Ok(()));
    }
    // The calls may follow another history.
    let mut initial = Model::default();
    initial.apply(&add("E")).expect("accepted");
    assert_eq!(check(&initial, &calls()[6..], &[]), Ok(()));
}

#[test]
fn an_operation_of_unknown_fate_may_be_in_the_feed_or_not() {
    let unknown = |name, text| call(name, Request::Submit(add(text)), None, [10, 0]);
    let calls = [unknown("add E", "E"), unknown("add F", "F")];
    let events = feed(&[("add F", add("F"))]);
    assert_eq!(check(&Model::default(), &calls, &events), Ok(()));
    assert_eq!(check(&Model::default(), &calls, &[]), Ok(()));
}

#[test]
fn a_duplicate_or_unrequested_change_in_the_feed_is_rejected() {
    let mut twice = told();
    twice.push(twice[0].clone());
    refuses(
        &calls(),
        &twice,
        "nobody asked for this, or it is in the feed twice",
    );
    let mut unasked = told();
    unasked.extend(feed(&[("nobody", add("G"))]));
    refuses(
        &calls(),
        &unasked,
        "nobody asked for this, or it is in the feed twice",
    );
    let mut anonymous = told();
    anonymous[0].by = None;
    refuses(&calls(), &anonymous, "nobody asked for this");
}

#[test]
fn a_lookup_or_a_refusal_in_the_feed_is_rejected() {
    let mut lookup = told();
    lookup.extend(feed(&[("joined", add("G"))]));
    refuses(&calls(), &lookup, "a lookup is told");
    // The change would be right in its place, but the answer was a refusal.
    let calls = [refused("add E", add("E"), taken("E"), [10, 19])];
    refuses(&calls, &feed(&[("add E", add("E"))]), "is told as");
}

#[test]
fn a_change_at_an_impossible_place_in_the_feed_is_rejected() {
    let mut early = told();
    early.rotate_right(1);
    refuses(&calls(), &early, "is told where it is refused");
}

#[test]
fn a_change_in_the_feed_that_differs_from_its_request_is_rejected() {
    let mut other = told();
    other[1].happened = feed(&[("add F", add("G"))]).remove(0).happened;
    refuses(&calls(), &other, "is told of");
}

#[test]
fn a_feed_that_contradicts_the_order_in_time_is_rejected() {
    let calls = &calls()[..2];
    let events = feed(&[("add F", add("F")), ("add E", add("E"))]);
    refuses(calls, &events, "is told after one that began later");
}

#[test]
fn an_accepted_operation_missing_from_the_feed_is_rejected() {
    let mut short = told();
    short.pop();
    refuses(&calls(), &short, "is not told");
}

#[test]
fn an_answer_that_fits_no_state_of_the_feed_is_rejected() {
    let with = |more: &[Witnessed]| [&calls()[..3], more].concat();
    for (wrong, why) in [
        (
            found("late", None, [50, 51]),
            "it rests on what was answered before it began",
        ),
        (found("early", None, [1, 2]), "it sees what had not begun"),
        (
            found("never", Some("G"), [31, 33]),
            "it sees what never was",
        ),
        (
            refused("early", add("E"), taken("E"), [1, 2]),
            "so does a refusal",
        ),
        (
            refused("never", add("G"), taken("G"), [31, 33]),
            "it was never taken",
        ),
    ] {
        let verdict = check(&Model::default(), &with(&[wrong]), &told());
        let said = verdict.expect_err(why);
        assert!(said.starts_with("nothing explains"), "{said}");
    }
    // Each is right on its own. But the second has seen less than the first, which was answered
    // before it.
    let back = [
        found("more", Some("F"), [31, 32]),
        found("less", None, [33, 34]),
    ];
    refuses(&with(&back), &told(), "nothing explains");
    for alone in back {
        assert_eq!(check(&Model::default(), &with(&[alone]), &told()), Ok(()));
    }
}

#[test]
fn two_calls_with_the_same_name_are_rejected() {
    let calls = [
        accepted("add E", add("E"), [10, 19]),
        accepted("add E", add("F"), [20, 29]),
    ];
    refuses(
        &calls,
        &feed(&[("add E", add("E"))]),
        "two calls have the name",
    );
}
