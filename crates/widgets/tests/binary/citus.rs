//! Services in front of a registry that Citus distributes, if Citus is installed.

use crate::{
    asking::answer,
    http_store::HttpStore,
    metrics::{OF_WORKERS, metrics},
    nodes::{Nodes, is_there},
    security::hs256,
    service::{Directory, Service},
};
use serde_json::{Value, json};
use std::time::Duration;
use widgets_conformance::{
    check_distributed,
    commands::{add_widget, serial_number},
};
use widgets_registry::Kinds as _;

const SECRET: &str = "the key of a test, which is long enough";

/// Returns what the service reports to the owner of this token.
fn told(service: &Service, token: &str) -> Option<Value> {
    let (status, body) = answer(service, token, "GET /ready", "");
    assert_eq!(status, 200, "{body}");
    (!body.is_empty()).then(|| serde_json::from_str(&body).expect("JSON"))
}

/// Adds widgets until the service reports this about its nodes: to administrators which are down,
/// and to others how many.
async fn until_told(service: &Service, prefix: &str, nodes: usize, away: &[String]) {
    let store = HttpStore::new(service.address);
    let expected = json!({
        "distributed": true,
        "lists": "of one moment for each shard",
        "neighbourhoods": "of one moment for each shard",
        "changes": "none",
        "nodes": nodes,
        "nodes_away": away.len(),
        "away": away,
    });
    let token = hs256(SECRET, "admin");
    let mut last = None;
    for number in 0..6000 {
        last = told(service, &token);
        if last.as_ref() == Some(&expected) {
            let public = told(service, "").expect("of a cluster");
            assert_eq!(
                (&public["nodes"], &public["away"]),
                (&json!(nodes), &Value::Null)
            );
            return;
        }
        // An operation that involves a node reveals that node's state, whatever the answer is.
        let name = serial_number(&format!("{prefix}{number}"));
        drop(store.submit(add_widget(&name, "", "P")).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{last:?}, and never {expected}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_reports_the_nodes_and_which_are_down() {
    if !is_there() {
        return;
    }
    let mut nodes = Nodes::distributed(2).await;
    let directory = Directory::new("citus");
    let url = nodes.service();
    let arguments = [
        "--store",
        &url,
        "--jwt-secret",
        SECRET,
        "--anonymous-role=anyone",
        "--read-roles=anyone",
        "--write-roles=anyone",
        "--admin-roles=admin,anyone",
    ];
    let service = Service::start(directory.path(), &arguments);
    until_told(&service, "there", 2, &[]).await;
    for name in OF_WORKERS {
        for worker in &nodes.workers {
            let series = format!("{name}{{node=\"127.0.0.1:{}\"}} ", worker.port);
            let text = metrics(&service);
            assert!(text.contains(&series), "{series}: {text}");
        }
    }
    nodes.workers[1].stop("immediate");
    let away = [format!("127.0.0.1:{}", nodes.workers[1].port)];
    until_told(&service, "away", 2, &away).await;
    nodes.workers[1].resume();
    until_told(&service, "back", 2, &[]).await;
    nodes.assert_balanced();
}

/// Two services, over HTTP; the texts of the answers are compared as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_on_a_distributed_registry_pass_the_conformance_suite() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(3).await;
    let directory = Directory::new("citus");
    let url = nodes.service();
    let service = || Service::start(directory.path(), &["--store", &url]);
    let services = [service(), service()];
    let clients = services
        .each_ref()
        .map(|service| HttpStore::new(service.address));
    check_distributed(&clients, "").await;
    drop(services);
    nodes.assert_balanced();
}
