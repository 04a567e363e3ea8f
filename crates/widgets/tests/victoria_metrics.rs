//! A real VictoriaMetrics accepts what `widgets load` pushes, scrapes the service, and answers
//! every query of the Grafana dashboard.
//!
//! Skipped, with a message, if the program is not installed; `./test` installs it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in the helpers of tests a panic is the failed test"
)]

use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn widgets() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_widgets"));
    command.stdin(Stdio::null());
    command
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Repeats a request until it succeeds, for at most two minutes.
fn patiently<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(answer) = ask() {
            return answer;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within two minutes");
}

fn encoded(query: &str) -> String {
    query.bytes().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "%{byte:02X}");
        text
    })
}

/// Returns how many series an expression has.
fn series(address: &str, expression: &str) -> usize {
    let path = format!("/api/v1/query?query={}", encoded(expression));
    let answer = get(address, &path).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    // The body may be chunked; the JSON is what lies between the outermost braces.
    let json = body.find('{').zip(body.rfind('}'));
    let json = json.map_or("", |(start, end)| &body[start..=end]);
    let value: Value = serde_json::from_str(json)
        .unwrap_or_else(|error| panic!("{expression}: {error}: {head}\n{body}"));
    assert_eq!(value["status"], "success", "{expression}: {value}");
    value["data"]["result"].as_array().map_or(0, Vec::len)
}

#[test]
fn victoria_metrics_has_data_for_every_dashboard_query() {
    if Command::new("victoria-metrics")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: victoria-metrics is not installed (on Debian: victoria-metrics)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let mut service = widgets()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(file("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = service.stdout.take().unwrap();
    let _service = Process(service);
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let url = lines.find_map(|line| Some(line.split_once("listens on ")?.1.trim().to_owned()));
    let url = url.unwrap();
    thread::spawn(move || lines.for_each(drop));

    let scrape = format!(
        "scrape_configs:\n  - job_name: widgets\n    scrape_interval: 1s\n    static_configs:\n      \
         - targets: [\"{}\"]\n",
        url.trim_start_matches("http://")
    );
    fs::write(file("scrape.yml"), scrape).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let log = fs::File::create(file("log")).unwrap();
    let path = |flag: &str, path: &Path| format!("{flag}={}", path.display());
    let _metrics = Process(
        Command::new("victoria-metrics")
            .arg(path("-storageDataPath", &file("metrics")))
            .arg(path("-promscrape.config", &file("scrape.yml")))
            .arg(format!("-httpListenAddr={address}"))
            // By default, data younger than 30 s is not shown yet.
            .arg("-search.latencyOffset=0s")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    patiently("VictoriaMetrics is well", || {
        get(&address, "/health")
            .ok()
            .filter(|answer| answer.contains("OK"))
    });

    let load = widgets()
        .args(["load", &url, "--plain", "--rate", "200", "--warm-up", "0s"])
        .args([
            "--duration",
            "6s",
            "--interval",
            "250ms",
            "--run",
            "Dashboard",
        ])
        .args(["--push", &format!("http://{address}")])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&load.stderr);
    assert!(load.status.success(), "{errors}");
    assert!(
        errors.contains(&format!("metrics: http://{address}/")),
        "{errors}"
    );
    assert!(!errors.contains("pushing metrics"), "{errors}");

    // Data becomes searchable within about a second; this makes it immediate.
    get(&address, "/internal/force_flush").unwrap();
    patiently("the service's own metrics are scraped", || {
        (series(&address, "widgets_request_duration_seconds_count") > 0).then_some(())
    });
    let dashboard =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deployments/grafana/widgets-load.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(dashboard).unwrap()).unwrap();
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"]
                .as_str()
                .unwrap()
                .replace("$run", "Dashboard");
            let title = &panel["title"];
            assert!(
                series(&address, &expression) > 0,
                "{title} has no series: {expression}"
            );
            queries += 1;
        }
    }
    assert!(queries >= 11, "{queries} queries in the dashboard");
    let variable = &dashboard["templating"]["list"][1]["query"]["query"];
    assert_eq!(
        variable, "label_values(widgets_load_requests_per_second, run)",
        "the runs to choose from come from what is pushed"
    );
}
