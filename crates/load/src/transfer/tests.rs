//! Transfers between files and memory.

use super::*;
use std::{cell::RefCell, rc::Rc};
use widgets_registry::Port;

#[derive(Default)]
struct Taken {
    widgets: Vec<Widget>,
    completed: Vec<Completed>,
    finished: bool,
}

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Taken>>);

impl Sink for Memory {
    fn put(&mut self, widget: Widget, completed: &[Completed]) -> Result<(), TransferError> {
        let mut memory = self.0.borrow_mut();
        memory.widgets.push(widget);
        memory.completed.extend_from_slice(completed);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), TransferError> {
        self.0.borrow_mut().finished = true;
        Ok(())
    }
}

fn read(text: &str) -> Result<(Moved, Memory), TransferError> {
    let memory = Memory::default();
    let mut bytes = text.as_bytes();
    let sink = Box::new(memory.clone());
    let moved = import(&mut Lines::new(&mut bytes), sink, &mut Progress::new(None));
    assert_eq!(
        memory.0.borrow().finished,
        moved.is_ok(),
        "durable if and only if all of it is right"
    );
    moved.map(|moved| (moved, memory))
}

#[track_caller]
fn refused(text: &str, cause: &str) {
    assert_eq!(
        read(text).map(|(moved, _)| moved).unwrap_err().to_string(),
        cause
    );
}

#[test]
fn a_generated_dataset_is_read_back_unchanged_from_its_file() {
    let dataset = Dataset {
        widgets: 5000,
        seed: 3,
        associated: 0.6,
    };
    let made = Memory::default();
    let moved = generate(
        &dataset,
        Box::new(made.clone()),
        &mut Progress::new(Some(5000)),
    )
    .unwrap();
    assert_eq!(moved.widgets, 5000);
    let made = made.0.borrow();
    assert_eq!(moved.associations as usize, made.completed.len());
    let mut text = Vec::new();
    for widget in &made.widgets {
        write_line(widget, &mut text);
    }
    let (read_moved, read_back) = read(str::from_utf8(&text).unwrap()).unwrap();
    assert_eq!(read_moved, moved);
    assert_eq!(read_back.0.borrow().widgets, made.widgets);
    assert_eq!(read_back.0.borrow().completed, made.completed);
}

#[test]
fn exported_lines_have_the_format_of_a_lookup_response() {
    let text = |text: &str| SerialNumber::new("", text).unwrap();
    let widget = Widget {
        serial_number: text("a\"b"),
        name: Name::new("", "ü\t").unwrap(),
        slots: vec![
            Slot {
                port: Port::P,
                peer: None,
            },
            Slot {
                port: Port::R,
                peer: Some(text("c")),
            },
        ],
    };
    let mut line = Vec::new();
    write_line(&widget, &mut line);
    assert_eq!(
        str::from_utf8(&line).unwrap(),
        "{\"serial_number\":\"a\\\"b\",\"name\":\"ü\\t\",\"slots\":\
         [{\"port\":\"P\",\"peer\":null},{\"port\":\"R\",\"peer\":\"c\"}]}\n"
    );
}

#[test]
fn imported_slots_keep_their_order() {
    let text = r#"
        {"serial_number":"A","name":"","slots":[{"port":"Q","peer":null},{"port":"Q","peer":"B"}]}

        {"name":"","slots":[{"port":"Q","peer":"A"}],"serial_number":"B"}"#;
    let (moved, memory) = read(text).unwrap();
    assert_eq!((moved.widgets, moved.slots, moved.associations), (2, 3, 1));
    let ordinal = |index| widgets_registry::Ordinal::new(index).unwrap();
    let completed = memory.0.borrow().completed.clone();
    assert_eq!(completed.len(), 1);
    assert_eq!(
        (completed[0].ordinal, completed[0].peer_ordinal),
        (ordinal(0), ordinal(1))
    );
}

#[test]
fn import_errors_name_the_line() {
    let a = r#"{"serial_number":"A","name":"","slots":[{"port":"P","peer":"B"}]}"#;
    refused(
        &format!("{a}\n{a}"),
        "line 2: serial number A is already on line 1",
    );
    refused(
        a,
        "1 slot names a peer that does not name it:\n  line 1, slot 1, port P: there is no such widget",
    );
    let b = r#"{"serial_number":"B","name":"","slots":[{"port":"P","peer":null}]}"#;
    refused(
        &format!("{a}\n{b}"),
        "1 slot names a peer that does not name it:\n  \
         line 1, slot 1, port P: its peer on line 2 does not name it",
    );
    refused(
        &format!("{b}\n{a}"),
        "line 2: its slot of port P names B, which does not name it",
    );
    refused(
        r#"{"serial_number":"A","name":"","slots":[{"port":"P","peer":"A"}]}"#,
        "line 1: Widget with serial number A cannot be associated with itself",
    );
    refused(
        r#"{"serial_number":"A","name":"","slots":[{"port":"P","peer":"B"},{"port":"P","peer":"B"}]}"#,
        "line 1: two slots of port P name the same peer",
    );
    refused(
        r#"{"serial_number":"A","name":"","slots":[{"port":"p","peer":null}]}"#,
        r#"line 1: slots[0].port must be "P", "Q" or "R", "p" was given"#,
    );
    refused(
        "\n{\"serial_number\":\"\",\"name\":\"\",\"slots\":[]}",
        "line 2: serial_number must be at least 1 byte long, 0 were given",
    );
    let slot = r#"{"port":"P","peer":null}"#;
    let slots = [slot; 4].join(",");
    refused(
        &format!(r#"{{"serial_number":"A","name":"","slots":[{slots}]}}"#),
        "line 1: a widget has at most 3 slots, 4 were given",
    );
    refused(
        "{",
        "line 1: it ends at column 1 in the middle of a widget: EOF while parsing an object",
    );
    refused(
        r#"{"serial_number":"A","name":"","slots":[],"colour":1}"#,
        r#"line 1: a widget has a member "colour", it may have serial_number, name, slots"#,
    );
    let long = " ".repeat(70_000);
    refused(&long, "line 1: a line must be at most 65536 bytes long");
}
