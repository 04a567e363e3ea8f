//! A kind of request that only this test defines, answered by both stores. Everything that it needs
//! is in this file: its type with its answer, and how each store answers it.

use crate::{migrated, open, server::Directory};
use tokio_postgres::{Error, Row, types::Type};
use widgets_conformance::commands::{add_widget, serial_number};
use widgets_engine::{Engine, State};
use widgets_postgres::{Parameter, Settings};
use widgets_registry::{Ask, Attempt, Fault, Request, SerialNumber};

/// A request for how many of these widgets exist.
#[derive(Clone)]
struct Present(Vec<SerialNumber>);

impl Request for Present {
    type Answer = i64;
    type Error = Fault;

    fn text_bytes(&self) -> usize {
        self.0.iter().map(|each| each.len()).sum()
    }
}

impl widgets_engine::Query for Present {
    fn answer(self, state: &State) -> Result<i64, Fault> {
        let present = self.0.iter().filter(|each| state.lookup(each).is_some());
        Ok(present.count().try_into().expect("a few"))
    }
}

impl widgets_postgres::Query for Present {
    const STATEMENT: &str = "SELECT count(*) FROM widgets.lookup_widgets($1)";

    fn parameters(&self) -> Vec<Parameter> {
        let serial_numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        vec![(Box::new(serial_numbers), Type::TEXT_ARRAY)]
    }

    fn answer(self, rows: &[Row]) -> Result<Result<i64, Fault>, Error> {
        rows[0].try_get(0).map(Ok)
    }
}

/// Adds two of three widgets and asks for all of them.
async fn ask(store: impl Ask<Attempt> + Ask<Present>) -> i64 {
    let all: Vec<SerialNumber> = ["A", "B", "C"].map(serial_number).into();
    for each in &all[..2] {
        store
            .ask(Attempt::from(add_widget(each, "", "P")))
            .await
            .expect("added");
    }
    store.ask(Present(all)).await.expect("the store works")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_kind_defined_in_a_test_is_answered_by_both_stores() {
    let (_server, url) = migrated().await;
    let postgres = open(&url, Settings::default());
    assert_eq!(ask(postgres.client().on_current_runtime()).await, 2);
    let directory = Directory::new();
    let settings = widgets_engine::Settings::default();
    let engine = Engine::open(&directory.0.join("data"), &settings).expect("a new store");
    assert_eq!(ask(engine.client().on_current_runtime()).await, 2);
}
