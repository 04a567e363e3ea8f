//! A sync fails under the running service: nothing is written until a restart, reads continue, and
//! nothing acknowledged is lost.

use crate::{
    asking::{answer, status, wait_for_log, wait_until},
    service::{Directory, Service, Signal, shim},
};
use std::{fs::File, path::Path};

fn add(service: &Service, serial_number: &str) -> (u16, String) {
    let body = format!(r#"{{"widget_sn":"{serial_number}","widget_name":"","slots":[]}}"#);
    answer(service, "", "POST /rpc/add_widget", &body)
}

fn lookup(service: &Service, serial_number: &str) -> u16 {
    status(service, "", &format!("GET /widgets/{serial_number}"), "")
}

#[test]
fn a_failed_sync_stops_writes_until_a_restart() {
    let directory = Directory::new("failed_sync");
    let path = directory.path();
    let (shim, trigger) = (shim(path), path.join("trigger"));
    let acknowledged: Vec<String> = (0..50).map(|number| format!("kept{number}")).collect();
    let refused: Vec<String> = (0..50).map(|number| format!("refused{number}")).collect();
    for signal in [Signal::TERM, Signal::KILL] {
        let data = format!("data{}", signal.as_raw());
        let arguments = ["--data-dir", data.as_str()];
        let variables = [
            ("LD_PRELOAD", shim.as_path()),
            ("FAILED_SYNC_NAME", Path::new("journal-0000000000000001")),
            ("FAILED_SYNC_TRIGGER", trigger.as_path()),
        ];
        let service = Service::start_with(path, &arguments, &variables);
        for serial_number in &acknowledged {
            assert_eq!(add(&service, serial_number).0, 204);
        }
        assert_eq!(status(&service, "", "GET /ready", ""), 200);

        File::create(&trigger).expect("a file");
        let (code, told) = add(&service, "unknown");
        assert_eq!(code, 503, "{told}");
        assert!(told.contains("WG505"), "{told}");
        assert!(told.contains("syncing the journal failed"), "{told}");
        // The operating system's message is for the operator.
        assert!(!told.contains("Input/output error"), "{told}");
        wait_for_log(path, "Input/output error");
        assert!(!trigger.exists(), "it is this sync that failed");
        // The next sync would succeed, but what is on the disk is unknown.
        for serial_number in &refused {
            let (code, told) = add(&service, serial_number);
            assert_eq!(code, 503, "{told}");
            assert!(told.contains("WG504"), "{told}");
        }
        for serial_number in &acknowledged {
            assert_eq!(lookup(&service, serial_number), 200);
        }
        assert_eq!(status(&service, "", "GET /live", ""), 200);
        // The last observed state is reported for a moment.
        wait_until("it is not ready", || {
            status(&service, "", "GET /ready", "") == 503
        });
        let (_, metrics) = answer(&service, "", "GET /metrics", "");
        assert!(
            metrics.contains("\nwidgets_store_read_only 1\n"),
            "{metrics}"
        );
        service.signal(signal);
        service.wait();

        let service = Service::start(path, &arguments);
        for serial_number in &acknowledged {
            assert_eq!(lookup(&service, serial_number), 200, "{serial_number}");
        }
        for serial_number in &refused {
            assert_eq!(lookup(&service, serial_number), 404, "{serial_number}");
        }
        assert_eq!(status(&service, "", "GET /ready", ""), 200);
        // Whatever happened to the operation, its outcome can be read, and work continues.
        let expected = match lookup(&service, "unknown") {
            200 => 409,
            _ => 204,
        };
        assert_eq!(add(&service, "unknown").0, expected);
        assert_eq!(add(&service, "new").0, 204);
    }
}
