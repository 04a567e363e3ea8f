//! Keys that somebody fetches, such as a JWKS by its URL: how those who need newer ones ask for them.
//!
//! Deliberately not here: fetching. Whoever does it takes requests as they come, and may refuse one, so
//! that nobody can make the service fetch as often as they like.

use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

/// So many may wait for the answer to one request for keys, each with what it has sent so far. Others are told
/// to come back: strangers can make up keys that nobody knows.
const WAITING_MAX: usize = 256;

/// Asks for newer keys.
#[derive(Clone, Debug)]
pub(super) struct Asking(mpsc::Sender<oneshot::Sender<()>>);

/// Requests for newer keys, from those whose tokens name a key that nobody knows.
#[derive(Debug)]
pub struct KeyRequests(mpsc::Receiver<oneshot::Sender<()>>);

/// One request. Whoever made it waits until this is dropped.
#[derive(Debug)]
#[must_use = "whoever asked goes on as soon as this is dropped"]
pub struct KeyRequest(#[expect(dead_code, reason = "its end is the answer")] oneshot::Sender<()>);

pub(super) fn channel() -> (Asking, KeyRequests) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Asking(sender), KeyRequests(receiver))
}

impl Asking {
    /// Waits until somebody has looked for newer keys, or has refused to. False at once where too many wait.
    pub(super) async fn ask(&self) -> bool {
        let (waiting, looked) = oneshot::channel();
        if let Err(TrySendError::Full(_)) = self.0.try_send(waiting) {
            return false;
        }
        // Nothing is ever sent: the end is the answer.
        drop(looked.await);
        true
    }
}

impl KeyRequests {
    /// The next request. Pending for ever once nobody can ask any more.
    pub async fn next(&mut self) -> KeyRequest {
        match self.0.recv().await {
            Some(waiting) => KeyRequest(waiting),
            None => std::future::pending().await,
        }
    }

    /// Lets all go on that wait now: one fetch is the answer to each of them.
    pub fn release(&mut self) {
        while self.0.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    // Outside of a runtime, which would not let one task do so much at once.
    #[test]
    fn who_asks_waits_for_the_answer_and_one_too_many_does_not() {
        let (asking, mut requests) = channel();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(asking.ask())).collect();
        for each in &mut waiting {
            assert!(poll(each.as_mut()).is_pending());
        }
        assert_eq!(poll(pin!(asking.ask())), Poll::Ready(false), "one too many");
        let Poll::Ready(first) = poll(pin!(requests.next())) else {
            panic!("there are requests")
        };
        assert!(poll(waiting[0].as_mut()).is_pending());
        drop(first);
        assert!(poll(waiting[0].as_mut()).is_ready());
        assert!(poll(waiting[1].as_mut()).is_pending());
        requests.release();
        for each in &mut waiting[1..] {
            assert!(poll(each.as_mut()).is_ready());
        }
        drop(requests);
        assert_eq!(poll(pin!(asking.ask())), Poll::Ready(true), "nobody looks");
    }

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }
}
