//! What a partition remembers of its widgets: sixteen bytes each, and no more than it was given.

use crate::{
    dataset::{self, BLOCK_WIDGETS, Dataset, DatasetWidget, Spelling},
    random::Random,
};
use std::{collections::VecDeque, fmt::Write as _, sync::Arc};
use widgets_registry::{Ordinal, Port, Ports, SLOTS_MAX};

/// Which widget: one of the dataset's by its index, or one that the partition made itself by a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WidgetId(u32);

impl WidgetId {
    const OWN: u32 = 1 << 31;
    /// The last own number; as a peer it means "none".
    const NONE: Self = Self(u32::MAX);

    const fn own(number: u32) -> Self {
        Self(number | Self::OWN)
    }

    const fn split(self) -> Origin {
        if self.0 & Self::OWN == 0 {
            Origin::Dataset(self.0)
        } else {
            Origin::Own(self.0 & !Self::OWN)
        }
    }
}

impl WidgetId {
    /// Whether it is one of the dataset's.
    pub(crate) const fn is_of_dataset(self) -> bool {
        matches!(self.split(), Origin::Dataset(_))
    }
}

enum Origin {
    Dataset(u32),
    Own(u32),
}

/// What is known of one widget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    peers: [WidgetId; SLOTS_MAX],
    ports: u8,
    flags: u8,
    generation: u8,
    /// The slots, as bits, that an acknowledged removal has freed.
    freed: u8,
}

impl Record {
    const KNOWN: u8 = 1;
    const LIVE: u8 = 2;
    const WAS_LIVE: u8 = 4;
    const TOUCHED: u8 = 8;
    const QUARANTINED: u8 = 16;
    const UNAUDITED: u8 = 32;

    const EMPTY: Self = Self {
        peers: [WidgetId::NONE; SLOTS_MAX],
        ports: 0,
        flags: 0,
        generation: 0,
        freed: 0,
    };

    const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the widget exists.
    pub(crate) const fn live(&self) -> bool {
        self.is(Self::LIVE)
    }

    /// Whether an acknowledged operation ever made it.
    pub(crate) const fn was_live(&self) -> bool {
        self.is(Self::WAS_LIVE)
    }

    /// Whether no further operation may name it, since its state is in doubt.
    pub(crate) const fn quarantined(&self) -> bool {
        self.is(Self::QUARANTINED)
    }

    /// Whether the audit is to read it.
    pub(crate) const fn audited(&self) -> bool {
        self.is(Self::TOUCHED) && !self.is(Self::UNAUDITED)
    }

    /// Which spelling of its serial number this is the life of: names differ between lives.
    pub(crate) const fn generation(&self) -> u8 {
        self.generation
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports::from_byte(self.ports).unwrap_or_default()
    }

    pub(crate) fn peer(&self, ordinal: Ordinal) -> Option<WidgetId> {
        let peer = self.peers[ordinal.index()];
        (peer != WidgetId::NONE).then_some(peer)
    }

    /// Whether an acknowledged removal has freed this slot at some time.
    pub(crate) const fn freed(&self, ordinal: Ordinal) -> bool {
        self.freed & 1 << ordinal.get() != 0
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (Ordinal, Port, WidgetId)> + use<> {
        let record = *self;
        self.ports()
            .iter()
            .filter_map(move |(ordinal, port)| Some((ordinal, port, record.peer(ordinal)?)))
    }

    pub(crate) fn slot_to(&self, port: Port, peer: WidgetId) -> Option<Ordinal> {
        let mut peers = self.peers();
        peers.find_map(|(ordinal, each, other)| (each == port && other == peer).then_some(ordinal))
    }

    pub(crate) fn free_slot(&self, port: Port) -> Option<Ordinal> {
        self.ports().iter().find_map(|(ordinal, each)| {
            (each == port && self.peer(ordinal).is_none()).then_some(ordinal)
        })
    }

    pub(crate) const fn add(&mut self, ports: Ports) {
        self.peers = [WidgetId::NONE; SLOTS_MAX];
        self.ports = ports.to_byte();
        self.flags |= Self::LIVE | Self::WAS_LIVE;
        self.freed = 0;
    }

    pub(crate) const fn remove(&mut self) {
        self.flags &= !Self::LIVE;
        self.peers = [WidgetId::NONE; SLOTS_MAX];
    }

    pub(crate) const fn occupy(&mut self, ordinal: Ordinal, peer: WidgetId) {
        self.peers[ordinal.index()] = peer;
    }

    pub(crate) const fn free(&mut self, ordinal: Ordinal) {
        self.peers[ordinal.index()] = WidgetId::NONE;
        self.freed |= 1 << ordinal.get();
    }

    pub(crate) const fn touch(&mut self) {
        self.flags |= Self::TOUCHED;
    }

    pub(crate) const fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    pub(crate) const fn quarantine(&mut self, audited: bool) {
        self.flags |= Self::QUARANTINED;
        if !audited {
            self.flags |= Self::UNAUDITED;
        }
    }
}

/// Which widgets a partition may touch, and how much it may remember.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// The start of the serial numbers that the run makes.
    pub(crate) run: Arc<str>,
    /// Which partition of how many.
    pub(crate) partition: u32,
    pub(crate) partitions: u32,
    pub(crate) dataset: Option<Dataset>,
    /// Which part of how many of the dataset the run may touch: several runs can share one.
    pub(crate) part: (u32, u32),
    /// How many widgets of its own it remembers.
    pub(crate) own_max: usize,
}

impl Share {
    /// The dataset's block behind this one of the partition's blocks.
    const fn block(&self, local: u32) -> u32 {
        (local * self.partitions + self.partition) * self.part.1 + self.part.0
    }

    /// Which of the partition's blocks a block of the dataset is, if it is one.
    const fn local_block(&self, block: u32) -> Option<u32> {
        let in_part = block / self.part.1;
        let mine =
            block % self.part.1 == self.part.0 && in_part % self.partitions == self.partition;
        if mine {
            Some(in_part / self.partitions)
        } else {
            None
        }
    }

    /// The partition and the widget of a serial number, where it is of this run and this part of the dataset.
    pub(crate) fn owner(&self, serial_number: &str) -> Option<(u32, WidgetId)> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'));
            is_plain.then(|| text.parse::<u32>().ok())?
        };
        let own = serial_number
            .strip_prefix(&*self.run)
            .and_then(|rest| rest.strip_prefix('-')?.split_once('-'));
        if let Some((partition, own)) = own
            && let (Some(partition), Some(own)) = (number(partition), number(own))
        {
            let is_one = partition < self.partitions && own < WidgetId::OWN;
            return is_one.then(|| (partition, WidgetId::own(own)));
        }
        let index = Dataset::index(serial_number)?;
        self.dataset.filter(|dataset| index < dataset.widgets)?;
        let block = index / BLOCK_WIDGETS;
        let is_of_part = block % self.part.1 == self.part.0;
        is_of_part.then(|| (block / self.part.1 % self.partitions, WidgetId(index)))
    }

    /// Appends the serial number of a widget of this partition.
    pub(crate) fn write_serial_number(&self, id: WidgetId, text: &mut String) {
        match id.split() {
            Origin::Dataset(index) => Dataset::write_serial_number(index, text),
            Origin::Own(number) => {
                // Writing to a string cannot fail.
                let _ = write!(text, "{}-{}-{number}", self.run, self.partition);
            }
        }
    }

    fn blocks(&self) -> u32 {
        let all = self.dataset.map_or(0, |dataset| dataset.blocks());
        let in_part = all / self.part.1 + u32::from(self.part.0 < all % self.part.1);
        in_part / self.partitions + u32::from(self.partition < in_part % self.partitions)
    }
}

/// The records of a partition's widgets.
#[derive(Debug)]
pub(crate) struct Table {
    share: Share,
    /// The partition's blocks of the dataset; what is in them is computed when first asked for.
    dataset: Vec<Record>,
    own: VecDeque<Record>,
    /// The number of the first own widget that is still remembered.
    own_first: u32,
    block: Vec<DatasetWidget>,
}

impl Table {
    pub(crate) fn new(share: Share) -> Self {
        Self {
            dataset: vec![Record::EMPTY; share.blocks() as usize * BLOCK_WIDGETS as usize],
            own: VecDeque::new(),
            own_first: 0,
            block: Vec::new(),
            share,
        }
    }

    /// How many widgets of its own the partition has forgotten to stay within its memory.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.own_first as u64
    }

    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// A widget that was never named before. Where memory is full, the oldest one is forgotten.
    pub(crate) fn fresh(&mut self) -> WidgetId {
        if self.own.len() >= self.share.own_max {
            self.own.pop_front();
            self.own_first += 1;
        }
        self.own.push_back(Record::EMPTY);
        WidgetId::own(self.own_first + self.own.len() as u32 - 1)
    }

    /// The record, if the partition has it.
    pub(crate) fn get(&self, id: WidgetId) -> Option<&Record> {
        self.own_or_dataset(id).and_then(|place| match place {
            Place::Dataset(position) => self.dataset.get(position),
            Place::Own(position) => self.own.get(position),
        })
    }

    pub(crate) fn get_mut(&mut self, id: WidgetId) -> Option<&mut Record> {
        self.own_or_dataset(id).and_then(|place| match place {
            Place::Dataset(position) => self.dataset.get_mut(position),
            Place::Own(position) => self.own.get_mut(position),
        })
    }

    fn own_or_dataset(&self, id: WidgetId) -> Option<Place> {
        match id.split() {
            Origin::Own(number) => Some(Place::Own(number.checked_sub(self.own_first)? as usize)),
            Origin::Dataset(index) => {
                let block = self.share.local_block(index / BLOCK_WIDGETS)?;
                let position = block * BLOCK_WIDGETS + index % BLOCK_WIDGETS;
                Some(Place::Dataset(position as usize))
            }
        }
    }

    /// Any widget that the partition has a record of, live or not; each as likely as any other.
    pub(crate) fn any(&mut self, random: &mut Random) -> Option<WidgetId> {
        let position = random.index(self.dataset.len() + self.own.len())?;
        if let Some(own) = position.checked_sub(self.dataset.len()) {
            return Some(WidgetId::own(self.own_first + own as u32));
        }
        self.dataset_widget(position)
    }

    /// Every widget of the dataset's block that this one is in, in order.
    pub(crate) fn block_of(&self, id: WidgetId) -> impl Iterator<Item = WidgetId> + use<> {
        let widgets = self.share.dataset.map_or(0, |dataset| dataset.widgets);
        let first = id.0 / BLOCK_WIDGETS * BLOCK_WIDGETS;
        let end = widgets.min(first.saturating_add(BLOCK_WIDGETS));
        (first..end).map(WidgetId)
    }

    /// Any widget of the dataset's share.
    pub(crate) fn any_of_dataset(&mut self, random: &mut Random) -> Option<WidgetId> {
        let position = random.index(self.dataset.len())?;
        self.dataset_widget(position)
    }

    fn dataset_widget(&mut self, position: usize) -> Option<WidgetId> {
        let local = position as u32;
        let block = self.share.block(local / BLOCK_WIDGETS);
        let index = block * BLOCK_WIDGETS + local % BLOCK_WIDGETS;
        let exists = self
            .share
            .dataset
            .is_some_and(|dataset| index < dataset.widgets);
        // Past the end of the last block nothing is ever known, and learning that block again would
        // forget what has changed in it.
        if !exists {
            return None;
        }
        if !self.dataset[position].is(Record::KNOWN) {
            self.learn(block, position);
        }
        Some(WidgetId(index))
    }

    /// Computes one block of the dataset, which nothing has changed so far.
    fn learn(&mut self, block: u32, position: usize) {
        let Some(dataset) = self.share.dataset else {
            return;
        };
        dataset.block(block, &mut self.block);
        let first = position - position % BLOCK_WIDGETS as usize;
        for (record, widget) in self.dataset[first..].iter_mut().zip(&self.block) {
            record.add(widget.ports);
            record.flags |= Record::KNOWN;
            record.peers = widget
                .peers
                .map(|peer| peer.map_or(WidgetId::NONE, WidgetId));
        }
    }

    /// Appends the serial number.
    pub(crate) fn write_serial_number(&self, id: WidgetId, text: &mut String) {
        self.share.write_serial_number(id, text);
    }

    /// The name of this life of the widget.
    pub(crate) fn spelling(&self, id: WidgetId, generation: u8) -> &'static Spelling {
        match (id.split(), self.share.dataset) {
            (Origin::Dataset(index), Some(dataset)) if generation == 0 => dataset.spelling(index),
            _ => {
                let life = u64::from(id.0) << 8 | u64::from(generation);
                dataset::name(Random::part(self.share.partition.into(), life).next_u64())
            }
        }
    }

    /// The widgets that the audit is to read.
    pub(crate) fn audited(&self) -> impl Iterator<Item = WidgetId> {
        let own = self.own.iter().enumerate();
        let own =
            own.map(|(position, record)| (WidgetId::own(self.own_first + position as u32), record));
        let dataset = self.dataset.iter().enumerate().map(|(position, record)| {
            let local = position as u32;
            let block = self.share.block(local / BLOCK_WIDGETS);
            (
                WidgetId(block * BLOCK_WIDGETS + local % BLOCK_WIDGETS),
                record,
            )
        });
        own.chain(dataset)
            .filter(|(_, record)| record.audited())
            .map(|(id, _)| id)
    }
}

enum Place {
    Dataset(usize),
    Own(usize),
}

// What the documentation of `--audit-widgets-max` promises.
const _: () = assert!(size_of::<Record>() == 16);
