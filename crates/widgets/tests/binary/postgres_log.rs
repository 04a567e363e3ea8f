//! What the log says about the connections to PostgreSQL: each loss, each return and each reason
//! once.

use crate::{
    asking::{status, wait_until},
    postgres_server::Server,
    replication::metric,
    service::{Directory, Service, migrate, widgets},
};
use std::{collections::BTreeSet, path::Path};

/// Two for operations, one for lookups and four for lists.
const CONNECTIONS: usize = 7;

/// Returns the lines of the log with this text about the permanent connections. The connection for
/// changes is opened only when it is needed.
fn lines(directory: &Path, text: &str) -> Vec<String> {
    let log = Service::log(directory);
    let lines = log.lines().filter(|line| line.contains(text));
    let lines = lines.filter(|line| !line.contains("lane=\"changes\""));
    lines.map(str::to_owned).collect()
}

/// Returns why attempts to connect failed, according to the log.
fn reasons(directory: &Path) -> Vec<String> {
    let lines = lines(directory, "no connection to the database");
    let reason = |line: &String| {
        let (_, rest) = line.split_once(" error=").expect("a reason");
        let (reason, _) = rest.split_once(" lane=").expect("a lane");
        reason.to_owned()
    };
    lines.iter().map(reason).collect()
}

fn assert_each_once(reasons: &[String]) {
    let different: BTreeSet<&String> = reasons.iter().collect();
    assert_eq!(different.len(), reasons.len(), "{reasons:#?}");
}

#[test]
fn a_missing_schema_is_reported_once_and_suggests_migrate() {
    let directory = Directory::new("unmigrated");
    let path = directory.path();
    let mut server = Server::start(&["fsync=off"]);
    let owner = server.database("registry", "postgres");
    let mut serve = widgets(path);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--store", &owner]);
    let output = serve.output().expect("the binary runs");
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.matches("widgets migrate").count(), 1, "{told}");
    assert!(!told.contains("WARN"), "{told}");

    // The server starts after the service, which then has connections of three kinds.
    server.stop("fast");
    let service = Service::start(path, &["--store", &owner]);
    server.resume();
    wait_until("the schema is missed", || {
        !lines(path, "widgets migrate").is_empty()
    });
    migrate(path, &owner);
    wait_until("it is ready", || {
        status(&service, "", "GET /ready", "") == 200
            && status(&service, "", "GET /widgets/A", "") == 404
            && status(&service, "", "GET /widgets?limit=1", "") == 200
    });
    let reasons = reasons(path);
    assert_each_once(&reasons);
    let of_schema = |reason: &&String| reason.contains("widgets migrate");
    assert_eq!(reasons.iter().filter(of_schema).count(), 1, "{reasons:#?}");
}

#[test]
fn each_lost_and_restored_connection_is_logged_once() {
    let directory = Directory::new("reconnects");
    let path = directory.path();
    let mut server = Server::start(&["fsync=off"]);
    migrate(path, &server.database("registry", "postgres"));
    let url = server.url("registry", "authenticator");
    let service = Service::start(path, &["--store", &url]);
    // A connection that the service is still checking cannot be lost yet.
    wait_until("all connections are there", || {
        metric(&service, "widgets_database_connections") >= Some(CONNECTIONS as u64)
    });
    server.stop("fast");
    let lost = "a connection to the database was lost";
    wait_until("all are lost", || lines(path, lost).len() == CONNECTIONS);
    // If the service is just writing when the server closes a connection, the reset discards what
    // the server said last.
    let last_words = [
        "terminating connection due to administrator command (57P01)",
        "connection closed",
    ];
    for line in lines(path, lost) {
        assert!(
            last_words.iter().any(|reason| line.contains(reason)),
            "{line}"
        );
    }
    wait_until("attempts fail", || !reasons(path).is_empty());
    server.resume();
    let again = "connected to the database again";
    wait_until("all are back", || lines(path, again).len() == CONNECTIONS);
    assert_eq!(status(&service, "", "GET /ready", ""), 200);
    assert_eq!(lines(path, lost).len(), CONNECTIONS);
    let reasons = reasons(path);
    assert_each_once(&reasons);
    assert!(
        reasons[0].starts_with("connecting to postgres://"),
        "{reasons:?}"
    );
}
