//! Lists that somebody else holds up.

use crate::{locks::holder, migrated, open, server::Server};
use std::time::Duration;
use widgets_postgres::Settings;
use widgets_registry::{
    Ask as _,
    query::{Direction, Filter, List, Table},
};

fn everything() -> List {
    List {
        table: Table::Widgets,
        filter: Filter::EVERYTHING,
        direction: Direction::Ascending,
        offset: 0,
        limit: 10,
        count: true,
    }
}

/// Waits until so many lists wait for a lock.
async fn until_waiting(server: &Server, lists: usize) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE '%list_rows%' AND pid <> pg_backend_pid()";
    while server.psql("registry", sql) != lists.to_string() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_its_statement() {
    let (server, url) = migrated().await;
    let store = open(&url, Settings::default());
    let client = store.client();
    let lock = "LOCK TABLE widgets.widgets IN ACCESS EXCLUSIVE MODE";
    let holder = holder(&server, lock).await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.ask(everything()).await }
    });
    until_waiting(&server, 1).await;
    asked.abort();
    // The lock is still held: it ends because nobody waits for it.
    until_waiting(&server, 0).await;
    holder.batch_execute("ROLLBACK").await.expect("let go");
    let page = client.ask(everything()).await.expect("a page");
    assert_eq!(page.total, Some(0));
}
