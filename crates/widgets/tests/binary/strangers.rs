//! What the commands read from strangers: buckets, folders and services that may answer or contain
//! anything.

use crate::service::{Directory, widgets};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileTypeExt as _,
    path::Path,
    process::Command,
    thread,
};

/// Starts a peer that answers every request with this, and hangs up.
pub(crate) fn answering(answer: &'static [u8]) -> SocketAddr {
    let (listener, address) = free_listener();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            head_of(&mut stream);
            // A client that has hung up needs no answer.
            drop(stream.write_all(answer));
        }
    });
    address
}

fn free_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Reads a request to the end of its head.
fn head_of(stream: &mut TcpStream) -> String {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => request.extend_from_slice(&buffer[..length]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

/// Returns the binary with what it needs to use a bucket at this address.
fn of_bucket(directory: &Path, bucket: SocketAddr) -> Command {
    let mut command = widgets(directory);
    command.envs([
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &format!("http://{bucket}")),
        ("AWS_ALLOW_HTTP", "true"),
    ]);
    command
}

/// Returns the message about a bucket at this address, whose archive cannot be listed.
fn refusal_to_list(directory: &Path, bucket: SocketAddr) -> String {
    let listed = of_bucket(directory, bucket)
        .args(["archive", "list", "s3://bucket/prefix"])
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert_eq!(listed.status.code(), Some(1), "{told}");
    told
}

#[test]
fn an_implausible_content_length_from_a_bucket_is_refused() {
    let directory = Directory::new("strange-bucket");
    let address = answering(
        b"HTTP/1.1 200 OK\r\nETag: \"a\"\r\nLast-Modified: Sat, 28 Nov 2026 03:00:00 GMT\r\n\
          Content-Length: 1152921504606846976\r\n\r\nWIDGETS",
    );
    let told = refusal_to_list(directory.path(), address);
    assert!(
        told.contains("it has 1152921504606846976 bytes, and at most"),
        "{told}"
    );
}

/// The body of an error is read for the message, and may claim any length as well.
#[test]
fn a_bucket_error_with_an_implausible_content_length_is_reported() {
    let directory = Directory::new("strange-error");
    let address = answering(
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1152921504606846976\r\n\r\n\
          <Error><Code>AccessDenied</Code></Error>",
    );
    let told = refusal_to_list(directory.path(), address);
    assert!(told.contains("AccessDenied"), "{told}");
}

/// Serves this folder as a bucket. Each of its lists begins with a name that no object can have.
fn bucket_of(folder: &Path) -> SocketAddr {
    let (listener, address) = free_listener();
    let folder = folder.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let request = head_of(&mut stream);
            let target = request.split(' ').nth(1).unwrap_or_default();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let content = if query.contains("list-type=2") {
                let prefix = form_urlencoded::parse(query.as_bytes())
                    .find_map(|(name, value)| (name == "prefix").then(|| value.into_owned()));
                Some(list(&folder, &prefix.unwrap_or_default()))
            } else {
                fs::read(folder.join(path.trim_start_matches("/bucket/"))).ok()
            };
            let (status, content) = match content {
                Some(content) => ("200 OK", content),
                None => ("404 Not Found", Vec::new()),
            };
            let length = content.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nETag: \"a\"\r\nLast-Modified: Sat, 28 Nov 2026 03:00:00 GMT\r\n\
                 Content-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            // A client that has hung up needs no answer.
            drop(stream.write_all(&[head.as_bytes(), &content].concat()));
        }
    });
    address
}

/// Returns a page that lists the files under a prefix.
fn list(folder: &Path, prefix: &str) -> Vec<u8> {
    let mut names = vec![format!("{prefix}../x")];
    let files = fs::read_dir(folder.join(prefix)).into_iter().flatten();
    for file in files {
        let name = file.expect("a file").file_name();
        names.push(format!("{prefix}{}", name.to_str().expect("text")));
    }
    let objects = names.iter().map(|name| {
        let date = "2026-11-28T03:00:00.000Z";
        format!("<Contents><Key>{name}</Key><LastModified>{date}</LastModified><Size>1</Size></Contents>")
    });
    let objects = objects.collect::<Vec<_>>().concat();
    format!("<ListBucketResult>{objects}</ListBucketResult>").into()
}

/// One invalid name must not end a list: the objects after it would count as missing.
#[test]
fn an_invalid_object_name_is_skipped_with_a_warning() {
    let directory = Directory::new("strange-name");
    let folder = directory.path().join("bucket");
    let url = format!("file://{}/a", folder.display());
    for arguments in [
        &["generate", "--widgets", "10", "--data-dir", "data"][..],
        &["backup", "--data-dir", "data", &url],
    ] {
        let done = widgets(directory.path()).args(arguments).status();
        assert!(done.expect("the binary runs").success(), "{arguments:?}");
    }
    let pruned = of_bucket(directory.path(), bucket_of(&folder))
        .args([
            "archive",
            "prune",
            "--keep",
            "1d",
            "--dry-run",
            "s3://bucket/a",
        ])
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&pruned.stderr);
    assert!(pruned.status.success(), "{told}");
    assert!(
        told.contains("../x") && told.contains("it is skipped"),
        "{told}"
    );
}

/// A redirect could lead to any host in this network.
#[test]
fn a_redirect_from_a_bucket_is_not_followed() {
    let directory = Directory::new("strange-redirect");
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = elsewhere.local_addr().expect("its address").port();
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
    ] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:{port}/x?sig=SECRET\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let told = refusal_to_list(directory.path(), answering(answer.leak().as_bytes()));
        let said = format!("it answered {} and sends elsewhere", &status[..3]);
        assert!(told.contains(&said), "{told}");
        assert!(!told.contains("SECRET"), "{told}");
    }
    elsewhere.set_nonblocking(true).expect("set");
    let asked = elsewhere.accept().map(|(_, from)| from);
    assert!(asked.is_err(), "it was asked, by {asked:?}");
}

/// By default the system ends a process whose file exceeds the size limit, so the service handles
/// that signal.
#[test]
fn exceeding_the_file_size_limit_is_reported_as_an_error() {
    let directory = Directory::new("strange-limit");
    let started = Command::new("bash")
        .args(["-c", "ulimit -f 64; exec \"$@\"", "bash"])
        .arg(env!("CARGO_BIN_EXE_widgets"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"])
        .current_dir(directory.path())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&started.stderr);
    assert_eq!(started.status.code(), Some(1), "{told}");
    assert!(told.contains("File too large"), "{told}");
}

fn pipe_in_place_of(path: &Path) {
    fs::remove_file(path).expect("it was there");
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
    let made = fs::metadata(path).expect("it is there").file_type();
    assert!(made.is_fifo());
}

/// Opening a named pipe would block until another process opens its other end.
#[test]
fn a_named_pipe_in_an_archive_folder_is_reported_as_damage() {
    let directory = Directory::new("strange-folder");
    let archive = directory.path().join("archive");
    let url = format!("file://{}", archive.display());
    let run = |arguments: &[&str]| {
        let done = widgets(directory.path()).args(arguments).output();
        let done = done.expect("the binary runs");
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), told)
    };
    let generated = run(&["generate", "--widgets", "10", "--data-dir", "data"]);
    assert_eq!(generated.0, Some(0), "{}", generated.1);
    let backup = ["backup", "--data-dir", "data", &url];
    assert_eq!(run(&backup).0, Some(0));
    for (file, command) in [
        ("manifest.lock", &backup[..]),
        ("manifest", &["archive", "list", &url]),
    ] {
        pipe_in_place_of(&archive.join(file));
        let (code, told) = run(command);
        assert_eq!(code, Some(1), "{file}: {told}");
        let expected = format!("{file} is damaged: it is not a regular file");
        assert!(told.contains(&expected), "{file}: {told}");
    }
}

#[test]
fn control_characters_in_responses_to_a_load_are_escaped() {
    let directory = Directory::new("strange-load");
    let address = answering(
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 29\r\n\r\n\x1b]0;title\x07\x1b[2J\xe2\x80\xae\r\nmore text!",
    );
    let done = widgets(directory.path())
        .args(["load", &format!("http://{address}"), "--rate", "10"])
        .args(["--duration", "1s"])
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{told:?}");
    assert!(
        told.contains("\\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{202e}\\r\\nmore text!"),
        "{told:?}"
    );
    let is_obeyed = |character: char| character.is_control() && character != '\n';
    assert!(!told.contains(is_obeyed), "{told:?}");
}
