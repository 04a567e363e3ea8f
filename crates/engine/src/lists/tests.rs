//! Lists in slices, with changes in between, against the model of the moment at which they began.

use super::{Read, Reads, Scan, Turn};
use crate::{
    State,
    owner::Replies,
    planted::{Bug, plant},
    state::Undo,
};
use proptest::{collection::vec, prelude::*};
use std::time::Duration;
use tokio::sync::oneshot;
use widgets_conformance::{
    Model,
    commands::{
        add_widget, associate_widgets, commands, few_serial_numbers, remove_widget, sample,
    },
    lists::lists,
};
use widgets_mailbox::Address;
use widgets_queue::Asked;
use widgets_registry::{
    Command, Fault, Port, decide,
    query::{Asker, Column, Direction, Filter, List, Page, Pattern, Rows, Table, Test},
};

const WIDGETS: usize = 40;

/// Applies a command to both the state and the model. Before that, the list keeps what it has not
/// reached.
fn apply(state: &mut State, model: &mut Model, scan: Option<&mut Scan>, command: &Command) {
    let change = decide(state, command);
    assert_eq!(model.apply(command).is_ok(), change.is_ok());
    if let Ok(change) = change {
        if let Some(scan) = scan {
            state.touched(command, change, |text| scan.before_change(text, state));
        }
        state.apply(command, change);
    }
}

fn filled(history: &[Command]) -> (State, Model) {
    let (mut state, mut model) = (State::default(), Model::default());
    for command in history {
        apply(&mut state, &mut model, None, command);
    }
    (state, model)
}

fn texts() -> Vec<String> {
    let serial_numbers = few_serial_numbers("s", WIDGETS).into_iter();
    let names = ["", "a", "b", "null", "%_"].map(String::from);
    serial_numbers
        .map(|each| each.to_string())
        .chain(names)
        .collect()
}

fn history() -> impl Strategy<Value = Vec<Command>> {
    vec(commands(few_serial_numbers("s", WIDGETS)), 0..250)
}

/// Returns what a page must contain, except how many rows were looked at.
fn shown(list: &List, model: &Model) -> (Rows, Option<u64>) {
    let (rows, total) = model.list(list);
    (rows, list.count.then_some(total))
}

fn whole(scan: &mut Scan, state: &mut State) -> Page {
    scan.step(state, &mut usize::MAX.clone())
        .expect("a whole page")
}

proptest! {
    #[test]
    fn a_list_shows_the_state_at_its_beginning_despite_later_changes(
        history in history(),
        meanwhile in vec(vec(commands(few_serial_numbers("s", WIDGETS)), 0..8), 0..40),
        list in lists(texts()),
    ) {
        let (mut state, mut model) = filled(&history);
        let expected = shown(&list, &model);
        let mut scan = Scan::new(list.clone(), &mut state);
        let mut page = None;
        for changes in meanwhile {
            for command in changes {
                apply(&mut state, &mut model, Some(&mut scan), &command);
            }
            page = scan.step(&mut state, &mut 40);
            if page.is_some() {
                break;
            }
        }
        let page = page.unwrap_or_else(|| whole(&mut scan, &mut state));
        prop_assert_eq!((page.rows, page.total), expected);
        prop_assert_eq!(state.check(), Ok(()));
    }

    #[test]
    fn a_list_does_not_show_changes_that_were_rolled_back(
        history in history(),
        batch in vec(commands(few_serial_numbers("s", WIDGETS)), 1..30),
        list in lists(texts()),
    ) {
        let (mut state, model) = filled(&history);
        let mut scan = Scan::new(list.clone(), &mut state);
        prop_assume!(scan.step(&mut state, &mut 40).is_none());
        let mut undo: Vec<Undo> = Vec::new();
        for command in &batch {
            if let Ok(change) = decide(&state, command) {
                state.touched(command, change, |text| scan.before_change(text, &state));
                undo.push(state.apply(command, change));
            }
        }
        while let Some(last) = undo.pop() {
            state.undo(last);
        }
        let page = whole(&mut scan, &mut state);
        let expected = shown(&list, &model);
        prop_assert_eq!((page.rows, page.total), expected);
    }
}

/// All but the first two widgets are removed during a scan, which keeps their old versions.
#[test]
fn old_versions_beyond_the_last_widget_are_scanned_in_slices() {
    let all = few_serial_numbers("s", 11);
    let history: Vec<Command> = all.iter().map(|each| add_widget(each, "", "P")).collect();
    for direction in [Direction::Ascending, Direction::Descending] {
        let (mut state, mut model) = filled(&history);
        let list = List {
            table: Table::Widgets,
            filter: Filter::Test(
                Column::Name,
                Test::Like(Pattern::new("%", true).expect("one")),
            ),
            direction,
            offset: 0,
            limit: 1000,
            count: true,
            asker: Asker::default(),
        };
        let expected = shown(&list, &model);
        let mut scan = Scan::new(list.clone(), &mut state);
        let mut left = all.clone();
        left.sort();
        if direction == Direction::Descending {
            left.reverse();
        }
        let removed = left.split_off(2);
        for each in &removed {
            apply(
                &mut state,
                &mut model,
                Some(&mut scan),
                &remove_widget(each),
            );
        }
        // A step looks at three at most: the two that exist, and one of the old versions.
        let budget = || 3 * (4 + list.filter.cost());
        assert_eq!(scan.step(&mut state, &mut budget()), None);
        // Both were looked at, and must not be again.
        let associate = associate_widgets(&left[0], &left[1], Port::P);
        apply(&mut state, &mut model, Some(&mut scan), &associate);
        let mut steps = 1;
        let page = loop {
            steps += 1;
            if let Some(page) = scan.step(&mut state, &mut budget()) {
                break page;
            }
        };
        assert_eq!(steps, 4, "eleven widgets, three at a time");
        assert_eq!((page.rows, page.total), expected, "{direction:?}");
    }
}

/// A scan keeps nothing of widgets that are added beyond the last one, however many there are.
#[test]
fn widgets_added_beyond_the_last_one_are_not_kept_for_a_scan() {
    let (mut state, mut model) = filled(&[add_widget(&few_serial_numbers("s", 1)[0], "", "P")]);
    let list = List {
        table: Table::Slots,
        filter: Filter::EVERYTHING,
        direction: Direction::Ascending,
        offset: 0,
        limit: 1000,
        count: false,
        asker: Asker::default(),
    };
    let expected = shown(&list, &model);
    let mut scan = Scan::new(list, &mut state);
    for each in few_serial_numbers("t", 5) {
        let add = add_widget(&each, "", "PQ");
        apply(&mut state, &mut model, Some(&mut scan), &add);
    }
    assert_eq!(scan.kept_bytes(), 0);
    let page = whole(&mut scan, &mut state);
    assert_eq!((page.rows, page.total), expected);
}

/// Reads every row of the table, in slices of a widget or two, while everything changes. Returns
/// whether the result was right.
fn is_right(seed: u64) -> bool {
    let all = || few_serial_numbers("s", WIDGETS);
    let (mut state, mut model) = filled(&sample(&vec(commands(all()), 200), seed));
    let list = List {
        table: Table::ALL[usize::from(seed.is_multiple_of(2))],
        filter: Filter::EVERYTHING,
        direction: Direction::Ascending,
        offset: 0,
        limit: 1000,
        count: false,
        asker: Asker::default(),
    };
    let expected = shown(&list, &model);
    let mut scan = Scan::new(list, &mut state);
    let changes = sample(&vec(commands(all()), 400), seed + 1000);
    let budget = [5, 10, 15][usize::try_from(seed % 3).expect("below three")];
    let mut page = None;
    for command in changes {
        apply(&mut state, &mut model, Some(&mut scan), &command);
        page = scan.step(&mut state, &mut budget.clone());
        if page.is_some() {
            break;
        }
    }
    let page = page.unwrap_or_else(|| whole(&mut scan, &mut state));
    (page.rows, page.total) == expected
}

#[test]
fn planted_bugs_of_lists_are_caught() {
    const SEEDS: u64 = 100;
    assert!((0..SEEDS).all(is_right));
    for bug in [
        Bug::ChangeAheadMissed,
        Bug::KeptForgotten,
        Bug::KeptLookedAtTwice,
    ] {
        plant(Some(bug));
        let caught = (0..SEEDS).any(|seed| !is_right(seed));
        plant(None);
        assert!(caught, "nobody noticed {bug:?}");
    }
}

#[test]
fn a_list_served_by_an_index_examines_few_rows() {
    use widgets_registry::query::{Comparison, Contained, SlotPattern};
    let history = sample(&vec(commands(few_serial_numbers("s", WIDGETS)), 300), 7);
    let (mut state, model) = filled(&history);
    let text =
        |column, comparison, text: &str| Filter::Test(column, Test::Text(comparison, text.into()));
    let free = |port| {
        let peer = Some(None);
        let pattern = SlotPattern {
            port: Some(port),
            peer,
        };
        Filter::Test(Column::Slots, Test::Contains(Contained(vec![pattern])))
    };
    let cases = [
        Filter::EVERYTHING,
        text(Column::SerialNumber, Comparison::Greater, "s2"),
        text(Column::Name, Comparison::Equal, "a"),
        free(Port::R),
        Filter::All(vec![
            free(Port::P),
            text(Column::SerialNumber, Comparison::Less, "s3"),
        ]),
    ];
    for filter in cases {
        for (direction, offset) in [(Direction::Ascending, 0), (Direction::Descending, 3)] {
            let list = List {
                table: Table::Widgets,
                filter: filter.clone(),
                direction,
                offset,
                limit: 2,
                count: true,
                asker: Asker::default(),
            };
            let page = whole(&mut Scan::new(list.clone(), &mut state), &mut state);
            let expected = shown(&list, &model);
            assert!(
                page.scanned <= 2,
                "{} were looked at for {list:?}",
                page.scanned
            );
            assert_eq!((page.rows, page.total), expected, "{list:?}");
        }
    }
    // Filters by the peers of one widget, and by named widgets.
    for widget in few_serial_numbers("s", WIDGETS) {
        let pattern = SlotPattern {
            port: None,
            peer: Some(Some((&*widget).into())),
        };
        for filter in [
            Filter::Test(Column::Slots, Test::Contains(Contained(vec![pattern]))),
            text(Column::SerialNumber, Comparison::Equal, &widget),
        ] {
            let list = List {
                table: Table::Widgets,
                filter,
                direction: Direction::Ascending,
                offset: 0,
                limit: 9,
                count: true,
                asker: Asker::default(),
            };
            let page = whole(&mut Scan::new(list.clone(), &mut state), &mut state);
            assert!(page.scanned <= 3, "{list:?}");
            assert_eq!((page.rows, page.total), shown(&list, &model), "{list:?}");
        }
    }
}

/// Lists that take many turns, and where each is answered.
struct Turns {
    state: State,
    reads: Reads,
    replies: Replies,
    askers: u64,
}

impl Turns {
    fn new(scans_max: usize) -> Self {
        let all = few_serial_numbers("s", WIDGETS);
        let history: Vec<Command> = all.iter().map(|each| add_widget(each, "", "P")).collect();
        Self {
            state: filled(&history).0,
            reads: Reads::new(8, scans_max),
            replies: Replies::default(),
            askers: 0,
        }
    }

    /// Lets another asker request every widget with a filter that no index serves.
    fn ask(&mut self) -> oneshot::Receiver<Result<Page, Fault>> {
        self.askers += 1;
        self.ask_as(Asker(self.askers))
    }

    fn ask_as(&mut self, asker: Asker) -> oneshot::Receiver<Result<Page, Fault>> {
        let (reply, answer) = oneshot::channel();
        let pattern = Pattern::new("%", false).expect("a pattern");
        let list = List {
            table: Table::Widgets,
            filter: Filter::Test(Column::Name, Test::Like(pattern)),
            direction: Direction::Ascending,
            offset: 0,
            limit: 1000,
            count: true,
            asker,
        };
        let read = Read::List(Box::new(Asked::new(list, reply)));
        let address = Address::Task;
        self.reads
            .push(read, address, Duration::ZERO, &mut self.replies);
        answer
    }

    fn turn(&mut self) {
        self.reads
            .advance(Turn::All, &mut self.state, |_| None, &mut self.replies);
        self.replies.flush(1);
    }

    /// Changes a widget that the lists have not reached.
    fn change(&mut self, number: usize) {
        let mut all = few_serial_numbers("s", WIDGETS);
        all.sort();
        let command = remove_widget(&all[WIDGETS - 1 - number]);
        let change = decide(&self.state, &command).expect("it is there");
        self.reads.before_change(&self.state, &command, change);
        self.state.apply(&command, change);
    }
}

#[test]
fn a_list_ends_when_its_client_disconnects() {
    let mut turns = Turns::new(4);
    let (gone, mut stays) = (turns.ask(), turns.ask());
    turns.turn();
    turns.turn();
    assert_eq!(turns.reads.scans(), 2);
    for number in 0..9 {
        turns.change(number);
    }
    drop(gone);
    turns.turn();
    assert_eq!(turns.reads.scans(), 1);
    // A list that has not begun ends as well.
    let waiting = turns.ask();
    drop(waiting);
    let mut count = 0;
    while turns.reads.has_work() {
        turns.turn();
        count += 1;
        assert!(
            count < 100,
            "the versions that a list kept are freed in the end"
        );
    }
    assert_eq!(turns.reads.scans(), 0);
    let page = stays.try_recv().expect("answered").expect("a page");
    assert_eq!(page.total, Some(WIDGETS as u64));
}

/// An asker with many scans leaves some to others.
#[test]
fn one_asker_gets_at_most_three_quarters_of_the_scans() {
    let mut turns = Turns::new(4);
    let mut greedy = [(); 4].map(|()| turns.ask_as(Asker(1)));
    turns.turn();
    let mut other = turns.ask_as(Asker(2));
    for _ in 0..3 {
        turns.turn();
    }
    let expected = Fault::Busy {
        limit: "3 of http.scans_max = 4 for one".into(),
        retry_after_seconds: 1,
    };
    let refused = greedy.iter_mut().filter_map(|each| each.try_recv().ok());
    assert_eq!(refused.collect::<Vec<_>>(), [Err(expected)]);
    while turns.reads.has_work() {
        turns.turn();
    }
    let page = other.try_recv().expect("answered").expect("a page");
    assert_eq!(page.total, Some(WIDGETS as u64));
}

#[test]
fn scans_beyond_the_limit_are_refused_but_indexed_lists_are_not() {
    let mut turns = Turns::new(2);
    let mut scans = [turns.ask(), turns.ask(), turns.ask()];
    for _ in 0..3 {
        turns.turn();
    }
    assert_eq!(turns.reads.scans(), 2);
    let refused = scans[2].try_recv().expect("answered at once");
    let expected = Fault::Busy {
        limit: "http.scans_max = 2".into(),
        retry_after_seconds: 1,
    };
    assert_eq!(refused, Err(expected));
    // A list that an index serves is answered anyway.
    let (reply, mut answer) = oneshot::channel();
    let list = List {
        table: Table::Widgets,
        filter: Filter::EVERYTHING,
        direction: Direction::Ascending,
        offset: 0,
        limit: 3,
        count: true,
        asker: Asker::default(),
    };
    // Also a second one, for which the first leaves little of the turn.
    let (second, mut later) = oneshot::channel();
    for (list, reply) in [(list.clone(), reply), (list, second)] {
        let read = Read::List(Box::new(Asked::new(list, reply)));
        turns
            .reads
            .push(read, Address::Task, Duration::ZERO, &mut turns.replies);
    }
    turns.turn();
    for answer in [&mut answer, &mut later] {
        let page = answer
            .try_recv()
            .expect("answered at once")
            .expect("a page");
        assert_eq!(page.total, Some(WIDGETS as u64));
    }
    while turns.reads.has_work() {
        turns.turn();
    }
    for scan in &mut scans[..2] {
        assert!(scan.try_recv().expect("answered").is_ok());
    }
    // There is room again.
    let mut again = turns.ask();
    while turns.reads.has_work() {
        turns.turn();
    }
    assert!(again.try_recv().expect("answered").is_ok());
}

/// A pattern that begins anew at each character of a long text costs a turn, however few widgets it
/// has seen.
#[test]
fn a_pattern_with_many_attempts_is_charged_for_them() {
    let name = "a".repeat(1024);
    let history: Vec<Command> = few_serial_numbers("s", 20)
        .iter()
        .map(|each| add_widget(each, &name, "P"))
        .collect();
    let mut state = filled(&history).0;
    for (pattern, ignore_case, looks) in [
        (format!("%{}z%", "_".repeat(255)), false, 3),
        (format!("%{}z%", "a".repeat(255)), true, 3),
        ("%az%".to_owned(), false, 20),
    ] {
        let like = Pattern::new(&pattern, ignore_case).expect("a pattern");
        let list = List {
            table: Table::Widgets,
            filter: Filter::Test(Column::Name, Test::Like(like)),
            direction: Direction::Ascending,
            offset: 0,
            limit: 10,
            count: true,
            asker: Asker::default(),
        };
        let mut scan = Scan::new(list, &mut state);
        let mut budget = 10_000;
        let page = scan.step(&mut state, &mut budget);
        assert_eq!(page.map_or(3, |page| page.scanned), looks, "{pattern}");
    }
}
