//! The file format: JSON Lines, one widget per line, in the form of a lookup's answer.
//!
//! `docs/data-format.md` describes it.

use super::{Completed, Sink, TransferError, words::describe};
use crate::os_error::explain;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{
    borrow::Cow,
    fmt,
    io::{BufRead, Write},
    marker::PhantomData,
};
use widgets_registry::{Name, Port, Ports, Refusal, SerialNumber, Slot, Widget};

/// The maximum length of a line in bytes. The longest widget, with every byte escaped, stays below
/// 12 KiB.
const LINE_BYTES_MAX: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WidgetLine<'a> {
    #[serde(borrow)]
    serial_number: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    slots: Vec<Object<SlotLine<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotLine<'a> {
    #[serde(borrow)]
    port: Cow<'a, str>,
    // With a function of its own, because a missing member would otherwise be read as `null`.
    #[serde(borrow, deserialize_with = "Deserialize::deserialize")]
    peer: Option<Cow<'a, str>>,
}

/// What must be written as an object. What serde derives also reads a list of the members.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Appends a widget's line, with its line ending.
pub fn write_line(widget: &Widget, line: &mut Vec<u8>) {
    // Writing to a vector cannot fail, and any text is serialisable.
    let string = |line: &mut Vec<u8>, text: &str| drop(serde_json::to_writer(line, text));
    line.extend_from_slice(b"{\"serial_number\":");
    string(line, &widget.serial_number);
    line.extend_from_slice(b",\"name\":");
    string(line, &widget.name);
    line.extend_from_slice(b",\"slots\":[");
    for (position, slot) in widget.slots.iter().enumerate() {
        line.extend_from_slice(if position == 0 {
            b"{\"port\":\""
        } else {
            b",{\"port\":\""
        });
        line.extend_from_slice(slot.port.as_str().as_bytes());
        line.extend_from_slice(b"\",\"peer\":");
        match &slot.peer {
            Some(peer) => string(line, peer),
            None => line.extend_from_slice(b"null"),
        }
        line.push(b'}');
    }
    line.extend_from_slice(b"]}\n");
}

pub(super) fn parse(line: &[u8]) -> Result<Widget, String> {
    let refused = |refusal: Refusal| refusal.to_string();
    let line: Object<WidgetLine<'_>> =
        serde_json::from_slice(line).map_err(|error| describe(line, &error))?;
    let line = line.0;
    let serial_number = SerialNumber::new("serial_number", line.serial_number).map_err(refused)?;
    let name = Name::new("name", line.name).map_err(refused)?;
    let mut slots: Vec<Slot> = Vec::with_capacity(line.slots.len());
    for (number, Object(slot)) in line.slots.into_iter().enumerate() {
        let refused = |refusal: Refusal| format!("slots[{number}]: {refusal}");
        let port = Port::parse(&slot.port).map_err(|_| {
            let given = &slot.port;
            format!("slots[{number}].port must be \"P\", \"Q\" or \"R\", {given:?} was given")
        })?;
        let peer = slot.peer.map(|peer| SerialNumber::new("peer", peer));
        let peer = peer.transpose().map_err(refused)?;
        if peer.as_ref() == Some(&serial_number) {
            return Err(Refusal::SelfAssociation { serial_number }.to_string());
        }
        let twice = |each: &Slot| peer.is_some() && each.port == port && each.peer == peer;
        if slots.iter().any(twice) {
            return Err(format!("two slots of port {port} name the same peer"));
        }
        slots.push(Slot { port, peer });
    }
    let ports: Vec<Port> = slots.iter().map(|slot| slot.port).collect();
    Ports::new(&ports).map_err(refused)?;
    Ok(Widget {
        serial_number,
        name,
        slots,
    })
}

/// A file being read.
pub struct Lines<'a> {
    input: &'a mut dyn BufRead,
    line: Vec<u8>,
    number: u64,
}

impl<'a> Lines<'a> {
    /// Reads from the start of `input`.
    pub fn new(input: &'a mut dyn BufRead) -> Self {
        Self {
            input,
            line: Vec::new(),
            number: 0,
        }
    }

    /// Returns the next widget with its line's number, or `None` at the end. Empty lines are
    /// skipped.
    pub fn next_widget(&mut self) -> Result<Option<(u64, Widget)>, TransferError> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut limited = std::io::Read::take(&mut *self.input, LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut self.line);
            let read = read.map_err(|error| {
                TransferError::File(explain(&format!("reading line {}", self.number), &error))
            })?;
            let wrong = |cause| TransferError::Line {
                line: self.number,
                cause,
            };
            if read as u64 == LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
                return Err(wrong(format!(
                    "a line must be at most {LINE_BYTES_MAX} bytes long"
                )));
            }
            if read == 0 {
                return Ok(None);
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let widget = parse(&self.line).map_err(wrong)?;
            return Ok(Some((self.number, widget)));
        }
    }
}

/// A file being written. Its opener decides what happens to it if the transfer fails.
pub struct FileSink<W, F> {
    output: W,
    line: Vec<u8>,
    /// Makes the written file durable.
    finish: F,
}

impl<W: Write, F: FnOnce(W) -> Result<(), String>> FileSink<W, F> {
    /// Creates a sink that writes to `output` and calls `finish` to make it durable.
    pub fn new(output: W, finish: F) -> Self {
        Self {
            output,
            line: Vec::new(),
            finish,
        }
    }
}

fn write_failed(error: &std::io::Error) -> TransferError {
    TransferError::File(explain("writing the file", error))
}

impl<W: Write, F: FnOnce(W) -> Result<(), String>> Sink for FileSink<W, F> {
    fn put(&mut self, widget: Widget, _: &[Completed]) -> Result<(), TransferError> {
        self.line.clear();
        write_line(&widget, &mut self.line);
        self.output
            .write_all(&self.line)
            .map_err(|error| write_failed(&error))
    }

    fn finishing(&self) -> &'static str {
        "writing the rest of the file"
    }

    fn finish(self: Box<Self>) -> Result<(), TransferError> {
        (self.finish)(self.output).map_err(TransferError::File)
    }
}
