//! Data directories that the last program with format 1 left: a start reads them and converts them
//! to format 2.

#![expect(clippy::expect_used, reason = "helpers of tests are tests")]

use serde_json::{Value, json};
use std::{fs, path::Path};
use widgets_engine::{Bulk, DataDirectory, NoStore, Settings};
use widgets_registry::Widget;

fn settings() -> Settings {
    Settings {
        queue_operations_max: 1,
        segment_bytes: 8192,
        ..Settings::default()
    }
}

fn shown(widget: &Widget) -> (String, Value) {
    let slots = widget
        .slots
        .iter()
        .map(|slot| json!({"port": slot.port.as_str(), "peer": slot.peer.as_deref()}));
    let shown = json!({
        "serial_number": &*widget.serial_number,
        "name": &*widget.name,
        "slots": slots.collect::<Vec<_>>(),
    });
    (widget.serial_number.to_string(), shown)
}

fn widgets(directory: &Path) -> Value {
    let disk = DataDirectory::open(directory, NoStore::Refuse).expect("a store");
    let bulk = Bulk::open(disk, &settings()).expect("opened");
    let widgets: serde_json::Map<_, _> = bulk.widgets().map(|widget| shown(&widget)).collect();
    widgets.into()
}

#[test]
fn the_conversion_from_format_1_to_format_2_keeps_every_widget() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format_1");
    for name in ["empty", "journal", "checkpoint"] {
        let directory = tempfile::tempdir().expect("a directory");
        let fixture = fixtures.join(name);
        for file in fs::read_dir(&fixture).expect("the fixture") {
            let file = file.expect("a file");
            let is_of_store = file.file_name() != "widgets.json";
            if is_of_store {
                fs::copy(file.path(), directory.path().join(file.file_name())).expect("copied");
            }
        }
        let expected = fs::read(fixture.join("widgets.json")).expect("the fixture's widgets");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        assert_eq!(widgets(directory.path()), expected, "{name}: converted");
        assert_eq!(widgets(directory.path()), expected, "{name}: opened again");
        for file in fs::read_dir(directory.path()).expect("the directory") {
            let file = file.expect("a file");
            let content = fs::read(file.path()).expect("read");
            if file.file_name() != "lock" {
                assert_eq!(content[8..12], 2u32.to_le_bytes(), "{:?}", file.file_name());
            }
        }
    }
}
