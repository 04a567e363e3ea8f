//! The log as a feed: a lagging reader waits for the disk on a thread that may block.

use super::{Log, not_known};
use std::sync::Arc;
use widgets_registry::{ChangeFilter, Changes, Fault, Feed, FeedError, Position, Promised};

/// The feed of an engine.
pub(crate) struct EngineFeed(pub(crate) Arc<Log>);

impl Feed for EngineFeed {
    fn newest(&self) -> Promised<Result<Position, FeedError>> {
        let newest = self.0.newest_shown().ok_or_else(not_known);
        Box::pin(async move { newest })
    }

    fn oldest(&self) -> Promised<Result<Position, FeedError>> {
        let oldest = self.0.oldest();
        Box::pin(async move { Ok(oldest) })
    }

    fn read(
        &self,
        after: Position,
        filter: Arc<ChangeFilter>,
        limit: usize,
    ) -> Promised<Result<Changes, FeedError>> {
        let log = self.0.clone();
        Box::pin(async move {
            if let Some(groups) = log.read_ring(after)? {
                return log.changes(&groups, after, &filter, limit);
            }
            // The semaphore is never closed.
            let turn = log.turns.clone().acquire_owned().await;
            // The turn belongs to the read, which goes on if nobody waits for it any more.
            let read = tokio::task::spawn_blocking(move || {
                let read = log.read(after, &filter, limit);
                drop(turn);
                read
            });
            read.await.unwrap_or_else(|error| {
                let reason =
                    widgets_registry::Reason::new("the journal cannot be read", error.to_string());
                Err(Fault::Unavailable { reason }.into())
            })
        })
    }

    fn reached(&self, position: Position) -> Promised<Result<(), FeedError>> {
        let log = self.0.clone();
        Box::pin(async move {
            let mut told = log.told.subscribe();
            // The herald is asked before the wait, so what is published after the check is
            // notified.
            while !log.has(position)? {
                log.await_herald();
                // The channel is never closed.
                drop(told.changed().await);
            }
            Ok(())
        })
    }

    fn changed(&self, after: Position) -> Promised<()> {
        let log = self.0.clone();
        Box::pin(async move {
            let mut told = log.told.subscribe();
            log.await_herald();
            // An error means that the store is gone: there is nothing to wait for.
            drop(
                told.wait_for(|&next_sequence| next_sequence > after.sequence + 1)
                    .await,
            );
        })
    }

    fn known_newest(&self) -> Option<Position> {
        self.0.newest_shown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DiskFile, Settings,
        format::{Epoch, Role, SegmentHeader, StoreHeader},
        log::{DISK_READERS, FilesToRead, JournalEnd, KeptSegment},
    };
    use std::{
        io,
        sync::{Mutex, PoisonError, mpsc},
    };
    use tokio::sync::mpsc::{UnboundedSender, error::TryRecvError, unbounded_channel};

    /// Files each of which opens only once the gate lets it, and then fails.
    struct Gated {
        arrived: UnboundedSender<()>,
        gate: Mutex<mpsc::Receiver<()>>,
    }

    impl FilesToRead for Gated {
        fn open(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
            let _ = self.arrived.send(());
            let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = gate.recv();
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Returns a log with older changes that only the files have.
    fn log(files: Gated) -> Arc<Log> {
        let store = StoreHeader {
            identity: 1,
            secret: [0; 16],
            epochs: vec![Epoch {
                number: 1,
                first_sequence: 1,
            }],
            role: Role::Primary,
            member: 1,
        };
        let segment = KeptSegment {
            header: SegmentHeader::new(1, 1, 0),
            first_sequence: 1,
            first_at: 1,
            bytes: 0,
        };
        let end = JournalEnd {
            next_sequence: 10,
            at: 1,
            chain: 0,
        };
        let settings = Settings::default();
        Arc::new(Log::new(
            store,
            files,
            [segment].into(),
            end,
            None,
            &settings,
        ))
    }

    #[tokio::test]
    async fn a_reader_that_was_cancelled_keeps_its_turn_while_its_read_goes_on() {
        let (arrived, mut arrivals) = unbounded_channel();
        let (open, gate) = mpsc::channel();
        let gate = Mutex::new(gate);
        let log = log(Gated { arrived, gate });
        let oldest = log.oldest();
        let feed = EngineFeed(log.clone());
        let read = || tokio::spawn(feed.read(oldest, Arc::default(), 1));
        let readers: Vec<_> = (0..DISK_READERS).map(|_| read()).collect();
        for _ in 0..DISK_READERS {
            arrivals.recv().await.expect("a reader is at the disk");
        }
        for reader in readers {
            reader.abort();
            assert!(reader.await.expect_err("it was cancelled").is_cancelled());
        }
        let further = read();
        tokio::task::yield_now().await;
        assert_eq!(log.turns.available_permits(), 0, "their reads go on");
        assert_eq!(arrivals.try_recv(), Err(TryRecvError::Empty));
        drop(open);
        let failed = further.await.expect("it has its turn now");
        failed.expect_err("the files cannot be opened");
        arrivals.recv().await.expect("it was at the disk");
    }
}
