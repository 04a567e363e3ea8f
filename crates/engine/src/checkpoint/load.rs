//! Loading a checkpoint: every core turns blocks into chunks of records, then the index is built.

use crate::{
    disk::{Disk, DiskFile, read_full_at},
    error::OpenError,
    files::checkpoint_name,
    format::{
        DATA_OFFSET, HEADER_BYTES, Reader,
        checkpoint::{self, BLOCK_HEADER_BYTES, BLOCK_RECORDS, CheckpointHeader},
    },
    retries::Kept,
    state::{Index, Part, Record, State},
};
use std::{
    panic,
    sync::{Mutex, PoisonError},
    thread,
};

/// A checkpoint in memory.
pub(crate) struct Loaded {
    pub(crate) header: CheckpointHeader,
    pub(crate) state: State,
    /// The idempotency keys, the oldest first.
    pub(crate) keys: Vec<Kept>,
    /// The length of its file in bytes.
    pub(crate) bytes: u64,
}

/// Loads the checkpoint with this first sequence number. Its state is fuzzy until the journal from
/// there on is replayed into it.
pub(crate) fn load<D: Disk>(
    disk: &D,
    first_sequence: u64,
    store: Option<u64>,
    threads: usize,
) -> Result<Loaded, OpenError> {
    let file = CheckpointFile::open(disk, first_sequence, store)?;
    let index = Index::default();
    let next = Mutex::new(Next {
        block: 0,
        offset: DATA_OFFSET,
    });
    let parts = if threads == 1 {
        vec![file.load_part(&next, &index)?]
    } else {
        thread::scope(|scope| {
            let loaders = (0..threads).map(|_| scope.spawn(|| file.load_part(&next, &index)));
            let loaders: Vec<_> = loaders.collect();
            let joined = loaders.into_iter().map(|each| {
                each.join()
                    .unwrap_or_else(|cause| panic::resume_unwind(cause))
            });
            joined.collect::<Result<Vec<Part>, OpenError>>()
        })?
    };
    let next = next.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (keys, bytes) = file.load_keys(&next)?;
    let mut state = State::from_parts(parts, file.header.records, index, threads);
    state.set_holding(file.header.holding);
    Ok(Loaded {
        state,
        header: file.header,
        keys,
        bytes,
    })
}

/// The block that the next free thread loads.
struct Next {
    block: u32,
    offset: u64,
}

struct CheckpointFile<F> {
    name: String,
    file: F,
    header: CheckpointHeader,
}

impl<F: DiskFile> CheckpointFile<F> {
    fn open<D: Disk<File = F>>(
        disk: &D,
        first_sequence: u64,
        store: Option<u64>,
    ) -> Result<Self, OpenError> {
        let name = checkpoint_name(first_sequence);
        let file = disk
            .open(&name)
            .map_err(OpenError::io(format!("opening {name}")))?;
        let mut bytes = vec![0; HEADER_BYTES];
        let length =
            read_full_at(&file, &mut bytes, 0).map_err(OpenError::io(format!("reading {name}")))?;
        let header = CheckpointHeader::decode(&bytes[..length])
            .map_err(|defect| OpenError::header(&name, defect))?;
        if header.first_sequence != first_sequence {
            return Err(OpenError::Damaged {
                file: name,
                offset: 0,
                defect: format!(
                    "its header is that of {}",
                    checkpoint_name(header.first_sequence)
                ),
            });
        }
        if header.version > 1 {
            OpenError::check_store(&name, header.store, store)?;
        }
        Ok(Self { name, file, header })
    }

    /// Loads the blocks of keys, which begin with this one, and returns where they end.
    fn load_keys(&self, first: &Next) -> Result<(Vec<Kept>, u64), OpenError> {
        let Next { block, mut offset } = *first;
        let (mut keys, mut payload) = (Vec::new(), Vec::new());
        for block in (block..).take(self.header.key_blocks as usize) {
            let mut header = [0; BLOCK_HEADER_BYTES];
            self.read(&mut header, offset)?;
            let (count, bytes) = checkpoint::key_block_claimed(header).ok_or_else(|| {
                self.damaged(offset, format!("the length of block {block} is impossible"))
            })?;
            payload.resize(bytes, 0);
            self.read(&mut payload, offset + BLOCK_HEADER_BYTES as u64)?;
            if !checkpoint::is_block_whole(header, self.header.first_sequence, block, &payload) {
                return Err(self.damaged(offset, format!("block {block} is not as it was written")));
            }
            let mut reader = Reader::new(&payload);
            for _ in 0..count {
                let key = checkpoint::decode_key(&mut reader).ok_or_else(|| {
                    self.damaged(offset, format!("block {block} holds no valid keys"))
                })?;
                keys.push(key);
            }
            offset += (BLOCK_HEADER_BYTES + bytes) as u64;
        }
        Ok((keys, offset))
    }

    /// Loads blocks until none are left.
    fn load_part(&self, next: &Mutex<Next>, index: &Index) -> Result<Part, OpenError> {
        let (mut part, mut payload) = (Part::default(), Vec::new());
        loop {
            let mut place = next.lock().unwrap_or_else(PoisonError::into_inner);
            let Next { block, offset } = *place;
            if block == self.header.blocks() {
                return Ok(part);
            }
            let mut header = [0; BLOCK_HEADER_BYTES];
            self.read(&mut header, offset)?;
            let count = self.header.records_of_block(block);
            let bytes = checkpoint::block_payload_bytes(header, count).ok_or_else(|| {
                self.damaged(offset, format!("the length of block {block} is impossible"))
            })?;
            let payload_offset = offset + BLOCK_HEADER_BYTES as u64;
            place.block += 1;
            place.offset = payload_offset + bytes as u64;
            drop(place);

            payload.resize(bytes, 0);
            self.read(&mut payload, payload_offset)?;
            if !checkpoint::is_block_whole(header, self.header.first_sequence, block, &payload) {
                return Err(self.damaged(offset, format!("block {block} is not as it was written")));
            }
            let records = self.decode(block, &payload).ok_or_else(|| {
                self.damaged(offset, format!("block {block} holds no valid records"))
            })?;
            part.push(block, records, index);
        }
    }

    fn decode(&self, block: u32, payload: &[u8]) -> Option<Vec<Record>> {
        let mut reader = Reader::new(payload);
        let mut records = Vec::with_capacity(BLOCK_RECORDS as usize);
        for _ in 0..self.header.records_of_block(block) {
            records.push(checkpoint::decode_record(&mut reader, self.header.records)?);
        }
        reader.is_empty().then_some(records)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), OpenError> {
        let length = read_full_at(&self.file, buffer, offset)
            .map_err(OpenError::io(format!("reading {}", self.name)))?;
        if length < buffer.len() {
            return Err(self.damaged(offset + length as u64, "it ends too early".into()));
        }
        Ok(())
    }

    fn damaged(&self, offset: u64, defect: String) -> OpenError {
        OpenError::Damaged {
            file: self.name.clone(),
            offset,
            defect,
        }
    }
}
