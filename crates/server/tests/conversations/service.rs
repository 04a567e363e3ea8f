//! What applies to every answer: preferences, other origins, faults, metrics.

use crate::*;
use std::collections::BTreeMap;
use widgets_registry::Operation;
use widgets_server::Code;
use widgets_server::{BrowserSettings, Origins};

#[tokio::test]
async fn applied_preferences_are_named_in_the_response() {
    let (_engine, api) = service("preferences");
    let add = async |number: u32, prefer: &'static str| {
        let body = format!(r#"{{"widget_sn":"{number}","widget_name":"","slots":[]}}"#);
        send(&api, "POST", "/rpc/add_widget", &[prefer], &body).await
    };
    let cases = [
        ("prefer: count=exact", "0-0/1", Some("count=exact")),
        ("prefer: return=representation", "0-0/*", None),
        ("prefer: tx=rollback, return=minimal", "0-0/*", None),
        (
            "prefer: handling=strict, count=exact",
            "0-0/1",
            Some("count=exact, handling=strict"),
        ),
    ];
    for (number, (prefer, range, applied)) in (0..).zip(cases) {
        let answer = add(number, prefer).await;
        assert_eq!(answer.outcome(), (204, ""), "{prefer}");
        assert_eq!(answer.header("content-range"), Some(range), "{prefer}");
        assert_eq!(answer.header("preference-applied"), applied, "{prefer}");
        let lookup = send(&api, "GET", &format!("/widgets/{number}"), &[], "").await;
        assert_eq!(
            lookup.outcome(),
            (200, ""),
            "{prefer}: nothing is rolled back"
        );
    }
}

#[tokio::test]
async fn cors_headers_allow_any_origin_if_so_configured() {
    let (_engine, api) = service("cors");
    let api = api.with_browsers(BrowserSettings {
        origins: Origins::parse(["*"]).expect("origins"),
        ..BrowserSettings::default()
    });
    let preflight = [
        "origin: https://example.org",
        "access-control-request-method: POST",
        "access-control-request-headers: content-type,x-client-info",
    ];
    // A preflight is answered before anything else is checked, including the path.
    for uri in ["/rpc/add_widget", "/a/b"] {
        let answer = send(&api, "OPTIONS", uri, &preflight, "").await;
        assert_eq!(answer.outcome(), (200, ""));
        let expected = [
            ("access-control-allow-origin", "*"),
            (
                "access-control-allow-methods",
                "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD",
            ),
            (
                "access-control-allow-headers",
                "Authorization, content-type, x-client-info, Accept, Accept-Language, Content-Language",
            ),
            ("access-control-max-age", "86400"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
    let exposed = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit, Allow, Preference-Applied, Proxy-Status, Retry-After, WWW-Authenticate, Idempotency-Replayed, Next-Position, Position, X-Request-Id";
    for (body, outcome) in [(E, (204, "")), (E, (409, "23505"))] {
        let headers = [preflight[0], "content-type: application/json"];
        let answer = send(&api, "POST", "/rpc/add_widget", &headers, body).await;
        assert_eq!(answer.outcome(), outcome);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(
            answer.header("access-control-expose-headers"),
            Some(exposed)
        );
    }
    let answer = post(&api, "add_widget", E).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn faults_are_503_and_only_busy_ones_have_a_retry_after_header() {
    let reason = Reason::from("the disk is full");
    let cases = [
        (
            busy(),
            Some("7"),
            r#"{"code":"WG503","details":null,"hint":null,"message":"the service is too busy: queue_operations_max = 2048"}"#,
        ),
        (
            Fault::Unavailable {
                reason: reason.clone(),
            },
            None,
            r#"{"code":"WG504","details":null,"hint":null,"message":"the store accepts no operations: the disk is full"}"#,
        ),
        (
            Fault::FateUnknown { reason },
            None,
            r#"{"code":"WG505","details":null,"hint":null,"message":"the operation may or may not have been applied: the disk is full"}"#,
        ),
    ];
    for (fault, retry_after, expected) in cases {
        let api = api(Failing(fault.clone()));
        check(&api, "add_widget", E, (503, expected)).await;
        let mut refused = vec![
            ("POST", "/rpc/associate_widgets", E_F_P),
            ("GET", "/widgets/E", ""),
        ];
        if matches!(fault, Fault::Busy { .. }) {
            // If it were removed from a load balancer, its load would only move to others.
            assert_eq!(
                send(&api, "GET", "/ready", &[], "").await.outcome(),
                (200, "")
            );
        } else {
            refused.push(("GET", "/ready", ""));
        }
        for (method, uri, body) in refused {
            let answer = send(&api, method, uri, &[], body).await;
            assert_eq!(
                (answer.status.as_u16(), answer.body.as_str()),
                (503, expected)
            );
            assert_eq!(answer.header("retry-after"), retry_after, "{uri}");
        }
        // It is alive nevertheless, and errors of the request itself are still reported.
        assert_eq!(
            send(&api, "GET", "/live", &[], "").await.outcome(),
            (200, "")
        );
        let answer = post(&api, "add_widget", "{}").await;
        assert_eq!(answer.outcome(), (404, "PGRST202"));
    }
}

#[tokio::test]
async fn metrics_count_requests_by_operation_and_outcome() {
    let (_engine, api) = service("metrics");
    for _ in 0..2 {
        post(&api, "add_widget", E).await;
    }
    post(&api, "drop_widget", "{}").await;
    send(&api, "GET", "/widgets/X", &[], "").await;
    send(&api, "GET", "/live", &[], "").await;
    // A HEAD of an operation asks for permissions and does not count; a GET counts as refused.
    for (method, query) in [
        ("HEAD", "?widget_sn="),
        ("HEAD", ""),
        ("GET", "?widget_sn="),
    ] {
        let path = format!("/rpc/remove_widget{query}");
        send(&api, method, &path, &[], "").await;
    }
    let answer = send(&api, "GET", "/metrics", &[], "").await;
    let text = Some("text/plain; version=0.0.4");
    assert_eq!(answer.header("content-type"), text);
    let counts: Vec<&str> = answer
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("widgets_request_duration_seconds_count"))
        .collect();
    let expected = [
        r#"{operation="add_widget",outcome="23505"} 1"#,
        r#"{operation="add_widget",outcome="ok"} 1"#,
        r#"{operation="associate_widgets",outcome="ok"} 0"#,
        r#"{operation="lookup",outcome="WG001"} 1"#,
        r#"{operation="lookup",outcome="ok"} 0"#,
        r#"{operation="none",outcome="PGRST202"} 1"#,
        r#"{operation="remove_association",outcome="ok"} 0"#,
        r#"{operation="remove_widget",outcome="25006"} 1"#,
        r#"{operation="remove_widget",outcome="ok"} 0"#,
    ];
    assert_eq!(counts, expected);
    for expected in [
        r#"widgets_requests_total{operation="add_widget",outcome="23505"} 1"#,
        r#"widgets_requests_total{operation="add_widget",outcome="ok"} 1"#,
        r#"widgets_requests_total{operation="add_widget",outcome="WG505"} 0"#,
        r#"widgets_requests_total{operation="lookup",outcome="WG001"} 1"#,
        r#"widgets_requests_total{operation="none",outcome="PGRST202"} 1"#,
    ] {
        assert!(
            answer.body.lines().any(|line| line == expected),
            "{expected}"
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("widgets_build_info{{version=\"{version}\"}} 1");
    assert!(answer.body.lines().any(|line| line == build));
    let head = send(&api, "OPTIONS", "/metrics", &[], "").await;
    assert_eq!(head.header("allow"), Some("OPTIONS,GET,HEAD"));
    assert_eq!(head.status, StatusCode::OK);
}

/// Prometheus sees no increase in a counter that appears with its first request.
#[tokio::test]
async fn all_request_counters_exist_before_the_first_request() {
    let (_engine, api) = service("counts");
    let answer = send(&api, "GET", "/metrics", &[], "").await;
    let lines = answer.body.lines();
    let lines = lines.filter_map(|line| line.strip_prefix("widgets_requests_total"));
    let requests: BTreeMap<_, _> = lines.filter_map(|line| line.rsplit_once(' ')).collect();
    let operations = Operation::ALL.map(Operation::as_str);
    let words = Code::ALL.map(Code::as_str);
    for operation in operations.into_iter().chain(["lookup", "none"]) {
        for outcome in words.into_iter().chain(["ok"]) {
            let labels = format!("{{operation=\"{operation}\",outcome=\"{outcome}\"}}");
            assert_eq!(requests.get(&*labels), Some(&"0"), "{labels}");
        }
    }
}

#[tokio::test]
async fn programs_get_the_openapi_document_and_browsers_the_page() {
    let (_engine, api) = service("document");
    let document = "application/openapi+json; charset=utf-8";
    let page = "text/html; charset=utf-8";
    let browser = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let cases: [(&[&str], &str); 5] = [
        (&[], document),
        (&["accept: */*"], document),
        (&["accept: application/json"], document),
        (&["accept: application/openapi+json"], document),
        (&[browser], page),
    ];
    for (headers, content_type) in cases {
        let answer = send(&api, "GET", "/", headers, "").await;
        assert_eq!(answer.outcome(), (200, ""), "{headers:?}");
        assert_eq!(answer.header("content-type"), Some(content_type));
        assert_eq!(answer.header("vary"), Some("Accept"));
    }
    // Everything that the page loads comes from the service.
    let answer = send(&api, "GET", "/", &[browser], "").await;
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; "));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let opener = answer.header("cross-origin-opener-policy");
    assert_eq!(
        opener,
        Some("same-origin"),
        "other pages cannot access its window"
    );
    let links = answer
        .body
        .split(['"'])
        .filter(|text| text.contains("swagger-ui/"));
    let links: Vec<&str> = links.collect();
    assert_eq!(links.len(), 4);
    for link in links {
        assert!(
            !link.starts_with('/'),
            "{link}: a proxy may have the page behind a path"
        );
        let answer = send_bytes(&api, &format!("/{link}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{link}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
    }
    let answer = send(&api, "GET", "/swagger-ui/index.html", &[], "").await;
    assert_eq!(answer.outcome(), (404, "PGRST125"));
}

/// A browser that guessed an answer's type could find a page in a name or in an error.
#[tokio::test]
async fn responses_forbid_content_sniffing_and_set_cache_control() {
    let (_engine, api) = service("declared");
    let added = post(&api, "add_widget", E).await;
    assert_eq!(added.outcome(), (204, ""));
    assert_eq!(
        added.header("x-content-type-options"),
        None,
        "there is no content"
    );
    assert_eq!(added.header("cache-control"), None, "there is no content");
    for probe in ["/live", "/ready"] {
        let answer = send(&api, "GET", probe, &[], "").await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{probe}");
    }
    for (uri, accept, status) in [
        ("/", "*/*", 200),
        ("/", "text/html", 200),
        ("/widgets", "*/*", 200),
        ("/widgets", "text/csv", 200),
        ("/slots", "text/csv", 200),
        ("/widgets?name=like.%3Cscript%3E", "text/csv", 200),
        ("/widgets?name=%3Cscript%3E", "*/*", 400),
        ("/widgets/E", "*/*", 200),
        ("/widgets/%3Cscript%3E", "*/*", 404),
        ("/widgets/E/neighbourhood", "*/*", 200),
        ("/changes", "*/*", 200),
        ("/changes", "text/event-stream", 200),
        ("/changes", "application/x-ndjson", 200),
        ("/metrics", "*/*", 200),
        ("/%3Cscript%3E", "*/*", 404),
        ("/console/licences.md", "*/*", 200),
    ] {
        let request = Request::get(uri).header("accept", accept);
        let request = request.body(Full::<Bytes>::default());
        let answer = api.respond(request.expect("a request")).await;
        assert_eq!(answer.status().as_u16(), status, "{uri} {accept}");
        let declared = answer.headers().get("x-content-type-options");
        assert_eq!(
            declared.map(hyper::http::HeaderValue::as_bytes),
            Some(&b"nosniff"[..]),
            "{uri} {accept}"
        );
        let is_page = status == 200 && (uri == "/" || uri.starts_with("/console"));
        let cache = if is_page { "no-cache" } else { "no-store" };
        assert_eq!(answer.headers()["cache-control"], cache, "{uri} {accept}");
    }
}

/// Sends a GET whose answer need not be text.
async fn send_bytes<S: Store>(
    api: &Api<S>,
    uri: &str,
) -> hyper::Response<widgets_server::AnswerBody> {
    let request = Request::get(uri).body(Full::<Bytes>::default());
    api.respond(request.expect("a request")).await
}

#[tokio::test]
async fn the_console_works_under_any_prefix_and_restricts_its_sources() {
    let (_engine, api) = service("console");
    let answer = send(&api, "GET", "/console", &[], "").await;
    assert_eq!(answer.outcome(), (308, ""));
    assert_eq!(answer.header("location"), Some("console/"));
    for (uri, media_type) in [
        ("/console/", "text/html; charset=utf-8"),
        ("/console/console.js", "text/javascript; charset=utf-8"),
        ("/console/console.css", "text/css; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
        ("/console/licences.md", "text/plain; charset=utf-8"),
    ] {
        let answer = send(&api, "GET", uri, &[], "").await;
        assert_eq!(answer.outcome(), (200, ""), "{uri}");
        assert_eq!(answer.header("content-type"), Some(media_type), "{uri}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    }
    let other = send(&api, "GET", "/console/package.json", &[], "").await;
    assert_eq!(other.outcome(), (404, "PGRST125"));
    let post = send(&api, "POST", "/console/", &[], "").await;
    assert_eq!(post.outcome().0, 405);
}

/// A parameter that is spelled wrongly would otherwise send operations to a standby.
#[tokio::test]
async fn readiness_and_backups_refuse_unknown_parameters_that_others_ignore() {
    let (_engine, api) = service("unknown-parameters");
    for (uri, outcome) in [
        ("/ready?", (200, "")),
        ("/ready?role=primary", (200, "")),
        ("/ready?rol=primary", (400, "PGRST100")),
        ("/ready?ROLE=primary", (400, "PGRST100")),
        ("/ready?role=primary&x", (400, "PGRST100")),
        ("/ready?role=", (400, "PGRST100")),
        ("/backup?x", (400, "PGRST100")),
        ("/live?x=1", (200, "")),
        ("/metrics?x", (200, "")),
        ("/?x=1", (200, "")),
        ("/console/?x", (200, "")),
    ] {
        let answer = send(&api, "GET", uri, &[], "").await;
        assert_eq!(answer.outcome(), outcome, "{uri}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_readiness_probe_reports_the_limits_of_a_distributed_registry() {
    let ready = send(&api(Spread), "GET", "/ready", &[], "").await;
    let told = r#"{"distributed":true,"lists":"of one moment for each shard","neighbourhoods":"of one moment for each shard","changes":"none","nodes":3,"nodes_away":1,"away":null}"#;
    assert_eq!((ready.status.as_u16(), ready.body.as_str()), (200, told));
    let json = Some("application/json; charset=utf-8");
    assert_eq!(ready.header("content-type"), json);
    let elsewhere = send(&api(Willing), "GET", "/ready", &[], "").await;
    assert_eq!(
        (elsewhere.status.as_u16(), elsewhere.body.as_str()),
        (200, "")
    );
    assert_eq!(elsewhere.header("content-type"), None);
}
