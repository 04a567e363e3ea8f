//! The commands that ask a running service, as a person or a script uses them.

use crate::{
    asking::wait_until,
    command_line::run,
    service::{Directory, Service, widgets},
    strangers::answering,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use std::{
    cell::RefCell,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::ffi::OsStrExt as _,
    process::Stdio,
    thread,
};

/// Runs one of the commands against a service.
fn ask(directory: &Directory, service: &Service, arguments: &[&str]) -> (i32, String, String) {
    run(widgets(directory.path())
        .env("WIDGETS_URL", service.address.to_string())
        .args(arguments))
}

#[test]
fn the_commands_apply_operations_and_get_shows_the_widget() {
    let directory = Directory::new("ask");
    let service = Service::start(directory.path(), &[]);
    let ask = |arguments: &[&str]| ask(&directory, &service, arguments);
    let done = (0, String::new(), String::new());
    assert_eq!(ask(&["add", "E", "pump", "P", "R", "R"]), done);
    assert_eq!(ask(&["add", "F", "", "RQ"]), done);
    assert_eq!(ask(&["associate", "E", "F", "R"]), done);
    let (code, shown, _) = ask(&["get", "E"]);
    assert_eq!(
        (code, &*shown),
        (
            0,
            "serial number  E\n\
             name           pump\n\
             slot 1         P free\n\
             slot 2         R = F\n\
             slot 3         R free\n"
        )
    );
    let (_, json, _) = ask(&["get", "F", "--json"]);
    assert_eq!(
        json,
        "{\"serial_number\":\"F\",\"name\":\"\",\"slots\":[\
         {\"port\":\"R\",\"peer\":\"E\"},{\"port\":\"Q\",\"peer\":null}]}\n"
    );
    assert_eq!(ask(&["dissociate", "F", "E", "R"]), done);
    assert_eq!(ask(&["remove", "F"]), done);
    let (code, shown, told) = ask(&["get", "F"]);
    assert_eq!(
        (code, &*shown, &*told),
        (
            3,
            "",
            "error: WG001: Widget with serial number F does not exist\n"
        )
    );
}

#[test]
fn the_exit_code_distinguishes_refusal_misuse_and_no_connection() {
    let directory = Directory::new("ask");
    let service = Service::start(directory.path(), &[]);
    let ask = |arguments: &[&str]| ask(&directory, &service, arguments);
    assert_eq!(ask(&["add", "E", "A"]).0, 0);
    let (code, _, told) = ask(&["add", "E", "A"]);
    assert_eq!(code, 3);
    assert!(told.starts_with("error: 23505: duplicate key"), "{told}");
    let (code, _, told) = ask(&["add", "F", "A", "Z"]);
    assert_eq!(code, 3);
    assert!(told.contains("22P02"), "{told}");
    let (code, _, told) = ask(&["get", "\u{1b}[31mnope"]);
    assert_eq!(code, 3);
    assert!(told.contains("\\u{1b}[31mnope"), "{told}");
    assert_eq!(ask(&["add", "E"]).0, 2, "the name is missing");
    assert_eq!(ask(&["get", "E", "--url", "ftp://h"]).0, 2);
    let missing = ["get", "E", "--token-file", "missing"];
    let (code, _, told) = ask(&missing);
    assert_eq!(code, 2);
    assert!(told.contains("the token in missing"), "{told}");
    drop(service);
    let gone = ["remove", "E", "--url", "http://127.0.0.1:9"];
    let (code, _, told) = run(widgets(directory.path()).args(gone));
    assert_eq!(code, 1);
    assert!(told.contains("nobody listens there"), "{told}");
}

#[test]
fn empty_results_and_invalid_arguments_are_reported() {
    let directory = Directory::new("ask");
    let service = Service::start(directory.path(), &[]);
    let ask = |arguments: &[&str]| ask(&directory, &service, arguments);
    let none = (0, String::new(), "no widgets\n".into());
    assert_eq!(ask(&["list"]), none);
    assert_eq!(ask(&["list", "--json"]), (0, String::new(), String::new()));
    assert_eq!(ask(&["add", "E", "pump", "P"]).0, 0);
    assert_eq!(ask(&["add", "F", "valve", "P"]).0, 0);
    for free in ["Z", "p", "PQ"] {
        let (code, shown, told) = ask(&["list", "--free", free]);
        let why = format!(
            "error: 22P02: invalid input value for enum widgets.port_type: \"{free}\"; the port types \
             are P, Q, R\n"
        );
        assert_eq!((code, &*shown, told), (3, "", why));
    }
    for name in ["select", "order", "limit", "offset"] {
        let (code, _, told) = ask(&["list", "--where", &format!("{name}=1")]);
        assert_eq!(code, 2);
        assert!(told.contains(&format!("{name} is not a filter")), "{told}");
    }
    let alone = "SERIAL NUMBER  NAME  SLOTS\nE              pump  P";
    let (_, shown, _) = ask(&["near", "E"]);
    assert_eq!(
        shown,
        format!("{alone}\n\nwidgets within 2 of E: 1; associations: 0\n")
    );
    assert_eq!(ask(&["associate", "E", "F", "P"]).0, 0);
    let (_, shown, _) = ask(&["near", "E", "--widgets-max", "1"]);
    assert!(
        shown.starts_with(&format!("{alone}=F\n")) && shown.contains("there are more"),
        "{shown}"
    );
    drop(service);
    let (code, _, told) = run(widgets(directory.path()).args(["watch", "--since", "yesterday"]));
    assert_eq!(code, 2);
    assert!(
        told.contains("a time such as 2026-11-27T11:00:00Z"),
        "{told}"
    );
}

/// How many changes a busy feed has at most. Only a client that does not end reads all of them.
const CHANGES_MAX: u32 = 50;

/// Starts a service whose changes go on as fast as they are read: every page has two new ones. The
/// newest is the fourth when it is asked for. The first page finds no change that matches the filter,
/// and is not the end.
fn busy_feed() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let after = head[0]
                .split(['?', '&', ' '])
                .find_map(|part| part.strip_prefix("after="));
            let (from, to) = match after {
                Some("now") => (4, 4),
                None => (1, 1),
                Some(position) => {
                    let read = position.rsplit('-').next().expect("a number");
                    let read = read.parse().expect("a number");
                    (read, CHANGES_MAX.min(read + 2))
                }
            };
            let mut page = String::new();
            for number in from + 1..=to {
                let comma = if page.is_empty() { "" } else { "," };
                let _ = write!(
                    page,
                    r#"{comma}{{"position":"6f1c-{number:02}","at":"2026-11-27T11:02:03.000123Z","by":null,"operation":"remove_widget","widget_sn":"E{number}","freed":[]}}"#
                );
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nNext-Position: 6f1c-{to:02}\r\nConnection: close\r\n\r\n[{page}]"
            );
            // A client that has hung up needs no answer.
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    address
}

#[test]
fn watch_without_following_ends_at_the_change_that_was_newest_when_it_began() {
    let directory = Directory::new("ask");
    let url = busy_feed().to_string();
    for (since, shown) in [
        (Some("oldest"), &["E2", "E3", "E4"][..]),
        (Some("6f1c-03"), &["E4"]),
        (None, &[]),
    ] {
        let mut command = widgets(directory.path());
        command.args(["watch", "--no-follow", "--url", &url]);
        command.args(since.map(|since| ["--since", since]).into_iter().flatten());
        let (code, printed, told) = run(&mut command);
        let widgets = printed
            .lines()
            .filter_map(|line| line.split_whitespace().last());
        let widgets: Vec<_> = widgets.collect();
        assert_eq!((code, &*told, &*widgets), (0, "", shown), "{since:?}");
    }
}

/// A port that is not valid must not be taken for a missing one: the request, with its token, would
/// go to port 80 or 443.
#[test]
fn a_url_with_an_invalid_port_is_refused() {
    let directory = Directory::new("ask_port");
    for arguments in [
        &["add", "E", "pump", "--url", "http://127.0.0.1:300000"][..],
        &["watch", "--url", "127.0.0.1:80abc"],
        &["get", "E", "--url", "https://localhost:65536"],
        &["list", "--url", "http://[::1]:"],
        &["promote", "http://127.0.0.1:99999"],
        &["holder", "http://127.0.0.1:0"],
        &["backup", "http://127.0.0.1:99999", "--to", "to"],
        &["load", "http://127.0.0.1:99999"],
        &[
            "restore",
            "file:///none",
            "--data-dir",
            "to",
            "--follow",
            "http://h:0",
        ],
        &["config", "show", "--follow", "http://h:99999"],
    ] {
        let (code, _, told) = run(widgets(directory.path())
            .env("WIDGETS_TOKEN", "secret")
            .args(arguments));
        assert_eq!(code, 2, "{arguments:?}: {told}");
        let said = told.contains("port must be 1 to 65535") || arguments[0] == "config";
        assert!(said, "{arguments:?}: {told}");
    }
}

#[test]
fn a_token_that_is_not_text_is_refused_and_not_left_out() {
    let directory = Directory::new("ask_token");
    let (code, _, told) = run(widgets(directory.path())
        .env("WIDGETS_TOKEN", OsStr::from_bytes(b"secret\xff"))
        .args(["get", "E", "--url", "http://127.0.0.1:1"]));
    assert_eq!(
        (code, &*told),
        (2, "error: the token in WIDGETS_TOKEN is not UTF-8 text\n")
    );
}

#[test]
fn an_answer_of_another_server_is_not_taken_for_success() {
    let directory = Directory::new("ask_other");
    let address =
        answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>");
    let url = format!("http://{address}");
    let listen = address.to_string();
    for (code, arguments) in [
        (4, &["add", "E", "pump", "P", "--url", &url][..]),
        (4, &["promote", &url]),
        (4, &["holder", &url, "--alone"]),
        (1, &["holder", &url]),
        (1, &["get", "E", "--url", &url]),
        (1, &["backup", &url, "--to", "to"]),
        (1, &["health", "--listen", &listen]),
    ] {
        let (found, _, told) = run(widgets(directory.path()).args(arguments));
        assert_eq!(found, code, "{arguments:?}: {told}");
    }
}

#[test]
fn a_measurement_of_nothing_and_a_timeout_of_zero_are_refused() {
    let directory = Directory::new("ask_zero");
    let load = ["load", "http://127.0.0.1:1"];
    for (arguments, why) in [
        (
            &["--duration", "0s"][..],
            "duration must be more than 0, 0s",
        ),
        (&["--requests", "0"], "requests must be more than 0, 0"),
        (
            &["--find-max", "--slo", "p99<1s", "--step", "0s"],
            "step must be more than 0, 0s",
        ),
        (
            &["--json", "one", "--html", "./one"],
            "--html and --json must name different files",
        ),
    ] {
        let (code, _, told) = run(widgets(directory.path()).args(load).args(arguments));
        assert_eq!(code, 2, "{arguments:?}: {told}");
        assert!(told.contains(why), "{told}");
    }
    let timeout = ["get", "E", "--timeout", "0s"];
    let (code, _, told) = run(widgets(directory.path()).args(timeout));
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("the timeout must be at least 1ms"), "{told}");
    let (code, _, told) = run(widgets(directory.path()).args(["manual", "nope"]));
    assert_eq!(code, 2, "{told}");
}

#[test]
fn the_certificate_of_an_authority_in_place_of_the_servers_own_is_explained() {
    let directory = Directory::new("ask_authority");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(directory.path().join("cert.pem"), certificate.pem()).expect("a file");
    fs::write(directory.path().join("key.pem"), key.serialize_pem()).expect("a file");
    let tls = ["--tls-certificate", "cert.pem", "--tls-key", "key.pem"];
    let service = Service::start(directory.path(), &tls);
    let url = format!("https://localhost:{}", service.address.port());
    for arguments in [&["get", "E", "--url", &url][..], &["load", &url]] {
        let (code, _, told) = run(widgets(directory.path())
            .args(arguments)
            .args(["--ca", "cert.pem"]));
        assert_eq!(code, 1, "{told}");
        let is_explained = told.contains("it is that of an authority")
            && told.contains("basicConstraints CA:FALSE")
            && !told.contains("CaUsedAsEndEntity");
        assert!(is_explained, "{told}");
    }
}

/// Nothing is written while there is no change, so no write can show that the reader is gone.
#[test]
fn watch_ends_with_the_reader_of_its_output() {
    const CHANGE: &str = r#"{"position":"6f1c-01","at":"2026-11-27T11:02:03.000123Z","by":null,"operation":"remove_widget","widget_sn":"E1","freed":[]}"#;
    let directory = Directory::new("ask_reader");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        let (mut first, _) = listener.accept().expect("a connection");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nNext-Position: 6f1c-01\r\nConnection: close\r\n\r\n[{CHANGE}]"
        );
        let lines = BufReader::new(&first).lines().map_while(Result::ok);
        let _head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        first.write_all(answer.as_bytes()).expect("sent");
        drop(first);
        // No change follows. The requests for one end with the command.
        for stream in listener.incoming() {
            drop(stream.expect("a connection").read_to_end(&mut Vec::new()));
        }
    });
    let mut child = widgets(directory.path())
        .args(["watch", "--since", "oldest", "--url", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert!(line.ends_with("E1\n"), "{line}");
    drop(out);
    let child = RefCell::new(child);
    let status = || child.borrow_mut().try_wait().expect("a process");
    wait_until("the command ends", || status().is_some());
    assert_eq!(status().and_then(|status| status.code()), Some(0));
}
