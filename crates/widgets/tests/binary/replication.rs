//! Standbys: two real processes, one of which follows the other.

use crate::{
    asking::{answer, ask, connect, outcome, wait_for_log, wait_until},
    security::{Authority, TLS, hs256, hs256_of},
    service::{Directory, Service, Signal, widgets},
    strangers::answering,
};
use std::{
    io::{Read as _, Write as _},
    path::Path,
};
use widgets_clock::{Clock as _, SystemClock};

const SECRET: &str = "a secret of the tests, longer than 32 bytes";

/// Segments and checkpoints so small that a copy has both.
const SMALL: &[&str] = &[
    "--queue-operations-max",
    "16",
    "--segment-bytes",
    "65536",
    "--checkpoint-journal-bytes",
    "32768",
];

pub(crate) fn start(directory: &Path, more: &[&str]) -> Service {
    Service::start(directory, &[SMALL, more].concat())
}

pub(crate) fn url(service: &Service) -> String {
    format!("http://{}", service.address)
}

pub(crate) fn add(service: &Service, serial_number: &str) {
    let answer = answer_to_add(service, serial_number);
    assert_eq!(answer, (204, String::new()), "{serial_number}");
}

/// Adds a widget and returns the answer.
pub(crate) fn answer_to_add(service: &Service, serial_number: &str) -> (u16, String) {
    let name = "n".repeat(500);
    let body =
        format!(r#"{{"widget_sn":"{serial_number}","widget_name":"{name}","slots":["P","P"]}}"#);
    let line = "POST /rpc/add_widget";
    let json = "Content-Type: application/json\r\n";
    ask(&mut connect(service), line, json, &body)
}

pub(crate) fn get(service: &Service, path: &str) -> (u16, String) {
    answer(service, "", &format!("GET {path}"), "")
}

/// Returns the position after the newest entry of the store's journal.
pub(crate) fn position(service: &Service) -> String {
    let mut stream = connect(service);
    let request = "GET /widgets/none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("position: "));
    line.expect("a store with a feed says it").to_owned()
}

/// Waits until the primary has written the seal that follows when no requests arrive, and the
/// standby has it: then the primary writes nothing more.
pub(crate) fn settle(primary: &Service, standby: &Service) {
    wait_until("sealed and copied", || {
        let now = position(primary);
        let is_change = get(primary, "/changes").1.contains(&now);
        !is_change && now == position(standby)
    });
}

pub(crate) fn has(service: &Service, serial_number: &str) -> bool {
    get(service, &format!("/widgets/{serial_number}")).0 == 200
}

pub(crate) fn metric(service: &Service, name: &str) -> Option<u64> {
    let text = get(service, "/metrics").1;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")))?;
    line.parse().ok()
}

/// Checks that both answer every kind of read alike.
fn assert_alike(primary: &Service, standby: &Service) {
    for path in [
        "/widgets?limit=1000",
        "/slots?peer_sn=is.null&limit=1000",
        "/widgets/w0",
        "/widgets/w0/neighbourhood",
        "/changes?operation=eq.associate_widgets",
    ] {
        let (one, other) = (get(primary, path), get(standby, path));
        assert!(
            one.0 == 200 && one == other,
            "{path}: {} and {}",
            one.0,
            other.0
        );
    }
}

#[test]
fn a_standby_copies_and_follows_its_primary_and_serves_reads() {
    let (first, second) = (Directory::new("primary"), Directory::new("standby"));
    let primary = start(first.path(), &[]);
    for number in 0..120 {
        add(&primary, &format!("w{number}"));
    }
    let data = first.path().join("widgets-data");
    wait_until("a checkpoint", || {
        let names = std::fs::read_dir(&data).expect("a directory");
        names.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("checkpoint-") && !name.ends_with("_unfinished")
        })
    });
    let address = url(&primary);
    let standby = start(second.path(), &["--follow", &address]);
    assert!(
        standby.printed.contains(&format!("follows {address}\n")),
        "{}",
        standby.printed
    );
    // It was copied before it listened.
    assert_alike(&primary, &standby);
    let associate = r#"{"widget1_sn":"w0","widget2_sn":"w1","port":"P"}"#;
    let json = "Content-Type: application/json\r\n";
    let line = "POST /rpc/associate_widgets";
    assert_eq!(ask(&mut connect(&primary), line, json, associate).0, 204);
    add(&primary, "later");
    wait_until("what came later", || has(&standby, "later"));
    assert_alike(&primary, &standby);

    let (status, refused) = ask(&mut connect(&standby), line, json, associate);
    assert_eq!(status, 503);
    assert!(refused.contains(r#""code":"WG507""#), "{refused}");
    assert!(
        refused.contains(&format!(r#""details":"{address}""#)),
        "{refused}"
    );

    wait_until("it follows", || get(&standby, "/ready").0 == 200);
    assert_eq!(get(&primary, "/ready?role=primary").0, 200);
    let (status, told) = get(&standby, "/ready?role=primary");
    assert!(status == 503 && told.contains("WG507"), "{status} {told}");
    assert_eq!(metric(&primary, "widgets_replication_standbys"), Some(1));
    assert_eq!(metric(&primary, "widgets_replication_follows"), Some(0));
    assert_eq!(metric(&standby, "widgets_replication_follows"), Some(1));
    assert_eq!(metric(&standby, "widgets_replication_connected"), Some(1));

    // A killed standby continues after a restart. Without its primary, it serves the data that it
    // has.
    standby.kill();
    add(&primary, "meanwhile");
    let standby = start(second.path(), &["--follow", &address]);
    wait_until("what came meanwhile", || has(&standby, "meanwhile"));
    let listen = primary.address.to_string();
    primary.kill();
    wait_until("the loss of the primary is noticed", || {
        metric(&standby, "widgets_replication_connected") == Some(0)
    });
    assert!(has(&standby, "meanwhile"));
    let primary = start(first.path(), &["--listen", &listen]);
    add(&primary, "again");
    wait_until("it follows again", || has(&standby, "again"));
    assert_alike(&primary, &standby);
    standby.signal(Signal::TERM);
    assert!(standby.wait().success());
    primary.signal(Signal::TERM);
    assert!(primary.wait().success());
}

#[test]
fn a_data_directory_cannot_change_its_role_or_store() {
    let (first, second) = (
        Directory::new("primary_role"),
        Directory::new("standby_role"),
    );
    let primary = start(first.path(), &[]);
    let address = url(&primary);
    // A directory with a primary's store cannot become a standby's.
    let fails = |directory: &Path, arguments: &[&str]| {
        let mut command = widgets(directory);
        let command = command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments);
        let (code, told) = outcome(command);
        assert_eq!(code, Some(1), "{told}");
        told
    };
    let other = Directory::new("other_role");
    drop(start(other.path(), &[]));
    let told = fails(other.path(), &["--follow", &address]);
    assert!(told.contains("has a store that is not a standby"), "{told}");
    // A standby's directory stays a standby's, and no other command writes to it.
    drop(start(second.path(), &["--follow", &address]));
    let standby = start(second.path(), &[]);
    let follows = format!("follows {address}\n");
    assert!(standby.printed.contains(&follows), "it is still a standby");
    drop(standby);
    let mut generate = widgets(second.path());
    generate.args(["generate", "--widgets", "10", "--data-dir", "widgets-data"]);
    let (code, told) = outcome(&mut generate);
    assert_eq!(code, Some(1));
    assert!(told.contains("belongs to a standby"), "{told}");
    // Nor can a standby of one store follow the primary of another.
    let another = start(other.path(), &[]);
    let standby = start(second.path(), &["--follow", &url(&another)]);
    wait_for_log(second.path(), "the standby is a copy of store");
    drop(standby);
}

#[test]
fn an_interrupted_initial_copy_of_a_standby_is_restarted() {
    let (first, second) = (
        Directory::new("primary_begun"),
        Directory::new("standby_begun"),
    );
    let primary = start(first.path(), &[]);
    add(&primary, "w0");
    let data = second.path().join("widgets-data");
    std::fs::create_dir(&data).expect("made");
    for left in ["restore_unfinished", "journal-0000000000000001_unfinished"] {
        std::fs::write(data.join(left), "").expect("written");
    }
    let standby = start(second.path(), &["--follow", &url(&primary)]);
    assert_alike(&primary, &standby);
}

#[test]
fn replication_requires_an_admin_token() {
    let (first, second) = (
        Directory::new("primary_admin"),
        Directory::new("standby_admin"),
    );
    let roles = [
        "--jwt-secret",
        SECRET,
        "--admin-roles",
        "admin",
        "--read-roles",
        "reader",
        "--write-roles",
        "writer",
    ];
    let primary = start(first.path(), &roles);
    let line = "GET /replication?from=copy";
    assert_eq!(answer(&primary, "", line, "").0, 401);
    for role in ["reader", "writer"] {
        let (status, told) = answer(&primary, &hs256(SECRET, role), line, "");
        assert_eq!(status, 403, "{told}");
        assert!(told.contains("42501"), "{told}");
    }
    let (status, told) = answer(
        &primary,
        &hs256(SECRET, "admin"),
        "GET /replication?from=x",
        "",
    );
    assert!(
        status == 400 && told.contains("PGRST100"),
        "{status} {told}"
    );
    let token = second.path().join("token");
    std::fs::write(&token, hs256(SECRET, "admin")).expect("written");
    let token = token.to_str().expect("text");
    let address = url(&primary);
    let follow = ["--follow", &address, "--replication-token-file", token];
    let standby = start(second.path(), &[&roles[..], &follow].concat());
    assert_eq!(
        answer(&standby, &hs256(SECRET, "reader"), "GET /widgets", "").0,
        200
    );
}

/// The stream contains the whole store, so it must end with the token: its owner may no longer be
/// an administrator.
#[test]
fn replication_stops_when_the_token_of_the_standby_expires() {
    let (first, second) = (
        Directory::new("primary_token"),
        Directory::new("standby_token"),
    );
    let primary = start(first.path(), &["--jwt-secret", SECRET]);
    // Clocks may differ by half a minute, of which a third is left.
    let expires = SystemClock::new().unix_seconds() - 20;
    let ends = hs256_of(SECRET, &format!(r#"{{"role":"admin","exp":{expires}}}"#));
    let token = second.path().join("token");
    std::fs::write(&token, ends).expect("written");
    let text = token.to_str().expect("text");
    let follow = [
        "--jwt-secret",
        SECRET,
        "--follow",
        &url(&primary),
        "--replication-token-file",
        text,
    ];
    let standby = start(second.path(), &follow);
    wait_for_log(second.path(), "the primary answers 401");
    let admin = hs256(SECRET, "admin");
    let body = r#"{"widget_sn":"E","widget_name":"","slots":[]}"#;
    let line = "POST /rpc/add_widget";
    assert_eq!(answer(&primary, &admin, line, body).0, 204);
    assert_eq!(answer(&standby, &admin, "GET /widgets/E", "").0, 404);
    std::fs::write(&token, &admin).expect("written");
    wait_until("it follows again", || {
        answer(&standby, &admin, "GET /widgets/E", "").0 == 200
    });
}

/// Otherwise a false primary could fill the standby's disk.
#[test]
fn a_standby_refuses_a_checkpoint_too_large_for_its_disk() {
    let (first, second) = (
        Directory::new("primary_room"),
        Directory::new("standby_room"),
    );
    let primary = start(first.path(), &[]);
    let mut stream = connect(&primary);
    let request = "GET /replication?from=copy HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    // Reads the real stream's header, and the page that says which store it is.
    let mut sent = Vec::new();
    let (mut byte, page) = ([0], 5 + 4096);
    while !sent.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        sent.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&sent).to_lowercase();
    assert!(!head.contains("chunked"), "{head}");
    let mut store = vec![0; page];
    stream.read_exact(&mut store).expect("the page");
    let disk = rustix::fs::statvfs(second.path()).expect("a disk");
    let free = disk.f_bavail * disk.f_frsize;
    // The second checkpoint would fit, but would leave too little space for the next one.
    for (number, bytes) in [1 << 60, free / 4 * 3].into_iter().enumerate() {
        let checkpoint = [
            &[2, 16, 0, 0, 0][..],
            &1_u64.to_le_bytes(),
            &bytes.to_le_bytes(),
        ];
        let answer = [
            &b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.widgets.replication-1\r\nConnection: close\r\n\r\n"[..],
            &store,
            &checkpoint.concat(),
        ];
        let address = answering(answer.concat().leak());
        let follow = format!("http://{address}");
        let data = second.path().join(format!("data{number}"));
        let mut serve = widgets(second.path());
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        serve.arg(&data).args(["--follow", &follow]);
        let log = second.path().join(format!("log{number}"));
        let file = std::fs::File::create(&log).expect("made");
        let mut standby = serve.stderr(file).spawn().expect("the binary runs");
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        wait_until("the missing space is reported", || {
            told().contains("the disk has room for")
        });
        standby.kill().expect("killed");
        standby.wait().expect("ended");
    }
}

#[test]
fn replication_over_mutual_tls_requires_a_client_certificate() {
    let (first, second) = (Directory::new("primary_tls"), Directory::new("standby_tls"));
    let authority = Authority::new(first.path());
    authority.issue();
    for name in ["ca.pem", "certificate.pem", "key.pem"] {
        std::fs::copy(first.path().join(name), second.path().join(name)).expect("copied");
    }
    let primary = start(
        first.path(),
        &[&TLS[..], &["--tls-client-ca", "ca.pem"]].concat(),
    );
    let address = format!("https://localhost:{}", primary.address.port());
    let follow = [
        "--follow",
        &address,
        "--replication-ca",
        "ca.pem",
        "--replication-certificate",
        "certificate.pem",
        "--replication-key",
        "key.pem",
    ];
    let standby = start(second.path(), &follow);
    wait_until("it follows", || get(&standby, "/ready").0 == 200);
    // Without a certificate it is not admitted, and says so.
    let third = Directory::new("standby_no_certificate");
    std::fs::copy(first.path().join("ca.pem"), third.path().join("ca.pem")).expect("copied");
    let mut refused = Service::spawn(third.path(), &follow[..4]);
    wait_for_log(third.path(), "could not be copied; trying again");
    refused.kill().expect("it waits");
    refused.wait().expect("a process");
}

pub(crate) fn promote(directory: &Path, standby: &Service) -> (Option<i32>, String) {
    outcome(widgets(directory).args(["promote", &url(standby)]))
}

/// A store keeps addresses in a page of a fixed size.
#[test]
fn an_address_too_long_to_be_stored_is_refused() {
    let directory = Directory::new("long_address");
    let service = start(directory.path(), &[]);
    let long = format!("http://{}", "a".repeat(15_000 - 7));
    let line = format!("POST /replication/promote?address={long}");
    let (status, told) = answer(&service, "", &line, "");
    assert_eq!(status, 400, "{told}");
    let limit = "it has 15000 bytes, and a store remembers at most 1024";
    assert!(told.contains(limit), "{told}");
    let (code, told) = outcome(widgets(directory.path()).args(["serve", "--follow", &long]));
    assert_eq!(code, Some(2), "{told}");
    let named = format!("replication.follow: {limit}");
    assert!(told.contains(&named), "{told}");
}

/// With a misspelt `within_ms` a switchover would be a promotion, which loses what the primary has
/// acknowledged and not yet sent.
#[test]
fn a_change_of_roles_with_an_unknown_parameter_is_refused() {
    let (first, second) = (
        Directory::new("misspelt"),
        Directory::new("misspelt_standby"),
    );
    let primary = start(first.path(), &[]);
    let standby = start(second.path(), &["--follow", &url(&primary)]);
    settle(&primary, &standby);
    for (query, why) in [
        (
            "promote?address=http://h&within=5000",
            "\\\"within\\\" is unknown",
        ),
        (
            "promote?address=http://h&force=True",
            "force must be true or false",
        ),
        ("holder?membr=alone", "\\\"membr\\\" is unknown"),
    ] {
        let line = format!("POST /replication/{query}");
        let (status, told) = answer(&standby, "", &line, "");
        assert_eq!(status, 400, "{told}");
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(get(&standby, "/ready?role=primary").0, 503);
}

/// The primary's machine is lost. When it returns, it steps down as soon as it can be reached.
#[test]
fn a_promoted_standby_takes_writes_and_the_old_primary_follows_it() {
    let (first, second) = (Directory::new("primary_gone"), Directory::new("promoted"));
    let primary = start(first.path(), &[]);
    let (listen, address) = (primary.address.to_string(), url(&primary));
    add(&primary, "before");
    let standby = start(second.path(), &["--follow", &address]);
    add(&primary, "copied");
    settle(&primary, &standby);
    assert!(has(&standby, "copied"));
    primary.kill();
    let (code, told) = promote(second.path(), &standby);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("is the primary now, in epoch"), "{told}");
    assert_eq!(get(&standby, "/ready?role=primary").0, 200);
    add(&standby, "promoted");
    let (code, told) = promote(second.path(), &standby);
    assert!(
        code == Some(0) && told.contains("was the primary already"),
        "{told}"
    );
    // A position says in which epoch of the store something happened.
    let changes = get(&standby, "/changes").1;
    assert!(
        changes.contains(r#"-00000001-"#) && changes.contains(r#"-0001"#),
        "{changes}"
    );

    // Its configuration still names the previous primary.
    let at = standby.address.to_string();
    standby.kill();
    let standby = start(second.path(), &["--follow", &address, "--listen", &at]);
    add(&standby, "restarted");

    let primary = start(first.path(), &["--listen", &listen]);
    wait_for_log(first.path(), "this primary was replaced");
    wait_until("it takes no operations", || {
        let (status, told) = get(&primary, "/ready?role=primary");
        status == 503 && told.contains("WG507") && told.contains(&url(&standby))
    });
    wait_until("it follows", || has(&primary, "restarted"));
    assert!(has(&primary, "promoted"), "it has what came meanwhile");
    add(&standby, "both");
    wait_until("it continues to follow", || has(&primary, "both"));
    // It stays a standby after a restart, although no flag says so.
    primary.kill();
    let primary = start(first.path(), &["--listen", &listen]);
    assert_eq!(get(&primary, "/ready?role=primary").0, 503);
    add(&standby, "again");
    wait_until("it follows", || has(&primary, "again"));
    let (one, other) = (get(&standby, "/widgets"), get(&primary, "/widgets"));
    assert!(one.0 == 200 && one == other, "both have the same widgets");
}

/// The old primary has an entry that the promoted standby never received, so it cannot follow that
/// standby. Its log says so.
#[test]
fn an_old_primary_with_a_diverged_history_does_not_follow_and_logs_it() {
    let (first, second) = (
        Directory::new("primary_parted"),
        Directory::new("promoted_parted"),
    );
    let primary = start(first.path(), &[]);
    let (listen, address) = (primary.address.to_string(), url(&primary));
    add(&primary, "copied");
    let standby = start(second.path(), &["--follow", &address]);
    wait_until("it was copied", || has(&standby, "copied"));
    standby.kill();
    add(&primary, "lost");
    primary.kill();
    let standby = start(second.path(), &["--follow", &address]);
    assert_eq!(promote(second.path(), &standby).0, Some(0));
    add(&standby, "kept");
    let primary = start(first.path(), &["--listen", &listen]);
    wait_for_log(first.path(), "the primary cannot be followed; trying again");
    let log = Service::log(first.path());
    assert!(log.contains("this store's history before entry"), "{log}");
    assert!(!has(&primary, "kept"));
    assert!(!has(&standby, "lost"));
}

/// Returns the status and the body of a read after a position, and whether it says when to try
/// again.
fn read_after(service: &Service, path: &str, position: &str) -> (u16, String, bool) {
    let mut stream = connect(service);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nRead-After: {position}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    let again = head.contains("\r\nretry-after: 1\r\n");
    (status.expect("a status"), body.to_owned(), again)
}

/// Returns a position whose sequence number is higher by `more`.
fn later(position: &str, more: u64) -> String {
    let (front, sequence) = position.rsplit_once('-').expect("a position");
    let sequence = u64::from_str_radix(sequence, 16).expect("a number");
    format!("{front}-{:016x}", sequence + more)
}

/// A client that sends the position of an answer sees what the answer was based on, at the standby
/// as well.
#[test]
fn a_standby_waits_for_the_position_in_the_read_after_header() {
    let (first, second) = (
        Directory::new("primary_read_after"),
        Directory::new("standby_read_after"),
    );
    let primary = start(first.path(), &[]);
    let address = url(&primary);
    // The timeout is so long that only the arrival of an entry ends a wait within this test.
    let follow = ["--follow", &address, "--read-timeout-ms", "600000"];
    let standby = start(second.path(), &follow);
    for number in 0..30 {
        let name = format!("w{number}");
        add(&primary, &name);
        let added = position(&primary);
        let path = match number % 3 {
            0 => format!("/widgets/{name}"),
            1 => format!("/widgets?serial_number=eq.{name}"),
            _ => format!("/changes?widget_sn=eq.{name}"),
        };
        let (status, body, _) = read_after(&standby, &path, &added);
        assert!(
            status == 200 && body.contains(&name),
            "{path}: {status} {body}"
        );
    }
    // It waits for an entry that is not there yet. The next entry is the next operation.
    settle(&primary, &standby);
    let next = later(&position(&primary), 1);
    std::thread::scope(|scope| {
        let waits = ["/widgets/next", "/widgets/next/neighbourhood"]
            .map(|path| scope.spawn(|| read_after(&standby, path, &next)));
        add(&primary, "next");
        for wait in waits {
            let (status, body, _) = wait.join().expect("an answer");
            assert!(status == 200 && body.contains("next"), "{status} {body}");
        }
    });
    let (status, body, _) = read_after(&primary, "/widgets/next", &later(&next, 9));
    assert!(status == 410 && body.contains("WG410"), "{status} {body}");
    let other = format!("0{}", &next[1..]);
    let other = if other == next {
        format!("1{}", &next[1..])
    } else {
        other
    };
    let (status, body, _) = read_after(&standby, "/widgets/next", &other);
    assert!(status == 410 && body.contains("WG410"), "{status} {body}");
    let (status, body, _) = read_after(&standby, "/widgets/next", "next");
    assert!(
        status == 400 && body.contains("PGRST100"),
        "{status} {body}"
    );

    // The wait has a timeout. A read after a position that the standby already has does not wait.
    settle(&primary, &standby);
    let newest = position(&standby);
    standby.kill();
    let follow = ["--follow", &address, "--read-timeout-ms", "50"];
    let standby = start(second.path(), &follow);
    let (status, body, again) = read_after(&standby, "/widgets/next", &later(&newest, 9));
    assert!(
        status == 503 && body.contains("WG503") && body.contains("http.read_timeout_ms = 50"),
        "{status} {body}"
    );
    assert!(again, "it says when to try again");
    assert_eq!(read_after(&standby, "/widgets/next", &newest).0, 200);
}

/// A shutdown ends the journal with a seal, which the standby no longer receives.
#[test]
fn a_cleanly_stopped_primary_follows_the_promoted_standby() {
    for attempt in 0..20 {
        let (first, second) = (
            Directory::new(&format!("stopped_{attempt}")),
            Directory::new(&format!("goes_on_{attempt}")),
        );
        let primary = start(first.path(), &[]);
        let (listen, address) = (primary.address.to_string(), url(&primary));
        let standby = start(second.path(), &["--follow", &address]);
        add(&primary, "copied");
        wait_until("it was copied", || has(&standby, "copied"));
        standby.kill();
        primary.signal(Signal::TERM);
        assert!(primary.wait().success());
        let standby = start(second.path(), &["--follow", &address]);
        // On a slow machine the standby may have received the seal already.
        if !get(&standby, "/changes").1.contains(&position(&standby)) {
            continue;
        }
        assert_eq!(promote(second.path(), &standby).0, Some(0));
        add(&standby, "kept");
        let primary = start(first.path(), &["--listen", &listen]);
        wait_for_log(first.path(), "they are cut back");
        wait_until("it follows", || has(&primary, "kept"));
        add(&standby, "both");
        wait_until("it continues to follow", || has(&primary, "both"));
        for path in ["/widgets", "/changes"] {
            let (one, other) = (get(&standby, path), get(&primary, path));
            assert!(
                one.0 == 200 && one == other,
                "{path}: {one:?} and {other:?}"
            );
        }
        primary.kill();
        let mut verify = widgets(first.path());
        verify.args(["verify", "--data-dir", "widgets-data"]);
        let (code, told) = outcome(&mut verify);
        assert_eq!(code, Some(0), "{told}");
        let primary = start(first.path(), &["--listen", &listen]);
        add(&standby, "after a restart");
        wait_until("it follows", || has(&primary, "after%20a%20restart"));
        return;
    }
    panic!("the standby always had the seal");
}
