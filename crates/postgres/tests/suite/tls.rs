//! TLS to the server: which certificates are trusted, and what is refused.

use crate::{
    TIMEOUT,
    server::{Directory, Server, run},
};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};
use widgets_postgres::{Target, migrate};

/// Makes two throw-away authorities, and a certificate for `localhost` signed by one of them.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        run(Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder));
    };
    for authority in ["ca", "stranger"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj \
             /CN={authority} -keyout {authority}.key -out {authority}.crt"
        ));
    }
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout \
         server.key -out server.csr",
    );
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").expect("the names");
    openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names \
         -out server.crt",
    );
    let key = folder.join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a private key");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_certificates_are_verified_if_requested() {
    let directory = Directory::new();
    certificates(&directory.0);
    let directory = directory.owned();
    let path = directory.0.display();
    let mut server = Server::start(&[
        "fsync=off",
        "ssl=on",
        &format!("ssl_cert_file={path}/server.crt"),
        &format!("ssl_key_file={path}/server.key"),
    ]);
    let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
    fs::write(server.data().join("pg_hba.conf"), rules).expect("the rules");
    server.stop("fast");
    server.resume();
    run(server
        .psql_command("postgres")
        .args(["-c", "CREATE DATABASE registry"]));

    let port = server.port;
    let attempt = async |host: &str, parameters: &str| {
        let url = format!("postgres://postgres@{host}:{port}/registry?{parameters}");
        let target = Target::parse(&url).expect("a URL");
        let migrated = migrate(&target, TIMEOUT).await;
        migrated.map(drop).map_err(|error| error.to_string())
    };
    let refused = attempt("localhost", "sslmode=disable").await;
    assert!(
        refused
            .as_ref()
            .is_err_and(|error| error.contains("no encryption")),
        "{refused:?}"
    );
    assert_eq!(attempt("localhost", "sslmode=prefer").await, Ok(()));
    assert_eq!(attempt("127.0.0.1", "sslmode=require").await, Ok(()));
    let verify =
        |authority: &str| format!("sslmode=verify-full&sslrootcert={path}/{authority}.crt");
    assert_eq!(attempt("localhost", &verify("ca")).await, Ok(()));
    let stranger = attempt("localhost", &verify("stranger")).await;
    assert!(
        stranger
            .as_ref()
            .is_err_and(|error| error.contains("invalid peer certificate")),
        "{stranger:?}"
    );
    let other_name = attempt("127.0.0.1", &verify("ca")).await;
    assert!(
        other_name
            .as_ref()
            .is_err_and(|error| error.contains("not valid for name")),
        "{other_name:?}"
    );
}
