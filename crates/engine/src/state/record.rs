//! Records: one widget in 32 bytes, and one allocation for its text.

use std::hint;
use widgets_registry::{Ordinal, Port, Ports, SLOTS_MAX};

/// How many records a chunk has. Chunks never move. A checkpoint has a block for each. Tests have
/// few widgets, and must meet many chunks.
pub(crate) const CHUNK_RECORDS: u32 = if cfg!(test) { 8 } else { 4096 };

/// A chunk of records.
pub(crate) type Chunk = Box<[Record]>;

/// The number of a widget's record. It is reused after the widget is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(u32);

/// No handle: a free slot, or the end of the list of vacant records.
const NONE: u32 = u32::MAX;

impl Handle {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// A widget, or a vacant place for one.
#[derive(Debug)]
pub(crate) struct Record {
    /// The serial number, then the name. Empty if the record is vacant.
    text: Box<str>,
    /// The peer's record for each slot. In a vacant record, the first is the next vacant record.
    peers: [u32; SLOTS_MAX],
    serial_number_bytes: u8,
    ports: Ports,
}

const _: () = assert!(
    size_of::<Record>() == 32,
    "the memory of ten million widgets hangs on this"
);

impl Record {
    pub(crate) fn new(serial_number: &str, name: &str, ports: Ports) -> Self {
        let mut text = String::with_capacity(serial_number.len() + name.len());
        text.push_str(serial_number);
        text.push_str(name);
        Self::with_text(text.into_boxed_str(), serial_number.len(), ports)
    }

    /// Returns a record whose text is `serial_number_bytes` of serial number, then the name.
    pub(crate) fn with_text(text: Box<str>, serial_number_bytes: usize, ports: Ports) -> Self {
        let Ok(serial_number_bytes) = u8::try_from(serial_number_bytes) else {
            unreachable!("a serial number has at most 255 bytes")
        };
        Self {
            text,
            peers: [NONE; SLOTS_MAX],
            serial_number_bytes,
            ports,
        }
    }

    pub(crate) fn vacant() -> Self {
        Self {
            text: Box::default(),
            peers: [NONE; SLOTS_MAX],
            serial_number_bytes: 0,
            ports: Ports::NONE,
        }
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.text.is_empty()
    }

    pub(crate) fn serial_number(&self) -> &str {
        &self.text[..self.serial_number_bytes.into()]
    }

    pub(crate) fn name(&self) -> &str {
        &self.text[self.serial_number_bytes.into()..]
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    pub(crate) fn peer(&self, ordinal: Ordinal) -> Option<Handle> {
        let peer = self.peers[ordinal.index()];
        (peer != NONE).then_some(Handle(peer))
    }

    pub(crate) fn set_peer(&mut self, ordinal: Ordinal, peer: Option<Handle>) {
        self.peers[ordinal.index()] = peer.map_or(NONE, Handle::number);
    }

    pub(crate) fn free_slot(&self, port: Port) -> Option<Ordinal> {
        self.slots(port)
            .find(|&ordinal| self.peer(ordinal).is_none())
    }

    pub(crate) fn slot_to(&self, port: Port, peer: Handle) -> Option<Ordinal> {
        self.slots(port)
            .find(|&ordinal| self.peer(ordinal) == Some(peer))
    }

    pub(crate) fn slots_to(&self, port: Port, peer: Handle) -> usize {
        self.slots(port)
            .filter(|&ordinal| self.peer(ordinal) == Some(peer))
            .count()
    }

    fn slots(&self, port: Port) -> impl Iterator<Item = Ordinal> {
        self.ports
            .iter()
            .filter(move |&(_, each)| each == port)
            .map(|(ordinal, _)| ordinal)
    }
}

/// All records in chunks, with a linked list of the vacant ones through them.
pub(crate) struct Records {
    chunks: Vec<Chunk>,
    /// Records from this number on were never used.
    extent: u32,
    vacant: u32,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            extent: 0,
            vacant: NONE,
        }
    }
}

impl Records {
    /// Returns records as a checkpoint has them: whole chunks, of which the first `extent` records
    /// were in use. [`Self::put_vacant`] then names the vacant ones.
    pub(crate) fn from_chunks(chunks: Vec<Chunk>, extent: u32) -> Self {
        Self {
            chunks,
            extent,
            vacant: NONE,
        }
    }

    pub(crate) fn extent(&self) -> u32 {
        self.extent
    }

    pub(crate) fn is_full(&self) -> bool {
        self.vacant == NONE && self.extent == NONE
    }

    pub(crate) fn get(&self, handle: Handle) -> &Record {
        let (chunk, index) = (handle.0 / CHUNK_RECORDS, handle.0 % CHUNK_RECORDS);
        &self.chunks[chunk as usize][index as usize]
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> &mut Record {
        let (chunk, index) = (handle.0 / CHUNK_RECORDS, handle.0 % CHUNK_RECORDS);
        &mut self.chunks[chunk as usize][index as usize]
    }

    /// Loads records and their text into the cache. None of these loads depends on another, so
    /// their waits for memory overlap, and whatever follows finds the records in the cache.
    pub(crate) fn touch(&self, handles: impl Iterator<Item = Handle> + Clone) {
        let mut touched = 0;
        for handle in handles.clone() {
            touched ^= self.get(handle).serial_number().len();
        }
        for handle in handles {
            let text = self.get(handle).name().as_bytes();
            touched ^= usize::from(text.first().copied().unwrap_or_default());
        }
        hint::black_box(touched);
    }

    pub(crate) fn checked(&self, handle: Handle) -> Option<&Record> {
        (handle.0 < self.extent).then(|| self.get(handle))
    }

    pub(crate) fn insert(&mut self, record: Record) -> Handle {
        let handle = if self.vacant == NONE {
            assert!(self.extent < NONE, "the owner asks is_full first");
            let handle = Handle(self.extent);
            if (self.extent / CHUNK_RECORDS) as usize == self.chunks.len() {
                self.chunks
                    .push((0..CHUNK_RECORDS).map(|_| Record::vacant()).collect());
            }
            self.extent += 1;
            handle
        } else {
            let handle = Handle(self.vacant);
            self.vacant = self.get(handle).peers[0];
            handle
        };
        *self.get_mut(handle) = record;
        handle
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Record {
        let record = std::mem::replace(self.get_mut(handle), Record::vacant());
        self.put_vacant(handle);
        record
    }

    /// Puts back a record that was removed after all others that are vacant now.
    pub(crate) fn restore(&mut self, handle: Handle, record: Record) {
        assert_eq!(
            self.vacant, handle.0,
            "changes are taken back in reverse order"
        );
        self.vacant = self.get(handle).peers[0];
        *self.get_mut(handle) = record;
    }

    /// Marks a record as vacant, so that it can be used.
    pub(crate) fn put_vacant(&mut self, handle: Handle) {
        let next = self.vacant;
        self.get_mut(handle).peers[0] = next;
        self.vacant = handle.0;
    }
}
