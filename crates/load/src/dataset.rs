//! Datasets: any number of widgets, determined by a seed alone.
//!
//! `widgets generate` writes a dataset; `widgets load --dataset` knows each of its widgets without
//! reading it. Widgets come in blocks of [`BLOCK_WIDGETS`], and associations stay within a block.
//! Each block can therefore be computed separately: in memory that does not grow with the dataset,
//! in any order, and by several partitions at once.
//!
//! What a seed generates is a format and must never change.

use crate::random::Random;
use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Write as _},
    str::FromStr,
};
use widgets_registry::{Port, Ports, SLOTS_MAX};

/// The number of widgets in a block. The last block may have fewer.
pub const BLOCK_WIDGETS: u32 = 64;

/// The maximum number of widgets in a dataset, because a partition's identifiers can distinguish no
/// more.
pub const WIDGETS_MAX: u32 = 1 << 31;

/// A dataset, given by its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// The number of widgets, at most [`WIDGETS_MAX`].
    pub widgets: u32,
    /// The seed of all choices.
    pub seed: u64,
    /// The share of slots that are associated, from 0 to 1. Near 1 the actual share is a little
    /// lower, because a block runs out of partners.
    pub associated: f64,
}

impl FromStr for Dataset {
    type Err = String;

    /// Parses `widgets=10000000,seed=1,associated=50%`. The seed defaults to 1 and the share to
    /// 50 %.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut dataset = Self {
            widgets: 0,
            seed: 1,
            associated: 0.5,
        };
        for part in text.split(',').map(str::trim) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not of the form NAME=VALUE"))?;
            let number = || {
                crate::quantity::count(value)
                    .ok_or_else(|| format!("{name} must be a whole number, `{value}` was given"))
            };
            match name {
                "widgets" => dataset.widgets = widgets(number()?)?,
                "seed" => dataset.seed = number()?,
                "associated" => {
                    let share = crate::mix::share(value);
                    dataset.associated = share.map_err(|why| format!("associated {why}"))?;
                }
                _ => return Err(format!("`{name}` is none of widgets, seed, associated")),
            }
        }
        if dataset.widgets == 0 {
            return Err("widgets=NUMBER is missing".into());
        }
        Ok(dataset)
    }
}

/// Checks the number of widgets of a dataset.
pub fn widgets(number: u64) -> Result<u32, String> {
    let within = u32::try_from(number).ok();
    within
        .filter(|number| (1..=WIDGETS_MAX).contains(number))
        .ok_or_else(|| format!("widgets must be 1 to {WIDGETS_MAX}, {number} was given"))
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let associated = (self.associated * 1e6).round() / 1e4;
        write!(
            f,
            "widgets={},seed={},associated={associated}%",
            self.widgets, self.seed
        )
    }
}

/// A widget of a dataset. Peers are given by their index in the dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetWidget {
    /// Its index, counted from 0.
    pub index: u32,
    /// Its slots.
    pub ports: Ports,
    /// The peer of each slot, by ordinal.
    pub peers: [Option<u32>; SLOTS_MAX],
}

impl Dataset {
    /// Returns the number of blocks.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        self.widgets.div_ceil(BLOCK_WIDGETS)
    }

    /// Replaces the content of `widgets` with one block, which is empty after the last one.
    pub fn block(&self, block: u32, widgets: &mut Vec<DatasetWidget>) {
        widgets.clear();
        let first = block.saturating_mul(BLOCK_WIDGETS);
        let end = first.saturating_add(BLOCK_WIDGETS).min(self.widgets);
        let mut random = Random::part(self.seed, block.into());
        widgets.extend((first..end).map(|index| DatasetWidget {
            index,
            ports: ports(&mut random),
            peers: [None; SLOTS_MAX],
        }));
        for port in Port::ALL {
            associate(widgets, port, self.associated, &mut random);
        }
    }

    /// Appends a widget's serial number.
    pub fn write_serial_number(index: u32, text: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(text, "W{index:010}");
    }

    /// Returns the index of the widget with this serial number, if the dataset is large enough to
    /// have one.
    pub(crate) fn index(serial_number: &str) -> Option<u32> {
        let digits = serial_number.strip_prefix('W')?;
        let is_plain = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| digits.parse().ok())?
    }

    /// Returns a widget's name.
    #[must_use]
    pub fn name(&self, index: u32) -> &'static str {
        self.spelling(index).plain
    }

    pub(crate) fn spelling(&self, index: u32) -> &'static Spelling {
        name(Random::part(!self.seed, index.into()).next_u64())
    }
}

/// Returns a random list of ports, on average of two slots: none 5 %, one 20 %, two 45 %, three
/// 30 %.
pub(crate) fn ports(random: &mut Random) -> Ports {
    let count = match random.below(100) {
        0..5 => 0,
        5..25 => 1,
        25..70 => 2,
        _ => 3,
    };
    let ports: [Port; SLOTS_MAX] = std::array::from_fn(|_| match random.below(3) {
        0 => Port::P,
        1 => Port::Q,
        _ => Port::R,
    });
    // There are at most three ports.
    Ports::new(&ports[..count]).unwrap_or_default()
}

/// Associates this share of a block's slots of one port type.
fn associate(widgets: &mut [DatasetWidget], port: Port, share: f64, random: &mut Random) {
    // The order is random by widget, not by slot: a widget's second slot of a type comes after its
    // first, which keeps the rule that the lowest free ordinal is taken.
    let mut open: Vec<(u32, usize, usize)> = Vec::new();
    for (position, widget) in widgets.iter().enumerate() {
        let order = random.below(1 << 16);
        let slots = widget.ports.iter().filter(|&(_, each)| each == port);
        open.extend(slots.map(|(ordinal, _)| (order, position, ordinal.index())));
    }
    open.sort_unstable();
    // Rounded up or down at random, so that small blocks have the right share on average.
    let wanted = share.clamp(0.0, 1.0) * open.len() as f64 / 2.0;
    let mut wanted = wanted.trunc() as usize + usize::from(random.chance(wanted.fract()));
    while wanted > 0 && open.len() >= 2 {
        let (_, position1, ordinal1) = open.remove(0);
        let index1 = widgets[position1].index;
        let partner = open.iter().position(|&(_, position2, _)| {
            let known = widgets[position2].ports.iter().any(|(ordinal, each)| {
                each == port && widgets[position2].peers[ordinal.index()] == Some(index1)
            });
            position2 != position1 && !known
        });
        let Some(partner) = partner else { continue };
        let (_, position2, ordinal2) = open.remove(partner);
        widgets[position1].peers[ordinal1] = Some(widgets[position2].index);
        widgets[position2].peers[ordinal2] = Some(index1);
        wanted -= 1;
    }
}

/// A name in plain form, and as written in a JSON string.
pub(crate) struct Spelling {
    pub(crate) plain: &'static str,
    pub(crate) json: &'static str,
}

/// Most names are plain; others contain what has caused faults before: quotes, backslashes, other
/// scripts, and nothing at all.
#[rustfmt::skip]
const NAMES: [Spelling; 16] = [
    Spelling { plain: "brass coupler", json: "brass coupler" },
    Spelling { plain: "steel valve", json: "steel valve" },
    Spelling { plain: "copper manifold", json: "copper manifold" },
    Spelling { plain: "left-hand hinge", json: "left-hand hinge" },
    Spelling { plain: "flange 3/4\"", json: "flange 3/4\\\"" },
    Spelling { plain: "pressure sensor", json: "pressure sensor" },
    Spelling { plain: "Stellglied für Öl", json: "Stellglied für Öl" },
    Spelling { plain: "", json: "" },
    Spelling { plain: "drive shaft", json: "drive shaft" },
    Spelling { plain: "relay C:\\12V", json: "relay C:\\\\12V" },
    Spelling { plain: "pump housing", json: "pump housing" },
    Spelling { plain: "歯車 12", json: "歯車 12" },
    Spelling { plain: "rotor\tblade", json: "rotor\\tblade" },
    Spelling { plain: "cable gland", json: "cable gland" },
    Spelling { plain: "bearing 🛠", json: "bearing 🛠" },
    Spelling { plain: "cooling fin", json: "cooling fin" },
];

/// Returns the name that these bits select.
pub(crate) const fn name(bits: u64) -> &'static Spelling {
    &NAMES[(bits % NAMES.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(widgets: u32, associated: f64) -> Vec<DatasetWidget> {
        let dataset = Dataset {
            widgets,
            seed: 7,
            associated,
        };
        let (mut all, mut block) = (Vec::new(), Vec::new());
        for index in 0..dataset.blocks() {
            dataset.block(index, &mut block);
            all.append(&mut block);
        }
        all
    }

    #[test]
    fn generated_associations_satisfy_every_rule() {
        for share in [0.0, 0.3, 0.9, 1.0] {
            let widgets = dataset(10_000, share);
            assert_eq!(widgets.len(), 10_000);
            let mut associated = 0usize;
            for widget in &widgets {
                let mut seen = Vec::new();
                let mut free = Vec::new();
                for (ordinal, port) in widget.ports.iter() {
                    let Some(peer) = widget.peers[ordinal.index()] else {
                        free.push(port);
                        continue;
                    };
                    associated += 1;
                    assert!(
                        !free.contains(&port),
                        "the lowest ordinal is taken first: {widget:?}"
                    );
                    assert!(
                        !seen.contains(&(port, peer)),
                        "once per port type: {widget:?}"
                    );
                    seen.push((port, peer));
                    assert_ne!(peer, widget.index, "never with itself");
                    let other = &widgets[peer as usize];
                    let back = other.ports.iter().filter(|&(ordinal, each)| {
                        each == port && other.peers[ordinal.index()] == Some(widget.index)
                    });
                    assert_eq!(back.count(), 1, "both ends agree: {widget:?} {other:?}");
                }
            }
            let slots: usize = widgets.iter().map(|widget| widget.ports.len()).sum();
            assert!(
                (19_500..20_500).contains(&slots),
                "two slots each on average: {slots}"
            );
            let reached = associated as f64 / slots as f64;
            assert!(
                (reached - share).abs() < 0.03,
                "{share} wanted, {reached} reached"
            );
        }
    }

    #[test]
    fn a_seed_always_generates_the_same_dataset() {
        let widgets = dataset(200, 0.5);
        let mut text = String::new();
        for widget in [&widgets[0], &widgets[1], &widgets[199]] {
            Dataset::write_serial_number(widget.index, &mut text);
            let _ = writeln!(text, " {:?} {:?}", widget.ports, widget.peers);
        }
        assert_eq!(
            text,
            "W0000000000 [Q, Q, Q] [None, None, None]\n\
             W0000000001 [P, R] [Some(2), Some(2), None]\n\
             W0000000199 [P, P, P] [None, None, None]\n"
        );
        let set = Dataset {
            widgets: 200,
            seed: 7,
            associated: 0.5,
        };
        assert_eq!(set.name(3), "Stellglied für Öl");
    }

    #[test]
    fn json_spellings_of_names_parse_to_the_plain_names() {
        for bits in 0..NAMES.len() as u64 {
            let Spelling { plain, json } = name(bits);
            let quoted = format!("\"{json}\"");
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), *plain);
        }
    }

    #[test]
    fn dataset_specifications_round_trip_and_errors_are_explained() {
        let dataset: Dataset = "widgets=1000, associated=12.5%".parse().unwrap();
        assert_eq!(dataset.to_string(), "widgets=1000,seed=1,associated=12.5%");
        assert_eq!(dataset.to_string().parse(), Ok(dataset));
        let refused = |text: &str| text.parse::<Dataset>().unwrap_err();
        assert_eq!(refused("seed=1"), "widgets=NUMBER is missing");
        assert_eq!(
            refused("widgets=0"),
            "widgets must be 1 to 2147483648, 0 was given"
        );
        assert_eq!(
            refused("size=3"),
            "`size` is none of widgets, seed, associated"
        );
        assert!(refused("widgets=1,associated=2").starts_with("associated must be 0% to 100%"));
    }

    #[test]
    fn blocks_past_the_last_one_are_empty() {
        let set = Dataset {
            widgets: 65,
            seed: 1,
            associated: 0.5,
        };
        let mut block = Vec::new();
        set.block(1, &mut block);
        assert_eq!(block.len(), 1);
        set.block(2, &mut block);
        assert!(block.is_empty());
        set.block(u32::MAX, &mut block);
        assert!(block.is_empty());
    }
}
