//! Checks that both ends of every association agree, in one pass over widgets in any order.
//!
//! Serial numbers are kept as 128-bit fingerprints, under keys that no input can know: about 40
//! bytes per widget, and 80 for each association of which only one end has been seen so far.

use super::TransferError;
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
};
use widgets_registry::{Ordinal, Port, SerialNumber, Widget};

/// An association whose second end has been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The slot of the widget that has just been seen.
    pub ordinal: Ordinal,
    /// The port type.
    pub port: Port,
    /// The widget at the other end.
    pub peer: SerialNumber,
    /// That widget's slot.
    pub peer_ordinal: Ordinal,
}

type Fingerprint = [u64; 2];

/// The widgets seen so far, and the associations that are still open.
#[derive(Default)]
pub struct Pairing {
    keys: [RandomState; 2],
    /// Each widget with its line.
    seen: HashMap<Fingerprint, u64>,
    /// Ends of associations whose other end has not been seen: from, to, port type; the line and
    /// the slot.
    open: HashMap<(Fingerprint, Fingerprint, Port), (u64, Ordinal)>,
}

/// The maximum number of open ends that an error lists.
const EXAMPLES_MAX: usize = 10;

impl Pairing {
    fn fingerprint(&self, text: &str) -> Fingerprint {
        [0, 1].map(|index| self.keys[index].hash_one(text))
    }

    /// Records the widget on a line. Returns the associations that it completes, or what is wrong.
    pub fn take(&mut self, line: u64, widget: &Widget) -> Result<Vec<Completed>, TransferError> {
        let own = self.fingerprint(&widget.serial_number);
        match self.seen.entry(own) {
            Entry::Occupied(first) => {
                let (serial_number, first) = (&widget.serial_number, first.get());
                let cause = format!("serial number {serial_number} is already on line {first}");
                return Err(TransferError::Line { line, cause });
            }
            Entry::Vacant(place) => place.insert(line),
        };
        let mut completed = Vec::new();
        for (index, slot) in (0u8..).zip(&widget.slots) {
            // A widget has no more slots than there are ordinals.
            let (Some(peer), Some(ordinal)) = (&slot.peer, Ordinal::new(index)) else {
                continue;
            };
            let other = self.fingerprint(peer);
            if let Some((_, peer_ordinal)) = self.open.remove(&(other, own, slot.port)) {
                completed.push(Completed {
                    ordinal,
                    port: slot.port,
                    peer: peer.clone(),
                    peer_ordinal,
                });
            } else if self.seen.contains_key(&other) {
                let cause = format!(
                    "its slot of port {} names {peer}, which does not name it",
                    slot.port
                );
                return Err(TransferError::Line { line, cause });
            } else {
                self.open.insert((own, other, slot.port), (line, ordinal));
            }
        }
        Ok(completed)
    }

    /// Returns an error that lists the associations that are still open, if there are any.
    pub fn finish(self) -> Result<(), TransferError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let count = self.open.len();
        let mut ends: Vec<_> = self.open.into_iter().collect();
        ends.sort_unstable_by_key(|&(_, (line, ordinal))| (line, ordinal));
        let mut text = match count {
            1 => "1 slot names a peer that does not name it:".to_owned(),
            _ => format!("{count} slots name a peer that does not name them:"),
        };
        for ((_, to, port), (line, ordinal)) in ends.into_iter().take(EXAMPLES_MAX) {
            let slot = ordinal.get() + 1;
            let why = match self.seen.get(&to) {
                Some(other) => format!("its peer on line {other} does not name it"),
                None => "there is no such widget".into(),
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  line {line}, slot {slot}, port {port}: {why}");
        }
        Err(TransferError::Unpaired(text))
    }
}
