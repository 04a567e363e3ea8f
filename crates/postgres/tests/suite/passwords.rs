//! A password that is given separately, instead of in the URL.

use crate::{TIMEOUT, server::Server};
use std::fs;
use widgets_postgres::{Password, Target, check};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_connection_uses_a_changed_password_file() {
    let mut server = Server::start(&["fsync=off"]);
    server.psql(
        "postgres",
        "CREATE ROLE ann LOGIN PASSWORD 'it''s 100% secret'",
    );
    let url = server.database("registry", "ann");
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.data().join("pg_hba.conf"), rules).expect("the rules");
    server.stop("fast");
    server.resume();

    let path = server.data().join("password");
    let target = Target::parse(&url).expect("a URL");
    assert!(!target.has_password());
    let of_file = target.with_password(Password::File(path.clone()));
    let attempt = async |target: &Target| match check(target, TIMEOUT).await {
        Ok(_) => "connected".to_owned(),
        Err(error) => error.to_string(),
    };
    let told = attempt(&of_file).await;
    assert!(
        told.contains("its password: ") && told.contains("No such file"),
        "{told}"
    );
    fs::write(&path, "it's 100% secret\n").expect("written");
    assert_eq!(attempt(&of_file).await, "connected");

    server.psql("postgres", "ALTER ROLE ann PASSWORD 'another'");
    let told = attempt(&of_file).await;
    assert!(told.contains("password authentication failed"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    fs::write(&path, "another").expect("written");
    assert_eq!(attempt(&of_file).await, "connected");

    let target = Target::parse(&url).expect("a URL");
    let of_text = target.with_password(Password::Text("another".into()));
    assert_eq!(attempt(&of_text).await, "connected");
    assert!(!format!("{of_text:?}{of_text}").contains("another"));
}
