//! Entries, of which the journal's groups are made: a change, a refusal that a retry must find
//! again, a seal, or a record that names the holder.

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

// Kinds of entries beside the changes, which have 1 to 4. Persisted: never renumber. A reader that
// meets an unknown kind names it, and reads no further.
const KIND_REFUSAL: u8 = 5;
const KIND_SEAL: u8 = 6;
const KIND_HOLDER: u8 = 7;

/// The bits of an entry's first byte that are its kind.
const KIND_MASK: u8 = 0b0001_1111;
/// The entry's author follows. Otherwise the entry has the author of the entry before it; the first
/// one then has none.
const HAS_AUTHOR: u8 = 0b0100_0000;
/// A key and the digest of its request follow.
const HAS_KEY: u8 = 0b1000_0000;

/// The author's number of an entry without an author.
const NOBODY: u32 = 0;

/// The member number that means nobody. No directory has it.
pub const NO_MEMBER: u64 = 0;

/// The largest size of an entry that names a holder: it has no author, which must be written if the
/// entry before it has one.
pub(crate) const HOLDER_BYTES_MAX: usize = 1 + 4 + 8;

/// Number, length and text of an author, and a key.
const BEFORE_CHANGE_BYTES_MAX: usize = 4 + 1 + AUTHOR_BYTES_MAX + 32;

/// The largest size of an entry.
pub(crate) const ENTRY_BYTES_MAX: usize = BEFORE_CHANGE_BYTES_MAX + CHANGE_BYTES_MAX;

/// Returns how many bytes the entry of this command takes in the journal at most, whatever is
/// decided.
pub(crate) fn entry_bytes_max(command: &Command, author: Option<&Author>) -> usize {
    let author_bytes = author.map_or(0, |author| author.len());
    let before = BEFORE_CHANGE_BYTES_MAX - AUTHOR_BYTES_MAX + author_bytes;
    before + change::change_bytes_max(command)
}

/// A key and the request it was used for, as digests that nobody can forge without the store's
/// secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Keyed {
    /// The digest of the key and its author.
    pub(crate) key: [u8; 16],
    /// The digest of the operation and its arguments.
    pub(crate) request: [u8; 16],
}

/// A group that is being made.
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
    /// Empties the group: the next entry is its first.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(GROUP_HEADER_BYTES, 0);
        self.payload_end = None;
        self.entries = 0;
        self.authors.clear();
        self.author = NOBODY;
    }

    /// Replaces the entries with those of a finished group.
    pub(crate) fn load(&mut self, payload: &[u8], entries: u32) {
        self.clear();
        self.bytes.extend_from_slice(payload);
        self.entries = entries;
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Returns the size of the group in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the size of its entries in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.bytes.len() - GROUP_HEADER_BYTES
    }

    /// Appends the change that `command` makes to `state`, to which it must not have been applied
    /// yet.
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

    /// Appends a refusal. Only a refusal with a key must be found again.
    pub(crate) fn refusal(&mut self, outcome: Outcome, author: Option<&Author>, keyed: &Keyed) {
        self.begin(KIND_REFUSAL, author, Some(keyed));
        self.bytes.push(outcome.to_byte());
    }

    /// Appends a seal, which changes nothing. If it can be read, everything before it was durable.
    pub(crate) fn seal(&mut self) {
        self.begin(KIND_SEAL, None, None);
    }

    /// Appends a record that names the member that must have everything from here on before callers
    /// are answered. `None` means that there is none.
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

    /// Returns the number of an author. An author that the group has not named gets the next
    /// number.
    fn number(&self, author: &Author) -> u32 {
        let Ok(next) = u32::try_from(self.authors.len() + 1) else {
            unreachable!("a group has few entries")
        };
        self.authors.get(author).copied().unwrap_or(next)
    }

    /// Returns the entries, one after the other.
    pub(crate) fn payload(&self) -> &[u8] {
        let end = self.payload_end.unwrap_or(self.bytes.len());
        &self.bytes[GROUP_HEADER_BYTES..end]
    }

    /// Completes the group. Returns its bytes, and the running hash over it and all before it.
    pub(crate) fn seal_group(&mut self, salt: u64, stamp: GroupStamp) -> (&[u8], u64) {
        // The padding follows.
        self.payload_end = Some(self.bytes.len());
        let chain = seal_group(&mut self.bytes, salt, stamp, self.entries);
        (&self.bytes, chain)
    }
}

/// How many bytes a seal occupies in a segment.
pub(crate) const SEAL_GROUP_BYTES: u64 = group_bytes(1);

/// Reports whether a group with this payload is a seal.
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
    /// From here on this member, or nobody, is the holder.
    Holder(Option<u64>),
}

/// An entry as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) author: Option<&'a str>,
    pub(crate) keyed: Option<Keyed>,
    pub(crate) happened: Happened<'a>,
}

/// Why an entry cannot be read although its checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryDefect {
    /// The bytes are not an entry of this format.
    Invalid,
    /// The kind belongs to a later version.
    UnknownKind(u8),
}

/// Returns the change of a payload with a single entry.
///
/// # Panics
/// If there is anything else.
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
    /// Returns a reader of this payload. Entries of version 1 can be read as well; they have no
    /// authors and keys.
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

    /// Returns how many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.reader.len()
    }

    /// Reads the next entry.
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

    /// Reads the author of this entry and those that follow.
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
    fn entries_round_trip_with_their_authors_and_keys() {
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
        // An author is written once, and costs nothing if the entry before has the same.
        let text = String::from_utf8_lossy(&draft.bytes);
        assert_eq!(text.matches("alice").count(), 1);
    }

    #[test]
    fn reading_damaged_entries_never_panics() {
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
    fn an_unknown_kind_of_entry_is_reported() {
        let mut entries = Entries::new(&[9, 0, 0]);
        assert_eq!(entries.read(), Err(EntryDefect::UnknownKind(9)));
        let mut entries = Entries::new(&[0b0010_0001, 0, 0]);
        assert_eq!(entries.read(), Err(EntryDefect::UnknownKind(0b0010_0001)));
    }
}
