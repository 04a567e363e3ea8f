//! Web pages: which may send requests, what a browser sends for them without a preflight, and which
//! host names count.

use crate::{auth::SECRET, backup::Empty, *};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use widgets_server::{
    Authentication, AuthenticationSettings, BrowserSettings, Caller, KeySet, Origins, Roles,
};

const EVIL: &str = "origin: https://evil.example";
const CROSS_SITE: &str = "sec-fetch-site: cross-site";
const JSON: &str = "content-type: application/json";

/// Counts the operations and the reads.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl<R: widgets_registry::Request> Ask<R> for Counting
where
    Willing: Ask<R>,
{
    async fn ask(&self, request: R) -> Result<R::Answer, R::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Willing.ask(request).await
    }
}

impl Store for Counting {
    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn named(origins: &[&str]) -> BrowserSettings {
    BrowserSettings {
        origins: Origins::parse(origins.iter().copied()).expect("origins"),
        ..BrowserSettings::default()
    }
}

/// Callers with a certificate, and callers without credentials, may do everything.
fn certified() -> Authentication {
    let everything = || vec!["all".to_owned()];
    let settings = AuthenticationSettings {
        role_claim: "role".into(),
        roles: Roles {
            read: everything(),
            write: everything(),
            admin: everything(),
        },
        certificate_role: Some("all".into()),
        anonymous_role: Some("all".into()),
        ..AuthenticationSettings::default()
    };
    Authentication::new(settings, Some(KeySet::parse(SECRET).expect("keys")))
}

/// Sends a request over a connection that has a client certificate.
async fn send_certified<S: Store>(
    api: &Api<S>,
    (method, uri): (&str, &str),
    headers: &[&str],
    body: &'static str,
) -> u16 {
    let mut request = Request::builder().method(method).uri(uri);
    request = request.header("host", "widgets.example");
    for header in headers {
        let (name, value) = header.split_once(": ").expect("name: value");
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from_static(body.as_bytes())));
    let caller = Caller {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        certified: true,
        subject: None,
    };
    let request = Box::new(request.expect("a request").into_parts());
    api.respond_to(caller, request).await.status().as_u16()
}

const ASKED: [(&str, &str, &str); 5] = [
    ("POST", "/rpc/remove_widget", r#"{"widget_sn":"E"}"#),
    ("GET", "/widgets/E", ""),
    ("GET", "/metrics", ""),
    ("GET", "/backup", ""),
    ("GET", "/", ""),
];

/// Without a token, no request of another site's page is applied or reads anything.
#[tokio::test]
async fn requests_from_other_sites_without_a_token_are_refused() {
    for authentication in [Authentication::off(), certified()] {
        let store = Counting::default();
        let api = api(store.clone()).with_authentication(Arc::new(authentication));
        for headers in [
            &[EVIL, CROSS_SITE, JSON][..],
            // Without TLS, browsers send no more than this.
            &[EVIL, JSON],
            &["origin: null", JSON],
            // Without CORS there is no origin.
            &[CROSS_SITE, JSON],
            &[CROSS_SITE, EVIL, JSON, "sec-fetch-mode: no-cors"],
            &[CROSS_SITE, JSON, "authorization: Basic dTpw"],
        ] {
            for (method, uri, body) in ASKED {
                let answer = send(&api, method, uri, headers, body).await;
                assert_eq!(
                    answer.outcome(),
                    (403, "42501"),
                    "{method} {uri} {headers:?}"
                );
                let hint =
                    r#""hint":"Send a token, or name the page's origin in http.cors_origins""#;
                assert!(answer.body.contains(hint), "{}", answer.body);
                let status = send_certified(&api, (method, uri), headers, body).await;
                assert_eq!(status, 403, "{method} {uri} {headers:?}");
            }
            for probe in ["/live", "/ready"] {
                let answer = send(&api, "GET", probe, headers, "").await;
                assert_eq!(answer.outcome(), (200, ""), "{probe} {headers:?}");
            }
        }
        assert_eq!(
            store.0.load(Ordering::Relaxed),
            0,
            "nothing reached the store"
        );
    }
}

#[tokio::test]
async fn same_site_pages_programs_and_visitors_are_not_refused() {
    let api = api(Counting::default()).with_backup(Arc::new(Empty));
    let programs = ["user-agent: curl/8", "sec-fetch-mode: cors", JSON];
    let own = [
        "sec-fetch-site: same-origin",
        "origin: http://localhost",
        JSON,
    ];
    let sibling = [
        "sec-fetch-site: same-site",
        "origin: http://localhost:5173",
        JSON,
    ];
    let without_tls = ["origin: http://localhost:5173", JSON];
    for headers in [&programs, &own, &sibling, &without_tls[..]] {
        for (method, uri, body) in ASKED {
            let answer = send(&api, method, uri, headers, body).await;
            assert!(answer.status.as_u16() < 405, "{method} {uri} {headers:?}");
            assert_ne!(answer.status.as_u16(), 403, "{method} {uri} {headers:?}");
        }
    }
    // Somebody follows a link on another site.
    let visit = [
        CROSS_SITE,
        "sec-fetch-mode: navigate",
        "sec-fetch-dest: document",
    ];
    let answer = send(&api, "GET", "/", &visit, "").await;
    assert_eq!(answer.outcome(), (200, ""));
    let answer = send(&api, "POST", "/rpc/remove_widget", &visit, "{}").await;
    assert_eq!(answer.outcome(), (403, "42501"), "no link leads to a POST");
}

/// Forms, beacons and `no-cors` can send requests that need no preflight.
#[tokio::test]
async fn requests_that_need_no_preflight_change_nothing() {
    let store = Counting::default();
    let api = api(store.clone());
    let body = r#"{"widget_sn":"E"}"#;
    for origin in ["origin: http://localhost:8080", "sec-fetch-site: same-site"] {
        let answer = send(&api, "POST", "/rpc/remove_widget", &[origin], body).await;
        let expected = r#"{"code":"PGRST102","details":null,"hint":"Send the header Content-Type: application/json","message":"Content-Type is missing: a web page must send it"}"#;
        assert_eq!((answer.status.as_u16(), &*answer.body), (400, expected));
        for media_type in [
            "text/plain",
            "text/plain; application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            let content_type = format!("content-type: {media_type}");
            let headers = [origin, &content_type];
            let answer = send(&api, "POST", "/rpc/remove_widget", &headers, body).await;
            assert!([400, 404].contains(&answer.status.as_u16()), "{media_type}");
        }
    }
    assert_eq!(store.0.load(Ordering::Relaxed), 0);
    let answer = send(&api, "POST", "/rpc/remove_widget", &[], body).await;
    assert_eq!(
        answer.outcome(),
        (204, ""),
        "a program need not send a media type"
    );
}

#[tokio::test]
async fn requests_with_a_token_are_accepted_from_any_origin() {
    let api = api(Counting::default()).with_authentication(Arc::new(certified()));
    let token = auth::token(SECRET, r#"{"alg":"HS256"}"#, r#"{"role":"all"}"#);
    let authorization = format!("authorization: Bearer {token}");
    let body = r#"{"widget_sn":"E"}"#;
    for headers in [
        &[EVIL, CROSS_SITE, JSON, &authorization][..],
        &[EVIL, CROSS_SITE, &authorization],
    ] {
        let answer = send(&api, "POST", "/rpc/remove_widget", headers, body).await;
        assert_eq!(answer.outcome(), (204, ""), "{headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    // A preflight does not show whether a token will be sent.
    let preflight = [EVIL, CROSS_SITE, "access-control-request-method: POST"];
    let answer = send(&api, "OPTIONS", "/rpc/remove_widget", &preflight, "").await;
    assert_eq!(answer.outcome(), (200, ""));
    let bad = [EVIL, CROSS_SITE, JSON, "authorization: Bearer a.b.c"];
    let answer = send(&api, "POST", "/rpc/remove_widget", &bad, body).await;
    assert_eq!(answer.outcome(), (401, "PGRST301"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn requests_from_configured_origins_are_accepted() {
    let origin = "origin: https://app.example";
    for settings in [named(&["https://app.example"]), named(&["*"])] {
        let any = settings == named(&["*"]);
        let store = Counting::default();
        let api = api(store.clone()).with_browsers(settings);
        let answer = send(&api, "GET", "/widgets/E", &[origin, CROSS_SITE], "").await;
        assert_eq!(answer.outcome(), (404, "WG001"));
        let preflight = [origin, CROSS_SITE, "access-control-request-method: POST"];
        let asked = send(&api, "OPTIONS", "/rpc/remove_widget", &preflight, "").await;
        assert_eq!(asked.outcome(), (200, ""));
        for answer in [answer, asked] {
            let (allowed, credentials) = if any {
                ("*", None)
            } else {
                ("https://app.example", Some("true"))
            };
            let header = |name| answer.header(name);
            assert_eq!(header("access-control-allow-origin"), Some(allowed));
            assert_eq!(header("access-control-allow-credentials"), credentials);
            let mut vary = answer.headers.get_all("vary").iter();
            assert_eq!(vary.any(|value| value == "Origin"), !any);
        }
        let others = [EVIL, CROSS_SITE];
        let answer = send(&api, "GET", "/widgets/E", &others, "").await;
        assert_eq!(answer.status.as_u16(), if any { 404 } else { 403 });
        // Even so, the request must be of a kind that needs a preflight.
        let unasked = [origin, CROSS_SITE];
        let body = r#"{"widget_sn":"E"}"#;
        let answer = send(&api, "POST", "/rpc/remove_widget", &unasked, body).await;
        assert_eq!(answer.outcome(), (400, "PGRST102"));
    }
}

/// If no token can be checked, no request of a foreign page can succeed.
#[tokio::test]
async fn a_foreign_preflight_is_refused_if_no_token_can_be_checked() {
    let api = api(Counting::default());
    let preflight = [EVIL, "access-control-request-method: POST"];
    for uri in ["/rpc/add_widget", "/a/b"] {
        let answer = send(&api, "OPTIONS", uri, &preflight, "").await;
        assert_eq!(answer.outcome(), (403, "42501"), "{uri}");
        assert_eq!(answer.header("access-control-allow-methods"), None);
    }
}

#[tokio::test]
async fn a_loopback_service_refuses_foreign_host_names() {
    let store = Counting::default();
    let settings = BrowserSettings {
        loopback_names_only: true,
        ..named(&["http://widgets.example:8080"])
    };
    let api = api(store.clone()).with_browsers(settings);
    // DNS rebinding: the browser treats the page as the service's own.
    let rebound = [
        "host: evil.example:3000",
        "sec-fetch-site: same-origin",
        JSON,
    ];
    for (method, uri, body) in ASKED {
        let answer = send(&api, method, uri, &rebound, body).await;
        assert_eq!(answer.outcome(), (421, "WG421"), "{method} {uri}");
    }
    assert_eq!(store.0.load(Ordering::Relaxed), 0);
    for host in [
        "host: localhost:3000",
        "host: [::1]:3000",
        "host: widgets.example:8080",
    ] {
        let answer = send(&api, "GET", "/widgets/E", &[host], "").await;
        assert_eq!(answer.outcome(), (404, "WG001"), "{host}");
    }
    let answer = send(&api, "GET", "/ready", &["host: balancer.example"], "").await;
    assert_eq!(answer.outcome(), (200, ""), "a probe may use any host name");
}
