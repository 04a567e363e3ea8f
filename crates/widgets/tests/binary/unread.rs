//! A log that nobody reads, such as a full pipe, blocks nothing.

use crate::{
    asking::{ask, wait_until},
    notify::{listen, wait_for},
    service::{Directory, Signal, widgets},
};
use std::{
    cell::RefCell,
    fs::OpenOptions,
    io::{self, PipeWriter, Write as _},
    net::TcpStream,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    process::{Child, Stdio},
    time::Duration,
};

/// A process that is killed with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Writes until the pipe is full.
fn fill(pipe: &PipeWriter) {
    // Through a separate file description, so that other writers to the pipe still block.
    let again = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    let mut again = again.expect("the same pipe");
    for length in [4096, 1] {
        while again.write(&[b'\n'; 4096][..length]).is_ok() {}
    }
}

#[test]
fn an_unread_log_pipe_blocks_neither_requests_nor_shutdown() {
    let directory = Directory::new("unread");
    let listener = listen(directory.path());
    for output_is_full in [false, true] {
        let (reader, full) = io::pipe().expect("a pipe");
        fill(&full);
        let output = if output_is_full {
            full.try_clone().expect("a descriptor").into()
        } else {
            Stdio::null()
        };
        let child = widgets(directory.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--log-requests"])
            .env("NOTIFY_SOCKET", directory.path().join("notify"))
            .stdout(output)
            .stderr(full)
            .spawn();
        let service = RefCell::new(Ended(child.expect("the binary runs")));
        let told = wait_for(&listener, "READY=1");
        let (_, address) = told.split_once("Listens on ").expect("an address");
        let mut stream = TcpStream::connect(address).expect("connected");
        let patience = Some(Duration::from_mins(1));
        stream.set_read_timeout(patience).expect("set");
        // More than three times what a pipe can hold.
        for number in 0..1000 {
            let (status, _) = ask(&mut stream, "GET /widgets/A", "", "");
            assert_eq!(status, 404, "request {number}");
        }
        let (_, metrics) = ask(&mut stream, "GET /metrics", "", "");
        let unwritten = "\nwidgets_log_lines_unwritten_total 0\n";
        assert!(metrics.contains(unwritten), "all wait: {metrics}");
        drop(stream);
        let id = rustix::process::Pid::from_child(&service.borrow().0);
        rustix::process::kill_process(id, Signal::TERM).expect("the process is there");
        wait_for(&listener, "STOPPING=1");
        wait_until("it ends", || {
            let ended = service.borrow_mut().0.try_wait().expect("a process");
            ended.is_some_and(|status| status.success())
        });
        drop(reader);
    }
}
