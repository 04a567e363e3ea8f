//! Fetched keys, such as a JWKS from its URL: how requests ask for newer ones.
//!
//! Fetching is deliberately not done here. The fetcher takes the requests for keys and may refuse
//! one, so that nobody can make the service fetch at will.

use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

/// How many requests may wait for one fetch, each with the data that it has sent so far. Further
/// ones must retry later, because strangers can invent unknown keys.
const WAITING_MAX: usize = 256;

/// Asks for newer keys.
#[derive(Clone, Debug)]
pub(super) struct Asking(mpsc::Sender<oneshot::Sender<()>>);

/// Requests for newer keys, made because a token names an unknown key.
#[derive(Debug)]
pub struct KeyRequests(mpsc::Receiver<oneshot::Sender<()>>);

/// One request for keys. Its sender waits until this is dropped.
#[derive(Debug)]
#[must_use = "whoever asked goes on as soon as this is dropped"]
pub struct KeyRequest(#[expect(dead_code, reason = "its end is the answer")] oneshot::Sender<()>);

pub(super) fn channel() -> (Asking, KeyRequests) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Asking(sender), KeyRequests(receiver))
}

impl Asking {
    /// Waits until newer keys were looked for, or the fetcher refused to. Returns false at once if
    /// too many wait.
    pub(super) async fn ask(&self) -> bool {
        let (waiting, looked) = oneshot::channel();
        if let Err(TrySendError::Full(_)) = self.0.try_send(waiting) {
            return false;
        }
        // Nothing is ever sent: the end of the channel is the answer.
        drop(looked.await);
        true
    }
}

impl KeyRequests {
    /// Returns the next request. Pending forever once nobody can ask any more.
    pub async fn next(&mut self) -> KeyRequest {
        match self.0.recv().await {
            Some(waiting) => KeyRequest(waiting),
            None => std::future::pending().await,
        }
    }

    /// Releases all that wait now: one fetch answers all of them.
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

    // Outside a runtime, which would limit how much one task may do at once.
    #[test]
    fn key_requests_wait_for_the_fetch_up_to_a_limit() {
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
        assert_eq!(
            poll(pin!(asking.ask())),
            Poll::Ready(true),
            "there is no fetcher"
        );
    }

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }
}
