//! Input that is refused before any store is asked: forms and limits, with the exact messages.

use widgets_conformance::commands::{rests_on_the_state, serial_number};
use widgets_registry::{Name, Ordinal, Pair, Port, Ports, Refusal, SLOTS_MAX, SerialNumber};

/// Returns every word of up to three ports.
fn words() -> Vec<Vec<Port>> {
    let mut words = vec![Vec::new()];
    for length in 0..SLOTS_MAX {
        let shorter: Vec<Vec<Port>> = words
            .iter()
            .filter(|word| word.len() == length)
            .cloned()
            .collect();
        for word in shorter {
            words.extend(Port::ALL.map(|port| [word.as_slice(), &[port]].concat()));
        }
    }
    words
}

#[test]
fn ports_round_trip_through_one_byte_and_other_bytes_are_invalid() {
    let words = words();
    assert_eq!(words.len(), 1 + 3 + 9 + 27);
    for word in &words {
        let ports = Ports::new(word).expect("at most three slots");
        let listed: Vec<Port> = ports.iter().map(|(_, port)| port).collect();
        assert_eq!(listed, *word);
        assert_eq!(
            (ports.len(), ports.is_empty()),
            (word.len(), word.is_empty())
        );
        for index in 0..3u8 {
            let ordinal = Ordinal::new(index).expect("a widget can have three slots");
            assert_eq!(ports.get(ordinal), word.get(usize::from(index)).copied());
        }
        assert_eq!(Ports::from_byte(ports.to_byte()), Some(ports));
    }
    let read = (0..=u8::MAX).filter(|&byte| Ports::from_byte(byte).is_some());
    assert_eq!(read.count(), words.len());
    assert_eq!(Ordinal::new(3), None);
}

#[test]
fn invalid_input_is_refused_with_exact_codes_and_messages() {
    let e = serial_number("E");
    let refused: [(Refusal, &str, &str); 7] = [
        (
            Port::parse("p").expect_err("case matters"),
            "22P02",
            "invalid input value for enum widgets.port_type: \"p\"",
        ),
        (
            Port::parse("").expect_err("no port"),
            "22P02",
            "invalid input value for enum widgets.port_type: \"\"",
        ),
        (
            Ports::new(&[Port::P; 4]).expect_err("too many"),
            "WG006",
            "a widget has at most 3 slots, 4 were given",
        ),
        (
            SerialNumber::new("widget1_sn", "é".repeat(128)).expect_err("too long"),
            "WG007",
            "widget1_sn must be at most 255 bytes long, 256 were given",
        ),
        (
            Name::new("name", "a\0").expect_err("NUL"),
            "WG007",
            "name must not contain the character NUL, one was given at byte 1",
        ),
        (
            Pair::new(e.clone(), e, Port::P).expect_err("one widget"),
            "WG005",
            "Widget with serial number E cannot be associated with itself",
        ),
        (
            Refusal::Null { field: "slots" },
            "23502",
            "null value in argument \"slots\" violates not-null constraint",
        ),
    ];
    for (refusal, code, message) in refused {
        assert_eq!(
            (refusal.code(), refusal.to_string().as_str()),
            (code, message)
        );
        assert_eq!(refusal.details(), None);
        assert!(!rests_on_the_state(&refusal));
    }
}
