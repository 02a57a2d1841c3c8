//! What stands outside the crates agrees with the programs that it is for: `deploy/` and the firmware examples.
#![allow(clippy::unwrap_used)]

mod gateway;

use gateway::{start, tidegate};
use std::path::Path;
use std::process::Command;

fn deploy(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_example_configuration_is_what_the_program_prints() {
    let output = Command::new(tidegate()).args(["config", "example"]).output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(deploy("tidegate.toml"), printed, "renew it with: tidegate config example > deploy/tidegate.toml");
}

#[test]
fn the_unit_leaves_time_to_drain() {
    let unit = deploy("tidegate.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key}"));
    let stop_s: u64 = value("TimeoutStopSec=").parse().unwrap();
    let config: toml::Table = deploy("tidegate.toml").parse().unwrap();
    let drain_ms = config["drain"]["timeout_ms"].as_integer().unwrap();
    assert!(stop_s * 1_000 > drain_ms as u64, "systemd kills after {stop_s} s, draining takes {drain_ms} ms");
    assert!(value("ExecStart=").contains(" up --config /etc/tidegate/tidegate.toml"));
}

#[test]
fn the_firmware_examples_are_built_and_get_their_answer() {
    let home = tempfile::tempdir().unwrap();
    let gateway = start(home.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware-examples/test");
    let mut command = Command::new(script);
    command.args(["127.0.0.1", &gateway.port.to_string(), "site/gateway", "local-firmware"]);
    let output = command.output().unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{why}");
    assert!(said.trim_end().ends_with(", 0 failed") && !said.trim_end().ends_with("0 passed, 0 failed"), "{said}");
}
