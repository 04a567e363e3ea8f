//! Seals at the end of the journal: a replaced store removes them if the store that continues does
//! not have them.

use super::{JournalEnd, Log, LoggedGroup};
use std::{io, sync::Arc};

impl Log {
    /// Returns where the journal would end without its trailing seals. Returns `None` if it has
    /// none, or if what is before them is not kept any more. May wait for the disk.
    pub(crate) fn before_seals(&self) -> io::Result<Option<JournalEnd>> {
        let (oldest, mut before) = {
            let inner = self.lock();
            let end = JournalEnd {
                next_sequence: inner.next_sequence,
                at: inner.at,
                chain: inner.chain,
            };
            (inner.oldest(), end)
        };
        let mut has_seals = false;
        while before.next_sequence > oldest {
            let Some(last) = self.group_with(before.next_sequence - 1)? else {
                return Ok(None);
            };
            let goes = last.is_seal() || planted!(CutTooFar) && !has_seals;
            if !goes {
                before.at = last.at;
                return Ok(has_seals.then_some(before));
            }
            has_seals = true;
            before.next_sequence = last.first_sequence;
            before.chain = last.chain;
        }
        if before.next_sequence == 1 && has_seals {
            before.at = 0;
            return Ok(Some(before));
        }
        Ok(None)
    }

    fn group_with(&self, sequence: u64) -> io::Result<Option<Arc<LoggedGroup>>> {
        let recent = self.lock().ring_from(sequence, 1);
        let groups = match recent {
            Some(groups) => groups,
            None => self.segments_from(sequence, 1)?,
        };
        let is_wanted =
            |it: &&Arc<LoggedGroup>| (it.first_sequence..it.next_sequence()).contains(&sequence);
        Ok(groups.list.iter().find(is_wanted).cloned())
    }

    /// Forgets the seals after `before`, which were removed from the journal. They occupied `bytes`
    /// in its last segment.
    pub(crate) fn cut(&self, before: JournalEnd, bytes: u64) {
        let mut inner = self.lock();
        inner.next_sequence = before.next_sequence;
        inner.at = before.at;
        inner.chain = before.chain;
        while let Some(last) = inner.ring.back()
            && last.first_sequence >= before.next_sequence
        {
            inner.ring_bytes -= last.payload.len();
            inner.ring.pop_back();
        }
        // Other entries will get these sequence numbers and may begin elsewhere.
        inner
            .places
            .retain(|(sequence, _)| *sequence < before.next_sequence);
        if let Some(last) = inner.segments.back_mut() {
            last.bytes = last.bytes.saturating_sub(bytes);
            if last.first_sequence >= before.next_sequence {
                last.first_sequence = before.next_sequence;
                last.first_at = 0;
            }
        }
        drop(inner);
        self.told.send_replace(before.next_sequence);
        self.appended.send_replace(before.next_sequence);
    }
}
