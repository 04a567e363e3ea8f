//! The commands that ask a running service, as a person or a script uses them.

use crate::{
    command_line::run,
    service::{Directory, Service, widgets},
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
