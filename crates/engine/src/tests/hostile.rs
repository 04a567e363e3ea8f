//! Files that the engine did not write: arbitrary bytes, real files with arbitrary changes, and
//! changes whose checksums are right. A start reads them or names the file. It never panics, and
//! never allocates more memory for a claimed size than the format allows.

use super::{
    disk::{Chance, TestDisk},
    rig::{Rig, TestClock, command, random, settings},
};
use crate::{
    OpenError,
    files::{self, checkpoint_name, segment_name},
    format::{
        ENTRY_BYTES_MAX, Epoch, FORMAT_VERSION, GROUP_ENTRIES_MAX, GROUP_HEADER_BYTES, GroupStamp,
        Role, SegmentHeader, StoreHeader,
        checkpoint::{BLOCK_RECORDS, CheckpointHeader, begin_block, seal_block},
        group_bytes, seal_group,
    },
    recovery,
};
use proptest::prelude::*;

/// How many bytes a start may read at a time: a piece of a segment, or the longest group.
const READ_BYTES_MAX: u64 = {
    let (piece, group) = (4 << 20, group_bytes(GROUP_ENTRIES_MAX * ENTRY_BYTES_MAX));
    if piece > group { piece } else { group }
};

/// Starts on these files. A store that starts must be consistent; a refusal must name the file.
fn check(disk: &TestDisk) -> Result<(), TestCaseError> {
    let clock = TestClock::default();
    let names = disk.names();
    let started = recovery::recover(disk, &clock, &mut random(), &settings(), 1);
    prop_assert!(disk.read_bytes_max() <= READ_BYTES_MAX);
    match started {
        Ok(recovered) => prop_assert_eq!(recovered.state.check(), Ok(())),
        Err(
            OpenError::Damaged { file, .. }
            | OpenError::Version { file, .. }
            | OpenError::UnknownKind { file, .. },
        ) => {
            prop_assert!(names.contains(&file), "{file} is not among {names:?}");
        }
        Err(OpenError::Missing { .. } | OpenError::NoBeginning { .. }) => {}
        Err(error) => prop_assert!(false, "{error}"),
    }
    Ok(())
}

/// Returns a store with a checkpoint of several blocks, and groups after it.
fn real(seed: u64) -> TestDisk {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let mut chance = Chance(seed);
    for _ in 0..30 {
        rig.submit(&[command(&mut chance), command(&mut chance)]);
    }
    rig.checkpoint().expect("written");
    for _ in 0..6 {
        rig.submit(&[command(&mut chance)]);
    }
    drop(rig);
    disk
}

/// Returns a segment that consists of its header and these bytes.
fn segment(number: u64, rest: &[u8]) -> Vec<u8> {
    let mut file = SegmentHeader::new(STORE, number, SALT).encode().to_vec();
    file.extend_from_slice(rest);
    file
}

const SALT: u64 = 0x5a17;
const STORE: u64 = 0x0570;

/// Returns a disk that has only the file `store`.
fn with_store() -> TestDisk {
    let disk = TestDisk::default();
    let store = StoreHeader {
        identity: STORE,
        secret: [0; 16],
        epochs: vec![Epoch {
            number: 1,
            first_sequence: 1,
        }],
        role: Role::Primary,
        member: 1,
    };
    disk.put(files::STORE, store.encode().to_vec());
    disk
}

/// Returns a group whose checksum is right, whatever it contains.
fn group(payload: &[u8], chain: &mut u64, first_sequence: u64, entries: u32) -> Vec<u8> {
    let mut group = vec![0; GROUP_HEADER_BYTES];
    group.extend_from_slice(payload);
    let stamp = GroupStamp {
        first_sequence,
        at: 0,
        chain: *chain,
    };
    *chain = seal_group(&mut group, SALT, stamp, entries);
    group
}

/// Returns the header of an empty checkpoint of the disk's store.
fn header(disk: &TestDisk, first_sequence: u64, next_sequence: u64) -> CheckpointHeader {
    let store = StoreHeader::decode(&disk.content(files::STORE)).expect("a store");
    CheckpointHeader {
        holding: crate::Holding::default(),
        version: FORMAT_VERSION,
        store: store.identity,
        first_sequence,
        next_sequence,
        segment: 1,
        at: 0,
        chain: 0,
        records: 0,
        key_blocks: 0,
    }
}

/// Returns a checkpoint whose checksums are right, whatever it contains.
fn checkpoint(header: CheckpointHeader, blocks: &[(Vec<u8>, u32)]) -> Vec<u8> {
    let mut file = header.encode().to_vec();
    for ((payload, records), number) in blocks.iter().zip(0..) {
        let mut block = Vec::new();
        begin_block(&mut block);
        block.extend_from_slice(payload);
        seal_block(&mut block, header.first_sequence, number, *records);
        file.extend_from_slice(&block);
    }
    file
}

/// Returns bytes that often mean something: small numbers, and letters.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0u8..5, 2 => b'a'..=b'd', 1 => any::<u8>()];
    prop::collection::vec(byte, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_start_reads_or_refuses_any_bytes_as_a_segment(
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
        has_header in any::<bool>(),
    ) {
        let disk = with_store();
        let content = if has_header { segment(1, &bytes) } else { bytes };
        disk.put(&segment_name(1), content);
        check(&disk)?;
    }

    #[test]
    fn a_start_reads_or_refuses_any_groups_with_valid_checksums(
        groups in prop::collection::vec((payload(), 0u64..4, 0u32..5), 0..6),
        claimed in any::<Option<u32>>(),
    ) {
        let disk = with_store();
        let (mut next, mut chain) = (1, 0);
        let mut rest = Vec::new();
        for (payload, skipped, changes) in groups {
            rest.extend(group(&payload, &mut chain, next + skipped / 3, changes));
            next += u64::from(changes);
        }
        if let Some(claimed) = claimed {
            // The header of a group that is longer than the file.
            let mut torn = group(b"", &mut chain, next, 1);
            torn[32..36].copy_from_slice(&claimed.to_le_bytes());
            let checksum = crc32fast::hash(&torn[..44]);
            torn[44..48].copy_from_slice(&checksum.to_le_bytes());
            rest.extend(torn);
        }
        disk.put(&segment_name(1), segment(1, &rest));
        check(&disk)?;
    }

    #[test]
    fn a_start_reads_or_refuses_any_bytes_as_a_checkpoint(
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
        records in any::<Option<u32>>(),
        key_blocks in any::<u32>(),
    ) {
        let disk = real(1);
        let content = match records {
            // A valid header, which may claim billions of records.
            Some(records) => {
                let header = CheckpointHeader {
                    records,
                    key_blocks,
                    ..header(&disk, 1 << 40, 1 << 40)
                };
                let mut file = checkpoint(header, &[]);
                file.extend_from_slice(&bytes);
                file
            }
            None => bytes,
        };
        disk.put(&checkpoint_name(1 << 40), content);
        check(&disk)?;
    }

    #[test]
    fn a_start_reads_or_refuses_any_records_with_valid_checksums(
        blocks in prop::collection::vec((payload(), 0..=BLOCK_RECORDS), 0..3),
        records in 0..3 * BLOCK_RECORDS,
        first_sequence in 0u64..4,
        next_sequence in 0u64..4,
        key_blocks in 0u32..3,
    ) {
        let disk = with_store();
        let header = CheckpointHeader {
            records,
            key_blocks,
            ..header(&disk, first_sequence, next_sequence)
        };
        disk.put(&checkpoint_name(first_sequence), checkpoint(header, &blocks));
        let groups = group(&[2, 1, b'a', 0], &mut 0, 1, 1);
        disk.put(&segment_name(1), segment(1, &groups));
        check(&disk)?;
    }

    #[test]
    fn a_start_reads_or_refuses_real_files_with_any_change(
        seed in 0u64..8,
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let disk = real(seed);
        let names = disk.names();
        let name: &String = which.get(&names);
        disk.damage(name, |content| {
            // Mostly where the file is not empty.
            let used = content.iter().rposition(|&byte| byte != 0).unwrap_or_default() + 1;
            for (at, byte) in changes {
                let at = at.index(used + 8).min(content.len() - 1);
                content[at] = byte;
            }
            if let Some(cut) = cut {
                content.truncate(cut.index(used));
            }
        });
        check(&disk)?;
    }
}
