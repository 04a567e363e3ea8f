//! Whole runs against a real server: open loop, h2, TLS, the search, and the files that are
//! written.

#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests a panic is the failed test"
)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use support::{Double, Lie, Server, load, plan};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional, split},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use widgets_load::{
    Protocol,
    dataset::Dataset,
    report::Report,
    run::{Rate, run},
};

#[track_caller]
fn assert_passed(report: &Report) {
    assert_eq!(report.failures, Vec::<String>::new(), "{report}");
}

#[test]
fn an_open_loop_offers_the_requested_rate() {
    for poisson in [false, true] {
        let report = load(Lie::None, |plan| {
            plan.rate = Rate::PerSecond(500.0);
            plan.poisson = poisson;
            plan.requests = None;
            plan.duration = Duration::from_secs(2);
            plan.warm_up = Duration::from_millis(200);
        });
        assert_passed(&report);
        let stretch = &report.stretches[0];
        let all = stretch.requests + stretch.unsent;
        let expected = if poisson { 800..1200 } else { 1000..1001 };
        assert!(expected.contains(&all), "{all} were due: {report}");
        assert_eq!(stretch.arrivals.offered_per_second, Some(500.0));
        // No request was sent before it was due, the last ones shortly before the end.
        assert!(stretch.seconds > 1.9, "{report}");
        assert!(
            stretch.latency.p50_us >= stretch.service.p50_us * 0.99,
            "{report}"
        );
    }
}

#[test]
fn waiting_for_a_slow_request_counts_as_latency() {
    // One request in fifty is never answered: with one lane, all others wait for those.
    let report = load(Lie::SilentAndApply(50), |plan| {
        plan.session.connections = 1;
        plan.session.timeout = Duration::from_millis(500);
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
        plan.rate = Rate::PerSecond(200.0);
        plan.requests = Some(200);
    });
    assert_passed(&report);
    let stretch = &report.stretches[0];
    // A closed loop would report only 2 % of slow requests (four of two hundred).
    assert!(stretch.latency.p90_us > 50_000.0, "{report}");
    assert!(
        stretch.service.p90_us < stretch.latency.p90_us / 2.0,
        "{report}"
    );
    assert!(stretch.wait.p90_us > 20_000.0, "{report}");
}

/// A connection is given up with the request that it does not answer in time. The next request opens
/// another one, which succeeds at once.
#[test]
fn each_replaced_connection_counts_as_a_reconnect() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let report = load(Lie::SilentAndApply(50), |plan| {
            plan.session.target.protocol = protocol;
            plan.session.connections = 1;
            plan.session.timeout = Duration::from_millis(500);
            plan.session.mix = "add=1".parse().unwrap();
            plan.session.conflicts = 0.0;
            plan.requests = Some(200);
        });
        assert_passed(&report);
        let stretch = &report.stretches[0];
        assert!(stretch.errors >= 3, "{report}");
        // Over HTTP/2 only the stream is given up.
        let given_up = match protocol {
            Protocol::Http1 => stretch.errors,
            Protocol::Http2 => 0,
        };
        // No request may follow the last of these.
        let reconnects = given_up.saturating_sub(1)..=given_up;
        assert!(reconnects.contains(&stretch.reconnects), "{report}");
    }
}

#[test]
fn a_run_over_http2_by_prior_knowledge_shares_its_connections() {
    let server = Server::start(Double::new(Lie::None));
    let (port, accepted) = proxy(server.address, None, Falls::Never);
    let mut plan = plan(&format!("http://127.0.0.1:{port}"));
    plan.session.target.protocol = Protocol::Http2;
    plan.session.connections = 2;
    plan.session.streams = 10;
    plan.session.workers = 2;
    let report = run(plan).unwrap();
    assert_passed(&report);
    assert_eq!(report.stretches[0].requests, 4000);
    // Twenty lanes share two connections. Before the load, the server was checked over another one.
    assert_eq!(accepted.load(Ordering::Relaxed), 3);
}

/// When a proxy falls silent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Falls {
    Never,
    /// Once it has passed on some answers to the second connection. It closes that one, and accepts
    /// the following ones, but reads and sends nothing.
    Silent,
}

/// After how many bytes of answers it falls silent: those of several requests.
const SILENT_AFTER_BYTES: u64 = 8192;

/// Runs a server with its own listener, on a thread of its own, and returns its port.
fn in_background<S>(serve: impl FnOnce(TcpListener) -> S + Send + 'static) -> u16
where
    S: Future<Output = ()>,
{
    let (send_port, port) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            send_port.send(address.port()).unwrap();
            serve(listener).await;
        });
    });
    port.recv().unwrap()
}

/// Starts a proxy in front of `server`, which terminates TLS if there is an acceptor. Returns its
/// port, and how many connections it has accepted.
fn proxy(server: SocketAddr, tls: Option<TlsAcceptor>, falls: Falls) -> (u16, Arc<AtomicUsize>) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    let port = in_background(async move |listener| {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
            tcp.set_nodelay(true).unwrap();
            let tls = tls.clone();
            let passing = async move {
                if falls == Falls::Silent && number > 2 {
                    std::future::pending::<()>().await;
                }
                let mut plain = TcpStream::connect(server).await.unwrap();
                plain.set_nodelay(true).unwrap();
                let Some(acceptor) = tls else {
                    let _ = copy_bidirectional(&mut tcp, &mut plain).await;
                    return;
                };
                // A client that does not trust the certificate closes its connection here.
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                if falls == Falls::Silent && number == 2 {
                    let (mut asked, mut told) = split(tls);
                    let (answers, mut requests) = plain.split();
                    let mut answers = answers.take(SILENT_AFTER_BYTES);
                    tokio::select! {
                        _ = copy(&mut asked, &mut requests) => {}
                        _ = copy(&mut answers, &mut told) => {}
                    }
                } else {
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                }
            };
            tokio::spawn(passing);
        }
    });
    (port, accepted)
}

/// Starts a proxy that terminates TLS in front of `server`, with a certificate for localhost.
/// Returns its port and the certificate.
fn tls_proxy(server: SocketAddr, falls: Falls) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (port, _) = proxy(server, Some(TlsAcceptor::from(Arc::new(config))), falls);
    (port, made.cert.pem())
}

#[test]
fn http1_and_http2_work_over_tls_and_untrusted_certificates_fail() {
    let server = Server::start(Double::new(Lie::None));
    let (port, certificate) = tls_proxy(server.address, Falls::Never);
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certificate).unwrap();
    let tls_plan = || {
        let mut plan = plan(&format!("https://localhost:{port}"));
        plan.requests = Some(500);
        plan
    };
    for (protocol, insecure) in [
        (Protocol::Http1, false),
        (Protocol::Http2, false),
        (Protocol::Http1, true),
    ] {
        let mut plan = tls_plan();
        plan.session.target.protocol = protocol;
        plan.session.target.insecure = insecure;
        plan.session.target.ca = (!insecure).then(|| ca.clone());
        plan.session.run = format!("{protocol:?}.{insecure}");
        let report = run(plan).unwrap();
        assert_passed(&report);
        assert_eq!(report.stretches[0].requests, 500);
    }
    let mut other = tls_plan();
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, stranger.cert.pem()).unwrap();
    other.session.target.ca = Some(ca);
    let refused = run(other).unwrap_err().to_string();
    assert!(refused.contains("TLS with https://localhost"), "{refused}");
}

/// A stopped process looks like this: its system accepts connections, and TLS gets no answer.
#[test]
fn a_run_ends_if_the_server_accepts_connections_and_says_nothing() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::start(Double::new(Lie::None));
        let (port, _) = tls_proxy(server.address, Falls::Silent);
        let mut plan = plan(&format!("https://localhost:{port}"));
        plan.session.target.protocol = protocol;
        plan.session.target.insecure = true;
        plan.session.connections = 1;
        plan.session.timeout = Duration::from_secs(2);
        plan.requests = None;
        plan.duration = Duration::from_mins(1);
        let report = run(plan).unwrap();
        let ended = report.stretches[0].ended_early.clone().unwrap_or_default();
        assert!(
            ended.starts_with("the server cannot be reached: ")
                && ended.contains("no connection within 2s"),
            "{ended}: {report}"
        );
        assert!(report.stretches[0].requests > 0, "{report}");
    }
}

/// Starts a proxy in front of `server` that is gone for `outage` once the audit begins: with the first
/// lookup after this many operations. Returns its port.
fn fails_in_audit(server: SocketAddr, operations: usize, outage: Duration) -> u16 {
    in_background(async move |mut listener| {
        let address = listener.local_addr().unwrap();
        let (seen, fall) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut passing = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = fall.notified() => {
                    drop(listener);
                    passing.shutdown().await;
                    sleep(outage).await;
                    listener = TcpListener::bind(address).await.unwrap();
                    continue;
                }
            };
            let (mut tcp, _) = accepted.unwrap();
            let (seen, fall) = (seen.clone(), fall.clone());
            passing.spawn(async move {
                let mut plain = TcpStream::connect(server).await.unwrap();
                let (mut asked, mut told) = tcp.split();
                let (mut answers, mut requests) = plain.split();
                let mut request = [0; 4096];
                let forward = async {
                    while let Ok(bytes @ 1..) = asked.read(&mut request).await {
                        let request = &request[..bytes];
                        if request.starts_with(b"POST ") {
                            seen.fetch_add(1, Ordering::Relaxed);
                        } else if seen.load(Ordering::Relaxed) >= operations {
                            // Only once.
                            seen.store(0, Ordering::Relaxed);
                            return fall.notify_one();
                        }
                        requests.write_all(request).await.unwrap();
                    }
                };
                tokio::select! {
                    () = forward => {}
                    _ = copy(&mut answers, &mut told) => {}
                }
            });
        }
    })
}

#[test]
fn the_audit_of_a_load_during_a_crash_waits_for_the_server() {
    let server = Server::start(Double::new(Lie::None));
    // For longer than a lookup is repeated.
    let port = fails_in_audit(server.address, 50, Duration::from_secs(3));
    let mut plan = plan(&format!("http://127.0.0.1:{port}"));
    plan.session.connections = 1;
    plan.session.mix = "add=1".parse().unwrap();
    plan.session.conflicts = 0.0;
    plan.session.during_crash = true;
    plan.requests = Some(50);
    let report = run(plan).unwrap();
    assert_passed(&report);
    let audit = report.audit.as_ref().unwrap();
    assert_eq!(
        (audit.unreadable, audit.widgets_checked),
        (0, 50),
        "{report}"
    );
}

#[test]
fn a_search_finds_a_rate_and_draws_its_curve() {
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("report.html");
    let report = load(Lie::None, |plan| {
        plan.requests = None;
        plan.objectives = vec!["p99<2s".parse().unwrap()];
        plan.step = Duration::from_millis(300);
        plan.warm_up = Duration::from_millis(300);
        plan.html = Some(html.clone());
        plan.audit = Some(Some(100));
    });
    assert_passed(&report);
    let search = report.search.as_ref().unwrap();
    assert_eq!(search.held.len(), report.stretches.len());
    assert!(
        search.rate_per_second.is_some_and(|rate| rate > 10.0),
        "{report}"
    );
    assert!(
        report
            .to_string()
            .contains("The highest rate with p99<2s and errors<0.1%"),
        "{report}"
    );
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("Latency over rate") && page.contains("<svg"));
}

#[test]
fn reports_and_logs_are_written_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let report = load(Lie::None, |plan| {
        plan.html = Some(file("report.html"));
        plan.json = Some(file("report.json"));
        plan.hdr = Some(file("report.hlog"));
        plan.labels = vec![("commit".into(), "<abc>".into())];
        plan.fail_if = vec!["p99>0us".parse().unwrap()];
    });
    assert!(
        report.failures[0].starts_with("p99>0s is true: "),
        "{report}"
    );
    let read = Report::read(&file("report.json")).unwrap();
    assert_eq!(read.to_string(), report.to_string());
    let html = std::fs::read_to_string(file("report.html")).unwrap();
    for part in [
        "Rate over time",
        "Latency over time",
        "Distribution",
        "&lt;abc&gt;",
        "Failed",
    ] {
        assert!(html.contains(part), "{part} is not in the page");
    }
    // Each plot is included once for screens and once for phones, because a scaled plot would be
    // unreadable on a phone.
    let count = |part: &str| html.matches(part).count();
    assert_eq!(count("<div class=\"wide\">"), 3);
    assert_eq!(count("<div class=\"narrow\"><svg width=\"360\""), 3);
    assert!(html.contains("width=device-width") && html.contains("@media (max-width: 640px)"));
    for elsewhere in ["http-equiv", "<script", "<link", "src=", "@import"] {
        assert!(!html.contains(elsewhere), "the page needs {elsewhere}");
    }
    let log = std::fs::read(file("report.hlog")).unwrap();
    let entries = hdrhistogram::serialization::interval_log::IntervalLogIterator::new(&log);
    let tags: Vec<String> = entries
        .filter_map(|entry| match entry.unwrap() {
            hdrhistogram::serialization::interval_log::LogEntry::Interval(interval) => {
                Some(interval.tag().unwrap().as_str().to_owned())
            }
            _ => None,
        })
        .collect();
    assert!(tags.iter().any(|tag| tag == "add_widget") && tags.iter().any(|tag| tag == "lookup"));
    std::fs::write(file("report.json"), "5").unwrap();
    let refused = Report::read(&file("report.json")).unwrap_err().to_string();
    assert!(
        refused.contains("expected an object at line 1"),
        "{refused}"
    );
    std::fs::write(file("report.json"), "{}").unwrap();
    let refused = Report::read(&file("report.json")).unwrap_err().to_string();
    assert!(refused.contains("missing field `format`"), "{refused}");
    // An endless file does not exhaust memory.
    let refused = Report::read("/dev/zero".as_ref()).unwrap_err().to_string();
    assert!(
        refused.contains("it must have at most 67108864 bytes"),
        "{refused}"
    );
}

#[test]
fn runs_can_share_a_dataset_and_a_used_part_is_refused() {
    let dataset = Dataset {
        widgets: 1500,
        seed: 9,
        associated: 0.5,
    };
    let server = Server::start(Double::with_dataset(&dataset));
    for part in 0..2 {
        let mut plan = plan(&server.url());
        plan.session.dataset = Some((dataset, (part, 2)));
        plan.session.mix = "remove=1,associate=2,dissociate=2,lookup=5,list=3"
            .parse()
            .unwrap();
        plan.requests = Some(1500);
        let report = run(plan).unwrap();
        assert_passed(&report);
        for kind in [
            "remove_widget",
            "associate_widgets",
            "remove_association",
            "lookup",
            "list",
        ] {
            assert!(
                report.stretches[0].kinds[kind].outcomes["ok"] > 50,
                "{report}"
            );
        }
    }
    // The dataset has changed by now. A run that uses a part again therefore reports that before it
    // sends any load.
    let mut again = plan(&server.url());
    again.session.dataset = Some((dataset, (0, 2)));
    let again = run(again).unwrap_err().to_string();
    assert!(
        again.starts_with("the server does not hold the dataset widgets=1500,seed=9,associated=50% as it was made: of ")
            && again.contains("such as W0")
            && again.contains("--dataset-part"),
        "{again}"
    );
}

#[test]
fn a_different_dataset_of_the_same_size_is_refused() {
    let dataset = |seed, associated| Dataset {
        widgets: 300,
        seed,
        associated,
    };
    let server = Server::start(Double::with_dataset(&dataset(1, 0.5)));
    for other in [dataset(2, 0.5), dataset(1, 0.0)] {
        let mut plan = plan(&server.url());
        plan.session.dataset = Some((other, (0, 1)));
        let refused = run(plan).unwrap_err().to_string();
        assert!(refused.contains("is another dataset"), "{refused}");
    }
}

#[test]
fn a_server_without_the_dataset_is_refused() {
    let server = Server::start(Double::new(Lie::None));
    let mut plan = plan(&server.url());
    let dataset = Dataset {
        widgets: 100,
        seed: 1,
        associated: 0.5,
    };
    plan.session.dataset = Some((dataset, (0, 1)));
    let refused = run(plan).unwrap_err().to_string();
    assert!(
        refused.contains("does not hold the dataset (there is no widget W0000000000)"),
        "{refused}"
    );
}

#[test]
fn unreachable_servers_and_invalid_urls_are_reported_without_passwords() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = run(plan(&format!("http://{free}")))
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("the server cannot be reached: connecting to http://"),
        "{refused}"
    );
    for (url, why) in [
        ("ftp://localhost", "must begin with http:// or https://"),
        ("http://user:pw@localhost", "must not hold a password"),
        ("user:pw@localhost", "must not hold a password"),
        ("http://user:pw@local host", "cannot be read"),
        ("http://localhost/?a=b", "must not have a query"),
    ] {
        let refused = run(plan(url)).unwrap_err().to_string();
        assert!(
            refused.contains(why) && !refused.contains("pw"),
            "{url}: {refused}"
        );
    }
}

#[test]
fn the_audit_gives_up_on_a_server_that_stops_responding() {
    let report = load(Lie::Deaf(100), |plan| {
        plan.session.mix = "add=1".parse().unwrap();
        plan.session.conflicts = 0.0;
        plan.requests = Some(100);
        plan.session.timeout = Duration::from_millis(500);
    });
    let failures = report.failures.join(" ");
    assert!(
        failures.starts_with("No audit: the server has not answered for ")
            && failures.contains("s (no answer within 500ms), nothing is proven"),
        "{failures}"
    );
}

/// Returns the error of a run that must not begin.
fn refused(adjust: impl FnOnce(&mut widgets_load::run::Plan)) -> String {
    let server = Server::start(Double::new(Lie::None));
    let mut plan = plan(&server.url());
    adjust(&mut plan);
    let error = run(plan).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn an_unusable_push_url_or_report_path_is_refused_before_the_load() {
    let error = refused(|plan| plan.push = Some("http://127.0.0.1:1".into()));
    let start = "metrics cannot be pushed to http://127.0.0.1:1: ";
    assert!(error.starts_with(start), "{error}");
    let error = refused(|plan| plan.html = Some("/nowhere/report.html".into()));
    let start = "the report: writing /nowhere/report.html: ";
    assert!(
        error.starts_with(start) && error.contains("Correct the path"),
        "{error}"
    );
}

#[test]
fn an_unwritable_report_fails_the_run_but_keeps_its_results() {
    // A device that is always full.
    let full = || Some("/dev/full".into());
    let report = load(Lie::None, |plan| {
        (plan.json, plan.html, plan.hdr) = (full(), full(), full());
    });
    assert_eq!(report.stretches[0].requests, 4000);
    assert_eq!(report.failures.len(), 3, "{report}");
    for failure in &report.failures {
        assert!(failure.contains("No space left"), "{failure}");
    }
}
