//! `widgets health`: asks the running service whether it is healthy, for the health checks of
//! containers, which contain no other program that could ask.

mod running;
mod tls;

use crate::{
    Outcome,
    config::{Given, Reaching},
    serve,
};
use clap::Parser as _;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::{
    error::Error,
    ffi::OsString,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// A service that takes longer counts as unhealthy.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How much of a response is read. A status and a sentence are expected.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Check only whether the process responds (/live), not whether it can serve requests (/ready).
    #[arg(long)]
    live: bool,
    /// Check the `widgets serve` that is running on this machine or in this container, with the flags,
    /// variables and configuration file that it was started with instead of those of this command.
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    given: Given<Reaching>,
    /// The arguments that the service was given after `widgets serve`, instead of flags before the
    /// `--`.
    #[arg(
        last = true,
        value_name = "SERVE_ARGUMENTS",
        conflicts_with = "running"
    )]
    as_serve: Vec<OsString>,
}

/// What the service was started with, as passed to `health`.
#[derive(clap::Parser)]
#[command(name = "widgets serve", no_binary_name = true)]
struct Serve {
    #[command(flatten)]
    arguments: serve::Arguments,
}

pub(crate) fn run(arguments: Arguments) -> Outcome {
    let Arguments {
        live,
        running,
        given,
        as_serve,
    } = arguments;
    if running {
        return Err(running::ask_as_it_was_started(live).into());
    }
    let resolved = if as_serve.is_empty() {
        given.resolve()
    } else {
        Serve::try_parse_from(as_serve)?.arguments.given.resolve()
    };
    // A container runtime knows only the exit codes 0 and 1 of a health check.
    let resolved = resolved.map_err(|problems| problems.to_string())?;
    let http = resolved.configuration.http;
    let tls = tls::client(&http)?;
    let path = if live { "/live" } else { "/ready" };
    ask(reachable(http.listen), tls, path, TIMEOUT)?;
    writeln!(io::stdout(), "ok")?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the address at which a service that listens on `listen` is reachable from its own host.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Succeeds if the service answers with 200, and otherwise says what was received instead.
fn ask(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    path: &str,
    timeout: Duration,
) -> Result<(), Box<dyn Error>> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}{path}");
    let speaks_tls = tls.is_some();
    let answer = exchange(address, tls, path, timeout).map_err(|error| {
        let hint = if speaks_tls && is_no_tls(&*error) {
            ": the service does not speak TLS. Leave out http.tls_certificate and http.tls_key, or \
             ask with --running"
        } else {
            ""
        };
        format!("{url}: {error}{hint}")
    })?;
    if !speaks_tls && is_tls(&answer) {
        return Err(format!(
            "{url}: the service speaks TLS. Give the http.tls_certificate and http.tls_key of the \
             service, as flags, variables or by --config, or ask with --running"
        )
        .into());
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status_line = head.lines().next().unwrap_or_default();
    if status_line.starts_with("HTTP/1.1 200 ") {
        if is_ours(head) {
            return Ok(());
        }
        return Err(format!("{url}: another server answered, without `Server: widgets/…`").into());
    }
    Err(format!("{url} answered {status_line:?} {}", body.escape_debug()).into())
}

/// Returns whether the head of a response names this program as the server.
fn is_ours(head: &str) -> bool {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.any(|(name, value)| {
        name.eq_ignore_ascii_case("server") && value.trim_start().starts_with("widgets/")
    })
}

/// Returns whether a response is a TLS record (RFC 8446, 5.1), such as the alert that answers a
/// plaintext request.
fn is_tls(answer: &[u8]) -> bool {
    matches!(answer, [0x14..=0x17, 3, ..])
}

/// Returns whether TLS failed because the other side speaks something else.
fn is_no_tls(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    let inner = error.and_then(io::Error::get_ref);
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidMessage(_)))
}

/// Returns the response if the exchange is over within `timeout`.
fn exchange(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    path: &str,
    timeout: Duration,
) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let (sender, answered) = mpsc::channel();
    let path = path.to_owned();
    // A server that sends a byte now and then would stay within a limit on each read. A blocked read
    // cannot be cancelled, so a separate thread reads, and this one can give up.
    let exchange = move || drop(sender.send(exchange_patiently(address, tls, &path)));
    thread::Builder::new()
        .name("health".into())
        .spawn(exchange)?;
    match answered.recv_timeout(timeout) {
        Ok(answer) => answer,
        Err(_) => Err(format!("no whole answer within {timeout:?}").into()),
    }
}

fn exchange_patiently(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    path: &str,
) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    match tls {
        None => Ok(answer(stream, &request)?),
        Some(tls) => {
            let session = ClientConnection::new(tls, address.ip().into())?;
            Ok(answer(StreamOwned::new(session, stream), &request)?)
        }
    }
}

fn answer(mut stream: impl io::Read + io::Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    /// Returns what `ask` makes of a peer that reads the request and then sends this.
    fn asked(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            assert!(request[..length].starts_with(b"GET /ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).expect("sent");
        });
        let outcome = ask(address, None, "/ready", TIMEOUT).map_err(|error| error.to_string());
        peer.join().expect("the peer ends");
        outcome.map_err(|error| error.replace(&address.to_string(), "service"))
    }

    #[test]
    fn only_status_200_of_this_service_is_healthy() {
        assert_eq!(
            asked("HTTP/1.1 200 OK\r\nserver: widgets/0.2.0\r\ncontent-length: 0\r\n\r\n"),
            Ok(())
        );
        for other in [
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nserver: widgets/0.2.0",
            "HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\nok",
        ] {
            assert_eq!(
                asked(other).unwrap_err(),
                "http://service/ready: another server answered, without `Server: widgets/…`"
            );
        }
        assert_eq!(
            asked("HTTP/1.1 503 Service Unavailable\r\n\r\nno database").unwrap_err(),
            "http://service/ready answered \"HTTP/1.1 503 Service Unavailable\" no database"
        );
        assert_eq!(
            asked("SSH-2.0-server\r\n").unwrap_err(),
            "http://service/ready answered \"SSH-2.0-server\" "
        );
        assert_eq!(
            asked("").unwrap_err(),
            "http://service/ready answered \"\" "
        );
        assert_eq!(
            asked("HTTP/1.1 503 Service Unavailable\r\n\r\n\u{1b}[2J").unwrap_err(),
            "http://service/ready answered \"HTTP/1.1 503 Service Unavailable\" \\u{1b}[2J"
        );
    }

    #[test]
    fn a_service_with_tls_is_reported_when_asked_without_tls() {
        // The alert with which a TLS server answers a request without TLS.
        let told = asked("\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{32}").unwrap_err();
        assert_eq!(
            told,
            "http://service/ready: the service speaks TLS. Give the http.tls_certificate and \
             http.tls_key of the service, as flags, variables or by --config, or ask with --running"
        );
    }

    #[test]
    fn a_service_without_tls_is_reported_when_asked_with_tls() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut hello = [0; 1024];
            let _ = stream.read(&mut hello).expect("a hello");
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .expect("sent");
        });
        let tls = widgets_tls::unverified().expect("a client");
        let told = ask(address, Some(Arc::new(tls)), "/ready", TIMEOUT).expect_err("no TLS");
        peer.join().expect("the peer ends");
        let told = told.to_string();
        assert!(told.contains("the service does not speak TLS"), "{told}");
    }

    #[test]
    fn a_refused_or_unanswered_connection_is_unhealthy() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let silent = ask(address, None, "/live", Duration::from_millis(50));
        let silent = silent.expect_err("a peer that never answers").to_string();
        assert!(silent.ends_with("no whole answer within 50ms"), "{silent}");
        drop(listener);
        let nobody = ask(address, None, "/live", TIMEOUT).expect_err("nobody listens");
        assert!(nobody.to_string().contains("refused"), "{nobody}");
    }

    #[test]
    fn an_answer_that_never_ends_is_unhealthy() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (done, is_done) = mpsc::channel::<()>();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            // A byte comes often enough for any limit on one read.
            while is_done.recv_timeout(Duration::from_millis(10)).is_err() {
                drop(stream.write_all(b"H"));
            }
        });
        let endless = ask(address, None, "/ready", Duration::from_millis(500));
        done.send(()).expect("the peer waits");
        peer.join().expect("the peer ends");
        let told = endless.expect_err("no end").to_string();
        assert!(told.ends_with("no whole answer within 500ms"), "{told}");
    }

    #[test]
    fn a_wildcard_address_is_reached_over_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:3000", "127.0.0.1:3000"),
            ("[::]:3000", "[::1]:3000"),
            ("192.0.2.7:80", "192.0.2.7:80"),
        ] {
            let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
            assert_eq!(reachable(address(listen)), address(asked));
        }
    }
}
