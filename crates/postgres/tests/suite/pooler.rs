//! PgBouncer in transaction mode between the store and the server.

use crate::{
    assert_sound, migrated, open,
    server::{Directory, Server, command, free_port},
};
use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::Duration,
};
use tokio_postgres::NoTls;
use widgets_conformance::check_store;
use widgets_postgres::Settings;

struct Pooler {
    process: Child,
    port: u16,
    _directory: Directory,
}

impl Pooler {
    /// Starts a pooler with fewer connections to the server than the stores have to the pooler.
    fn start(server: &Server) -> Self {
        let program = Path::new("/usr/sbin/pgbouncer");
        assert!(
            program.exists(),
            "PgBouncer is missing: on Debian, apt-get install pgbouncer"
        );
        let directory = Directory::new();
        let port = free_port();
        let configuration = format!(
            "[databases]\n\
             registry = host=127.0.0.1 port={} dbname=registry\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = trust\n\
             auth_file = {}/users\n\
             pool_mode = transaction\n\
             default_pool_size = 2\n\
             server_login_retry = 0\n",
            server.port,
            directory.0.display()
        );
        fs::write(directory.0.join("pgbouncer.ini"), configuration).expect("a configuration");
        fs::write(directory.0.join("users"), "\"authenticator\" \"\"\n").expect("the users");
        let directory = directory.owned();
        let process = command(program)
            .arg("-q")
            .arg(directory.0.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a pooler");
        Self {
            process,
            port,
            _directory: directory,
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // No gentler signal is sure to end it: SIGQUIT and SIGINT may be ignored where the tests
        // were started.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_conforms_behind_a_pooler_in_transaction_mode() {
    let (server, _) = migrated().await;
    let pooler = Pooler::start(&server);
    let url = format!(
        "postgres://authenticator@127.0.0.1:{}/registry",
        pooler.port
    );
    for _ in 0..100 {
        if tokio_postgres::connect(&url, NoTls).await.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let settings = Settings {
        connections: 3,
        batch_operations_max: 8,
        ..Settings::default()
    };
    let (one, other) = (open(&url, settings.clone()), open(&url, settings));
    check_store(&[one.client(), other.client()], "").await;
    // All of this went through two connections, so the pooler did pool.
    assert!(server.backends().len() <= 2, "{:?}", server.backends());
    drop((one, other));
    assert_sound(&server);
}
