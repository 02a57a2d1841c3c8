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

/// The most that `systemd-analyze security` may say of the unit: its scale ends at 10.
const EXPOSURE_MAX: f64 = 2.5;

#[test]
fn systemd_finds_the_unit_hardened() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/tidegate.service");
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["security", "--offline=true", "--no-pager"]).arg(unit).output().unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(why.is_empty(), "systemd does not know all of the unit: {why}");
    let overall =
        said.split("Overall exposure level for tidegate.service: ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let level: f64 = overall.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= EXPOSURE_MAX, "exposure level {level}, at most {EXPOSURE_MAX}\n{said}");
    let text = deploy("tidegate.service");
    for line in ["Type=notify", "LimitCORE=0", "StateDirectoryMode=0700", "RestartPreventExitStatus=64"] {
        assert!(text.lines().any(|own| own == line), "the unit lacks {line}");
    }
    // Without these calls the engine cannot confine itself, and says so only in the log.
    for call in ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"] {
        assert!(text.contains(call), "the unit forbids {call}");
    }
}

#[test]
fn the_scripts_are_well_formed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for (shell, names) in [
        ("bash", &["demo", "test", "deb", "test-deb", "build-containers", "machine.sh"][..]),
        ("sh", &["debian/postinst", "debian/prerm", "debian/postrm"]),
    ] {
        for name in names {
            let status = Command::new(shell).arg("-n").arg(folder.join(name)).status().unwrap();
            assert!(status.success(), "{shell} does not parse deploy/{name}");
        }
    }
}

#[test]
fn the_configurations_of_the_page_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, deploy("gateway.toml").replace("NAME", "north").replace("PORT", "8884")).unwrap();
    let output = Command::new(tidegate()).args(["config", "check", "--json"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"gateway\":\"north\""));
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
