//! `widgets backup` of a service that has none to give. What it takes: tests/archive/backup.py.

use crate::{
    postgres_server::Server,
    service::{Directory, Service, widgets},
};

#[test]
fn a_service_on_postgresql_says_what_to_use_instead() {
    let directory = Directory::new("backup-postgres");
    let server = Server::start(&[]);
    let owner = server.database("registry", "postgres");
    let migrated = widgets(directory.path())
        .args(["migrate", "--store", &owner])
        .status();
    assert!(migrated.expect("the binary runs").success());
    let url = server.url("registry", "authenticator");
    let service = Service::start(directory.path(), &["--store", &url]);
    let to = directory.path().join("copy");
    let taken = widgets(directory.path())
        .args(["backup", &format!("http://{}", service.address), "--to"])
        .arg(&to)
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&taken.stderr);
    assert_eq!(taken.status.code(), Some(3), "{told}");
    assert!(told.contains("WG501") && told.contains("pg_dump"), "{told}");
}
