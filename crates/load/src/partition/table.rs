//! The records that a partition keeps of its widgets: sixteen bytes each, within a fixed limit.

use crate::{
    dataset::{self, BLOCK_WIDGETS, Dataset, DatasetWidget, Spelling},
    random::Random,
};
use std::{collections::VecDeque, fmt::Write as _, sync::Arc};
use widgets_registry::{Ordinal, Port, Ports, SLOTS_MAX};

/// Identifies a widget: one of the dataset by its index, or one that the partition made by its
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WidgetId(u32);

impl WidgetId {
    const OWN: u32 = 1 << 31;
    /// The last number of an own widget. As a peer, it means "none".
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
    /// Reports whether the widget belongs to the dataset.
    pub(crate) const fn is_of_dataset(self) -> bool {
        matches!(self.split(), Origin::Dataset(_))
    }
}

enum Origin {
    Dataset(u32),
    Own(u32),
}

/// What is known about a widget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    peers: [WidgetId; SLOTS_MAX],
    ports: u8,
    flags: u8,
    generation: u8,
    /// The slots that an acknowledged removal has freed, as bits.
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

    /// Reports whether the widget exists.
    pub(crate) const fn live(&self) -> bool {
        self.is(Self::LIVE)
    }

    /// Reports whether an acknowledged operation ever added it.
    pub(crate) const fn was_live(&self) -> bool {
        self.is(Self::WAS_LIVE)
    }

    /// Reports whether no further operation may name it, because its state is unknown.
    pub(crate) const fn quarantined(&self) -> bool {
        self.is(Self::QUARANTINED)
    }

    /// Reports whether the audit is to read it.
    pub(crate) const fn audited(&self) -> bool {
        self.is(Self::TOUCHED) && !self.is(Self::UNAUDITED)
    }

    /// Returns how often the serial number has been reused. Each of its widgets has its own name.
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

    /// Reports whether an acknowledged removal has ever freed this slot.
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

/// Which widgets a partition may name, and how many it may remember.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// The prefix of the serial numbers that the run makes.
    pub(crate) run: Arc<str>,
    /// The number of this partition, and how many there are.
    pub(crate) partition: u32,
    pub(crate) partitions: u32,
    pub(crate) dataset: Option<Dataset>,
    /// Which part of the dataset the run may use, and how many parts there are: several runs can
    /// share one dataset.
    pub(crate) part: (u32, u32),
    /// The maximum number of own widgets that the partition remembers.
    pub(crate) own_max: usize,
}

impl Share {
    /// Returns the dataset's block that corresponds to this block of the partition.
    const fn block(&self, local: u32) -> u32 {
        (local * self.partitions + self.partition) * self.part.1 + self.part.0
    }

    /// Returns the partition's block that corresponds to a block of the dataset, if it has it.
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

    /// Returns the partition and the widget of a serial number, if it belongs to this run or to its
    /// part of the dataset.
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
    /// The partition's blocks of the dataset. The content of each is computed when it is first
    /// needed.
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

    /// Returns how many own widgets the partition has forgotten to stay within its limit.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.own_first as u64
    }

    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// Returns a widget that was never named before. If the limit is reached, the oldest one is
    /// forgotten.
    pub(crate) fn fresh(&mut self) -> WidgetId {
        if self.own.len() >= self.share.own_max {
            self.own.pop_front();
            self.own_first += 1;
        }
        self.own.push_back(Record::EMPTY);
        WidgetId::own(self.own_first + self.own.len() as u32 - 1)
    }

    /// Returns the record of a widget, if the partition has it.
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

    /// Returns a random widget of which the partition has a record, live or not. All are equally
    /// likely.
    pub(crate) fn any(&mut self, random: &mut Random) -> Option<WidgetId> {
        let position = random.index(self.dataset.len() + self.own.len())?;
        if let Some(own) = position.checked_sub(self.dataset.len()) {
            return Some(WidgetId::own(self.own_first + own as u32));
        }
        self.dataset_widget(position)
    }

    /// Returns all widgets in this widget's block of the dataset, in order.
    pub(crate) fn block_of(&self, id: WidgetId) -> impl Iterator<Item = WidgetId> + use<> {
        let widgets = self.share.dataset.map_or(0, |dataset| dataset.widgets);
        let first = id.0 / BLOCK_WIDGETS * BLOCK_WIDGETS;
        let end = widgets.min(first.saturating_add(BLOCK_WIDGETS));
        (first..end).map(WidgetId)
    }

    /// Returns a random widget of the partition's share of the dataset.
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
        // Past the end of the last block nothing is ever known, and computing that block again
        // would discard the changes to it.
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

    /// Appends the serial number of a widget.
    pub(crate) fn write_serial_number(&self, id: WidgetId, text: &mut String) {
        self.share.write_serial_number(id, text);
    }

    /// Returns the name of a widget, which depends on how often its serial number was reused.
    pub(crate) fn spelling(&self, id: WidgetId, generation: u8) -> &'static Spelling {
        match (id.split(), self.share.dataset) {
            (Origin::Dataset(index), Some(dataset)) if generation == 0 => dataset.spelling(index),
            _ => {
                let life = u64::from(id.0) << 8 | u64::from(generation);
                dataset::name(Random::part(self.share.partition.into(), life).next_u64())
            }
        }
    }

    /// Returns the widgets that the audit is to read.
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

// The documentation of `--audit-widgets-max` promises this.
const _: () = assert!(size_of::<Record>() == 16);
