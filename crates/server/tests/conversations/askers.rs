//! Which asker the store is given for each request.

use crate::{Willing, api, send};
use std::sync::{Arc, Mutex};
use widgets_registry::{
    Applied, Ask, Attempt, Fault, Lookup, Rejection, Store, Widget,
    query::{Asker, List, Neighbourhood, NeighbourhoodQuery, Page},
};

/// Records the asker of each request.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<Asker>>>);

impl Noting {
    fn note(&self, asker: Asker) {
        self.0.lock().expect("nobody panics").push(asker);
    }
}

impl Ask<Attempt> for Noting {
    async fn ask(&self, attempt: Attempt) -> Result<Applied, Rejection> {
        self.note(attempt.asker);
        Willing.ask(attempt).await
    }
}

impl Ask<Lookup> for Noting {
    async fn ask(&self, lookup: Lookup) -> Result<Option<Widget>, Fault> {
        Willing.ask(lookup).await
    }
}

impl Ask<List> for Noting {
    async fn ask(&self, list: List) -> Result<Page, Fault> {
        self.note(list.asker);
        Willing.ask(list).await
    }
}

impl Ask<NeighbourhoodQuery> for Noting {
    async fn ask(&self, query: NeighbourhoodQuery) -> Result<Option<Neighbourhood>, Fault> {
        self.note(query.asker);
        Willing.ask(query).await
    }
}

impl Store for Noting {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// The store is given the caller even without a rate limit and without tokens.
#[tokio::test]
async fn the_caller_behind_a_trusted_proxy_is_identified() {
    let store = Noting::default();
    let proxy = "127.0.0.1/32".parse().expect("a network");
    let direct = api(store.clone());
    let behind = direct.clone().with_trusted_proxies(vec![proxy]);
    let mut seen = Vec::new();
    for api in [&direct, &behind] {
        for client in [
            "192.0.2.1",
            "192.0.2.2",
            "[2001:db8::1]:80",
            "2001:db8:0:9::1",
        ] {
            let client = format!("x-forwarded-for: {client}");
            let json = "content-type: application/json";
            let keyed = [json, "idempotency-key: k", &client];
            let body = r#"{"widget_sn":"E"}"#;
            send(api, "POST", "/rpc/remove_widget", &keyed, body).await;
            send(api, "GET", "/widgets", &[&client], "").await;
            send(api, "GET", "/widgets/E/neighbourhood", &[&client], "").await;
            let asked: Vec<_> = store.0.lock().expect("nobody panics").drain(..).collect();
            assert_eq!(asked, [asked[0]; 3], "one caller, whatever the request");
            seen.push(asked[0]);
        }
    }
    let [nobody, .., one, other, network, same] = seen[..] else {
        panic!("eight callers: {seen:?}");
    };
    // Without a trusted proxy, X-Forwarded-For is ignored.
    assert_eq!(seen[..4], [nobody; 4]);
    assert!(one != nobody && other != nobody && one != other && network != one);
    assert_eq!(network, same, "all addresses of a /48 are one caller");
}
