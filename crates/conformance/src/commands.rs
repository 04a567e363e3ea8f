//! Commands: individual ones for scripted cases, and random ones for histories, with texts that
//! break parsers.

use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use widgets_registry::{
    Command, Happened, NAME_BYTES_MAX, Name, Pair, Place, Port, Ports, Refusal,
    SERIAL_NUMBER_BYTES_MAX, SLOTS_MAX, SerialNumber,
};

/// Returns a serial number, which must be within its limits.
#[must_use]
pub fn serial_number(text: &str) -> SerialNumber {
    SerialNumber::new("widget_sn", text).expect("a serial number within its limits")
}

/// Returns an `add_widget` command. The slots are a word such as `"PRR"`.
#[must_use]
pub fn add_widget(serial_number: &SerialNumber, name: &str, slots: &str) -> Command {
    let ports = slots.split("").filter(|port| !port.is_empty());
    let ports: Result<Vec<Port>, Refusal> = ports.map(Port::parse).collect();
    Command::AddWidget {
        serial_number: serial_number.clone(),
        name: Name::new("widget_name", name).expect("a name within its limits"),
        ports: Ports::new(&ports.expect("ports P, Q or R")).expect("at most three slots"),
    }
}

/// Returns a `remove_widget` command.
#[must_use]
pub fn remove_widget(serial_number: &SerialNumber) -> Command {
    let serial_number = serial_number.clone();
    Command::RemoveWidget { serial_number }
}

/// Returns an `associate_widgets` command.
#[must_use]
pub fn associate_widgets(widget1: &SerialNumber, widget2: &SerialNumber, port: Port) -> Command {
    Command::AssociateWidgets(pair(widget1, widget2, port))
}

/// Returns a `remove_association` command.
#[must_use]
pub fn remove_association(widget1: &SerialNumber, widget2: &SerialNumber, port: Port) -> Command {
    Command::RemoveAssociation(pair(widget1, widget2, port))
}

/// Returns the command that causes a change.
///
/// # Errors
///
/// The change associates a widget with itself, which no command does.
pub fn cause(happened: &Happened) -> Result<Command, Refusal> {
    let pair = |one: &Place, other: &Place, port| {
        Pair::new(one.serial_number.clone(), other.serial_number.clone(), port)
    };
    Ok(match happened {
        Happened::AddWidget {
            serial_number,
            name,
            ports,
        } => Command::AddWidget {
            serial_number: serial_number.clone(),
            name: name.clone(),
            ports: *ports,
        },
        Happened::RemoveWidget { serial_number, .. } => remove_widget(serial_number),
        Happened::AssociateWidgets(one, other, port) => {
            Command::AssociateWidgets(pair(one, other, *port)?)
        }
        Happened::RemoveAssociation(one, other, port) => {
            Command::RemoveAssociation(pair(one, other, *port)?)
        }
    })
}

fn pair(widget1: &SerialNumber, widget2: &SerialNumber, port: Port) -> Pair {
    Pair::new(widget1.clone(), widget2.clone(), port).expect("two different widgets")
}

/// Texts that have broken something between a caller and a disk before: quoting in JSON, SQL,
/// arrays and COPY, normalisation, trimming, case folding, numbers, control and surrogate
/// characters. Those that look alike are all different, because a serial number is never
/// normalised.
pub const BOUNDARY_TEXTS: &[&str] = &[
    "a",
    "A",
    "a ",
    " a",
    "a\t",
    "0",
    "00",
    "1e1",
    "-1",
    "null",
    "NULL",
    "\\N",
    "\\.",
    "\\",
    "\\\\",
    "\"",
    "\"\"",
    "'",
    "''",
    "'; DROP TABLE widgets.widgets; --",
    "$1",
    "%s",
    "%_",
    "%2F",
    "a/b",
    "a?b#c",
    "..",
    ",",
    "a,b",
    "{}",
    "{a,b}",
    "{\"a\":null}",
    "[\"a\"]",
    "(a,b)",
    "\n",
    "\r\n",
    "\u{1}\u{1f}\u{7f}",
    "\u{85}\u{2028}\u{2029}",
    "\u{feff}a",
    "a\u{200b}",
    "\u{e9}",
    "e\u{301}",
    "ﬁ",
    "fi",
    "ß",
    "ẞ",
    "İ",
    "ı",
    "\u{c5}",
    "\u{212b}",
    "日本語",
    "שלום",
    "\u{202e}abc",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "\u{d7ff}\u{e000}\u{ffff}",
    "\u{10ffff}",
];

/// Returns a serial number for each of [`BOUNDARY_TEXTS`], and some of full length that end in
/// characters of one to four bytes. All begin with `prefix`, which must leave room for the texts.
#[must_use]
pub fn boundary_serial_numbers(prefix: &str) -> Vec<SerialNumber> {
    let texts = BOUNDARY_TEXTS.iter().map(|text| format!("{prefix}{text}"));
    let full = ["x", "é", "語", "👩"].map(|last| {
        let filler = SERIAL_NUMBER_BYTES_MAX - prefix.len() - last.len();
        format!("{prefix}{}{last}", "x".repeat(filler))
    });
    texts.chain(full).map(|text| serial_number(&text)).collect()
}

/// Returns a name for each of [`BOUNDARY_TEXTS`], the empty name, and some of full length.
#[must_use]
pub fn boundary_names() -> Vec<Name> {
    let full = ["x", "\"", "\\", "語👩x"].map(|piece| {
        let mut text = piece.repeat(NAME_BYTES_MAX / piece.len());
        text.push_str(&"x".repeat(NAME_BYTES_MAX - text.len()));
        text
    });
    let texts = BOUNDARY_TEXTS.iter().copied().map(String::from);
    texts
        .chain(full)
        .chain([String::new()])
        .map(|text| Name::new("widget_name", text).expect("within the limits"))
        .collect()
}

/// Returns the serial numbers of `count` widgets, few enough to meet each other often. All begin
/// with `prefix`.
#[must_use]
pub fn few_serial_numbers(prefix: &str, count: usize) -> Vec<SerialNumber> {
    (0..count)
        .map(|number| serial_number(&format!("{prefix}{number}")))
        .collect()
}

/// Generates any operation on these widgets, which must be at least two, all different.
/// Associations and their removal are frequent, because an operation between two existing widgets
/// would otherwise be rare.
pub fn commands(serial_numbers: Vec<SerialNumber>) -> impl Strategy<Value = Command> + use<> {
    let count = serial_numbers.len();
    let port = || select(&Port::ALL[..]);
    let one = select(serial_numbers.clone());
    let two = (0..count, 1..count).prop_map(move |(first, step)| {
        let second = (first + step) % count;
        (
            serial_numbers[first].clone(),
            serial_numbers[second].clone(),
        )
    });
    let name = prop_oneof![
        3 => "[a-z]{0,9}".prop_map(|text| Name::new("widget_name", text).expect("short")),
        1 => select(boundary_names()),
    ];
    // Most widgets have all slots, of few types, so that slots and associations of the same type
    // are frequent.
    let ports = prop_oneof![
        1 => vec(port(), 0..=SLOTS_MAX),
        3 => vec(port(), SLOTS_MAX),
    ];
    let pair = (two, port()).prop_map(|((widget1, widget2), port)| {
        Pair::new(widget1, widget2, port).expect("two different widgets")
    });
    prop_oneof![
        4 => (one.clone(), name, ports).prop_map(|(serial_number, name, ports)| {
            let ports = Ports::new(&ports).expect("at most three slots");
            Command::AddWidget { serial_number, name, ports }
        }),
        1 => one.prop_map(|serial_number| Command::RemoveWidget { serial_number }),
        8 => pair.clone().prop_map(Command::AssociateWidgets),
        3 => pair.prop_map(Command::RemoveAssociation),
    ]
}

/// Returns one value of a strategy, always the same for the same seed.
pub fn sample<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>, seed: u64) -> T {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let tree = strategy.new_tree(&mut runner);
    tree.expect("a strategy that rejects nothing").current()
}

/// Reports whether this refusal depends on the state. All others are decided without looking at it.
#[must_use]
pub const fn rests_on_the_state(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::SerialNumberTaken { .. }
        | Refusal::WidgetMissing { .. }
        | Refusal::NoFreeSlot { .. }
        | Refusal::AlreadyAssociated { .. }
        | Refusal::NotAssociated { .. } => true,
        Refusal::PortUnknown { .. }
        | Refusal::TooManySlots { .. }
        | Refusal::FieldLimit { .. }
        | Refusal::SelfAssociation { .. }
        | Refusal::KeyReused
        | Refusal::KeyInUse
        | Refusal::Null { .. } => false,
    }
}
