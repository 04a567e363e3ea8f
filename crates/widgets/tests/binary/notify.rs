//! The notifications to systemd: that the start is complete, that the service answers, and that it
//! stops.

use crate::service::{Directory, Service, Signal};
use rcgen::{CertificateParams, KeyPair};
use std::{os::unix::net::UnixDatagram, path::Path, time::Duration};

/// Receives until a notification begins with `wanted`.
pub(crate) fn wait_for(listener: &UnixDatagram, wanted: &str) -> String {
    let mut told = [0; 1000];
    loop {
        let length = listener.recv(&mut told).expect("told in time");
        let told = String::from_utf8_lossy(&told[..length]);
        if told.starts_with(wanted) {
            return told.into_owned();
        }
        // Meanwhile only the watchdog is notified.
        assert_eq!(told, "WATCHDOG=1", "{wanted} was to come");
    }
}

pub(crate) fn listen(directory: &Path) -> UnixDatagram {
    let listener = UnixDatagram::bind(directory.join("notify")).expect("bound");
    let patience = Some(Duration::from_secs(20));
    listener.set_read_timeout(patience).expect("set");
    listener
}

#[test]
fn systemd_is_notified_of_the_start_the_watchdog_and_the_stop() {
    let directory = Directory::new("notify");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    std::fs::write(directory.path().join("tls.pem"), certificate).expect("written");
    std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).expect("written");
    let listener = listen(directory.path());
    let socket = directory.path().join("notify");
    let plain = &[][..];
    // The watchdog sends its request without TLS. A TLS alert counts as an answer.
    let tls = &["--tls-certificate=tls.pem", "--tls-key=key.pem"][..];
    for arguments in [plain, tls] {
        let variables = [
            ("NOTIFY_SOCKET", &*socket),
            ("WATCHDOG_USEC", Path::new("200000")),
        ];
        let service = Service::start_with(directory.path(), arguments, &variables);
        let ready = format!("READY=1\nSTATUS=Listens on {}", service.address);
        assert_eq!(wait_for(&listener, "READY=1"), ready);
        for _ in 0..3 {
            wait_for(&listener, "WATCHDOG=1");
        }
        service.signal(Signal::TERM);
        wait_for(&listener, "STOPPING=1");
        assert!(service.wait().success());
    }
}

#[test]
fn a_failed_start_sends_no_notification_to_systemd() {
    let directory = Directory::new("not_ready");
    let other = Service::start(directory.path(), &[]);
    let listener = listen(directory.path());
    let socket = directory.path().join("notify");
    let variables = [("NOTIFY_SOCKET", &*socket)];
    let listen = format!("--listen={}", other.address);
    let arguments = ["--data-dir=other", &listen];
    let mut second = Service::spawn_with(directory.path(), &arguments, &variables);
    assert!(!second.wait().expect("a process").success());
    listener.set_nonblocking(true).expect("set");
    assert!(
        listener.recv(&mut [0; 10]).is_err(),
        "it said that it was ready"
    );
}
