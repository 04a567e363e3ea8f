//! The file `store`: which store this is, and which lives it has had.

use super::{HEADER_BYTES, HeaderDefect, check_header};
use std::fmt;

const MAGIC: [u8; 8] = *b"WIDGSTOR";

/// A store remembers so many epochs. There is a new one for each restore and each promotion.
pub(crate) const EPOCHS_MAX: usize = 128;

/// A stretch of the store's history that one writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// They count from 1.
    pub number: u32,
    /// The first change that belongs to it.
    pub first_sequence: u64,
}

/// What does not change while a service runs.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreHeader {
    /// Random, and in every file of this store: a file of another store is not taken for one of this.
    pub identity: u64,
    /// Random, and known to nobody else: what keys are hashed with.
    pub secret: [u8; 16],
    /// At least one, ascending in both fields.
    pub epochs: Vec<Epoch>,
}

impl fmt::Debug for StoreHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHeader")
            .field("identity", &format_args!("{:016x}", self.identity))
            .field("epochs", &self.epochs)
            .finish_non_exhaustive()
    }
}

impl StoreHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let Ok(count) = u32::try_from(self.epochs.len()) else {
            unreachable!("a store has few epochs")
        };
        let mut epochs = Vec::new();
        for epoch in &self.epochs {
            epochs.extend_from_slice(&epoch.number.to_le_bytes());
            epochs.extend_from_slice(&epoch.first_sequence.to_le_bytes());
        }
        let identity = self.identity.to_le_bytes();
        super::header(
            MAGIC,
            &[&identity, &self.secret, &count.to_le_bytes(), &epochs],
        )
    }

    pub(crate) fn decode(file: &[u8]) -> Result<Self, HeaderDefect> {
        let (_, mut reader) = check_header(file, MAGIC, None)?;
        let mut fields = || {
            let identity = reader.u64()?;
            let secret = reader.array()?;
            let count = usize::try_from(reader.u32()?).ok()?;
            let mut epoch = || {
                Some(Epoch {
                    number: reader.u32()?,
                    first_sequence: reader.u64()?,
                })
            };
            let epochs = (1..=EPOCHS_MAX)
                .contains(&count)
                .then(|| (0..count).map(|_| epoch()))?;
            let epochs = epochs.collect::<Option<Vec<_>>>()?;
            let ascends = epochs.windows(2).all(|two| {
                two[0].number < two[1].number && two[0].first_sequence <= two[1].first_sequence
            });
            ascends.then_some(Self {
                identity,
                secret,
                epochs,
            })
        };
        fields().ok_or(HeaderDefect::Damaged(super::IMPOSSIBLE))
    }

    /// The epoch of this change.
    pub(crate) fn epoch_of(&self, sequence: u64) -> u32 {
        let began = |epoch: &&Epoch| epoch.first_sequence <= sequence;
        let of = self.epochs.iter().rev().find(began);
        of.or(self.epochs.first()).map_or(1, |epoch| epoch.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> StoreHeader {
        StoreHeader {
            identity: 7,
            secret: *b"0123456789abcdef",
            epochs: [(1, 1), (2, 40), (5, 41)]
                .map(|(number, first_sequence)| Epoch {
                    number,
                    first_sequence,
                })
                .to_vec(),
        }
    }

    #[test]
    fn a_store_reads_back_and_any_flipped_bit_shows() {
        let bytes = store().encode();
        assert_eq!(StoreHeader::decode(&bytes), Ok(store()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(StoreHeader::decode(&damaged).is_err(), "bit {bit}");
        }
        assert!(StoreHeader::decode(&bytes[..4095]).is_err());
        assert!(StoreHeader::decode(&[]).is_err());
    }

    #[test]
    fn a_change_belongs_to_the_last_epoch_that_began_before_it() {
        let epochs = [1, 39, 40, 41, 99].map(|sequence| store().epoch_of(sequence));
        assert_eq!(epochs, [1, 1, 2, 5, 5]);
    }
}
