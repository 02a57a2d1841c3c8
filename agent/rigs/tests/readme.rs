//! Runs the READMEs: their `console` blocks, word for word; those at the top against a gateway that was started for
//! them, those of deploy/ in a network of their own, where every port is free.
//!
//! In a ```console block a line that starts with `$ ` is a command; the lines below it, up to the next command, are
//! what it prints, where `...` stands for anything. All blocks run in order, in one shell. Blocks marked
//! `console norun` install or start things; other tests cover them.
//!
//! The blocks speak to the default port. So that the test needs no port of its own choice, `tidegate`,
//! `mosquitto_pub` and `mosquitto_sub` are found first in a folder of wrappers that add the port of this gateway.
#![allow(clippy::unwrap_used)]

mod gateway;

use gateway::{start, tidegate};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bound on all blocks together.
const SHELL_LIMIT: Duration = Duration::from_secs(180);
/// Stands between the outputs of two commands.
const MARK: &str = "@@readme@@";

#[derive(Debug, PartialEq)]
struct Step {
    line: usize,
    command: String,
    expected: String,
}

/// The commands of all blocks that run.
fn steps(markdown: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fence = None;
    for (number, line) in markdown.lines().enumerate() {
        match (fence, line.strip_prefix("```")) {
            (None, Some(info)) => fence = Some(info.split_whitespace().eq(["console"])),
            (Some(_), Some(_)) => fence = None,
            (Some(true), None) => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => {
                    let command = command.to_owned();
                    steps.push(Step { line: number + 1, command, expected: String::new() });
                }
                (None, Some(step)) => step.expected = format!("{}{line}\n", step.expected),
                (None, None) => panic!("line {}: output before any command", number + 1),
            },
            (Some(false) | None, None) => {}
        }
    }
    steps
}

/// Whether `text` is `pattern`, in which `...` stands for anything, line ends included.
fn matches(pattern: &str, text: &str) -> bool {
    let parts: Vec<&str> = pattern.trim_end().split("...").collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    let text = text.trim_end();
    if parts.len() == 1 {
        return text == first;
    }
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in &parts[1..parts.len() - 1] {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

fn wrap(folder: &Path, name: &str, body: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn wrappers(folder: &Path, home: &Path, port: u16) {
    for client in ["mosquitto_pub", "mosquitto_sub"] {
        let found = ["/usr/bin", "/usr/local/bin"].map(|bin| Path::new(bin).join(client));
        let Some(real) = found.iter().find(|path| path.is_file()) else {
            panic!("{client} is missing, install it with: apt-get install mosquitto-clients");
        };
        wrap(folder, client, &format!("exec '{}' -p {port} \"$@\"", real.display()));
    }
    let body = format!(
        "export XDG_STATE_HOME='{}'\ncommand=$1; shift\ncase $command in\n\
         ask) exec '{bin}' ask --url mqtt://127.0.0.1:{port} \"$@\" ;;\n\
         *) exec '{bin}' \"$command\" \"$@\" ;;\nesac",
        home.display(),
        bin = tidegate().display()
    );
    wrap(folder, "tidegate", &body);
}

/// Where the commands' sockets are.
#[derive(Clone, Copy, PartialEq)]
enum Network {
    /// The machine's.
    Shared,
    /// A loopback device that nobody else uses.
    Own,
}

/// A shell with a bound on its time.
fn shell(network: Network, script: &str) -> Command {
    let (seconds, mut command) = (SHELL_LIMIT.as_secs().to_string(), Command::new("timeout"));
    command.args(["--kill-after=5", &seconds]);
    match network {
        Network::Shared => command.args(["bash", "-c", script]),
        Network::Own => {
            let root = rustix::process::geteuid().is_root();
            let user = ["--user", "--map-current-user", "--keep-caps"];
            command.arg("unshare").args(if root { &[][..] } else { &user }).args(["--net", "bash", "-c"]);
            command.arg(format!("ip link set lo up || exit\n{script}"))
        }
    };
    command
}

/// Runs all commands in one shell; gives exit status and output of each.
fn run(steps: &[Step], folder: &Path, path: &Path, network: Network) -> Vec<(String, String)> {
    let mut script = String::from("exec 2>&1\n");
    for step in steps {
        script += &format!("{}\nprintf '\\n{MARK}%s{MARK}' \"$?\"\n", step.command);
    }
    let path = format!("{}:{}:/usr/sbin", path.display(), std::env::var("PATH").unwrap());
    let mut command = shell(network, &script);
    let output = command.env("PATH", path).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pieces: Vec<&str> = text.split(MARK).collect();
    pieces.chunks_exact(2).map(|pair| (pair[1].to_owned(), pair[0].to_owned())).collect()
}

fn faults(file: &str, steps: &[Step], results: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let Step { line, command, expected } = step;
        let Some((status, output)) = results.get(number) else {
            faults.push(format!("{file}:{line}: `{command}` did not end"));
            continue;
        };
        if status != "0" || !matches(expected, output.trim_start_matches('\n')) {
            faults.push(format!("{file}:{line}: `{command}` exit {status}, printed:\n{output}\nnot:\n{expected}"));
        }
    }
    faults
}

fn read(file: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let steps = steps(&std::fs::read_to_string(path).unwrap());
    assert!(!steps.is_empty(), "{file} has no console block that runs");
    steps
}

#[test]
fn the_readme_is_true() {
    let steps = read("README.md");
    let home = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let gateway = start(home.path());
    wrappers(folder.path(), home.path(), gateway.port);
    let results = run(&steps, folder.path(), folder.path(), Network::Shared);
    let faults = faults("README.md", &steps, &results);
    assert!(faults.is_empty(), "{}\n\nthe gateway said:\n{}", faults.join("\n\n"), gateway.said());
}

#[test]
fn two_gateways_and_a_worker_come_from_nothing() {
    let steps = read("deploy/README.md");
    let folder = tempfile::tempdir().unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    std::os::unix::fs::symlink(top.join("deploy"), folder.path().join("deploy")).unwrap();
    let bin = tidegate();
    let results = run(&steps, folder.path(), bin.parent().unwrap(), Network::Own);
    let mut faults = faults("deploy/README.md", &steps, &results);
    for log in ["central.log", "north.log", "south.log", "worker.log"] {
        let text = std::fs::read_to_string(folder.path().join(log)).unwrap_or_default();
        if !faults.is_empty() || text.contains(" ERROR ") || text.contains("panicked at") {
            faults.push(format!("{log}:\n{text}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn only_plain_console_blocks_run() {
    let markdown = "a\n```console\n$ one\nsaid\nmore\n$ two\n```\n```console norun\n$ three\n```\n```toml\n$ x\n```\n";
    let step =
        |line, command: &str, expected: &str| Step { line, command: command.to_owned(), expected: expected.to_owned() };
    assert_eq!(steps(markdown), [step(3, "one", "said\nmore\n"), step(6, "two", "")]);
}

#[test]
fn three_dots_stand_for_anything_and_nothing_else_does() {
    let check = |pattern, text, expect| assert_eq!(matches(pattern, text), expect, "{pattern:?} on {text:?}");
    check("a\n", "a", true);
    check("a", "b", false);
    check("...", "", true);
    check("...\n", "a\nb\n", true);
    check(
        "{\"kind\":\"accepted\"...\n{\"kind\":\"answer\"...\n",
        "{\"kind\":\"accepted\",1}\n{\"kind\":\"answer\"}\n",
        true,
    );
    check("{\"kind\":\"accepted\"...\n{\"kind\":\"answer\"...\n", "{\"kind\":\"answer\"}\n", false);
    check("...b...", "abc", true);
    check("...b...", "ac", false);
    check("a...c", "ab", false);
    check("", "a", false);
}
