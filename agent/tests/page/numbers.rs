//! `/metrics`, the retained state and the probes: checked with Prometheus' own tool, and against the dashboard and the
//! alerts that are shipped.

use crate::http::get;
use crate::support::{Central, Device, Proxy, Setup, Worker, slow_model, until};
use crate::{SPELL, kill_engine, poison};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An engine that was killed is up again before the next one dies, however long its back-off.
const BETWEEN_KILLS: Duration = Duration::from_secs(4);

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// Debian's `promtool` (package prometheus).
fn promtool(args: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is there: deploy/machine.sh installs it");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn passes(output: &Output) {
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// Names of metrics in a text: words that begin as ours do.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("tidegate_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// What PromQL expressions of the dashboard and the alerts ask for.
fn asked() -> BTreeSet<String> {
    let mut expressions = String::new();
    let mut dashboards = 0;
    for entry in std::fs::read_dir(deploy("grafana")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                expressions += target["expr"].as_str().unwrap();
                expressions.push('\n');
            }
        }
        dashboards += 1;
    }
    assert!(dashboards > 0);
    let rules = std::fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        expressions += line;
        expressions.push('\n');
    }
    names(&expressions)
}

#[test]
fn prometheus_takes_the_metrics_and_every_one_that_is_asked_for_is_there() {
    let central = Central::start();
    let worker = Worker::start(central.port, "info");
    let mut setup = Setup::bridged(central.port);
    setup.more = setup.more.replacen("[bridge]\n", "[bridge]\ndaily_mib_max = 100\n", 1);
    let gateway = setup.start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    let mut fences = 0;
    until("a speed that can be expected", || {
        fences += 1;
        device.fence(&format!("f-{fences}"));
        get(gateway.page(), "/metrics").body.contains("\ntidegate_engine_expected_tokens_per_second ").then_some(())
    });
    device.prompt(r#"{"id":"c-1","task":"doubted","input":"seventeen grommets whistle at noon"}"#);
    device.prompt(r#"{"id":"e-1","input":"expires","deadline_ms":1}"#);
    device.prompt(r#"{"id":"r-1","task":"nothing","input":"refused"}"#);
    for id in ["c-1", "e-1", "r-1"] {
        device.outcome(id);
    }
    let text = until("all outcomes counted", || {
        let text = get(gateway.page(), "/metrics").body;
        text.contains("tidegate_outcomes_total{route=\"cloud\"} 1").then_some(text)
    });
    passes(&promtool(&["check", "metrics"], &text));
    passes(&promtool(&["check", "rules", deploy("prometheus/alerts.yml").to_str().unwrap()], ""));
    let told = names(&text);
    // What only some machines and configurations have.
    let may_lack = ["tidegate_host_temperature_celsius", "tidegate_certificate_expiry_timestamp_seconds"];
    let lacking: Vec<_> =
        asked().into_iter().filter(|n| !told.contains(n) && !may_lack.contains(&n.as_str())).collect();
    assert!(lacking.is_empty(), "asked for and not told: {lacking:?}\n{text}");
    let accepted = format!("tidegate_prompts_accepted_total {}", fences + 2);
    for line in [accepted.as_str(), "tidegate_prompts_refused_total{code=\"unknown_task\"} 1"] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("local-1"), "no device is a label");
    drop(worker);
}

#[test]
fn the_retained_state_has_the_same_names() {
    let gateway = Setup::new().start();
    gateway.until_ready();
    let mut watcher = Device::observer(gateway.port, "local-watch");
    watcher.subscribe("tg/v1/site/gateway/state/metrics");
    let told = watcher.until_frame("the numbers", |f| f.get("tidegate_disk_free_bytes").is_some());
    let text = get(gateway.page(), "/metrics").body;
    let keys: BTreeSet<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    let lines: BTreeSet<&str> =
        text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' ')).map(|(name, _)| name).collect();
    // The first numbers are told before the engine runs.
    let late: Vec<&&str> = keys.difference(&lines).collect();
    assert!(late.is_empty(), "told as state and not as metrics: {late:?}");
    assert!(keys.len() > 60, "{keys:?}");
}

#[test]
fn a_thousand_scrapers_are_served_and_devices_do_not_notice() {
    let gateway = Setup::new().start();
    gateway.until_ready();
    let port = gateway.page();
    let mut device = gateway.device("local-1");
    std::thread::scope(|scope| {
        let scrapers: Vec<_> = (0..1000)
            .map(|_| {
                let scraper = std::thread::Builder::new().stack_size(128 * 1024);
                scraper.spawn_scoped(scope, move || get(port, "/metrics")).unwrap()
            })
            .collect();
        device.fence("f-1");
        for scraper in scrapers {
            let answer = scraper.join().unwrap();
            assert!(answer.status == 200 && answer.body.ends_with('\n'), "{}", answer.status);
        }
    });
    device.fence("f-2");
}

#[test]
fn probes_say_of_each_part_whether_it_works() {
    let central = Central::start();
    let proxy = Proxy::to(central.port);
    let mut setup = Setup::bridged(proxy.port);
    setup.model = slow_model(setup.folder.path());
    setup.more += &SPELL[SPELL.find("[tasks").unwrap()..].replace("system", "cloud = \"never\"\nsystem");
    let gateway = setup.start();
    let port = gateway.page();
    gateway.until_ready();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let part = |probe: &crate::http::Answer, name: &str| {
        let line = probe.body.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{name} is not in {probe:?}"))
    };
    let ready = until("all parts", || Some(get(port, "/readyz")).filter(|probe| probe.status == 200));
    for name in ["door", "spool", "engine", "link"] {
        assert!(part(&ready, name).contains(" ok "), "{ready:?}");
    }
    // The first deaths are over in less time than a probe's answer is kept; each next one lasts longer.
    let mut killed: Option<Instant> = None;
    let not = until("a lost engine", || {
        if killed.is_none_or(|at| at.elapsed() > BETWEEN_KILLS) {
            kill_engine(&gateway);
            killed = Some(Instant::now());
        }
        Some(get(port, "/readyz")).filter(|probe| probe.status == 503)
    });
    assert!(part(&not, "engine").contains("not ok"), "{not:?}");
    assert_eq!(get(port, "/healthz").status, 200, "an engine that comes back is no reason for a restart");
    until("the next engine", || (get(port, "/readyz").status == 200).then_some(()));
    proxy.cut();
    let down = until("the dead link", || Some(get(port, "/readyz")).filter(|p| part(p, "link").contains("not ok")));
    assert_eq!(down.status, 200, "answers go on without a link");
    assert!(part(&down, "link").contains("down since"), "{down:?}");
}

#[test]
fn a_full_disk_is_said_and_dead_letters_are_counted() {
    let mut setup = Setup::new();
    setup.model = slow_model(setup.folder.path());
    setup.more = SPELL.to_owned();
    let gateway = setup.start();
    let mut device = gateway.device("local-1");
    poison(&gateway, &mut device, "p-1");
    until("the letter in the numbers", || {
        let text = get(gateway.page(), "/metrics").body;
        let age = text.contains("tidegate_queue_oldest_age_seconds{class=\"dead\"}");
        (age && text.contains("tidegate_queue_entries{class=\"dead\"} 1\n")).then_some(())
    });
    drop((device, gateway));
    setup.more += "[spool]\nfree_mib_min = 1048576\n";
    let gateway = setup.start();
    let probe = get(gateway.page(), "/healthz");
    assert!(probe.status == 503 && probe.body.contains("the disk has"), "{probe:?}");
}
