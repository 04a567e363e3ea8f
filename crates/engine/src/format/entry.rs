//! Entries: what a group of the journal is made of. A change is one, a refusal that a retry must find
//! again, and a seal.

use super::{
    GROUP_HEADER_BYTES, Reader,
    change::{self, CHANGE_BYTES_MAX, JournaledChange},
    segment::{GroupStamp, group_bytes, seal_group},
};
use crate::{
    retries::Outcome,
    state::{Handle, State},
};
use std::collections::BTreeMap;
use widgets_registry::{AUTHOR_BYTES_MAX, Author, Change, Command};

// Kinds of entries beside the changes, which have 1 to 4. Persisted: never renumber. A reader names a
// kind that it does not know, and reads no further.
const KIND_REFUSAL: u8 = 5;
const KIND_SEAL: u8 = 6;
const KIND_HOLDER: u8 = 7;

/// The lower bits of an entry's first byte are its kind.
const KIND_MASK: u8 = 0b0001_1111;
/// Whose entry it is follows: otherwise it is of whose the entry before it is, and the first nobody's.
const HAS_AUTHOR: u8 = 0b0100_0000;
/// A key and the digest of its request follow.
const HAS_KEY: u8 = 0b1000_0000;

/// Whose entry it is when it is nobody's.
const NOBODY: u32 = 0;

/// The member of whoever is none: no directory has this number.
pub const NO_MEMBER: u64 = 0;

/// What an entry that names a holder takes at most: nobody's follows what may have been somebody's.
pub(crate) const HOLDER_BYTES_MAX: usize = 1 + 4 + 8;

/// Number, length and text of an author, and a key.
const BEFORE_CHANGE_BYTES_MAX: usize = 4 + 1 + AUTHOR_BYTES_MAX + 32;

/// What an entry takes at most.
pub(crate) const ENTRY_BYTES_MAX: usize = BEFORE_CHANGE_BYTES_MAX + CHANGE_BYTES_MAX;

/// What the entry of this command takes in the journal at most, whatever is decided.
pub(crate) fn entry_bytes_max(command: &Command, author: Option<&Author>) -> usize {
    let author_bytes = author.map_or(0, |author| author.len());
    let before = BEFORE_CHANGE_BYTES_MAX - AUTHOR_BYTES_MAX + author_bytes;
    before + change::change_bytes_max(command)
}

/// A key and what it was used for, as digests that nobody can make without the store's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Keyed {
    /// Of the key and whose it is.
    pub(crate) key: [u8; 16],
    /// Of the operation and its arguments.
    pub(crate) request: [u8; 16],
}

/// A group while it is being made.
#[derive(Default)]
pub(crate) struct GroupDraft {
    bytes: Vec<u8>,
    /// Where its entries end, once it is complete.
    payload_end: Option<usize>,
    entries: u32,
    /// The authors that the group has named, numbered from 1.
    authors: BTreeMap<Author, u32>,
    author: u32,
}

impl GroupDraft {
    /// Forgets everything: the next entry is a group's first.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(GROUP_HEADER_BYTES, 0);
        self.payload_end = None;
        self.entries = 0;
        self.authors.clear();
        self.author = NOBODY;
    }

    /// Has the entries that somebody else made a group of.
    pub(crate) fn load(&mut self, payload: &[u8], entries: u32) {
        self.clear();
        self.bytes.extend_from_slice(payload);
        self.entries = entries;
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes its entries have.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.bytes.len() - GROUP_HEADER_BYTES
    }

    /// The change that `command` makes to `state`, which has not got it yet.
    pub(crate) fn change(
        &mut self,
        state: &State,
        command: &Command,
        change: Change<Handle>,
        author: Option<&Author>,
        keyed: Option<&Keyed>,
    ) {
        let kind = change::kind(command);
        self.begin(kind, author, keyed);
        change::encode(&mut self.bytes, state, command, change);
    }

    /// A refusal: only where there is a key does it have to be found again.
    pub(crate) fn refusal(&mut self, outcome: Outcome, author: Option<&Author>, keyed: &Keyed) {
        self.begin(KIND_REFUSAL, author, Some(keyed));
        self.bytes.push(outcome.to_byte());
    }

    /// Nothing: that it can be read proves that what stands before it was durable.
    pub(crate) fn seal(&mut self) {
        self.begin(KIND_SEAL, None, None);
    }

    /// Who must have what comes from here on before its callers are told; `None`: nobody has it yet.
    pub(crate) fn holder(&mut self, member: Option<u64>) {
        self.begin(KIND_HOLDER, None, None);
        let member = member.unwrap_or(NO_MEMBER);
        self.bytes.extend_from_slice(&member.to_le_bytes());
    }

    fn begin(&mut self, kind: u8, author: Option<&Author>, keyed: Option<&Keyed>) {
        self.entries += 1;
        let first_at = self.bytes.len();
        self.bytes.push(kind);
        let number = author.map_or(NOBODY, |author| self.number(author));
        if number != self.author {
            self.author = number;
            self.bytes[first_at] |= HAS_AUTHOR;
            self.bytes.extend_from_slice(&number.to_le_bytes());
            if let Some(author) = author
                && self.authors.len() < number as usize
            {
                change::put_short(&mut self.bytes, author);
                self.authors.insert(author.clone(), number);
            }
        }
        if let Some(Keyed { key, request }) = keyed {
            self.bytes[first_at] |= HAS_KEY;
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(request);
        }
    }

    /// The number of an author, the next one where the group has not named it.
    fn number(&self, author: &Author) -> u32 {
        let Ok(next) = u32::try_from(self.authors.len() + 1) else {
            unreachable!("a group has few entries")
        };
        self.authors.get(author).copied().unwrap_or(next)
    }

    /// Its entries, one after the other.
    pub(crate) fn payload(&self) -> &[u8] {
        let end = self.payload_end.unwrap_or(self.bytes.len());
        &self.bytes[GROUP_HEADER_BYTES..end]
    }

    /// Completes the group: its bytes, and the running hash over it and all before it.
    pub(crate) fn seal_group(&mut self, salt: u64, stamp: GroupStamp) -> (&[u8], u64) {
        // What follows is padding.
        self.payload_end = Some(self.bytes.len());
        let chain = seal_group(&mut self.bytes, salt, stamp, self.entries);
        (&self.bytes, chain)
    }
}

/// What a seal takes in a segment.
pub(crate) const SEAL_GROUP_BYTES: u64 = group_bytes(1);

/// Whether a group with this payload is a seal.
pub(crate) fn is_seal(payload: &[u8]) -> bool {
    payload == [KIND_SEAL]
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happened<'a> {
    Change(JournaledChange<'a>),
    /// A keyed operation was refused.
    Refusal(Outcome),
    Seal,
    /// This member is the holder from here on, or nobody.
    Holder(Option<u64>),
}

/// One entry as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) author: Option<&'a str>,
    pub(crate) keyed: Option<Keyed>,
    pub(crate) happened: Happened<'a>,
}

/// Why an entry cannot be read although its checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryDefect {
    /// The bytes are none that this format has.
    Invalid,
    /// A kind that a later version has.
    UnknownKind(u8),
}

/// The change that is all there is.
///
/// # Panics
/// Where it is not.
#[cfg(test)]
pub(crate) fn only_change(payload: &[u8]) -> JournaledChange<'_> {
    let mut entries = Entries::new(payload);
    match entries.read().map(|entry| entry.happened) {
        Ok(Happened::Change(change)) if entries.is_empty() => change,
        other => panic!("not one change but {other:?}"),
    }
}

/// Reads the entries of a group one after the other.
pub(crate) struct Entries<'a> {
    reader: Reader<'a>,
    authors: Vec<&'a str>,
    author: Option<&'a str>,
}

impl<'a> Entries<'a> {
    /// The entries of this payload. Those of version 1 are such as well, without authors and keys.
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(payload),
            authors: Vec::new(),
            author: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.reader.len()
    }

    /// The next entry.
    pub(crate) fn read(&mut self) -> Result<Entry<'a>, EntryDefect> {
        let first = self.reader.byte().ok_or(EntryDefect::Invalid)?;
        let kind = first & KIND_MASK;
        let is_known =
            change::is_kind(kind) || [KIND_REFUSAL, KIND_SEAL, KIND_HOLDER].contains(&kind);
        if !is_known || first & !(KIND_MASK | HAS_AUTHOR | HAS_KEY) != 0 {
            return Err(EntryDefect::UnknownKind(first));
        }
        self.rest(first, kind).ok_or(EntryDefect::Invalid)
    }

    fn rest(&mut self, first: u8, kind: u8) -> Option<Entry<'a>> {
        if first & HAS_AUTHOR != 0 {
            self.read_author()?;
        }
        let keyed = if first & HAS_KEY == 0 {
            None
        } else {
            Some(Keyed {
                key: self.reader.array()?,
                request: self.reader.array()?,
            })
        };
        let happened = match kind {
            KIND_REFUSAL => {
                let outcome = Outcome::from_byte(self.reader.byte()?)?;
                if keyed.is_none() || outcome == Outcome::Accepted {
                    return None;
                }
                Happened::Refusal(outcome)
            }
            KIND_SEAL => Happened::Seal,
            KIND_HOLDER => {
                let member = self.reader.u64()?;
                Happened::Holder(Some(member).filter(|&member| member != NO_MEMBER))
            }
            _ => Happened::Change(self.reader.change(kind)?),
        };
        Some(Entry {
            author: self.author,
            keyed,
            happened,
        })
    }

    /// Reads whose entries follow.
    fn read_author(&mut self) -> Option<()> {
        let number = usize::try_from(self.reader.u32()?).ok()?;
        let Some(place) = number.checked_sub(1) else {
            self.author = None;
            return Some(());
        };
        if place == self.authors.len() {
            let bytes = usize::from(self.reader.byte()?);
            let author = self.reader.text(bytes).filter(|text| !text.is_empty())?;
            self.authors.push(author);
        }
        self.author = Some(*self.authors.get(place)?);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use widgets_registry::SerialNumber;

    const KEYED: Keyed = Keyed {
        key: [7; 16],
        request: [8; 16],
    };

    fn add(serial_number: &str) -> Command {
        let serial_number = SerialNumber::new("widget_sn", serial_number);
        Command::AddWidget {
            serial_number: serial_number.expect("within the limits"),
            name: widgets_registry::Name::new("widget_name", "n").expect("within the limits"),
            ports: widgets_registry::Ports::NONE,
        }
    }

    fn read(payload: &[u8]) -> Vec<Entry<'_>> {
        let mut entries = Entries::new(payload);
        let mut read = Vec::new();
        while let Ok(entry) = entries.read() {
            read.push(entry);
        }
        read
    }

    fn draft() -> GroupDraft {
        let state = State::default();
        let [alice, bob] = ["alice", "bob"].map(|name| Author::new(name).expect("a name"));
        let mut draft = GroupDraft::default();
        draft.clear();
        draft.change(&state, &add("a"), Change::AddWidget, None, None);
        draft.change(&state, &add("b"), Change::AddWidget, Some(&alice), None);
        draft.change(
            &state,
            &add("c"),
            Change::AddWidget,
            Some(&alice),
            Some(&KEYED),
        );
        draft.refusal(Outcome::SerialNumberTaken, Some(&bob), &KEYED);
        draft.change(&state, &add("d"), Change::AddWidget, Some(&alice), None);
        draft.seal();
        draft.holder(Some(0x0102_0304_0506_0708));
        draft.holder(None);
        draft
    }

    #[test]
    fn entries_read_back_with_their_authors_and_keys() {
        let draft = draft();
        let entries = read(&draft.bytes[GROUP_HEADER_BYTES..]);
        assert_eq!(draft.entries(), 8);
        let told: Vec<_> = entries
            .iter()
            .map(|entry| (entry.author, entry.keyed.is_some()))
            .collect();
        let (alice, bob) = (Some("alice"), Some("bob"));
        assert_eq!(
            told,
            [
                (None, false),
                (alice, false),
                (alice, true),
                (bob, true),
                (alice, false),
                (None, false),
                (None, false),
                (None, false)
            ]
        );
        assert_eq!(entries[2].keyed, Some(KEYED));
        assert_eq!(
            entries[3].happened,
            Happened::Refusal(Outcome::SerialNumberTaken)
        );
        assert_eq!(entries[5].happened, Happened::Seal);
        let member = 0x0102_0304_0506_0708;
        assert_eq!(entries[6].happened, Happened::Holder(Some(member)));
        assert_eq!(entries[7].happened, Happened::Holder(None));
        // An author is written once, and costs nothing where it is the one before.
        let text = String::from_utf8_lossy(&draft.bytes);
        assert_eq!(text.matches("alice").count(), 1);
    }

    #[test]
    fn no_bytes_make_the_reader_of_entries_panic() {
        let draft = draft();
        let payload = &draft.bytes[GROUP_HEADER_BYTES..];
        for end in 0..payload.len() {
            assert!(read(&payload[..end]).len() < 8);
        }
        for at in 0..payload.len() {
            for byte in 0..=u8::MAX {
                let mut changed = payload.to_vec();
                changed[at] = byte;
                read(&changed);
            }
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_named() {
        let mut entries = Entries::new(&[9, 0, 0]);
        assert_eq!(entries.read(), Err(EntryDefect::UnknownKind(9)));
        let mut entries = Entries::new(&[0b0010_0001, 0, 0]);
        assert_eq!(entries.read(), Err(EntryDefect::UnknownKind(0b0010_0001)));
    }
}
