//! One standby that is served by a real engine, whose disk is in memory. No timer ever ends.

use super::*;
use crate::{Credentials, Doing, Error, Incoming, Primary, Task, copy};
use std::{
    future::poll_fn,
    mem,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};
use widgets_clock::{Clock, Timer};
use widgets_engine::{
    JournalEnd, Settings,
    simulation::{Chance, Steps, TestDisk},
};
use widgets_registry::{Ask as _, Attempt, Command, Name, Ports, SerialNumber};

/// A clock that moves a millisecond whenever it is read, and whose timers never end.
#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_000_000_000) + self.now()
    }

    fn sleep(&self, _: Duration) {}

    fn timer(&self, _: Duration) -> Timer {
        Box::pin(pending())
    }
}

type Engine = Steps<TestDisk, TestClock>;

/// How many operations a group has at most.
const BATCH: usize = 64;

fn settings() -> Settings {
    Settings {
        queue_operations_max: BATCH,
        segment_bytes: Settings::segment_bytes_min(BATCH),
        changes_retention_bytes: 0,
        ..Settings::default()
    }
}

fn open() -> Engine {
    let mut chance = Chance(7);
    let random = Box::new(move || chance.number());
    Steps::open(&TestDisk::default(), &Arc::default(), random, &settings()).expect("a new store")
}

fn poll<T>(future: &mut (impl Future<Output = T> + Unpin + ?Sized)) -> Poll<T> {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(future).poll(&mut context)
}

/// Adds widgets of about a kilobyte each, in one group for each batch.
fn add(engine: &mut Engine, widgets: std::ops::Range<usize>) {
    let numbers: Vec<_> = widgets.collect();
    for numbers in numbers.chunks(BATCH) {
        let client = engine.client();
        let ask = |number: &usize| {
            let serial_number = SerialNumber::new("widget_sn", format!("s{number}"));
            let name = Name::new("name", "n".repeat(1000));
            let command = Command::AddWidget {
                serial_number: serial_number.expect("within the limits"),
                name: name.expect("within the limits"),
                ports: Ports::NONE,
            };
            let mut asking = Box::pin(client.ask(Attempt::from(command)));
            assert!(poll(&mut asking).is_pending());
            asking
        };
        let mut asked: Vec<_> = numbers.iter().map(ask).collect();
        engine.own();
        for asking in &mut asked {
            let answer = poll(asking);
            assert!(matches!(answer, Poll::Ready(Ok(_))), "{answer:?}");
        }
    }
}

/// Lets a checkpoint be written, and what it makes obsolete be removed. Returns its first entry.
fn checkpoint(engine: &mut Engine) -> u64 {
    let before = engine.source().newest_checkpoint();
    engine.want_checkpoint();
    let mut after = 0;
    for _ in 0..100_000 {
        engine.own();
        engine.write();
        after += u64::from(engine.source().newest_checkpoint() != before);
        if after > 100 {
            return engine.source().newest_checkpoint().expect("it is new");
        }
    }
    panic!("the checkpoint does not end");
}

/// Connects a standby directly to the sender.
#[derive(Clone)]
struct Near {
    source: Source,
    clock: Arc<TestClock>,
    /// How many pieces the standby has taken.
    taken: Arc<AtomicUsize>,
}

impl Near {
    fn new(engine: &Engine) -> Self {
        Self {
            source: engine.source(),
            clock: Arc::default(),
            taken: Arc::default(),
        }
    }
}

impl Outside for Near {
    fn ask<'a>(
        &'a self,
        _: &'a Primary,
        query: &'a str,
        _: Option<watch::Receiver<u64>>,
    ) -> Doing<'a, Result<Box<dyn Incoming>, Error>> {
        Box::pin(async move {
            let connected = IntGauge::new("standbys", "standbys").expect("a valid name");
            let standbys =
                Standbys::new(Arc::new(self.clone()), self.source.clone(), connected, None);
            let (_, reports) = mpsc::channel(1);
            let stop = watch::Sender::new(false);
            let sent = standbys.send(query.into(), reports, stop.subscribe()).await;
            let (body, sending) = sent.map_err(|why| Error::Unreachable(format!("{why:?}")))?;
            let incoming: Box<dyn Incoming> = Box::new(Stream {
                body,
                sending: Some(sending),
                taken: self.taken.clone(),
                _stop: stop,
            });
            Ok(incoming)
        })
    }

    fn tell<'a>(&'a self, _: &'a Primary, _: &'a str) -> Doing<'a, Result<(), Error>> {
        Box::pin(async { Err(Error::Unreachable("nobody is told anything".into())) })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Doing<'static, ()> {
        Box::pin(async move { work() })
    }

    fn begin(&self, _: &str, _: Doing<'static, ()>) -> io::Result<Task> {
        Err(io::Error::other("nothing runs beside"))
    }

    fn random(&self) -> u64 {
        7
    }
}

struct Stream {
    body: mpsc::Receiver<Bytes>,
    /// `None` once it has ended.
    sending: Option<Doing<'static, ()>>,
    taken: Arc<AtomicUsize>,
    _stop: watch::Sender<bool>,
}

impl Incoming for Stream {
    /// Returns the next piece no earlier than at the second poll, so that the test can act before.
    fn next(&mut self) -> Doing<'_, Result<Bytes, Error>> {
        let mut is_first = true;
        Box::pin(poll_fn(move |context| {
            if mem::take(&mut is_first) {
                return Poll::Pending;
            }
            if let Some(sending) = &mut self.sending
                && sending.as_mut().poll(context).is_ready()
            {
                self.sending = None;
            }
            self.body.poll_recv(context).map(|piece| {
                self.taken.fetch_add(1, Ordering::Relaxed);
                piece.ok_or_else(|| Error::Ended("it was closed".into()))
            })
        }))
    }
}

/// While a checkpoint is sent, newer ones are written, and no restart needs the journal after the
/// first one any more. The copy does.
#[test]
fn a_copy_completes_although_newer_checkpoints_are_written_meanwhile() {
    let mut engine = open();
    add(&mut engine, 0..1000);
    let first = checkpoint(&mut engine);
    let (near, taken) = {
        let near = Near::new(&engine);
        (Arc::new(near.clone()), near.taken)
    };
    let near: Arc<dyn Outside> = near;
    let primary = Primary {
        address: "http://primary:3000".parse().expect("an address"),
        credentials: Credentials::default(),
    };
    let (disk, settings) = (TestDisk::default(), settings());
    let mut copying = Box::pin(copy(&near, &primary, disk, &settings, || None));
    // The standby has the first piece of the checkpoint, and lacks two at least.
    while taken.load(Ordering::Relaxed) < 2 {
        assert!(poll(&mut copying).is_pending());
    }
    // More than the engine has in memory.
    add(&mut engine, 1000..6500);
    assert!(checkpoint(&mut engine) > first);
    add(&mut engine, 6500..6600);
    checkpoint(&mut engine);

    let mut polls = 0;
    let copied = loop {
        if let Poll::Ready(copied) = poll(&mut copying) {
            break copied;
        }
        polls += 1;
        assert!(polls < 10_000, "the copy does not end");
    };
    copied.expect("the first attempt succeeds");
    assert!(engine.source().oldest() <= first, "it was held");
    // It is held no longer.
    drop(copying);
    add(&mut engine, 6600..6700);
    checkpoint(&mut engine);
    assert!(engine.source().oldest() > first);
}

/// A standby's stream: the sender, and what it has sent.
struct Served {
    sending: Doing<'static, ()>,
    body: mpsc::Receiver<Bytes>,
    frames: wire::Decoder,
    /// The entry before which the standby has everything.
    has: u64,
    /// The newest end that it was told.
    end: JournalEnd,
}

impl Served {
    /// Takes everything that is sent without waiting for a timer. Until the standby has everything
    /// before this entry, it must not be told that it has everything.
    fn take(&mut self, upto: u64) {
        for _ in 0..1000 {
            assert!(poll(&mut self.sending).is_pending());
            let Ok(piece) = self.body.try_recv() else {
                return;
            };
            self.frames.push(&piece);
            while let Some(frame) = self.frames.next().expect("whole frames") {
                match frame {
                    Frame::Group { group, .. } => {
                        assert_eq!(group.first_sequence, self.has);
                        self.has = group.next_sequence();
                    }
                    Frame::End { end, .. } => {
                        let lacks_some = end.next_sequence > self.has;
                        assert!(lacks_some || self.has >= upto, "{end:?}, has {}", self.has);
                        self.end = end;
                    }
                    _ => {}
                }
            }
        }
        panic!("it does not end");
    }
}

/// Whether something is unacknowledged must not slow down a standby that lacks what is
/// acknowledged.
#[test]
fn a_standby_gets_everything_below_its_limit_without_waiting() {
    let mut engine = open();
    add(&mut engine, 0..BATCH * 20);
    let acknowledged = engine.source().end().next_sequence;
    add(&mut engine, BATCH * 20..BATCH * 22);
    let all = engine.source().end().next_sequence;
    // The limit may also lie within a group.
    for limit in [acknowledged, acknowledged + 3] {
        let limits = watch::Sender::new(Limit::of_all(limit));
        let stop = watch::Sender::new(false);
        let (pieces, body) = mpsc::channel(1);
        let sender = Sender {
            outside: Arc::new(Near::new(&engine)),
            source: engine.source(),
            acknowledger: None,
            member: None,
            epoch: Epoch::new(engine.source().store().epoch()),
            limit: Some(limits.subscribe()),
            journal: None,
            pieces,
            stopping: stop.subscribe(),
        };
        let mut served = Served {
            sending: Box::pin(sender.run(Some(1))),
            body,
            frames: wire::Decoder::new(settings().segment_bytes),
            has: 1,
            end: JournalEnd::default(),
        };
        served.take(acknowledged);
        let told = served.end.next_sequence;
        assert_eq!((served.has, told), (acknowledged, acknowledged));
        limits.send_replace(Limit::of_all(u64::MAX));
        served.take(all);
        assert_eq!((served.has, served.end.next_sequence), (all, all));
    }
}
