//! The Rust client (`clients/rust`) agrees with the API's document, against the real service.

use crate::{
    asking::{ask, connect},
    service::{Directory, Service},
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};
use widgets_client::{ChangesAfter, Client, Error, Operation, Settings};

fn client(service: &Service) -> Client {
    let settings = Settings {
        url: service.address.to_string(),
        token: None,
        ca: None,
        insecure: false,
        timeout: Duration::from_secs(10),
    };
    Client::new(&settings).expect("right settings")
}

/// Follows a reference in the document; returns anything else unchanged.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value.get("$ref").and_then(Value::as_str);
    let pointer = reference.and_then(|reference| reference.strip_prefix('#'));
    match pointer {
        Some(pointer) => document.pointer(pointer).expect("what is referred to"),
        None => value,
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn the_operations_of_the_rust_client_match_the_openapi_document() {
    let directory = Directory::new("client_document");
    let service = Service::start(directory.path(), &[]);
    let accept = "Accept: application/openapi+json\r\n";
    let (status, document) = ask(&mut connect(&service), "GET /", accept, "");
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let operations = [
        Operation::add_widget("E", "A", &["P".into()]),
        Operation::remove_widget("E"),
        Operation::associate_widgets("E", "F", "P"),
        Operation::remove_association("E", "F", "P"),
    ];
    let paths = keys(&document["paths"]);
    let described: BTreeSet<&str> = paths
        .iter()
        .filter_map(|path| path.strip_prefix("/rpc/"))
        .collect();
    let known = operations.iter().map(Operation::name).collect();
    assert_eq!(described, known);
    for operation in &operations {
        let post = &document["paths"][format!("/rpc/{}", operation.name())]["post"];
        let body = resolved(&document, &post["requestBody"]);
        let schema = resolved(&document, &body["content"]["application/json"]["schema"]);
        // An argument may have two spellings.
        let spellings = match schema["oneOf"].as_array() {
            Some(spellings) => spellings.iter().collect(),
            None => vec![schema],
        };
        let sent: Value = serde_json::from_str(operation.arguments()).expect("JSON");
        let fits = |spelling: &&Value| {
            let required = spelling["required"].as_array().into_iter().flatten();
            let required: BTreeSet<&str> = required.filter_map(Value::as_str).collect();
            required == keys(&sent) && keys(&spelling["properties"]) == required
        };
        assert!(spellings.iter().any(fits), "{operation:?}: {schema}");
    }
}

#[test]
fn an_operation_repeated_with_its_idempotency_key_is_applied_once() {
    let directory = Directory::new("client_safely");
    let service = Service::start(directory.path(), &[]);
    let (client, patience) = (client(&service), Duration::from_secs(20));
    let add = Operation::add_widget("E", "A", &[]);
    client.safely_as("one", &add, patience).expect("added");
    client.safely_as("one", &add, patience).expect("known");
    let other = client.safely_as("one", &Operation::remove_widget("E"), patience);
    assert!(
        matches!(&other, Err(Error::Refused(refusal)) if refusal.code == "WG422"),
        "{other:?}"
    );
    let another = client.safely(&add, patience);
    assert!(
        matches!(&another, Err(Error::Refused(refusal)) if refusal.code == "23505"),
        "{another:?}"
    );
    let mut changes = client.changes(ChangesAfter::Oldest, None, &[]);
    let page = changes.next_page(Duration::ZERO).expect("a page");
    assert_eq!(page.len(), 1, "{page:?}");
}
