//! The file `store`: which store this is, its epochs and its role.

use super::{FORMAT_VERSION, HEADER_BYTES, HeaderDefect, Reader, check_header_up_to, header_of};
use std::fmt;

const MAGIC: [u8; 8] = *b"WIDGSTOR";

/// The version of a standby's file. 0.2.0 knows no roles, and would take the file for a primary's,
/// so that there would be two primaries.
const VERSION_OF_STANDBY: u32 = 3;

/// How many epochs a store remembers. Each restore and each promotion begins a new one.
pub(crate) const EPOCHS_MAX: usize = 128;

/// The part of a store's history that one primary wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The number of the epoch, counted from 1.
    pub number: u32,
    /// The sequence number of its first change.
    pub first_sequence: u64,
}

/// The role of the store in this directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It takes operations.
    #[default]
    Primary,
    /// It follows another store.
    Standby {
        /// The address of its primary.
        primary: String,
    },
    /// It takes operations since it was promoted.
    Promoted {
        /// The address of the primary that it followed.
        from: String,
        /// The address at which others find this store.
        address: String,
    },
}

// Persisted: never renumber. Files from before there were roles have zeros.
const ROLE_PRIMARY: u8 = 0;
const ROLE_STANDBY: u8 = 1;
const ROLE_PROMOTED: u8 = 2;

/// The size of an epoch.
const EPOCH_BYTES: usize = 4 + 8;

/// The longest address that is remembered, in bytes. There is room for two.
pub const ADDRESS_BYTES_MAX: usize = 1024;

/// The contents of the file `store`. Only a change of role or epoch changes it while a service
/// runs.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreHeader {
    /// Random, and in every file of this store, so that no file of another store is taken for one
    /// of this.
    pub identity: u64,
    /// Random and secret: the key with which idempotency keys and requests are hashed.
    pub secret: [u8; 16],
    /// At least one, ascending in both fields.
    pub epochs: Vec<Epoch>,
    /// Whether it follows another store.
    pub role: Role,
    /// A random number that distinguishes this directory from all others that have the store. 0 in
    /// files from before there were members, until the directory is opened.
    pub member: u64,
}

impl fmt::Debug for StoreHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHeader")
            .field("identity", &format_args!("{:016x}", self.identity))
            .field("epochs", &self.epochs)
            .field("role", &self.role)
            .field("member", &format_args!("{:016x}", self.member))
            .finish_non_exhaustive()
    }
}

impl StoreHeader {
    /// Returns the file, including its checksum.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let Ok(count) = u32::try_from(self.epochs.len()) else {
            unreachable!("a store has few epochs")
        };
        let mut epochs = Vec::new();
        for epoch in &self.epochs {
            epochs.extend_from_slice(&epoch.number.to_le_bytes());
            epochs.extend_from_slice(&epoch.first_sequence.to_le_bytes());
        }
        epochs.resize(EPOCHS_MAX * EPOCH_BYTES, 0);
        let (role, one, other) = match &self.role {
            Role::Primary => (ROLE_PRIMARY, "", ""),
            Role::Standby { primary } => (ROLE_STANDBY, primary.as_str(), ""),
            Role::Promoted { from, address } => (ROLE_PROMOTED, from.as_str(), address.as_str()),
        };
        let mut of_role = vec![role];
        put_address(&mut of_role, one);
        put_address(&mut of_role, other);
        let member = self.member.to_le_bytes();
        let identity = self.identity.to_le_bytes();
        let count = count.to_le_bytes();
        let fields: [&[u8]; _] = [&identity, &self.secret, &count, &epochs, &member, &of_role];
        let version = if self.is_standby() {
            VERSION_OF_STANDBY
        } else {
            FORMAT_VERSION
        };
        header_of(version, MAGIC, &fields)
    }

    /// Reads what [`Self::encode`] wrote. Returns `None` if it is damaged, or of another version.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok()
    }

    pub(crate) fn decode(file: &[u8]) -> Result<Self, HeaderDefect> {
        let (_, mut reader) = check_header_up_to(VERSION_OF_STANDBY, file, MAGIC, None)?;
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
            reader.take((EPOCHS_MAX - count) * EPOCH_BYTES)?;
            let member = reader.u64()?;
            let role = match reader.byte()? {
                ROLE_PRIMARY => Role::Primary,
                ROLE_STANDBY => Role::Standby {
                    primary: address(&mut reader)?,
                },
                ROLE_PROMOTED => Role::Promoted {
                    from: address(&mut reader)?,
                    address: address(&mut reader)?,
                },
                _ => return None,
            };
            let ascends = epochs.windows(2).all(|two| {
                two[0].number < two[1].number && two[0].first_sequence <= two[1].first_sequence
            });
            ascends.then_some(Self {
                identity,
                secret,
                epochs,
                role,
                member,
            })
        };
        fields().ok_or(HeaderDefect::Damaged(super::IMPOSSIBLE))
    }

    /// Reports whether the store takes what a primary sends.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        matches!(self.role, Role::Standby { .. })
    }

    /// Returns the current epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epochs.last().map_or(1, |last| last.number)
    }

    /// Returns the epoch of this change.
    #[must_use]
    pub fn epoch_of(&self, sequence: u64) -> u32 {
        let began = |epoch: &&Epoch| epoch.first_sequence <= sequence;
        let of = self.epochs.iter().rev().find(began);
        of.or(self.epochs.first()).map_or(1, |epoch| epoch.number)
    }
}

fn put_address(out: &mut Vec<u8>, address: &str) {
    let address = Some(address).filter(|address| address.len() <= ADDRESS_BYTES_MAX);
    let address = address.unwrap_or_default().as_bytes();
    let Ok(bytes) = u16::try_from(address.len()) else {
        unreachable!("it has at most {ADDRESS_BYTES_MAX} bytes")
    };
    out.extend_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(address);
}

fn address(reader: &mut Reader<'_>) -> Option<String> {
    let bytes = usize::from(reader.u16()?);
    reader.text(bytes).map(str::to_owned)
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
            role: Role::Promoted {
                from: "http://10.0.0.1:3000".into(),
                address: "http://10.0.0.2:3000".into(),
            },
            member: 0x0102_0304_0506_0708,
        }
    }

    /// A store from before there were roles has zeros in their place, so it is read as a primary.
    #[test]
    fn roles_round_trip_and_zeros_in_place_of_a_role_mean_a_primary() {
        let standby = Role::Standby {
            primary: "https://primary".into(),
        };
        for role in [Role::Primary, standby, store().role] {
            let store = StoreHeader { role, ..store() };
            assert_eq!(StoreHeader::decode(&store.encode()), Ok(store));
        }
        let primary = StoreHeader {
            role: Role::Primary,
            member: 0,
            ..store()
        };
        let bytes = primary.encode();
        let of_epochs = 12 + 8 + 16 + 4 + 3 * EPOCH_BYTES;
        assert!(
            bytes[of_epochs..HEADER_BYTES - 4]
                .iter()
                .all(|&byte| byte == 0)
        );
        // The file of such a store: nothing follows the epochs.
        let (identity, count) = (7_u64.to_le_bytes(), 3_u32.to_le_bytes());
        let mut epochs = Vec::new();
        for (number, first_sequence) in [(1_u32, 1_u64), (2, 40), (5, 41)] {
            epochs.extend_from_slice(&number.to_le_bytes());
            epochs.extend_from_slice(&first_sequence.to_le_bytes());
        }
        let fields: [&[u8]; _] = [&identity, b"0123456789abcdef", &count, &epochs];
        let old = header_of(2, MAGIC, &fields);
        assert_eq!(StoreHeader::decode(&old), Ok(primary));
    }

    /// Reads the file as 0.2.0 does, which knows no roles.
    #[test]
    fn programs_that_predate_roles_refuse_only_standbys() {
        let standby = Role::Standby {
            primary: "https://primary".into(),
        };
        for (role, refused) in [
            (Role::Primary, None),
            (store().role, None),
            (standby, Some(HeaderDefect::Version(3))),
        ] {
            let bytes = StoreHeader { role, ..store() }.encode();
            let read = super::super::check_header(&bytes, MAGIC, None);
            assert_eq!(read.err(), refused);
        }
    }

    #[test]
    fn a_store_header_round_trips_and_any_flipped_bit_is_detected() {
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
    fn a_change_belongs_to_the_latest_epoch_begun_at_or_before_it() {
        let epochs = [1, 39, 40, 41, 99].map(|sequence| store().epoch_of(sequence));
        assert_eq!(epochs, [1, 1, 2, 5, 5]);
    }
}
