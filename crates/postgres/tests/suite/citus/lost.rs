//! Nodes of a distributed registry that are stopped, silent or killed.

use super::sent::{by_worker, reached, until_placed};
use crate::{
    nodes::{Nodes, is_there},
    open, until,
};
use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use widgets_conformance::commands::{add_widget, associate_widgets, serial_number};
use widgets_postgres::{Client, Settings};
use widgets_registry::{
    Ask as _, Command, Kinds as _, Lookup, Pair, Port, Rejection, SerialNumber, Store as _,
};

/// If a worker is stopped, only operations on its widgets fail. The other operations in the same
/// batch do not fail with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_operations_on_a_stopped_worker_fail() {
    if !is_there() {
        return;
    }
    let mut nodes = Nodes::distributed(2).await;
    let store = open(&nodes.service(), Settings::default());
    let client = store.client();
    let (here, there) = (nodes.names_on(0, 12), nodes.names_on(1, 12));
    for name in here.iter().chain(&there).take(18) {
        assert_eq!(client.submit(add_widget(name, "", "PQ")).await, Ok(()));
    }
    nodes.workers[1].stop("immediate");
    // All are submitted at once, so that they are sent together.
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..6 {
        let pairs = [
            (true, &here[2 * number], &here[2 * number + 1]),
            (false, &here[number], &there[number]),
        ];
        for (goes_on, one, two) in pairs {
            let port = if goes_on { Port::P } else { Port::Q };
            let command = associate_widgets(one, two, port);
            let (client, one) = (client.clone(), one.clone());
            asked.spawn(async move {
                let operation = client.submit(command).await;
                let lookup = client.ask(Lookup(one)).await;
                assert!(lookup.is_ok_and(|found| found.is_some()), "a lookup here");
                (goes_on, operation)
            });
        }
    }
    while let Some(answer) = asked.join_next().await {
        match answer.expect("no panic") {
            (true, answer) => assert_eq!(answer, Ok(())),
            (false, Err(Rejection::Fault(fault))) => {
                assert_eq!(fault.code(), "WG504");
                assert!(
                    fault.to_string().contains("a node of the database"),
                    "{fault}"
                );
            }
            (false, other) => panic!("{other:?} of a widget that is away"),
        }
    }
    let away = client.ask(Lookup(there[0].clone())).await;
    assert_eq!(away.map_err(|fault| fault.code()), Err("WG504"));
    assert_eq!(client.ready().await, Ok(()));
    let cluster = nodes.cluster().await.expect("distributed");
    assert!(!cluster.is_sound());
    assert_eq!(cluster.nodes[2].in_doubt, None);

    nodes.workers[1].resume();
    for number in 0..6 {
        let command = associate_widgets(&here[number], &there[number], Port::Q);
        until_known(&client, command, "WG003").await;
    }
    nodes.assert_balanced();
}

/// A worker that does not answer delays the operations that share a batch with its widgets, but
/// only once. It delays nothing after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unresponsive_worker_does_not_block_other_workers() {
    if !is_there() {
        return;
    }
    let nodes = Nodes::distributed(2).await;
    let settings = Settings {
        statement_timeout_ms: 1000,
        connect_timeout_ms: 1000,
        ..Settings::default()
    };
    let store = open(&nodes.service(), settings);
    until_placed(&store, 2).await;
    let client = store.client();
    let (here, there) = (nodes.names_on(0, 40), nodes.names_on(1, 60));
    let mut there = there.iter();
    let mut add_there = || add_widget(there.next().expect("enough names"), "", "P");
    nodes.workers[1].signal("-STOP");
    let mut is_known = false;
    for _ in 0..20 {
        let refused = client.submit(add_there()).await;
        // Refused without an attempt.
        if let Err(Rejection::Fault(fault)) = refused
            && fault.code() == "WG504"
        {
            is_known = true;
            break;
        }
    }
    assert!(
        is_known,
        "the store does not notice that the worker is unreachable"
    );
    for name in &here[..20] {
        let both = tokio::join!(
            client.submit(add_there()),
            client.submit(add_widget(name, "", "P"))
        );
        assert!(matches!(both.0, Err(Rejection::Fault(_))), "{:?}", both.0);
        assert_eq!(both.1, Ok(()));
        let found = client.ask(Lookup(name.clone())).await;
        assert!(found.is_ok_and(|found| found.is_some()), "{name:?}");
    }
    assert_eq!(client.ready().await, Ok(()));
    nodes.workers[1].signal("-CONT");
    until_known(&client, add_there(), "23505").await;
    nodes.assert_balanced();
}

/// What a caller knows about its own widgets.
#[derive(Default)]
struct Told {
    added: Vec<String>,
    associated: Vec<(String, String)>,
}

/// Adds pairs of widgets and associates them until it is told to stop. Looks up everything that is
/// acknowledged at once. A refusal is allowed only if an attempt of this caller may be the cause.
async fn add_and_associate(client: Client, caller: usize, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let names = ["a", "b"].map(|which| format!("{which}{caller}-{number}"));
        let [one, two] = names.each_ref().map(|name| serial_number(name));
        let mut is_whole = true;
        for (name, widget) in names.iter().zip([&one, &two]) {
            if until_known(&client, add_widget(widget, "", "P"), "23505").await {
                told.added.push(name.clone());
                shown(&client, widget, |_| true).await;
            } else {
                is_whole = false;
            }
        }
        let pair = Pair::new(one.clone(), two.clone(), Port::P).expect("two");
        let associate = Command::AssociateWidgets(pair);
        if is_whole && until_known(&client, associate, "WG003").await {
            told.associated.push(names.into());
            for (widget, peer) in [(&one, &two), (&two, &one)] {
                shown(&client, widget, |slot| slot == Some(peer)).await;
            }
        }
    }
    told
}

/// Sends a command until its fate is known, and returns whether it was acknowledged. The only
/// possible cause of a refusal is an earlier attempt of unknown fate.
async fn until_known(client: &Client, command: Command, done_before: &str) -> bool {
    let mut may_be_done = false;
    loop {
        match client.submit(command.clone()).await {
            Ok(()) => return true,
            Err(Rejection::Fault(fault)) => may_be_done |= fault.code() == "WG505",
            Err(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => {
                assert!(
                    may_be_done && refusal.code() == done_before,
                    "{command:?}: {refusal}"
                );
                return false;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Checks that a lookup after an acknowledgement shows what was acknowledged, or reports that the
/// node is lost.
async fn shown(
    client: &Client,
    widget: &SerialNumber,
    is_right: impl Fn(Option<&SerialNumber>) -> bool,
) {
    if let Ok(found) = client.ask(Lookup(widget.clone())).await {
        let found = found.unwrap_or_else(|| panic!("{widget:?} was added"));
        let peer = found.slots.first().and_then(|slot| slot.peer.as_ref());
        assert!(is_right(peer), "{widget:?} has the peer {peer:?}");
    }
}

/// Checks, until it is told to stop, that the store is always ready.
async fn stay_ready(client: Client, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(client.ready().await, Ok(()), "a worker is not the registry");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Four workers are killed under load again and again. What was acknowledged is there at once and
/// at the end, with both halves. Operations on the other workers continue meanwhile, and the
/// service stays ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_workers_lose_no_acknowledged_operation() {
    const KILLS: usize = 20;
    const CALLERS: usize = 48;
    if !is_there() {
        return;
    }
    let mut nodes = Nodes::distributed_with(4, "fsync=on").await;
    let store = open(&nodes.service(), by_worker());
    until_placed(&store, 4).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(stay_ready(store.client(), stop.clone()));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(add_and_associate(store.client(), caller, stop.clone()));
    }
    for kill in 0..KILLS {
        // Long enough that something is always in progress, and never at the same stage.
        tokio::time::sleep(Duration::from_millis(100 + 37 * (kill as u64 % 7))).await;
        let worker = &mut nodes.workers[kill % 4];
        tokio::task::block_in_place(|| {
            worker.stop("kill");
            worker.resume();
        });
    }
    stop.store(true, Ordering::Relaxed);
    watching.await.expect("it was ready all the time");
    let mut all = Told::default();
    while let Some(told) = callers.join_next().await {
        let told = told.expect("a caller that nothing contradicted");
        all.added.extend(told.added);
        all.associated.extend(told.associated);
    }
    assert!(
        all.associated.len() > KILLS,
        "{} associations",
        all.associated.len()
    );
    assert_eq!(reached(&store, "widgets_node_batches_total"), 4);
    // The coordinator resolves the transactions that were in doubt.
    for worker in &nodes.workers {
        until(worker, "SELECT count(*) FROM pg_prepared_xacts", "0").await;
    }
    nodes.assert_balanced();
    let client = store.client();
    for name in &all.added {
        let found = client.ask(Lookup(serial_number(name))).await;
        assert!(
            found.expect("an answer").is_some(),
            "{name} was acknowledged"
        );
    }
    for (one, two) in &all.associated {
        let found = client
            .ask(Lookup(serial_number(one)))
            .await
            .expect("an answer");
        let peer = found.and_then(|widget| widget.slots[0].peer.clone());
        assert_eq!(peer, Some(serial_number(two)), "{one} was associated");
    }
    drop(writeln!(
        io::stderr(),
        "{KILLS} kills: {} additions and {} associations were acknowledged, none is lost",
        all.added.len(),
        all.associated.len()
    ));
}
