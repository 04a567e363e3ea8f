//! The manifest: the only object that is replaced, which says what in the archive counts.
//!
//! It is text, so that people can read it when there is a problem: a line with its checksum, then
//! JSON.

use crate::{Error, object};
use serde::{Deserialize, Serialize};
use widgets_engine::{Epoch, JournalEnd, StoreHeader};

/// What an archive contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The identity of the store.
    pub store: Hex64,
    /// The secret with which idempotency keys are hashed: a restored store must recognise them.
    pub secret: Secret,
    /// How many times the manifest was replaced. No two manifests have the same number.
    pub revision: u64,
    /// The number of the writer that may replace the manifest. Whoever opens the archive takes the
    /// next number.
    pub writer: u32,
    /// A random number by which that writer recognises its own manifest.
    pub holder: Hex64,
    /// What each writer wrote of the journal, oldest first.
    pub stretches: Vec<Stretch>,
    /// The checkpoints, oldest first.
    pub checkpoints: Vec<Checkpoint>,
}

/// A 64-bit number, written as 16 hexadecimal digits because JSON's own numbers have fewer bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex64(pub u64);

impl From<Hex64> for String {
    fn from(number: Hex64) -> Self {
        format!("{:016x}", number.0)
    }
}

impl TryFrom<String> for Hex64 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = u64::from_str_radix(&text, 16).map_err(|error| error.to_string())?;
        Ok(Self(number))
    }
}

/// A secret of 16 bytes: 32 digits in the manifest, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(pub [u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        format!("{:032x}", u128::from_be_bytes(secret.0))
    }
}

impl TryFrom<String> for Secret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = u128::from_str_radix(&text, 16).map_err(|error| error.to_string())?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// What one writer wrote of the journal, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The number of the writer.
    pub writer: u32,
    /// When that writer began, by its clock, in microseconds since 1970.
    pub began: u64,
    /// The epochs of the store, each with its first sequence number.
    pub epochs: Vec<(u32, u64)>,
    /// Where the stretch begins.
    pub begin: Place,
    /// Where the stretch ends.
    pub end: Place,
}

/// A place in the journal, between two groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The sequence number of the next entry.
    pub next_sequence: u64,
    /// When the group before this place was committed, in microseconds since 1970.
    pub at: u64,
    /// The running hash over all groups before this place.
    pub chain: Hex64,
}

impl From<JournalEnd> for Place {
    fn from(end: JournalEnd) -> Self {
        Self {
            next_sequence: end.next_sequence,
            at: end.at,
            chain: Hex64(end.chain),
        }
    }
}

impl From<Place> for JournalEnd {
    fn from(place: Place) -> Self {
        Self {
            next_sequence: place.next_sequence,
            at: place.at,
            chain: place.chain.0,
        }
    }
}

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The number of its writer.
    pub writer: u32,
    /// When it was complete, in microseconds since 1970.
    pub written: u64,
    /// The end of the journal when copying the state began. What follows is replayed over the
    /// checkpoint.
    pub begin: Place,
    /// The checkpoint is a consistent state only together with the journal before this entry.
    pub next_sequence: u64,
    /// The oldest moment that can be restored from it, in microseconds since 1970.
    pub usable_at: u64,
    /// Where the journal object that contains `begin` starts, if the same writer wrote that object.
    pub from: Option<Place>,
    /// The number of its objects.
    pub parts: u32,
    /// The size of its file in bytes.
    pub raw_bytes: u64,
    /// The total size of its objects in bytes.
    pub bytes: u64,
}

impl Stretch {
    /// Returns whether this stretch continues where the other one ends.
    pub(crate) fn follows(&self, other: &Self) -> bool {
        let (begin, end) = (self.begin, other.end);
        (begin.next_sequence, begin.chain) == (end.next_sequence, end.chain)
    }

    /// Returns the store's epochs in this stretch, as the store's header has them.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        let epoch = |&(number, first_sequence)| Epoch {
            number,
            first_sequence,
        };
        self.epochs.iter().map(epoch).collect()
    }

    /// Returns the store's newest epoch in this stretch.
    pub(crate) fn epoch(&self) -> (u32, u64) {
        self.epochs.last().copied().unwrap_or((1, 1))
    }
}

/// The maximum size of a manifest that is read.
pub(crate) const BYTES_MAX: usize = 256 << 20;

const BEGINNING: &str = "WIDGETS ARCHIVE";

impl Manifest {
    /// Creates the manifest of an empty archive.
    pub(crate) fn new(store: &StoreHeader) -> Self {
        Self {
            store: Hex64(store.identity),
            secret: Secret(store.secret),
            revision: 0,
            writer: 0,
            holder: Hex64(0),
            stretches: Vec::new(),
            checkpoints: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = match serde_json::to_string_pretty(self) {
            Ok(body) => body,
            Err(error) => unreachable!("a manifest has only texts and numbers: {error}"),
        };
        let checksum = crc32fast::hash(body.as_bytes());
        let version = object::VERSION;
        format!("{BEGINNING} {version} {checksum:08x}\n{body}\n").into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |defect: String| Error::Damaged {
            object: object::MANIFEST.into(),
            defect,
        };
        if bytes.len() > BYTES_MAX {
            return Err(damaged(format!("it has more than {BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        let parts = || {
            let (first, body) = text.split_once('\n')?;
            let (version, checksum) = first.strip_prefix(BEGINNING)?.trim().split_once(' ')?;
            let version = version.parse().ok()?;
            let checksum = u32::from_str_radix(checksum, 16).ok()?;
            Some((version, checksum, body.strip_suffix('\n')?))
        };
        let (version, checksum, body) =
            parts().ok_or_else(|| damaged("it does not begin as a manifest does".into()))?;
        if version != object::VERSION {
            return Err(Error::Version {
                object: object::MANIFEST.into(),
                found: version,
                known: object::VERSION,
            });
        }
        let first = format!("{BEGINNING} {version} {checksum:08x}\n");
        if !text.starts_with(&first) || checksum != crc32fast::hash(body.as_bytes()) {
            return Err(damaged("its checksum is wrong".into()));
        }
        serde_json::from_str(body).map_err(|error| damaged(error.to_string()))
    }

    /// Returns whether this manifest still names everything that an earlier one named. If not, the
    /// archive was pruned meanwhile.
    pub(crate) fn keeps(&self, earlier: &Self) -> bool {
        let beginning = |stretch: &Stretch| (stretch.writer, stretch.begin);
        let has = |it: &Stretch| {
            self.stretches
                .iter()
                .any(|own| beginning(own) == beginning(it))
        };
        // The stretch of a writer that wrote nothing disappears when the next writer begins.
        let mut written = earlier.stretches.iter().filter(|it| it.begin != it.end);
        let mut checkpoints = earlier.checkpoints.iter();
        written.all(has) && checkpoints.all(|it| self.checkpoints.contains(it))
    }

    /// Returns the highest epoch in the archive.
    #[must_use]
    pub fn epoch_max(&self) -> u32 {
        let last = |stretch: &Stretch| stretch.epoch().0;
        self.stretches.iter().map(last).max().unwrap_or(0)
    }

    /// Returns the runs: stretches that follow one another, as ranges of [`Self::stretches`].
    /// Within a run, every moment from its first checkpoint on can be restored.
    #[must_use]
    pub fn runs(&self) -> Vec<std::ops::Range<usize>> {
        let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
        for (at, stretch) in self.stretches.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if stretch.follows(&self.stretches[run.end - 1]) => run.end += 1,
                _ => runs.push(at..at + 1),
            }
        }
        runs
    }

    /// Returns the checkpoints from which a run can be restored, oldest first.
    pub(crate) fn checkpoints_of(
        &self,
        run: &std::ops::Range<usize>,
    ) -> impl DoubleEndedIterator<Item = &Checkpoint> {
        let stretches = &self.stretches[run.clone()];
        let (first, last) = (stretches.first(), stretches.last());
        let range = first.zip(last).map(|(first, last)| {
            let writers = first.writer..=last.writer;
            (writers, first.begin.next_sequence, last.end.next_sequence)
        });
        self.checkpoints.iter().filter(move |checkpoint| {
            range.as_ref().is_some_and(|(writers, begin, end)| {
                writers.contains(&checkpoint.writer)
                    && *begin <= checkpoint.begin.next_sequence
                    && checkpoint.next_sequence <= *end
            })
        })
    }

    /// Returns whether a run begins with the store, so that it needs no checkpoint.
    pub(crate) fn begins_empty(&self, run: &std::ops::Range<usize>) -> bool {
        let begin = self.stretches[run.start].begin;
        begin.next_sequence == 1 && begin.chain.0 == 0
    }
}

/// A range of moments that can be restored, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moments<'a> {
    /// The oldest moment, in microseconds since 1970: 0 if the store's beginning is there, `None`
    /// if nothing can be restored yet.
    pub oldest: Option<u64>,
    /// The newest moment, in microseconds since 1970.
    pub newest: u64,
    /// The first entry of the journal.
    pub first: u64,
    /// The last entry of the journal.
    pub last: u64,
    /// The store's newest epoch in the range.
    pub epoch: u32,
    /// The checkpoints.
    pub checkpoints: Vec<&'a Checkpoint>,
}

impl Manifest {
    /// Returns the ranges of moments that can be restored, oldest first.
    #[must_use]
    pub fn moments(&self) -> Vec<Moments<'_>> {
        let moments = |run: std::ops::Range<usize>| {
            let stretches = &self.stretches[run.clone()];
            let (first, last) = (stretches.first()?, stretches.last()?);
            let checkpoints: Vec<_> = self.checkpoints_of(&run).collect();
            let oldest = checkpoints.first().map(|oldest| oldest.usable_at);
            let is_beginning = self.begins_empty(&run);
            Some(Moments {
                oldest: if is_beginning { Some(0) } else { oldest },
                newest: last.end.at,
                first: first.begin.next_sequence,
                last: last.end.next_sequence.saturating_sub(1),
                epoch: last.epoch().0,
                checkpoints,
            })
        };
        self.runs().into_iter().filter_map(moments).collect()
    }
}

/// Reads the manifest of an archive.
pub async fn list(bucket: &crate::Bucket) -> Result<Manifest, Error> {
    let Some((manifest, _)) = bucket.manifest().await? else {
        let url = bucket.url().into();
        return Err(Error::Missing { url });
    };
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_encoding_and_any_flipped_bit_is_detected() {
        let place = |next_sequence, chain| Place {
            next_sequence,
            at: 7,
            chain: Hex64(chain),
        };
        let manifest = Manifest {
            store: Hex64(u64::MAX),
            secret: Secret(*b"0123456789abcdef"),
            revision: 3,
            writer: 2,
            holder: Hex64(9),
            stretches: vec![Stretch {
                writer: 1,
                began: 5,
                epochs: vec![(1, 1)],
                begin: place(1, 0),
                end: place(9, u64::MAX - 1),
            }],
            checkpoints: vec![Checkpoint {
                writer: 1,
                written: 8,
                begin: place(4, 5),
                next_sequence: 6,
                usable_at: 7,
                from: Some(place(1, 0)),
                parts: 1,
                raw_bytes: 9,
                bytes: 5,
            }],
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).expect("whole"), manifest);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged).is_err(), "bit {bit}");
        }
        assert!(!format!("{manifest:?}").contains("3031"), "the secret");
        let later = String::from_utf8(bytes)
            .expect("text")
            .replacen(" 1 ", " 2 ", 1);
        let error = Manifest::decode(later.as_bytes()).expect_err("unknown");
        assert!(matches!(error, Error::Version { found: 2, .. }), "{error}");
    }
}
