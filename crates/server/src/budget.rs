//! A limit for the bytes that all connections together may take for one purpose, such as incomplete
//! bodies.
//!
//! Over HTTP/2 a single connection could take everything. So each connection has a share: at most a
//! sixteenth of what is free. The first item that a connection holds is limited only by what is
//! free, as over HTTP/1.1, where there is one request at a time. So a client that sends one request
//! after another is refused only if nothing is free for anybody.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The fraction of the free bytes that one connection gets at most for its second and all further
/// items.
const SHARE: usize = 16;

/// The bytes that all connections may take together.
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

/// What one connection takes of them.
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

    /// Begins an item, which takes no bytes yet.
    pub(crate) fn begin(self: &Arc<Self>) -> Taken {
        let is_first = self.holders.fetch_add(1, Ordering::Relaxed) == 0;
        Taken {
            share: self.clone(),
            is_first,
            bytes: 0,
        }
    }
}

/// Bytes that are taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    share: Arc<Share>,
    /// Whether its connection held nothing else when it began.
    is_first: bool,
    bytes: usize,
}

impl Taken {
    pub(crate) const fn is_first(&self) -> bool {
        self.is_first
    }

    /// Takes this many more bytes. If there is no room for them, takes none.
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

/// There is no room for more bytes. The limit is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom(pub(crate) usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reservation_may_take_all_free_bytes_and_others_a_share() {
        let budget = Budget::new(1600);
        let greedy = Share::new(budget.clone());
        let mut first = greedy.begin();
        assert_eq!(first.add(600), Ok(()));
        assert_eq!(first.add(1001), Err(NoRoom(1600)));
        assert_eq!(
            greedy.begin().add(1),
            Err(NoRoom(1600)),
            "it already has more than its share"
        );

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
