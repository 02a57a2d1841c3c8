//! The rig `conformance`: starts the gateway and runs `broker/conformance/run` against it: clients that we did not write,
//! in 3.1.1 and 5, in the clear, through TLS, and with client certificates.

use super::access::{PASSWORD, write_users};
use super::peers::{Peer, Sections, origin};
use super::pki::Pki;
use crate::probe::disk_dir;
use crate::process::own_binary;
use crate::report::{Check, Common, finish};
use anyhow::Context as _;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Cases that the scripts have at least: fewer means that one of them did not run.
const CASES_MIN: f64 = 120.0;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The script; else broker/conformance/run above this binary.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let script = options.script.clone().map_or_else(shipped_script, Ok)?;
    let dir = disk_dir("conformance")?;
    let pki = Pki::new(dir.path())?;
    pki.write_client("d8")?;
    let users = write_users(dir.path())?;
    let door = format!("users_file = {}\n", toml::Value::String(users.display().to_string()));
    let peer = Peer::door(dir.path(), Some(&pki), &Sections { door, ..Sections::default() })?;
    let origin = origin();
    let mut command = Command::new(&script);
    command.env("DOOR_PORT", peer.address.port().to_string()).env("DOOR_TLS_PORT", peer.second.port().to_string());
    command.env("DOOR_CA", pki.file("ca.pem")).env("DOOR_PASSWORD", PASSWORD);
    command.env("DOOR_CERT", pki.file("client-cert.pem")).env("DOOR_KEY", pki.file("client-key.pem"));
    command.env("DOOR_TOPICS", format!("tg/v1/{}/{}", origin.site, origin.gateway));
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", script.display()))?;
    let (mut well, mut failed) = (0, Vec::new());
    for line in BufReader::new(child.stdout.take().context("the script has no output")?).lines() {
        let line = line.context("the script's output broke")?;
        println!("{line}");
        well += usize::from(line.starts_with("ok "));
        if line.starts_with("FAILED ") {
            failed.push(line);
        }
    }
    let status = child.wait().context("the script did not end")?;
    let broken = usize::from(!status.success() && failed.is_empty());
    let checks = [
        Check::at_most("failed", (failed.len() + broken) as f64, 0.0, "cases"),
        Check::at_least("passed", well as f64, CASES_MIN, "cases"),
        Check::at_most("panics", f64::from(u8::from(peer.panicked()?)), 0.0, "panics"),
    ];
    finish("conformance", &options.common, &checks, &serde_json::json!({ "passed": well, "failed": failed }))
}

fn shipped_script() -> anyhow::Result<PathBuf> {
    let binary = own_binary()?;
    let found = binary.ancestors().map(|up| up.join("broker/conformance/run")).find(|path| path.is_file());
    found.with_context(|| format!("no broker/conformance/run above {}", binary.display()))
}
