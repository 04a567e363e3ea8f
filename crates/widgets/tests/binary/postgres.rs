//! Two services on one PostgreSQL database, and everything that can be killed is killed under load:
//! every answered operation is there, no refused one is, and every one of unknown fate is there
//! completely or not at all.

use crate::{
    asking::wait_until,
    http_store::{HttpStore, found, settle},
    postgres_server::Server,
    service::{Directory, Service, migrate},
};
use proptest::collection::vec;
use std::{
    collections::BTreeSet,
    path::Path,
    process::Command as Process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use widgets_conformance::{
    Model,
    commands::{commands, few_serial_numbers, sample},
};
use widgets_registry::{Command, Fault, Kinds as _, Rejection, SerialNumber, Store as _};

const WRITERS: usize = 12;
const ROUNDS: u64 = 12;
/// More than a writer can do in a round.
const COMMANDS: usize = 20_000;

/// Widgets that one writer changes: it knows their state after each of its operations.
struct Own {
    writer: usize,
    model: Model,
    used: BTreeSet<SerialNumber>,
    /// The operation without an answer, whose fate is unknown.
    unanswered: Option<Command>,
    answered: usize,
}

impl Own {
    /// Writes until the round ends or an operation's fate is unknown.
    async fn write(&mut self, store: &HttpStore, round: u64, stop: &AtomicBool) {
        let names = few_serial_numbers(&format!("own{}-{}-", self.writer, round / 3), 8);
        self.used.extend(names.iter().cloned());
        let seed = round * WRITERS as u64 + self.writer as u64;
        for command in sample(&vec(commands(names), COMMANDS), seed) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let outcome = match store.submit(command.clone()).await {
                Ok(()) => Ok(()),
                Err(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => Err(refusal),
                Err(Rejection::Fault(Fault::FateUnknown { .. })) => {
                    self.unanswered = Some(command);
                    return;
                }
                Err(Rejection::Fault(Fault::Busy { .. } | Fault::Unavailable { .. })) => {
                    // Nothing was applied, and the database needs a moment.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            };
            assert_eq!(outcome, self.model.apply(&command), "{command:?}");
            self.answered += 1;
        }
        panic!("a writer had too few commands");
    }

    /// Checks that the state is what was answered, with or without the unanswered operation.
    async fn verify(&mut self, store: &HttpStore) {
        let found = found(store, &self.used).await;
        settle(&mut self.model, self.unanswered.take(), &found, self.writer);
    }
}

/// A service, and the name by which the server knows its connections.
struct Named {
    name: String,
    service: Service,
}

fn start(directory: &Path, url: &str, number: usize) -> Named {
    let name = format!("service{number}");
    let url = format!("{url}?application_name={name}");
    let service = Service::start(directory, &["--store", &url]);
    Named { name, service }
}

/// Waits until the service is ready, and returns how long that took.
async fn until_ready(store: &HttpStore) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a test waits for a real server")]
    let start = Instant::now();
    for _ in 0..3000 {
        if store.ready().await.is_ok() {
            return start.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the service does not come back");
}

/// What a killed service had sent may still be running in the database: waits until its connections
/// are gone.
async fn until_quiet(server: &Server, killed: &str) {
    let connections =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{killed}'");
    while server.psql("postgres", &connections) != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the server accepts connections.
fn until_recovered(server: &Server) {
    let asks = || {
        server
            .psql_command("postgres")
            .args(["-c", "SELECT"])
            .output()
    };
    wait_until("the server takes connections", || {
        asks().expect("psql runs").status.success()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_operations_survive_kills_of_services_and_of_postgresql() {
    let directory = Directory::new("postgres");
    let mut server = Server::start(&[]);
    let owner = server.database("registry", "postgres");
    migrate(directory.path(), &owner);
    let url = server.url("registry", "authenticator");
    let mut services = vec![
        start(directory.path(), &url, 1),
        start(directory.path(), &url, 2),
    ];
    let mut started = services.len();
    let mut owns: Vec<Own> = (0..WRITERS)
        .map(|writer| Own {
            writer,
            model: Model::default(),
            used: BTreeSet::new(),
            unanswered: None,
            answered: 0,
        })
        .collect();
    let mut unknown = 0;
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for mut own in owns.drain(..) {
            let service = &services[own.writer % services.len()].service;
            let store = HttpStore::new(service.address);
            let stop = stop.clone();
            writers.push(tokio::spawn(async move {
                own.write(&store, round, &stop).await;
                own
            }));
        }
        tokio::time::sleep(Duration::from_millis(sample(&(150..400u64), round))).await;
        let mut gone = None;
        let mut kill = |named: Named| {
            named.service.kill();
            gone = Some(named.name);
        };
        let killed = match round % 4 {
            // A service; the other one continues.
            0 => {
                kill(services.remove(0));
                "a service"
            }
            // The server's children, one after the other: it recovers on its own.
            1 => {
                for pid in server.backends() {
                    // It may be gone by now.
                    let kill = Process::new("kill").args(["-9", &pid.to_string()]).output();
                    drop(kill.expect("kill runs"));
                }
                until_recovered(&server);
                "the server's children"
            }
            // The server, without notice.
            2 => {
                server.stop("immediate");
                server.resume();
                "the server"
            }
            // A service and the server.
            _ => {
                kill(services.remove(1));
                server.stop("immediate");
                server.resume();
                "a service and the server"
            }
        };
        // The other services continue to write. The time counts from when the database accepts
        // connections again.
        for Named { service, .. } in &services {
            let away = until_ready(&HttpStore::new(service.address)).await;
            println!(
                "killed: {killed}; ready again {} ms after the database",
                away.as_millis()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let own = writer.await.expect("the writer was told what it must be");
            unknown += usize::from(own.unanswered.is_some());
            owns.push(own);
        }
        if let Some(gone) = gone {
            until_quiet(&server, &gone).await;
            started += 1;
            services.push(start(directory.path(), &url, started));
        }
        for (own, named) in owns.iter_mut().zip(services.iter().cycle()) {
            own.verify(&HttpStore::new(named.service.address)).await;
        }
    }
    let answered: usize = owns.iter().map(|own| own.answered).sum();
    // The test is only meaningful if kills hit operations in progress.
    assert!(answered > 1000, "{answered} answers");
    assert!(unknown > 20, "{unknown} operations of unknown fate");
    let broken = "
        SELECT count(*) FROM widgets.slots slot
        WHERE NOT EXISTS (SELECT FROM widgets.widgets WHERE serial_number = slot.widget_sn)
            OR slot.peer_sn IS NOT NULL AND NOT EXISTS (SELECT FROM widgets.slots peer
                WHERE peer.widget_sn = slot.peer_sn AND peer.port = slot.port
                    AND peer.peer_sn = slot.widget_sn)";
    assert_eq!(server.psql("registry", broken), "0", "broken slots");
}
