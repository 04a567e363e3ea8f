//! `kill -9` under load, again and again, on one data directory: every answered operation is there,
//! no refused one is, and every unanswered one is there completely or not at all.

use crate::{
    http_store::{HttpStore, found, settle},
    service::{Directory, Service},
};
use proptest::{collection::vec, prelude::*, strategy::Union};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use widgets_conformance::{
    Model,
    commands::{commands, few_serial_numbers, sample},
    linearizability::{Answer, Call, Clock, Request, check},
};
use widgets_registry::{Command, SerialNumber};

const KILLS: u64 = 50;

const WRITERS: usize = 8;

/// How many commands a writer has ready. The service never lives long enough for all of them.
const COMMANDS: usize = 800;

/// Segments and checkpoints are so small that kills also hit their changes.
const SETTINGS: &[&str] = &[
    "--queue-operations-max",
    "16",
    "--segment-bytes",
    "32768",
    "--checkpoint-journal-bytes",
    "16384",
    // So that segments are deleted once a checkpoint makes them unnecessary, not after three days.
    "--changes-retention-bytes",
    "0",
];

/// Widgets that only one writer changes: it knows their state after each of its operations.
struct Own {
    writer: usize,
    model: Model,
    /// Every serial number that it ever used.
    used: BTreeSet<SerialNumber>,
    /// The operation without an answer, whose fate is unknown.
    unanswered: Option<Command>,
}

/// Widgets that all writers change: some order of their calls must explain every answer.
struct Shared {
    serial_numbers: Vec<SerialNumber>,
    model: Model,
    calls: Vec<Call>,
}

impl Own {
    /// Returns new widgets for this round, and some from an earlier one.
    fn serial_numbers(&self, round: u64) -> Vec<SerialNumber> {
        let of = |round: u64, count: usize| {
            few_serial_numbers(&format!("own{}-{round}-", self.writer), count)
        };
        let numbers = of(round, 8).into_iter().chain(of(round / 2, 4));
        let different: BTreeSet<SerialNumber> = numbers.collect();
        different.into_iter().collect()
    }

    /// Checks that the service's state is what was answered, with or without the unanswered
    /// operation.
    async fn verify(&mut self, store: &HttpStore) {
        let found = found(store, &self.used).await;
        settle(&mut self.model, self.unanswered.take(), &found, self.writer);
    }

    /// Writes until the service is gone. Returns the requests about shared widgets.
    async fn write(
        &mut self,
        store: &HttpStore,
        round: u64,
        shared: &[Vec<SerialNumber>],
        clock: &Clock,
        answered: &AtomicUsize,
    ) -> Vec<(usize, Call)> {
        let own = self.serial_numbers(round);
        self.used.extend(own.iter().cloned());
        let seed = round * WRITERS as u64 + self.writer as u64;
        let of_group = |(group, serial_numbers): (usize, &Vec<SerialNumber>)| {
            commands(serial_numbers.clone()).prop_map(move |command| (Some(group), command))
        };
        let of_groups = Union::new(shared.iter().enumerate().map(of_group));
        let plan = prop_oneof![
            2 => commands(own).prop_map(|command| (None, command)),
            1 => of_groups,
        ];
        let mut calls = Vec::new();
        for (group, command) in sample(&vec(plan, COMMANDS), seed) {
            let Some(call) = clock.call(store, Request::Submit(command.clone())).await else {
                continue; // Busy: nothing was applied.
            };
            let answer = call.answer.clone();
            if let Some(group) = group {
                calls.push((group, call));
            } else if let Some(answer) = &answer {
                let expected = Answer::Decided(self.model.apply(&command));
                assert_eq!(*answer, expected, "{command:?}");
            } else {
                self.unanswered = Some(command);
            }
            if answer.is_none() {
                return calls;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        panic!("the service was not killed in time");
    }
}

impl Shared {
    async fn verify(&mut self, store: &HttpStore, clock: &Clock) {
        let mut widgets = Vec::new();
        for serial_number in &self.serial_numbers {
            let lookup = clock
                .call(store, Request::Lookup(serial_number.clone()))
                .await;
            let lookup = lookup.expect("the store works");
            if let Some(Answer::Found(Some(widget))) = &lookup.answer {
                widgets.push(widget.clone());
            }
            self.calls.push(lookup);
        }
        if let Err(what) = check(&self.model, &self.calls) {
            panic!("{what}");
        }
        self.calls.clear();
        self.model = Model::from_lookups(widgets).expect("associations that both widgets know");
    }
}

/// Compares everything that was ever requested of the store with its present state.
async fn verify(store: &HttpStore, owns: &mut Vec<Own>, shared: &mut [Shared], clock: &Clock) {
    let tasks: Vec<_> = owns
        .drain(..)
        .map(|mut own| {
            let store = store.clone();
            tokio::spawn(async move {
                own.verify(&store).await;
                own
            })
        })
        .collect();
    for task in tasks {
        owns.push(task.await.expect("the writer's widgets are right"));
    }
    for group in shared {
        group.verify(store, clock).await;
    }
}

/// Starts a service and kills it before it listens, during recovery.
fn kill_at_start(directory: &Path, round: u64) {
    let mut child = Service::spawn(directory, SETTINGS);
    std::thread::sleep(Duration::from_micros(sample(&(0..20_000u64), round)));
    child.kill().expect("the process is there");
    child.wait().expect("a process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_operations_survive_fifty_kills() {
    let directory = Directory::new("kill");
    let mut owns: Vec<Own> = (0..WRITERS)
        .map(|writer| Own {
            writer,
            model: Model::default(),
            used: BTreeSet::new(),
            unanswered: None,
        })
        .collect();
    let mut shared: Vec<Shared> = (0..3)
        .map(|group| Shared {
            serial_numbers: few_serial_numbers(&format!("shared{group}-"), 4),
            model: Model::default(),
            calls: Vec::new(),
        })
        .collect();
    let groups: Vec<_> = shared
        .iter()
        .map(|group| group.serial_numbers.clone())
        .collect();
    let (groups, clock) = (Arc::new(groups), Arc::new(Clock::default()));
    let (mut answered_ever, mut unanswered_ever) = (0, 0);
    for round in 0..KILLS {
        if round % 5 == 4 {
            kill_at_start(directory.path(), round);
        }
        let service = Service::start(directory.path(), SETTINGS);
        let store = HttpStore::new(service.address);
        verify(&store, &mut owns, &mut shared, &clock).await;

        let answered = Arc::new(AtomicUsize::new(0));
        let mut writers = Vec::new();
        for mut own in owns.drain(..) {
            let (groups, clock, answered) = (groups.clone(), clock.clone(), answered.clone());
            // Each has its own connection.
            let store = HttpStore::new(service.address);
            writers.push(tokio::spawn(async move {
                let calls = own.write(&store, round, &groups, &clock, &answered).await;
                (own, calls)
            }));
        }
        let (answers, microseconds) = sample(&(0..600usize, 0..2000u64), round);
        while answered.load(Ordering::Relaxed) < answers {
            tokio::time::sleep(Duration::from_micros(100)).await;
            assert!(
                writers.iter().all(|writer| !writer.is_finished()),
                "a writer gave up"
            );
        }
        tokio::time::sleep(Duration::from_micros(microseconds)).await;
        service.kill();
        for writer in writers {
            let (own, calls) = writer.await.expect("the writer was told what it must be");
            unanswered_ever += usize::from(own.unanswered.is_some());
            owns.push(own);
            for (group, call) in calls {
                shared[group].calls.push(call);
            }
        }
        answered_ever += answered.load(Ordering::Relaxed);
    }
    let service = Service::start(directory.path(), SETTINGS);
    verify(
        &HttpStore::new(service.address),
        &mut owns,
        &mut shared,
        &clock,
    )
    .await;

    // The test is only meaningful if kills hit operations in progress, and changes of segments.
    assert!(answered_ever > 1000, "{answered_ever} answers");
    assert!(
        unanswered_ever > 50,
        "{unanswered_ever} operations of unknown fate"
    );
    let files = files(&directory.path().join("widgets-data"));
    assert!(
        files.iter().any(|name| name.starts_with("checkpoint-")),
        "{files:?}"
    );
    // Checkpoints have made the first segments unnecessary.
    assert!(!files.contains("journal-0000000000000003"), "{files:?}");
}

fn files(directory: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(directory).expect("a directory");
    let names = files.map(|file| file.expect("a file").file_name());
    names
        .map(|name| name.into_string().expect("text"))
        .collect()
}
