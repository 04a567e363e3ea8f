//! Moves whole sets of widgets: generated from a seed or read from a file, and written to a file or
//! a store.
//!
//! A [`Sink`] takes widgets one by one, and makes either all of them durable together or none. It
//! is also told which associations a widget completes, with the slots at both ends, for stores that
//! keep associations rather than slots.

mod format;
mod pairing;
mod progress;
mod words;

pub use format::{FileSink, Lines, write_line};
pub use pairing::{Completed, Pairing};
pub use progress::Progress;

use crate::{
    dataset::{Dataset, DatasetWidget},
    report::count_text,
};
use std::fmt;
use widgets_registry::{Name, Refusal, SerialNumber, Slot, Widget};

/// Why widgets could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A line of the file is invalid.
    #[error("line {line}: {cause}")]
    Line {
        /// The line's number, counted from 1.
        line: u64,
        /// What is wrong.
        cause: String,
    },
    /// A file could not be read or written.
    #[error("{0}")]
    File(String),
    /// A store failed.
    #[error("{0}")]
    Store(String),
    /// Associations of these widgets are known to only one end.
    #[error("{0}")]
    Unpaired(String),
}

/// A destination of widgets.
pub trait Sink {
    /// Takes a widget, which completes these associations with widgets that came before it.
    fn put(&mut self, widget: Widget, completed: &[Completed]) -> Result<(), TransferError>;

    /// Describes what [`Self::finish`] does, for people who wait for it.
    fn finishing(&self) -> &'static str {
        "making them durable"
    }

    /// Makes all widgets durable.
    fn finish(self: Box<Self>) -> Result<(), TransferError>;
}

/// How much was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The number of widgets.
    pub widgets: u64,
    /// The number of their slots.
    pub slots: u64,
    /// The number of associations, each counted once.
    pub associations: u64,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [widgets, slots, associations] =
            [self.widgets, self.slots, self.associations].map(count_text);
        write!(
            f,
            "{widgets} widgets, {slots} slots, {associations} associations"
        )
    }
}

impl Moved {
    fn count(&mut self, widget: &Widget, completed: &[Completed]) {
        self.widgets += 1;
        self.slots += widget.slots.len() as u64;
        self.associations += completed.len() as u64;
    }
}

/// Writes a whole dataset to a sink.
pub fn generate(
    dataset: &Dataset,
    mut sink: Box<dyn Sink>,
    progress: &mut Progress,
) -> Result<Moved, TransferError> {
    let mut pairing = Pairing::default();
    let mut moved = Moved::default();
    let mut block = Vec::new();
    for number in 0..dataset.blocks() {
        dataset.block(number, &mut block);
        for planned in &block {
            let widget = widget(dataset, planned).map_err(|refusal| {
                TransferError::Store(format!("the dataset breaks a rule: {refusal}"))
            })?;
            let completed = pairing.take(moved.widgets + 1, &widget)?;
            moved.count(&widget, &completed);
            sink.put(widget, &completed)?;
        }
        progress.set(moved.widgets);
    }
    pairing.finish()?;
    progress.finishing(sink.finishing());
    sink.finish()?;
    Ok(moved)
}

/// Converts a widget of a dataset to the form that stores use.
fn widget(dataset: &Dataset, planned: &DatasetWidget) -> Result<Widget, Refusal> {
    let mut text = String::with_capacity(16);
    let mut serial_number = |index| {
        text.clear();
        Dataset::write_serial_number(index, &mut text);
        SerialNumber::new("serial_number", &text)
    };
    let slots = planned.ports.iter().map(|(ordinal, port)| {
        let peer = planned.peers[ordinal.index()].map(&mut serial_number);
        let peer = peer.transpose()?;
        Ok(Slot { port, peer })
    });
    let slots = slots.collect::<Result<_, Refusal>>()?;
    Ok(Widget {
        serial_number: serial_number(planned.index)?,
        name: Name::new("name", dataset.name(planned.index))?,
        slots,
    })
}

/// Reads a file into a sink. Checks every line, and that both ends of each association agree.
pub fn import(
    lines: &mut Lines<'_>,
    mut sink: Box<dyn Sink>,
    progress: &mut Progress,
) -> Result<Moved, TransferError> {
    let mut pairing = Pairing::default();
    let mut moved = Moved::default();
    while let Some((line, widget)) = lines.next_widget()? {
        let completed = pairing.take(line, &widget)?;
        moved.count(&widget, &completed);
        sink.put(widget, &completed)?;
        progress.set(moved.widgets);
    }
    pairing.finish()?;
    progress.finishing(sink.finishing());
    sink.finish()?;
    Ok(moved)
}

/// Writes all widgets of a store to a sink.
pub fn export(
    widgets: &mut dyn Iterator<Item = Result<Widget, TransferError>>,
    mut sink: Box<dyn Sink>,
    progress: &mut Progress,
) -> Result<Moved, TransferError> {
    let mut moved = Moved::default();
    for widget in widgets {
        let widget = widget?;
        moved.widgets += 1;
        moved.slots += widget.slots.len() as u64;
        // Each association is seen from both its ends, so this counts each twice.
        moved.associations += widget
            .slots
            .iter()
            .filter(|slot| slot.peer.is_some())
            .count() as u64;
        sink.put(widget, &[])?;
        progress.set(moved.widgets);
    }
    progress.finishing(sink.finishing());
    sink.finish()?;
    moved.associations /= 2;
    Ok(moved)
}

#[cfg(test)]
mod tests;
