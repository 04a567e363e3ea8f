//! The metrics behind alerts and dashboards exist before anything has happened. Prometheus sees no
//! increase in a count that begins with its first failure, and nobody notices a misspelt name.

use crate::{
    asking::answer,
    postgres_server::Server,
    service::{Directory, Service, migrate},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use std::{collections::BTreeSet, path::Path};

const WATCHING: [&str; 3] = [
    "alerts/widgets.yml",
    "docker-compose/victoria-metrics/dashboards/widgets.json",
    "grafana/widgets.json",
];

/// The series about workers, which only a service in front of a distributed registry has
/// (`citus.rs`).
pub(crate) const OF_WORKERS: [&str; 3] = [
    "widgets_node_batches_total",
    "widgets_node_connections",
    "widgets_node_failures_total",
];

/// Returns the names of this service's metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|each: char| !each.is_ascii_alphanumeric() && each != '_');
    let ours = |word: &&str| {
        let service = word.starts_with("widgets_") && !word.starts_with("widgets_load_");
        service || word.starts_with("process_")
    };
    words.filter(ours).collect()
}

pub(crate) fn metrics(service: &Service) -> String {
    let (status, text) = answer(service, "", "GET /metrics", "");
    assert_eq!(status, 200, "{text}");
    text
}

#[test]
fn every_metric_in_alerts_and_dashboards_exists_from_the_start() {
    let directory = Directory::new("metrics");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("a certificate").pem();
    std::fs::write(directory.path().join("ca.pem"), ca).expect("written");
    let embedded = Service::start(
        directory.path(),
        &[
            "--anonymous-role=admin",
            // Nobody listens there, and the service starts all the same.
            "--jwks-url=https://127.0.0.1:9/",
            "--jwks-ca=ca.pem",
            &format!(
                "--archive-url=file://{}/archive",
                directory.path().display()
            ),
        ],
    );
    let server = Server::start(&[]);
    let owner = server.database("registry", "postgres");
    migrate(directory.path(), &owner);
    let url = server.url("registry", "authenticator");
    let postgres = Service::start(directory.path(), &["--store", &url]);

    let (embedded, postgres) = (metrics(&embedded), metrics(&postgres));
    let page = std::fs::read_to_string("../../docs/operations.md").expect("the page");
    for text in [&embedded, &postgres] {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for name in types.filter_map(|line| line.split(' ').next()) {
            assert!(page.contains(name), "docs/operations.md lacks {name}");
        }
    }
    // A name that appears only in a comment is not a series.
    let series = |text: String| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join("\n")
    };
    let (embedded, postgres) = (series(embedded), series(postgres));
    let both = format!("{embedded}\n{postgres}");
    let mut present = names(&both);
    present.extend(OF_WORKERS);
    for file in WATCHING {
        let path = Path::new("../../deployments").join(file);
        let text = std::fs::read_to_string(&path).expect(file);
        let wanted = names(&text);
        let missing: Vec<_> = wanted.difference(&present).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}");
        assert!(wanted.len() > 5, "{file}: {wanted:?}");
    }
    let starts_at_zero = |text: &str, series: &str| {
        let line = format!("{series} 0");
        assert!(text.lines().any(|each| each == line), "{line}");
    };
    for text in [&embedded, &postgres] {
        for code in ["WG503", "WG504", "WG505"] {
            let labels = format!("{{operation=\"add_widget\",outcome=\"{code}\"}}");
            starts_at_zero(text, &format!("widgets_requests_total{labels}"));
        }
    }
    starts_at_zero(&embedded, "widgets_checkpoints_total{outcome=\"failed\"}");
    starts_at_zero(&embedded, "widgets_archive_gaps_total");
    starts_at_zero(
        &embedded,
        "widgets_archive_failures_total{reason=\"refused\"}",
    );
    for code in ["40001", "40P01", "55P03", "23503", "23505"] {
        let labels = format!("{{code=\"{code}\"}}");
        starts_at_zero(&postgres, &format!("widgets_batch_retries_total{labels}"));
    }
}
