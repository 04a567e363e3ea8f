//! README.md stays correct: its curl calls are run exactly as written, against the real service.

use crate::service::{Directory, Service};
use std::{path::Path, process::Command};

/// A curl call, and the statuses that the text before it gives in parentheses, such as (204). It is
/// run once for each.
struct Example {
    command: String,
    statuses: Vec<u16>,
}

/// Returns the indented and fenced blocks that call curl.
fn examples(document: &str) -> Vec<Example> {
    let (mut examples, mut text, mut block) = (Vec::new(), String::new(), String::new());
    let mut fenced = false;
    for line in document.lines().chain([""]) {
        let fence = line.starts_with("```");
        fenced ^= fence;
        if fenced && !fence || line.starts_with("    ") {
            block.push_str(line.trim());
            block.push('\n');
            continue;
        }
        if !block.is_empty() {
            if block.starts_with("curl ") {
                let command = std::mem::take(&mut block);
                let statuses = statuses(&text);
                examples.push(Example { command, statuses });
            }
            block.clear();
            text.clear();
        }
        text.push_str(line);
        text.push('\n');
    }
    examples
}

/// Returns the three-digit numbers in parentheses.
fn statuses(text: &str) -> Vec<u16> {
    let parentheses = text
        .split('(')
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    parentheses
        .filter(|number| number.len() == 3)
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[test]
fn curl_examples_are_extracted_with_their_statuses() {
    let document = "Do this (204), then\nthat (404):\n\n    curl a \\\n      -d b\n\n    other\n\n(x) or (200)\n\n```sh\ncurl c\n```\n";
    let examples = examples(document);
    let found: Vec<_> = examples
        .iter()
        .map(|example| (example.command.as_str(), &example.statuses[..]))
        .collect();
    assert_eq!(
        found,
        [
            ("curl a \\\n-d b\n", &[204, 404][..]),
            ("curl c\n", &[200][..])
        ]
    );
}

#[test]
fn curl_examples_in_the_readme_return_the_documented_statuses() {
    let directory = Directory::new("readme");
    let service = Service::start(directory.path(), &[]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(path).expect("README.md");
    let examples = examples(&readme);
    assert!(
        !examples.is_empty(),
        "the README shows how the service is called"
    );
    for Example { command, statuses } in examples {
        assert!(
            !statuses.is_empty(),
            "the README must say what this answers, as in (204):\n{command}"
        );
        // The only difference is this test's port.
        let call = command.replace("127.0.0.1:3000", &service.address.to_string());
        for status in statuses {
            let output = Command::new("sh")
                .arg("-c")
                .arg(&call)
                .output()
                .expect("a shell");
            let answer = String::from_utf8_lossy(&output.stdout);
            let expected = format!("HTTP/1.1 {status} ");
            assert!(
                answer.starts_with(&expected),
                "{command} must answer {status} (with curl -i): {answer}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
