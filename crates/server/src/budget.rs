//! Bytes that all connections together may take for something, such as bodies that are not whole yet.
//!
//! Over HTTP/2 one connection can take as much as it likes: so each has a share, a sixteenth of what is left
//! at most. What it takes first is bounded by what is left alone, as over HTTP/1.1, where there is one
//! request at a time. So whoever asks one thing after another is only refused where nothing is left for
//! anybody.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// One connection gets this part of what is left for its second thing and all further ones, at most.
const SHARE: usize = 16;

/// What all connections may take together.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let taken = AtomicUsize::new(0);
        Arc::new(Self { taken, bytes_max })
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What one connection takes of it.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    taken: AtomicUsize,
    holders: AtomicUsize,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            taken: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
        })
    }

    /// Begins to take something, of which there is nothing yet.
    pub(crate) fn begin(self: &Arc<Self>) -> Taken {
        let is_first = self.holders.fetch_add(1, Ordering::Relaxed) == 0;
        Taken {
            share: self.clone(),
            is_first,
            bytes: 0,
        }
    }
}

/// Bytes that are taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    share: Arc<Share>,
    /// Its connection took nothing else when it began.
    is_first: bool,
    bytes: usize,
}

impl Taken {
    pub(crate) const fn is_first(&self) -> bool {
        self.is_first
    }

    /// Takes so many more. Where there is no room for them nothing is taken.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Share { budget, taken, .. } = &*self.share;
        let all = budget.taken.fetch_add(bytes, Ordering::Relaxed);
        let mine = taken.fetch_add(bytes, Ordering::Relaxed);
        let left = budget.bytes_max.saturating_sub(all);
        let may = if self.is_first { left } else { left / SHARE };
        let wanted = if self.is_first { bytes } else { mine + bytes };
        if wanted > may {
            taken.fetch_sub(bytes, Ordering::Relaxed);
            budget.taken.fetch_sub(bytes, Ordering::Relaxed);
            return Err(NoRoom(budget.bytes_max));
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let share = &self.share;
        share.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        share.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        share.holders.fetch_sub(1, Ordering::Relaxed);
    }
}

/// There is no room for more bytes, of which there may be so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom(pub(crate) usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_may_take_what_is_left_and_others_a_share_of_it() {
        let budget = Budget::new(1600);
        let greedy = Share::new(budget.clone());
        let mut first = greedy.begin();
        assert_eq!(first.add(600), Ok(()));
        assert_eq!(first.add(1001), Err(NoRoom(1600)));
        assert_eq!(greedy.begin().add(1), Err(NoRoom(1600)), "it has its share");

        let other = Share::new(budget.clone());
        let mut others: Vec<_> = (0..3).map(|_| other.begin()).collect();
        assert_eq!(others[1].add(62), Ok(()), "a sixteenth of 1000");
        assert_eq!(others[2].add(1), Err(NoRoom(1600)));
        assert_eq!(others[0].add(938), Ok(()));
        assert_eq!(others[0].add(1), Err(NoRoom(1600)));
        assert_eq!(budget.taken(), 1600);
        drop((first, others));
        assert_eq!(budget.taken(), 0);
        assert!(greedy.begin().is_first(), "all were dropped");
    }
}
