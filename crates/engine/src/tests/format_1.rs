//! Data directories that the last program with format 1 left: a start converts them to format 2
//! completely or not at all.

use super::{
    disk::{Faults, Kept, TestDisk},
    rig::{Rig, command, widgets},
};
use crate::{format::SegmentHeader, tests::disk::Chance};
use widgets_registry::Widget;

/// The files of a directory, and the widgets that were in it.
struct Fixture {
    name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
    widgets: &'static str,
}

macro_rules! fixture {
    ($name:literal: $($file:literal),+) => {
        Fixture {
            name: $name,
            files: &[$(($file, include_bytes!(concat!("../../tests/format_1/", $name, "/", $file)))),+],
            widgets: include_str!(concat!("../../tests/format_1/", $name, "/widgets.json")),
        }
    };
}

/// A directory that was never written to, and one that `kill -9` left. One with a checkpoint is in
/// `engine/tests/format_1.rs`, because checkpoints have small blocks here.
const FIXTURES: [Fixture; 2] = [
    fixture!("empty": "journal-0000000000000001", "journal-0000000000000002"),
    fixture!(
        "journal": "journal-0000000000000001", "journal-0000000000000002",
        "journal-0000000000000003"
    ),
];

impl Fixture {
    fn disk(&self) -> TestDisk {
        let disk = TestDisk::default();
        for (name, content) in self.files {
            disk.put(name, content.to_vec());
        }
        disk
    }

    /// Checks that these are the widgets that the old service showed.
    fn check(&self, found: &[Option<Widget>], story: &str) {
        let expected: serde_json::Value =
            serde_json::from_str(self.widgets).expect("the fixture's widgets");
        let mut shown = serde_json::Map::new();
        for widget in found.iter().flatten() {
            let slots = widget.slots.iter().map(|slot| {
                serde_json::json!({"port": slot.port.as_str(), "peer": slot.peer.as_deref()})
            });
            let value = serde_json::json!({
                "serial_number": &*widget.serial_number,
                "name": &*widget.name,
                "slots": slots.collect::<Vec<_>>(),
            });
            shown.insert(widget.serial_number.to_string(), value);
        }
        assert_eq!(
            serde_json::Value::from(shown),
            expected,
            "{}: {story}",
            self.name
        );
    }
}

#[test]
fn a_start_converts_format_1_and_the_store_accepts_operations() {
    for fixture in FIXTURES {
        let disk = fixture.disk();
        let mut rig = Rig::open(&disk).expect("read");
        fixture.check(&widgets(rig.state()), "at the first start");
        for name in disk
            .names()
            .iter()
            .filter(|name| name.starts_with("journal-"))
        {
            let header = SegmentHeader::decode(&disk.content(name)).expect("a segment");
            assert_eq!(header.version, 2, "{name}");
        }
        assert!(disk.names().contains(&"store".into()));
        let mut chance = Chance(1);
        for _ in 0..40 {
            rig.submit(&[command(&mut chance)]);
        }
        let after = widgets(rig.state());
        drop(rig);
        let disk = disk.after_power_cut(Kept::Nothing);
        let rig = Rig::open(&disk).expect("converted");
        assert!(widgets(rig.state()) == after);
    }
}

#[test]
fn a_power_cut_during_the_conversion_of_format_1_loses_nothing() {
    for fixture in FIXTURES {
        for kept in [
            Kept::Nothing,
            Kept::Everything,
            Kept::Some(1),
            Kept::Some(2),
        ] {
            for crash_at in 0.. {
                let disk = fixture.disk();
                disk.set_faults(Faults {
                    crash_at: Some(crash_at),
                    ..Faults::default()
                });
                drop(Rig::open(&disk));
                let is_over = disk.steps() <= crash_at;
                let disk = disk.after_power_cut(kept);
                let story = format!("a power cut at step {crash_at}, {kept:?}");
                let rig = match Rig::open(&disk) {
                    Ok(rig) => rig,
                    Err(error) => panic!("{}, {story}: {error}", fixture.name),
                };
                fixture.check(&widgets(rig.state()), &story);
                if is_over {
                    break;
                }
            }
        }
    }
}
