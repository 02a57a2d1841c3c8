//! What the page does not let happen.

use crate::http::{act, connect, exchange, get, read, request};
use crate::support::{Pki, Setup, slow_model};
use crate::{SPELL, poison};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATHS: [&str; 10] = [
    "/",
    "/page.css",
    "/page.js",
    "/icon.svg",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/state",
    "/api/live",
    "/api/dead",
];

#[test]
fn foreign_hosts_and_origins_are_turned_away_everywhere() {
    let gateway = Setup::new().start();
    let port = gateway.page();
    for path in PATHS {
        let line = format!("GET {path}");
        for host in ["Host: evil.example", "Host: 127.0.0.1", "Host: evil.example:8833"] {
            assert_eq!(request(port, &line, &[host], b"").status, 421, "{path} {host}");
        }
        for origin in ["Origin: http://evil.example", "Origin: null"] {
            assert_eq!(request(port, &line, &[origin], b"").status, 403, "{path} {origin}");
        }
    }
    let ours = format!("Origin: http://127.0.0.1:{port}");
    assert_eq!(request(port, "GET /api/state", &[&ours], b"").status, 200);
    let (act, json) = ("Tidegate-Act: 1", "Content-Type: application/json");
    let body = br#"{"input":"turn on the light"}"#;
    assert_eq!(request(port, "POST /api/ask", &[act, json, "Origin: http://evil.example"], body).status, 403);
    assert_eq!(request(port, "POST /api/ask", &[act, json, "Host: evil.example"], body).status, 421);
    let counted = get(port, "/api/state").json();
    assert_eq!(counted["numbers"]["tidegate_prompts_accepted_total"], 0, "nothing of all this was asked");
}

#[test]
fn nothing_that_a_form_can_send_acts_and_nobody_else_may_read() {
    let gateway = Setup::new().start();
    let port = gateway.page();
    let (act_header, json) = ("Tidegate-Act: 1", "Content-Type: application/json");
    for path in ["POST /api/ask", "POST /api/retry"] {
        let body = br#"{"input":"x"}"#;
        assert_eq!(request(port, path, &[json], body).status, 403, "{path}");
        for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let form = format!("Content-Type: {form}");
            assert_eq!(request(port, path, &[&form], body).status, 403, "{path}");
            assert_eq!(request(port, path, &[act_header, &form], body).status, 415, "{path}");
        }
        let preflight = request(port, &path.replace("POST", "OPTIONS"), &["Access-Control-Request-Method: POST"], b"");
        assert!(preflight.status >= 400, "{preflight:?}");
        assert!(!preflight.head.to_lowercase().contains("access-control"), "{preflight:?}");
    }
    for path in PATHS.iter().filter(|path| **path != "/api/live").chain(&["/nothing", "/api/ask"]) {
        let answer = get(port, path);
        let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{path}: {answer:?}"));
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert!(!answer.head.to_lowercase().contains("access-control"), "{path}: {answer:?}");
    }
    assert_eq!((get(port, "/nothing").status, get(port, "/api/ask").status), (404, 405));
}

#[test]
fn an_enormous_body_and_a_slow_client_cost_the_page_nothing() {
    let gateway = Setup::new().start();
    let port = gateway.page();
    let long = json!({ "input": "x".repeat(200_000) });
    assert_eq!(act(port, "/api/ask", &long).status, 413);
    assert_eq!(act(port, "/api/ask", &json!({ "input": "x".repeat(70_000) })).status, 400, "longer than a prompt");
    for bad in [json!({}), json!({ "input": 7 }), json!({ "input": " " }), json!({ "input": "x", "device": "y" })] {
        let refused = act(port, "/api/ask", &bad);
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    // More slow ones than there are places: each sends a head that never ends.
    let slow: Vec<_> = (0..80)
        .map(|_| {
            let mut stream = connect(port);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(get(port, "/healthz").status, 200, "whoever comes behind them is served");
    assert!(start.elapsed() < Duration::from_secs(60), "after {:?}", start.elapsed());
    for mut stream in slow {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_ne!(read(&answer).status, 200);
    }
    let mut device = gateway.device("local-1");
    device.fence("f-1");
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let gateway = Setup::new().start();
    let port = gateway.page();
    let cookie = format!("Cookie: {}", "x".repeat(40_000));
    let answer = request(port, "GET /", &[&cookie], b"");
    assert!(matches!(answer.status, 400..=499), "{}", answer.status);
}

#[test]
fn with_tls_and_a_token_only_its_holder_sees_and_acts() {
    let mut setup = Setup::new();
    let folder = setup.folder.path().to_path_buf();
    let pki = Pki::new(&folder.join("pki"));
    let named = pki.server();
    fs::write(folder.join("token"), "a-token-of-this-gateway\n").unwrap();
    setup.page = format!(
        "listen = [\"127.0.0.1:0\"]\ncert = {:?}\nkey = {:?}\ntoken_file = \"token\"\n",
        named.cert.display().to_string(),
        named.key.display().to_string()
    );
    let gateway = setup.start();
    let port = gateway.page();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.ca()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let get = |path: &str, more: &str| {
        let name = "localhost".try_into().unwrap();
        let stream = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), connect(port));
        exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}{more}"), b"")
    };
    let held = "\r\nAuthorization: Bearer a-token-of-this-gateway";
    for path in ["/metrics", "/api/state", "/api/dead", "/api/live"] {
        assert_eq!(get(path, "").status, 401, "{path}");
        assert_eq!(get(path, "\r\nAuthorization: Bearer a-token-of-this-gatewaY").status, 401, "{path}");
    }
    assert_eq!((get("/metrics", held).status, get("/api/state", held).status), (200, 200));
    assert_eq!(get("/", "").status, 200);
    let probe = get("/healthz", "");
    assert_eq!((probe.status, probe.body.trim()), (200, "ok"), "without the token only whether it works");
    assert!(get("/healthz", held).body.contains("spool"));
    let origin = format!("{held}\r\nOrigin: http://localhost:{port}");
    assert_eq!(get("/api/state", &origin).status, 403, "the plain scheme is another origin");
    let numbers = get("/api/state", held).json()["numbers"].clone();
    let ends = numbers["tidegate_certificate_expiry_timestamp_seconds{part=\"page\"}"].as_u64().unwrap();
    assert!(ends > 1_700_000_000, "{ends}");
}

#[test]
fn text_of_dead_letters_is_shown_only_where_the_operator_started_it_so() {
    let mut setup = Setup::new();
    setup.model = slow_model(setup.folder.path());
    setup.more = SPELL.to_owned();
    let gateway = setup.start();
    let mut device = gateway.device("local-1");
    poison(&gateway, &mut device, "p-1");
    let dead = get(gateway.page(), "/api/dead");
    assert_eq!(dead.json()["entries"][0]["device"], "local-1");
    let state = get(gateway.page(), "/api/state");
    for answer in [&dead, &state] {
        assert!(!answer.body.contains("riddle"), "{answer:?}");
    }
    drop((device, gateway));
    let gateway = setup.start_with(&["--reveal"]);
    assert!(get(gateway.page(), "/api/dead").body.contains("a poisonous riddle"));
    let mut device = gateway.device("local-1");
    let said = act(gateway.page(), "/api/retry", &json!({ "number": 1 }));
    assert_eq!((said.status, &said.json()["retried"]), (200, &json!(1)));
    device.answer("p-1-r1");
    assert_eq!(act(gateway.page(), "/api/retry", &json!({ "number": 1 })).status, 409, "it is gone");
    device.fence("f-1");
}

#[test]
fn an_address_that_is_taken_is_a_fault_and_the_gateway_goes_on() {
    let mut setup = Setup::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    setup.page = format!("listen = [\"{}\"]", holder.local_addr().unwrap());
    let gateway = setup.start();
    let faults = gateway.until_ready()["health"]["faults"].to_string();
    assert!(faults.contains("page: cannot listen on 127.0.0.1"), "{faults}");
    gateway.device("local-1").fence("f-1");
}
