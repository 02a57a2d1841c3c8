//! What an operator runs and what a service manager hears: `doctor`, readiness, the watchdog, a store of a newer version.

use crate::support::{Process, Setup, clock, edge_model, free_port, run, tidegate, until};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

fn doctor(config: &Path, more: &[&str]) -> (i32, Value) {
    let (status, out, err) = run(tidegate().args(["doctor", "--json", "--config"]).arg(config).args(more));
    (status, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")))
}

fn part<'v>(found: &'v Value, part: &str) -> Vec<&'v Value> {
    found["findings"].as_array().unwrap().iter().filter(|finding| finding["part"] == part).collect()
}

#[test]
fn doctor_looks_at_every_part_with_and_without_a_gateway() {
    let setup = Setup::new();
    let config = setup.config();
    let (status, found) = doctor(&config, &[]);
    assert_eq!(status, 0, "{found:#}");
    for name in
        ["configuration", "gateway", "processor", "confinement", "clock", "model", "memory", "data", "sync", "room"]
    {
        assert!(!part(&found, name).is_empty(), "{name} is missing: {found:#}");
    }
    for name in ["port", "central broker", "round trip", "speed"] {
        assert!(!part(&found, name).is_empty(), "{name} is missing: {found:#}");
    }
    assert!(part(&found, "round trip")[0]["what"].as_str().unwrap().contains("by itself"), "{found:#}");
    let models = part(&found, "model");
    assert!(models.len() == 2 && models.iter().all(|m| m["level"] == "ok"), "both shipped models: {models:?}");
    for finding in found["findings"].as_array().unwrap() {
        assert_eq!(finding["level"] == "ok", finding["next"].is_null(), "{finding}");
    }
    let gateway = setup.start();
    gateway.until_ready();
    let (status, found) = doctor(&config, &[]);
    assert_eq!(status, 0, "{found:#}");
    assert!(part(&found, "round trip")[0]["what"].as_str().unwrap().contains("was on disk after"), "{found:#}");
    assert!(part(&found, "port")[0]["what"].as_str().unwrap().contains("by the gateway that runs"));
    let status = gateway.status();
    assert_eq!(status["answered"]["local"], 1, "the canary was a prompt like any other");
    assert_eq!(status["load"]["outcomes"]["entries"], 0, "and its outcome waits for nobody");
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let mut setup = Setup::new();
    let taken = TcpListener::bind(("127.0.0.1", setup.port)).unwrap();
    let copy = setup.folder.path().join("tide-edge.gguf");
    fs::copy(edge_model(), &copy).unwrap();
    fs::copy(edge_model().with_extension("md"), copy.with_extension("md")).unwrap();
    let card = fs::read_to_string(copy.with_extension("md")).unwrap();
    let at = card.find("sha256: ").unwrap() + "sha256: ".len();
    let other = format!("{}{}{}", &card[..at], "0".repeat(64), &card[at + 64..]);
    fs::write(copy.with_extension("md"), other).unwrap();
    setup.model = copy;
    setup.more = format!(
        "[bridge]\nurl = \"mqtt://127.0.0.1:{}\"\nother_urls = [\"mqtt://nowhere.invalid\"]\n\
         [tasks.action]\ncloud = \"never\"\n",
        free_port()
    );
    let (status, found) = doctor(&setup.config(), &[]);
    assert_eq!(status, 1);
    let fault = |name: &str, what: &str| {
        let said = part(&found, name);
        let one = said.iter().find(|f| f["level"] == "fault" && f["what"].as_str().unwrap().contains(what));
        assert!(one.is_some_and(|f| f["next"].is_string()), "no fault of {name} with {what:?}: {found:#}");
    };
    fault("port", "Address already in use");
    fault("model", "its card says 0000");
    fault("central broker", "nowhere.invalid does not resolve");
    fault("central broker", "127.0.0.1");
    drop(taken);
    let (status, out, err) = run(tidegate().args(["doctor", "--config", "/nowhere/tidegate.toml"]));
    assert_eq!(status, 1);
    assert!(out.contains("fault    configuration: ") && out.contains("next: mend"), "{out}");
    assert!(err.contains("next: "), "{err}");
}

#[test]
fn the_service_manager_hears_readiness_life_and_the_end() {
    let setup = Setup::new();
    let place = setup.folder.path().join("notify");
    let manager = UnixDatagram::bind(&place).unwrap();
    manager.set_read_timeout(Some(crate::support::LONG)).unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let read = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let mut command = tidegate();
    command.arg("up").arg("--config").arg(setup.config()).env("NOTIFY_SOCKET", &place).env("RUST_LOG", "info");
    let mut process = Process::start(&mut command);
    assert_eq!(hear(), "READY=1");
    std::net::TcpStream::connect(("127.0.0.1", setup.port)).unwrap();
    assert_eq!(hear(), "WATCHDOG=1");
    assert_eq!(hear(), "WATCHDOG=1");
    process.signal(rustix::process::Signal::TERM);
    until("the last word", || (hear() == "STOPPING=1").then_some(()));
    assert!(process.wait().success());
}

#[test]
fn a_store_of_a_newer_version_is_refused_in_words_and_left_alone() {
    let setup = Setup::new();
    let data = setup.folder.path().join("data");
    drop(setup.start());
    let head = "tidegate-spool 9\nshelf-1\n";
    let text = format!("{head}{:08x}\n", crc32c::crc32c(head.as_bytes()));
    fs::write(data.join("CURRENT"), &text).unwrap();
    let (status, _, err) = run(tidegate().arg("up").arg("--config").arg(setup.config()));
    assert_eq!(status, 74, "{err}");
    assert!(err.contains("has format 9, this version reads up to format"), "{err}");
    assert!(err.contains("next: install the version that wrote it"), "{err}");
    assert_eq!(fs::read_to_string(data.join("CURRENT")).unwrap(), text);
    let (status, found) = doctor(&setup.config(), &["--quick"]);
    assert_eq!(status, 1);
    assert_eq!(part(&found, "format")[0]["level"], "fault", "{found:#}");
}

/// Shifts the clock of a command.
fn at(time: &str, command: &mut std::process::Command) {
    command.envs(clock(time));
}

#[test]
fn a_clock_in_1970_and_a_certificate_that_ended_overnight_are_said() {
    let mut setup = Setup::new();
    let dir = setup.folder.path().join("certs");
    for args in [&["init"][..], &["gateway", "site/gateway"]] {
        let (status, _, err) = run(tidegate().arg("certs").args(args).arg("--dir").arg(&dir));
        assert_eq!(status, 0, "{err}");
    }
    setup.door += &format!(
        "\nlisten_tls = [\"127.0.0.1:{}\"]\ncert = \"certs/gateway/site/gateway.crt\"\n\
         key = \"certs/gateway/site/gateway.key\"\n",
        free_port()
    );
    let config = setup.config();
    let doctor = |time: &str| {
        let mut command = tidegate();
        command.args(["doctor", "--quick", "--json", "--config"]).arg(&config);
        at(time, &mut command);
        let (status, out, err) = run(&mut command);
        assert_eq!(status, 1, "{out}{err}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let found = doctor("@1970-01-02 00:00:00");
    assert_eq!(part(&found, "clock")[0]["level"], "fault", "{found:#}");
    assert_eq!(part(&found, "certificate")[0]["level"], "ok", "by the build date it is valid: {found:#}");
    let found = doctor("+400d");
    let certificate = part(&found, "certificate")[0];
    assert_eq!(certificate["level"], "fault", "{found:#}");
    assert!(certificate["what"].as_str().unwrap().contains("gateway.crt ended on"), "{certificate}");
    let mut command = tidegate();
    at("@1970-01-02 00:00:00", command.args(["certs", "init", "--dir"]).arg(setup.folder.path().join("other")));
    let (status, _, err) = run(&mut command);
    assert!(status == 1 && err.contains("next: set the clock"), "{err}");
    // The gateway itself goes on, and says so.
    let mut command = tidegate();
    at("+400d", command.arg("up").arg("--config").arg(&config).env("RUST_LOG", "info"));
    let mut gateway = Process::start(&mut command);
    gateway.wait_for_log("listening");
    gateway.wait_for_log("gateway.crt ended on");
    let control = setup.folder.path().join("control.sock");
    until("the fault in its health", || {
        let (_, out, _) = run(tidegate().args(["status", "--control"]).arg(&control));
        out.lines().any(|line| line.starts_with("fault") && line.contains("ended on")).then_some(())
    });
}

#[test]
fn a_disk_that_is_read_only_is_said() {
    let setup = Setup::new();
    let config = setup.config();
    drop(setup.start());
    let data = setup.folder.path().join("data");
    let on_read_only = |args: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; shift; exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&data).arg(env!("CARGO_BIN_EXE_tidegate"));
        run(command.args(args).arg("--config").arg(&config))
    };
    let (status, _, err) = on_read_only(&["up"]);
    assert_eq!(status, 74, "{err}");
    assert!(err.contains("Read-only file system") && err.contains("next: the disk is read-only"), "{err}");
    let (status, out, err) = on_read_only(&["doctor", "--quick"]);
    assert_eq!(status, 1, "{err}");
    assert!(out.contains("fault    data: ") && out.contains("next: the disk is read-only"), "{out}");
}
