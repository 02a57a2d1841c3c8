//! Manual pages and completions are written and know every command.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "only the program is run, no gateway")]
mod gateway;

use gateway::tidegate;
use std::process::Command;

/// Commands as the program itself lists them.
fn commands() -> Vec<String> {
    let output = Command::new(tidegate()).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let list = text.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap().to_owned();
    // A command stands two columns in, what a long line continues with stands further right.
    let name = |line: &str| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
    let names = list.lines().filter_map(name).filter_map(|line| line.split(' ').next().map(str::to_owned));
    names.filter(|name| name != "help").collect()
}

#[test]
fn every_command_has_a_page_and_completes() {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_tidegate-pages")).arg(folder.path()).status().unwrap();
    assert!(status.success());
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let [bash, zsh, fish] = ["bash/tidegate", "zsh/_tidegate", "fish/tidegate.fish"].map(read);
    let commands = commands();
    assert!(commands.len() >= 9, "{commands:?}");
    for command in &commands {
        let page = read(&format!("man1/tidegate-{command}.1"));
        assert!(page.contains(".TH") && page.contains(".SH SYNOPSIS"), "{command}: {page}");
        for (shell, text) in [("bash", &bash), ("zsh", &zsh), ("fish", &fish)] {
            assert!(text.contains(command.as_str()), "{shell} does not complete {command}");
        }
    }
    assert!(!folder.path().join("man1/tidegate-engine.1").exists(), "the engine is not for people");
    let parsed = Command::new("bash").arg("-n").arg(folder.path().join("bash/tidegate")).status().unwrap();
    assert!(parsed.success());
}

#[test]
fn a_command_that_prints_can_print_json() {
    for command in [
        &["ask"][..],
        &["status"],
        &["queue"],
        &["doctor"],
        &["bridge", "inspect"],
        &["bridge", "test"],
        &["config", "check"],
        &["config", "example"],
        &["certs"],
    ] {
        let output = Command::new(tidegate()).args(command).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("--json"), "{command:?} has no --json:\n{text}");
    }
}
