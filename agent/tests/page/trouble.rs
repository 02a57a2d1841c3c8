//! Trouble that befalls a running gateway: said in words on the page, in the log and by `doctor`, and the rest goes on.

use crate::http::{get, request};
use crate::support::{Disk, Gateway, Setup, clock, free_port, run, tidegate, until};
use serde_json::Value;
use std::io::Write;
use time::{Duration, OffsetDateTime};

/// What `doctor` finds: all sentences of that level.
fn doctor(setup: &Setup, level: &str) -> String {
    let mut command = tidegate();
    command.args(["doctor", "--quick", "--json", "--config"]).arg(setup.config());
    let (_, out, err) = run(command.envs(setup.env.iter().cloned()));
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let findings = found["findings"].as_array().unwrap();
    let told = findings.iter().filter(|f| f["level"] == level).inspect(|f| assert!(f["next"].is_string(), "{f}"));
    told.map(|f| format!("{}: {}\n", f["part"].as_str().unwrap(), f["what"].as_str().unwrap())).collect()
}

/// Waits until what the page shows has it; gives all of it.
fn page(gateway: &Gateway, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    let port = gateway.page();
    until(what, || Some(get(port, "/api/state").json()).filter(&look))
}

fn faults(state: &Value) -> String {
    state["faults"].to_string()
}

fn part(state: &Value, name: &str) -> (bool, String) {
    let part = state["parts"].as_array().unwrap().iter().find(|part| part["name"] == name).unwrap();
    (part["ok"] == true, part["words"].as_str().unwrap().to_owned())
}

fn happened(state: &Value, kind: &str, words: &str) -> bool {
    let told = |event: &Value| event["kind"] == kind && event["message"].as_str().unwrap().contains(words);
    state["events"].as_array().unwrap().iter().any(told)
}

#[test]
fn a_disk_that_becomes_read_only_is_said_and_nothing_that_was_accepted_is_lost() {
    let mut setup = Setup::new();
    let disk = Disk::new(setup.folder.path());
    setup.env = disk.env();
    let mut gateway = setup.start();
    gateway.process.may_log_errors();
    gateway.until_ready();
    let mut device = gateway.device("local-1");
    device.fence("f-1");
    disk.becomes_read_only();
    device.prompt(r#"{"id":"r-1","input":"turn on the light"}"#);
    let refused = device.outcome("r-1");
    assert_eq!(refused["code"], "busy", "nothing is acknowledged that is not on disk: {refused}");
    assert!(refused["message"].as_str().unwrap().contains("the disk is read-only"), "{refused}");
    let state = page(&gateway, "the disk", |state| faults(state).contains("the disk is read-only since"));
    let (well, words) = part(&state, "spool");
    assert!(!well && words.contains("read-only: new prompts are refused"), "{words}");
    assert!(happened(&state, "disk", "became read-only"), "{state:#}");
    let ready = get(gateway.page(), "/readyz");
    assert!(ready.status == 503 && ready.body.contains("the disk is read-only"), "{ready:?}");
    assert!(gateway.process.log().contains("the disk became read-only: prompts are refused until it takes writes"));
    let told = doctor(&setup, "fault");
    assert!(told.contains("data: ") && told.contains("Read-only file system"), "{told}");
    // The rest goes on: what was answered is fetched, and refusals keep coming.
    device.publish("control", r#"{"op":"fetch","id":"f-1"}"#);
    until("the stored answer", || (device.outcomes("f-1").len() == 2).then_some(()));
    device.prompt(r#"{"id":"r-2","input":"turn on the light"}"#);
    assert_eq!(device.outcome("r-2")["code"], "busy");
    drop(device);
    disk.takes_writes_again();
    assert_eq!(gateway.process.wait().code(), Some(74), "a start reads what is on the disk");
    assert!(gateway.process.log().contains("the disk takes writes again"), "{}", gateway.process.log());
    let gateway = setup.start();
    gateway.device("local-1").fence("r-1");
    assert_eq!(part(&page(&gateway, "a store", |state| part(state, "spool").0), "spool").1, "takes prompts");
}

#[test]
fn a_clock_in_1970_is_said_and_prompts_are_answered() {
    let mut setup = Setup::new();
    setup.env = clock("@1970-01-02 00:00:00");
    let gateway = setup.start();
    gateway.device("local-1").fence("f-1");
    let words = "the clock stands at 1970-01-02, before this program was built";
    let state = page(&gateway, "the clock", |state| faults(state).contains(words));
    assert!(happened(&state, "clock", words), "{state:#}");
    assert!(gateway.process.log().contains(words), "{}", gateway.process.log());
    let told = doctor(&setup, "fault");
    assert!(told.contains("clock: it stands before this program was built"), "{told}");
}

#[test]
fn a_certificate_that_ends_while_the_gateway_runs_is_said_and_other_addresses_go_on() {
    let mut setup = Setup::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = OffsetDateTime::now_utc() + Duration::seconds(8);
    let (cert_file, key_file) = (setup.folder.path().join("door.crt"), setup.folder.path().join("door.key"));
    std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    setup.door +=
        &format!("\nlisten_tls = [\"127.0.0.1:{}\"]\ncert = {cert_file:?}\nkey = {key_file:?}\n", free_port());
    let gateway = setup.start();
    page(&gateway, "a warning of the end", |state| happened(state, "certificate", "door.crt is valid until"));
    let state = page(&gateway, "the end", |state| faults(state).contains("door.crt ended on"));
    assert!(happened(
        &page(&gateway, "the event", |s| happened(s, "certificate", "ended on")),
        "certificate",
        "door.crt"
    ));
    let end = &state["numbers"]["tidegate_certificate_expiry_timestamp_seconds{part=\"door\"}"];
    assert_eq!(end.as_i64(), Some(params.not_after.unix_timestamp()), "{end}");
    assert!(gateway.process.log().contains("door.crt ended on"), "{}", gateway.process.log());
    let told = doctor(&setup, "fault");
    assert!(told.contains("certificate: the door's certificate") && told.contains("ended on"), "{told}");
    gateway.device("local-1").fence("f-1");
}

#[test]
fn a_host_name_that_does_not_resolve_is_said_and_prompts_are_answered_here() {
    let mut setup = Setup::bridged(free_port());
    let at = setup.more.find("mqtt://").unwrap();
    let end = at + setup.more[at..].find('"').unwrap();
    setup.more.replace_range(at..end, "mqtt://nowhere.invalid");
    let gateway = setup.start();
    let words = "the name nowhere.invalid does not resolve: ";
    let state = page(&gateway, "the name", |state| part(state, "link").1.contains(words));
    let (well, told) = part(&state, "link");
    assert!(
        !well && told.starts_with("down since ") && told.ends_with("local answers go on, escalations wait"),
        "{told}"
    );
    assert!(gateway.process.log().contains(words), "{}", gateway.process.log());
    let told = doctor(&setup, "fault");
    assert!(told.contains(&format!("central broker: {words}")), "{told}");
    gateway.device("local-1").fence("f-1");
}

#[test]
fn who_is_turned_away_by_the_page_is_counted_and_said() {
    let mut setup = Setup::new();
    std::fs::write(setup.folder.path().join("token"), "a-token-of-this-gateway\n").unwrap();
    setup.page = format!("listen = [\"127.0.0.1:{}\"]\ntoken_file = \"token\"\n", free_port());
    let gateway = setup.start();
    let port = gateway.page();
    let held = "Authorization: Bearer a-token-of-this-gateway";
    for _ in 0..3 {
        assert_eq!(request(port, "GET /metrics", &["Authorization: Bearer a-wrong-token-of-it"], b"").status, 401);
    }
    assert_eq!(request(port, "GET /", &["Host: evil.example"], b"").status, 421);
    let act = [held, "Tidegate-Act: 1", "Content-Type: application/json"];
    let body = format!("{{\"input\":\"{}\"}}", "x".repeat(200_000));
    assert_eq!(request(port, "POST /api/ask", &act, body.as_bytes()).status, 413);
    let mut slow = crate::http::connect(port);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    let counted = |text: &str, why: &str, count: u32| {
        text.contains(&format!("tidegate_page_turned_away_total{{why=\"{why}\"}} {count}\n"))
    };
    let text = until("the slow one", || {
        let text = request(port, "GET /metrics", &[held], b"").body;
        counted(&text, "slow", 1).then_some(text)
    });
    assert!(counted(&text, "token", 3) && counted(&text, "host", 1) && counted(&text, "body", 1), "{text}");
    let log = gateway.process.log();
    for words in ["without the right token", "asked under a foreign name", "too large or malformed", "too slow"] {
        assert_eq!(log.matches(words).count(), 1, "each is told, and does not fill the log: {log}");
    }
    let told = doctor(&setup, "warning");
    assert!(
        told.contains("page: requests turned away since the start: ") && told.contains("3 without the right"),
        "{told}"
    );
    std::fs::write(setup.folder.path().join("token"), "short\n").unwrap();
    let told = doctor(&setup, "fault");
    assert!(told.contains("page: the token cannot be used, nobody is served") && told.contains("5 bytes"), "{told}");
    gateway.device("local-1").fence("f-1");
}
